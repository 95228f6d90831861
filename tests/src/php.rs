//! PHP's built-in server with a page that logs in, renews its session's id and logs out as PHP's manual says.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::http::Request;
use crate::ports;
use crate::process::Process;

const PAGE: &str = r"<?php
session_start();
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($path === '/login') {
    session_regenerate_id(true);
    $_SESSION['user'] = $_GET['user'];
}
if ($path === '/login-without-renewal') {
    $_SESSION['user'] = $_GET['user'];
}
if ($path === '/count') {
    $_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
}
$shown = ['id' => session_id(), 'user' => $_SESSION['user'] ?? null, 'count' => $_SESSION['count'] ?? 0];
if ($path === '/logout') {
    $_SESSION = [];
    $p = session_get_cookie_params();
    setcookie(session_name(), '', time() - 42000, $p['path'], $p['domain'], $p['secure'], $p['httponly']);
    session_destroy();
}
header('content-type: application/json');
echo json_encode($shown);
";

/// A running server.
pub struct Php {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Php {
    /// Starts it on a free port. With `strict` it takes no ids that it has not given out (`session.use_strict_mode`).
    pub fn start(is_strict: bool) -> Self {
        Self::serve(PAGE, is_strict)
    }

    /// Starts it with a folder for its sessions that others have, too.
    pub fn start_with_store(is_strict: bool, store: &Path) -> Self {
        Self::run(PAGE, is_strict, Some(store))
    }

    /// Starts it with this script for every path.
    pub fn serve(script: &str, is_strict: bool) -> Self {
        Self::run(script, is_strict, None)
    }

    fn run(script: &str, is_strict: bool, store: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let page = folder.path().join("page.php");
        fs::write(&page, script).expect("the temporary folder can be written to");
        let port = ports::free();
        let mut command = Command::new("php");
        command
            .arg("-d")
            .arg(format!("session.use_strict_mode={}", u8::from(is_strict)))
            .arg("-d")
            .arg(format!("session.save_path={}", store.unwrap_or(folder.path()).display()))
            .args(["-S", &format!("127.0.0.1:{port}")])
            .arg(page);
        let mut process = Process::start("php", command, "./test.sh installs it (Debian's php-cli).");
        process.until(|| Request::get("/").try_send(port).filter(|answer| answer.status == 200));
        Self { port, _process: process, _folder: folder }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}
