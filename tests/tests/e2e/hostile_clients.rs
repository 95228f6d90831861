//! Whatever a client sends has a clear outcome, and the worker keeps serving.

use serde_json::json;
use session_mesh_e2e::browser::{Browser, SESSION_COOKIE};
use session_mesh_e2e::http::{self, Request};
use session_mesh_e2e::mesh::Mesh;

/// A setup that lets large requests through to the filter, and a browser with a stored session.
fn started() -> (Mesh, Browser) {
    let mesh = Mesh::configured(|envoy| envoy.large_requests(128));
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    (mesh, browser)
}

/// The one worker still opens the browser's session.
fn assert_serving(mesh: &Mesh, browser: &mut Browser) {
    let seen = browser.get("/").seen();
    assert_eq!((seen.state(), seen.data()), ("active".to_owned(), json!({"n": 1})));
    mesh.envoy.assert_no_panic();
}

#[test]
fn a_cookie_that_is_not_utf8_passes_through_byte_for_byte() {
    let (mesh, mut browser) = started();
    let cookie = b"\xff";
    let seen = Request::get("/").header("cookie", cookie).send(mesh.envoy.port()).seen();
    assert_eq!(seen.state(), "new");
    assert!(seen.headers().iter().any(|(name, value)| name == "cookie" && value == cookie));
    assert_serving(&mesh, &mut browser);

    let every_byte: Vec<u8> = (0x20..=0xff).filter(|byte| *byte != 0x7f).collect();
    let line = [b"a=1; ".as_slice(), &every_byte, b"; b=2"].concat();
    let request = browser.with_cookies(Request::get("/")).header("cookie", &line).header("x-odd", &every_byte);
    let seen = request.send(mesh.envoy.port()).seen();
    assert_eq!(seen.state(), "active");
    assert!(seen.headers().iter().any(|(name, value)| name == "cookie" && *value == line));
    assert_serving(&mesh, &mut browser);
}

#[test]
fn the_session_is_found_in_any_of_several_cookie_lines() {
    let (mesh, mut browser) = started();
    let token = browser.token().unwrap();
    let ours = format!("{SESSION_COOKIE}={token}");
    for lines in [
        vec![ours.clone(), "a=1".to_owned()],
        vec!["a=1".to_owned(), ours.clone()],
        vec!["a=1".to_owned(), format!("b=2; {ours}; c=3")],
        vec![format!("{SESSION_COOKIE}=forged"), ours.clone()],
        vec![format!("{SESSION_COOKIE}=forged; {ours}")],
    ] {
        let request = lines.iter().fold(Request::get("/"), |request, line| request.header("cookie", line));
        let seen = request.send(mesh.envoy.port()).seen();
        assert_eq!(seen.state(), "active", "{lines:?}");
        assert!(!seen.all("cookie").concat().contains(SESSION_COOKIE), "{lines:?}");
    }
    assert_serving(&mesh, &mut browser);
}

#[test]
fn the_other_cookies_stay_as_they_are() {
    let (mesh, mut browser) = started();
    let token = browser.token().unwrap();
    let line = format!("a=\"x; y\";  b = 2 ;{SESSION_COOKIE}={token};c=%20=;;d");
    let seen = Request::get("/").header("cookie", line).send(mesh.envoy.port()).seen();
    assert_eq!((seen.state(), seen.one("cookie")), ("active".to_owned(), "a=\"x; y\";  b = 2 ;c=%20=;;d".to_owned()));
    assert_serving(&mesh, &mut browser);
}

#[test]
fn two_thousand_cookies() {
    let (mesh, mut browser) = started();
    let many: Vec<String> = (0..2000).map(|n| format!("c{n}={n}")).collect();
    let one_line = browser.with_cookies(Request::get("/").header("cookie", many.join("; ")));
    let seen = one_line.send(mesh.envoy.port()).seen();
    assert_eq!((seen.state(), seen.one("cookie")), ("active".to_owned(), many.join("; ")));

    let lines = many.iter().fold(Request::get("/"), |request, cookie| request.header("cookie", cookie));
    let seen = browser.with_cookies(lines).send(mesh.envoy.port()).seen();
    assert_eq!(seen.state(), "active");
    assert_eq!(seen.all("cookie").join("; "), many.join("; "));

    // All of them of our name and none of them a token: the filter tries a few and no more.
    let ours = format!("{SESSION_COOKIE}={}", "A".repeat(58));
    let seen = Request::get("/").header("cookie", vec![ours; 1500].join(";")).send(mesh.envoy.port()).seen();
    assert_eq!((seen.state(), seen.all("cookie")), ("new".to_owned(), vec![]));
    assert_serving(&mesh, &mut browser);
}

