//! Patches as upstreams' languages write them: the examples of `docs/upstreams.md`, run in their languages.

use std::fs;
use std::process::Command;

use session_mesh_e2e::built;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::ports;
use session_mesh_e2e::process::Process;
use session_mesh_e2e::tomcat::{Application, Tomcat};
use tempfile::TempDir;

/// A server in a language of its own. It answers `/x` with the patch that its script has under `x`, and shows what it
/// got.
struct Spoken {
    mesh: Mesh,
    _process: Process,
    _folder: TempDir,
}

impl Spoken {
    fn start(name: &'static str, script: &str, command: impl FnOnce(&str, u16) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, script).unwrap();
        let port = ports::free();
        let mut process = Process::start(name, command(file.to_str().unwrap(), port), "./test.sh installs it.");
        process.until(|| Request::get("/").try_send(port));
        let mesh = Mesh::configured(|envoy| envoy.cluster("app", &[port]));
        Self { mesh, _process: process, _folder: folder }
    }

    fn after(&self, path: &str) -> Result<String, String> {
        after(&self.mesh, path)
    }
}

/// The subject and the data after a visit to `path`, or the error.
fn after(mesh: &Mesh, path: &str) -> Result<String, String> {
    let mut browser = mesh.browser();
    let response = browser.get(path);
    match response.header("x-session-error") {
        Some(error) => Err(error),
        None => Ok(browser.get("/").text()),
    }
}

/// What the document prints for a language, and the same with other texts in it: each is the patch of a path of its
/// own. `branch` makes it a branch of the server's script.
fn branches(language: &str, branch: impl Fn(usize, &str) -> String) -> String {
    let document = fs::read_to_string(built::root().join("docs/upstreams.md")).unwrap();
    let (_, section) = document.split_once("#### Patches in your language").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let (_, snippet) = section.split_once(&format!("```{language}\n")).unwrap();
    let (snippet, _) = snippet.split_once("```").unwrap();
    assert!(snippet.contains("José") && snippet.contains("user"), "{snippet}");
    let others = [snippet.to_owned(), snippet.replace("José", "Ж漢 😀"), cut(snippet)];
    others.iter().enumerate().map(|(n, snippet)| branch(n, snippet)).collect()
}

/// The first half of an emoji, which is no text to log in with.
fn cut(snippet: &str) -> String {
    snippet.replace("user", "name").replace("José", "x\\ud83d")
}

/// What comes of each path; the last is for languages in which a text can have half of a character.
const EXPECTED: [(&str, &str); 3] = [
    ("/0", r#"Jos%C3%A9 {"user":"Jos\u00e9"}"#),
    ("/1", r#"%D0%96%E6%BC%A2%20%F0%9F%98%80 {"user":"\u0416\u6f22 \ud83d\ude00"}"#),
    ("/2", r#" {"name":"x\ufffd"}"#),
];

fn assert_understood(mesh: &Mesh, expected: &[(&str, &str)]) {
    for (path, expected) in expected {
        assert_eq!(after(mesh, path).as_deref(), Ok(*expected), "{path}");
    }
}

#[test]
fn what_the_document_prints_for_node_is_understood() {
    let branches = branches("js", |n, snippet| format!("if (request.url === '/{n}') {{\n{snippet}\n}}\n"));
    let script = format!(
        r#"require("http").createServer((request, response) => {{
            {branches}
            response.end(`${{request.headers["x-session-subject"] ?? ""}} ${{request.headers["x-session-data"]}}`);
        }}).listen(process.argv[2], "127.0.0.1");"#
    );
    assert_understood(&Spoken::start("server.js", &script, node).mesh, &EXPECTED);
}

