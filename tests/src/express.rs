//! Express with `express-session`, which accepts only ids that it has issued itself.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::built;
use crate::http::Request;
use crate::ports;
use crate::process::Process;

const PAGE: &str = r"
const express = require('express');
const session = require('express-session');
const page = express();
page.use(session({ secret: 'secret', resave: false, saveUninitialized: false, name: 'connect.sid' }));
page.get('/', (request, response) => response.json({ id: request.sessionID }));
page.get('/count', (request, response) => {
  request.session.count = (request.session.count || 0) + 1;
  response.json({ id: request.sessionID, count: request.session.count });
});
page.listen(Number(process.env.PORT), '127.0.0.1');
";

/// A running server. It keeps its sessions in memory.
pub struct Express {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Express {
    /// Starts it on a free port.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let page = folder.path().join("page.js");
        fs::write(&page, PAGE).expect("the temporary folder can be written to");
        let modules = built::tool("EXPRESS_MODULES", "express-modules", "express", "node_modules");
        let port = ports::free();
        let mut command = Command::new("node");
        command.arg(page).env("PORT", port.to_string()).env("NODE_PATH", modules);
        let mut process = Process::start("express", command, "./test.sh installs it (Debian's nodejs).");
        process.until(|| Request::get("/").try_send(port).filter(|answer| answer.status == 200));
        Self { port, _process: process, _folder: folder }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}
