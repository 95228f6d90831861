//! A memcached for one test.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::PATIENCE;

pub(crate) struct Memcached {
    process: Child,
    pub(crate) port: u16,
}

impl Memcached {
    /// On a port that the kernel picks.
    pub(crate) fn start() -> Self {
        Self::start_on("-1")
    }

    pub(crate) fn start_on(port: &str) -> Self {
        Self::start_with(port, &[])
    }

    pub(crate) fn start_with(port: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports = dir.path().join("ports");
        // The user only matters to root, whom memcached does not obey without one.
        let process = Command::new("memcached")
            .args(["-l", "127.0.0.1", "-U", "0", "-u", "root", "-p", port])
            .args(options)
            .env("MEMCACHED_PORT_FILENAME", &ports)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("memcached can't be started ({error}): apt-get install memcached"));
        // From here on it ends with the test, whatever happens.
        let mut server = Self { process, port: 0 };
        let started = Instant::now();
        loop {
            let text = fs::read_to_string(&ports).unwrap_or_default();
            let port = text.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.parse().ok());
            if let Some(port) = port {
                server.port = port;
                return server;
            }
            if let Some(status) = server.process.try_wait().unwrap() {
                panic!("memcached ended: {status}");
            }
            assert!(started.elapsed() < PATIENCE, "memcached does not say its port");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn node(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("memcached://{}", self.node())
    }

    /// Sends one command, as another client would, and returns the first line of the answer.
    pub(crate) fn command(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.node()).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn stop(mut self) -> u16 {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.port
    }

    /// Makes it stop answering without closing anything.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        // The signal takes effect a little later; the kernel reports when every thread stands still.
        let stopped = waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
