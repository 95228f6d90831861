//! A series of Envoys, each of which takes over the previous one's listening sockets (hot restart).

use std::fs;

use tempfile::TempDir;

use super::{ADVICE, Configuration};
use crate::http::Request;
use crate::process::Process;
use crate::wait;

/// How long the old Envoy goes on with what it has, in seconds, and when it ends.
const DRAIN: [&str; 4] = ["--drain-time-s", "1", "--parent-shutdown-time-s", "2"];

/// The Envoy of the moment.
pub struct Generations {
    configuration: Configuration,
    process: Process,
    base_id: String,
    epoch: u32,
    folder: TempDir,
}

impl Generations {
    /// Starts the first.
    pub fn start(configuration: Configuration) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let base_id = folder.path().join("base-id");
        let mut command = configuration.command(folder.path());
        command.args(DRAIN).args(["--use-dynamic-base-id", "--base-id-path"]).arg(&base_id);
        let process = Process::start("envoy", command, ADVICE);
        let base_id = wait::until("Envoy has a base id", || {
            fs::read_to_string(&base_id).ok().map(|id| id.trim().to_owned()).filter(|id| !id.is_empty())
        });
        let mut first = Self { configuration, process, base_id, epoch: 0, folder };
        first.wait();
        first
    }

    /// Where they take requests.
    pub fn port(&self) -> u16 {
        self.configuration.listener_port()
    }

    /// Starts the next with these secrets, and waits until the one before has ended.
    pub fn next(&mut self, secrets: &str) {
        self.configuration = self.configuration.clone().secrets(secrets);
        self.epoch += 1;
        let mut command = self.configuration.command(self.folder.path());
        command.args(DRAIN).args(["--base-id", &self.base_id, "--restart-epoch", &self.epoch.to_string()]);
        let next = Process::start("envoy", command, ADVICE);
        let mut previous = std::mem::replace(&mut self.process, next);
        wait::until("the old Envoy ends", || (!previous.is_running()).then_some(()));
        self.wait();
    }

    fn wait(&mut self) {
        let port = self.configuration.admin_port();
        self.process.until(|| Request::get("/ready").try_send(port).filter(|answer| answer.status == 200));
    }
}
