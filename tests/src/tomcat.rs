//! A stock Tomcat 10 with the pages of the demo.

use std::process::Command;

use tempfile::TempDir;

use crate::built;
use crate::http::Request;
use crate::ports;
use crate::process::Process;

/// A Tomcat; it may be restarted on the same port.
pub struct Tomcat {
    port: u16,
    colour: &'static str,
    process: Option<Process>,
    folder: TempDir,
}

impl Tomcat {
    /// Starts a Tomcat whose page has this colour (`red` or `blue`). Other work can be done until [`Self::ready`].
    pub fn start(colour: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut tomcat = Self { port: ports::free(), colour, process: None, folder };
        tomcat.spawn();
        tomcat
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until it serves its pages.
    pub fn ready(mut self) -> Self {
        self.wait();
        self
    }

    /// Kills it and starts it anew; what it kept in memory is lost.
    pub fn restart(&mut self) {
        self.process = None;
        self.spawn();
        self.wait();
    }

    fn spawn(&mut self) {
        let mut command = Command::new(built::root().join("scripts/tomcat.sh"));
        command.args([self.port.to_string().as_str(), self.colour]).arg(self.folder.path());
        self.process = Some(Process::start("tomcat", command, "It is part of this repository."));
    }

    fn wait(&mut self) {
        let port = self.port;
        let process = self.process.as_mut().expect("it was spawned");
        process.until(|| Request::get("/").try_send(port).filter(|answer| answer.status == 200));
    }
}
