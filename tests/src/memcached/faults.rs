//! What can happen to a memcached besides its end.

use super::Memcached;
use crate::connection::Connection;
use crate::process::Process;

impl Memcached {
    /// The process, to be paused.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("memcached runs")
    }

    /// Throws away everything that it holds, as `flush_all` does.
    pub fn wipe(&self) {
        let mut connection = Connection::open(self.port);
        assert!(connection.send("flush_all\r\n"), "memcached takes commands");
        assert_eq!(connection.bytes(4).as_deref(), Some(b"OK\r\n".as_slice()));
    }
}