#[test]
fn what_the_document_prints_for_php_is_understood() {
    let branches = branches("php", |n, snippet| format!("if ($_SERVER['REQUEST_URI'] === '/{n}') {{\n{snippet}\n}}\n"));
    let script = format!(
        r#"<?php
            {branches}
            echo ($_SERVER["HTTP_X_SESSION_SUBJECT"] ?? "") . " " . ($_SERVER["HTTP_X_SESSION_DATA"] ?? "");"#
    );
    let with_cart = EXPECTED.map(|(path, expected)| (path, expected.replace('{', r#"{"cart":{},"#)));
    // Its texts are bytes: they have no halves of characters.
    let expected: Vec<_> = with_cart.iter().take(2).map(|(path, expected)| (*path, expected.as_str())).collect();
    assert_understood(&Spoken::start("router.php", &script, php).mesh, &expected);
}

#[test]
fn what_the_document_prints_for_python_is_understood() {
    let branches = branches("python", |n, snippet| {
        let snippet = snippet.replace('\n', "\n            ");
        format!("        if self.path == '/{n}':\n            {snippet}\n")
    });
    let script = format!(
        r#"
import http.server, sys, types

class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        response = types.SimpleNamespace(headers={{}})
{branches}
        shown = self.headers.get("x-session-subject", "") + " " + self.headers.get("x-session-data", "")
        self.send_response(200)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(shown)))
        self.end_headers()
        self.wfile.write(shown.encode())

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"#
    );
    let python = Spoken::start("server.py", &script, |file, port| {
        let mut command = Command::new("python3");
        command.args([file, &port.to_string()]);
        command
    });
    assert_understood(&python.mesh, &EXPECTED);
}

#[test]
fn what_the_document_prints_for_java_is_understood() {
    let branches =
        branches("java", |n, snippet| format!("if (request.getRequestURI().equals(\"/{n}\")) {{\n{snippet}\n}}\n"));
    let page = format!(
        r#"<%@ page pageEncoding="UTF-8" contentType="text/plain; charset=UTF-8" trimDirectiveWhitespaces="true"
            import="java.util.*,com.fasterxml.jackson.databind.*,com.fasterxml.jackson.core.json.*" %><%
            {branches}
            String subject = request.getHeader("x-session-subject");
            out.print((subject == null ? "" : subject) + " " + request.getHeader("x-session-data"));
        %>"#
    );
    let jars = &["jackson-core.jar", "jackson-databind.jar", "jackson-annotations.jar"];
    let tomcat = Tomcat::serve(&Application { page: &page, jars, ..Application::default() }).ready();
    let mesh = Mesh::configured(|envoy| envoy.cluster("app", &[tomcat.port()]));
    assert_understood(&mesh, &EXPECTED);
}

/// Only where Go is installed: it is 400 MB, which is much for ten lines of a document.
#[test]
fn what_the_document_prints_for_go_is_understood() {
    if Command::new("go").arg("version").output().is_err() {
        return;
    }
    let branches = branches("go", |n, snippet| format!("case \"/{n}\":\n{snippet}\n"));
    let script = format!(
        r#"package main

import ("encoding/json"; "fmt"; "net/http"; "os"; "strings"; "unicode/utf16")

func page(w http.ResponseWriter, r *http.Request) {{
	switch r.URL.Path {{
{branches}
	}}
	fmt.Fprintf(w, "%s %s", r.Header.Get("x-session-subject"), r.Header.Get("x-session-data"))
}}

func main() {{
	http.ListenAndServe("127.0.0.1:" + os.Args[1], http.HandlerFunc(page))
}}
"#
    )
    // A text of Go's has no halves of characters, either, and the compiler says so.
    .replace("x\\ud83d", "x");
    let folder = tempfile::tempdir().unwrap();
    let server = Spoken::start("server.go", &script, |file, port| {
        let program = folder.path().join("server");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&program).arg(file);
        build.env("GO111MODULE", "off").env("GOCACHE", folder.path().join("cache"));
        let output = build.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut command = Command::new(program);
        command.arg(port.to_string());
        command
    });
    assert_understood(&server.mesh, &EXPECTED[..2]);
}

fn node(file: &str, port: u16) -> Command {
    let mut command = Command::new("node");
    command.args([file, &port.to_string()]);
    command
}

fn php(file: &str, port: u16) -> Command {
    let mut command = Command::new("php");
    command.args(["-S", &format!("127.0.0.1:{port}"), file]);
    command
}

#[test]
fn node_is_understood() {
    let script = r#"
const ascii = (json) => json.replace(/[\u007f-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
const patches = {
  "/latin": JSON.stringify({ name: "José" }),
  "/cut": JSON.stringify({ name: "x😀".slice(0, 2) }),
  "/login": ascii(JSON.stringify({ user: "José 😀" })),
  "/guess": JSON.stringify({ user: "JosÃ©" }),
  "/cut-login": JSON.stringify({ user: "x😀".slice(0, 2) }),
};
require("http").createServer((request, response) => {
  if (patches[request.url]) response.setHeader("x-session-patch", patches[request.url]);
  response.end(`${request.headers["x-session-subject"] ?? ""} ${request.headers["x-session-data"]}`);
}).listen(process.argv[2], "127.0.0.1");
"#;
    let node = Spoken::start("server.js", script, node);
    let rows: &[(&str, Result<&str, &str>)] = &[
        ("/latin", Ok(r#" {"name":"Jos\u00e9"}"#)),
        ("/cut", Ok(r#" {"name":"x\ufffd"}"#)),
        ("/login", Ok(r#"Jos%C3%A9%20%F0%9F%98%80 {"user":"Jos\u00e9 \ud83d\ude00"}"#)),
        ("/guess", Err("invalid-patch")),
        ("/cut-login", Err("invalid-patch")),
    ];
    for (path, expected) in rows {
        let after = node.after(path);
        assert_eq!(after.as_deref().map_err(String::as_str), *expected, "{path}");
    }
}

#[test]
fn php_is_understood() {
    let script = r#"<?php
$patches = [
  "/empty" => [],
  "/login" => ["user" => "José", "cart" => (object) []],
];
$patch = $patches[$_SERVER["REQUEST_URI"]] ?? null;
if ($patch !== null) header("x-session-patch: " . json_encode($patch));
echo ($_SERVER["HTTP_X_SESSION_SUBJECT"] ?? "") . " " . ($_SERVER["HTTP_X_SESSION_DATA"] ?? "");
"#;
    let php = Spoken::start("router.php", script, php);
    assert_eq!(php.after("/empty").unwrap(), " {}");
    assert_eq!(php.after("/login").unwrap(), r#"Jos%C3%A9 {"cart":{},"user":"Jos\u00e9"}"#);
}