#[test]
fn a_cookie_of_fifty_kilobytes() {
    let (mesh, mut browser) = started();
    let huge = format!("huge={}", "x".repeat(50_000));
    let seen = browser.with_cookies(Request::get("/").header("cookie", &huge)).send(mesh.envoy.port()).seen();
    assert_eq!((seen.state(), seen.one("cookie")), ("active".to_owned(), huge));
    let ours = format!("{SESSION_COOKIE}={}", "x".repeat(50_000));
    assert_eq!(Request::get("/").header("cookie", ours).send(mesh.envoy.port()).seen().state(), "new");
    let too_much = Request::get("/").header("cookie", "x".repeat(200_000));
    assert_eq!(too_much.send(mesh.envoy.port()).status, 431);
    assert_serving(&mesh, &mut browser);
}

#[test]
fn a_client_can_not_set_session_headers() {
    let (mesh, mut browser) = started();
    let names = [
        "x-session-id",
        "X-Session-Id",
        "x_session_id",
        "x-session_id",
        "x-session-state",
        "x-session-version",
        "x-session-data",
        "x_session_data",
        "x-session-data-omitted",
        "x-session-subject",
        "X_SESSION_SUBJECT",
        "x-session-patch",
        "x-session-control",
        "x-session-error",
        "x-session-anything",
    ];
    for browser in [&browser, &mesh.browser()] {
        let expected = browser.with_cookies(Request::get("/")).send(mesh.envoy.port()).seen();
        let ours = |seen: &http::Seen| {
            let mut names: Vec<String> = seen
                .headers()
                .iter()
                .map(|(name, _)| name.to_ascii_lowercase().replace('_', "-"))
                .filter(|name| name.starts_with("x-session-"))
                .collect();
            names.sort();
            names
        };
        let request =
            names.iter().fold(Request::get("/"), |request, name| request.header(name, "mallory").header(name, "2"));
        let seen = browser.with_cookies(request).send(mesh.envoy.port()).seen();
        assert_eq!(ours(&seen), ours(&expected));
        assert!(!seen.headers().iter().any(|(_, value)| value == b"mallory"), "{seen:?}");
    }
    assert_serving(&mesh, &mut browser);
}

#[test]
fn malformed_requests_end_with_400_and_nothing_else() {
    let (mesh, mut browser) = started();
    for raw in [
        b"GET / HTTP/1.1\r\nhost: a\r\ncookie: a\0b\r\nconnection: close\r\n\r\n".as_slice(),
        b"GET / HTTP/1.1\r\nhost: a\r\ncookie\r\nconnection: close\r\n\r\n",
        b"\xff\xfe\r\n\r\n",
        // Names are tokens: what is not UTF-8 never reaches the filter, whose SDK would panic.
        b"GET / HTTP/1.1\r\nhost: a\r\nx-\xff\xfe: 1\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx_\xc3\x28: 1\r\nconnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-\xff: 1\r\n\r\n",
    ] {
        let status = http::exchange(mesh.envoy.port(), raw).map(|response| response.status);
        assert_eq!(status, Some(400), "{:?}", String::from_utf8_lossy(raw));
    }
    // Envoy takes a lone CR out of a value (RFC 9112 section 2.2 lets it choose), so no upstream sees a new line.
    let lone_cr = b"GET / HTTP/1.1\r\nhost: a\r\ncookie: a\rx-session-id: 1\r\nconnection: close\r\n\r\n";
    let seen = http::exchange(mesh.envoy.port(), lone_cr).unwrap().seen();
    assert_eq!((seen.state(), seen.one("cookie")), ("new".to_owned(), "ax-session-id: 1".to_owned()));
    let empty = Request::get("/").header("cookie", "").send(mesh.envoy.port());
    assert_eq!((empty.status, empty.seen().state()), (200, "new".to_owned()));
    assert_serving(&mesh, &mut browser);
}

#[test]
fn clients_that_leave_in_the_middle_do_no_harm() {
    let (mesh, mut browser) = started();
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: {SESSION_COOKIE}={}\r\n\r\n", browser.token().unwrap());
    for length in [20, 40, 80, request.len()] {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", mesh.envoy.port())).unwrap();
        std::io::Write::write_all(&mut stream, &request.as_bytes()[..length]).unwrap();
    }
    assert_serving(&mesh, &mut browser);
}
