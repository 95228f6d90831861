//! Faults of a memcached that don't end it.

use super::Memcached;
use crate::connection::Connection;
use crate::process::Process;

impl Memcached {
    /// The process, to be paused.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("memcached runs")
    }

    /// Puts a value under a key, as another program would.
    pub fn set(&self, key: &str, value: &str) {
        let mut connection = Connection::open(self.port);
        let command = format!("set {key} 0 600 {}\r\n{value}\r\n", value.len());
        assert!(connection.send(command), "memcached takes commands");
        assert_eq!(connection.bytes(8).as_deref(), Some(b"STORED\r\n".as_slice()));
    }

    /// Throws away everything that it holds, as `flush_all` does.
    pub fn wipe(&self) {
        let mut connection = Connection::open(self.port);
        assert!(connection.send("flush_all\r\n"), "memcached takes commands");
        assert_eq!(connection.bytes(4).as_deref(), Some(b"OK\r\n".as_slice()));
    }
}
