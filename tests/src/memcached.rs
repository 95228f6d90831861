//! memcached, and a look into it with another project's client (pymemcache).

mod faults;

use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use serde_json::Value;

use crate::built;
use crate::ports;
use crate::process::Process;

/// Prints what is under a key as JSON: the value as text and the seconds it has left.
const LOOK: &str = r#"
import json, sys
from pymemcache.client.base import Client
client, key = Client(("127.0.0.1", int(sys.argv[1]))), sys.argv[2]
value = client.get(key)
if value is None:
    print("null")
else:
    flags = client.raw_command(f"mg {key} t").decode().split()
    print(json.dumps({"value": value.decode(), "ttl": int(next(f[1:] for f in flags if f[0] == "t"))}))
"#;

/// A memcached node.
pub struct Memcached {
    port: u16,
    process: Option<Process>,
}

/// What memcached holds under a key.
#[derive(Clone, Debug)]
pub struct Item {
    /// The value.
    pub value: String,
    /// How many seconds it has left; -1 if it never expires.
    pub ttl: i64,
}

impl Memcached {
    /// Starts a node.
    pub fn start() -> Self {
        let mut memcached = Self { port: ports::free(), process: None };
        memcached.start_again();
        memcached
    }

    /// The store URL for a gateway on this node.
    pub fn url(&self) -> String {
        format!("memcached://127.0.0.1:{}", self.port)
    }

    /// Kills the node; its items are gone.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it after [`Self::stop`], empty.
    pub fn start_again(&mut self) {
        let port = self.port;
        let mut command = Command::new("memcached");
        // It refuses to run as root without being told to.
        command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0", "-m", "64", "-u", "root"]);
        let mut process =
            Process::start("memcached", command, "./test.sh installs it, and so does apt-get install memcached.");
        process.until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        self.process = Some(process);
    }

    /// What is under a key, read over the wire by pymemcache; the value is expected to be text.
    pub fn item(&self, key: &str) -> Option<Item> {
        let library = built::tool("PYMEMCACHE_PATH", "pymemcache", "pymemcache", ".");
        let output = Command::new("python3")
            .args(["-c", LOOK, &self.port.to_string(), key])
            .env("PYTHONPATH", library)
            .output()
            .unwrap_or_else(|error| panic!("python3 can't be started: {error}. ./test.sh installs it."));
        assert!(output.status.success(), "pymemcache: {}", String::from_utf8_lossy(&output.stderr));
        let item: Value = serde_json::from_slice(&output.stdout).expect("the script prints JSON");
        let value = item.get("value")?.as_str()?;
        Some(Item { value: value.to_owned(), ttl: item.get("ttl")?.as_i64()? })
    }
}
