//! A child process that can't outlive its test, and what it logged.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use crate::wait;

/// How much of a log is printed when a test fails, in bytes.
const TAIL: usize = 6_000;

/// The same command without root's right to open every file, if we are root. No other user has it.
pub fn unprivileged(command: &Command) -> Command {
    if !geteuid().is_root() {
        return copy(command, Command::new(command.get_program()));
    }
    let mut wrapped = Command::new("setpriv");
    wrapped.arg("--bounding-set=-dac_override,-dac_read_search").arg(command.get_program());
    copy(command, wrapped)
}

fn copy(from: &Command, mut to: Command) -> Command {
    to.args(from.get_args()).envs(from.get_envs().filter_map(|(name, value)| Some((name, value?))));
    to
}

/// A running process. Its output goes to a file of its own.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    _folder: TempDir,
}

impl Process {
    /// Starts `command`. `advice` says how to get the program if it isn't there.
    pub fn start(name: &'static str, mut command: Command, advice: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let log = folder.path().join("log");
        let output = File::create(&log).expect("the temporary folder can be written to");
        let errors = output.try_clone().expect("a file can be opened twice");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{name} ({}) can't be started: {error}. {advice}", command.get_program().display())
        });
        Self { name, child, log, _folder: folder }
    }

    /// Waits until `ready` has an answer; fails at once, with the log, if the process ends before.
    pub fn until<T>(&mut self, ready: impl Fn() -> Option<T>) -> T {
        let what = format!("{} is ready", self.name);
        wait::until(&what, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended with {status}:\n{}", self.name, self.log());
            }
            ready()
        })
    }

    /// Everything that the process has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops the process, so that connections to it hang, and waits until all of its threads stand still.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        wait::until(&format!("{} stands still", self.name), || {
            let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
            threads.flatten().all(|thread| is_stopped(&thread.path())).then_some(())
        });
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id fits");
        kill(Pid::from_raw(id), signal).expect("a child of ours can be signalled");
    }

    /// Waits until the process has ended by itself, and returns what it has written.
    pub fn log_at_end(mut self) -> String {
        wait::until(&format!("{} ends", self.name), || (!self.is_running()).then_some(()));
        self.log()
    }

    /// Asks the process to end, and waits until it has.
    pub fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        wait::until(&format!("{} ends", self.name), || (!self.is_running()).then_some(()));
    }
}

/// Whether a thread's state is `T`, stopped by a signal (proc(5)).
fn is_stopped(thread: &Path) -> bool {
    let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold anything.
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let start = log.floor_char_boundary(log.len().saturating_sub(TAIL));
            eprintln!("---- end of {}'s log ----\n{}", self.name, log.get(start..).unwrap_or_default());
        }
    }
}
