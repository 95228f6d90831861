use super::protobuf_struct::tests::encode_struct;
use super::*;
use serde_json::{Value, json};

const SECRET: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const OTHER_SECRET: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn environment(name: &str) -> Option<String> {
    match name {
        "SESSION_GATEWAY_TOKEN" => Some("gateway-token".into()),
        "TOKENS" => Some("first, second".into()),
        "SESSION_SECRETS" => Some(format!("{SECRET},{OTHER_SECRET}")),
        "EMPTY" => Some(" ".into()),
        "SHORT" => Some("c2hvcnQ=".into()),
        "SPLIT" => Some("to\r\nken".into()),
        _ => None,
    }
}

fn parse(config: &Value) -> Result<Config, ConfigError> {
    Config::parse(config.to_string().as_bytes(), environment)
}

fn minimal() -> Value {
    json!({"gateway": {"cluster": "session_gateway"}})
}

/// The minimal configuration with one key set, given its path.
fn with(path: &str, value: Value) -> Value {
    let mut config = minimal();
    let mut at = &mut config;
    for key in path.split('.') {
        at = &mut at[key];
    }
    *at = value;
    config
}

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let config = parse(&minimal()).unwrap();
    assert_eq!(config.gateway.cluster, "session_gateway");
    assert_eq!(config.gateway.timeout, Duration::from_millis(250));
    assert_eq!(config.gateway.authorization, "Bearer gateway-token");
    assert_eq!(config.cookie.issue("t"), "__Host-session=t; Path=/; Secure; HttpOnly; SameSite=Lax");
    assert_eq!(config.create, CreatePolicy::Lazy);
    assert_eq!(config.timeouts.idle, Seconds::new(1800));
    assert_eq!(config.timeouts.absolute, Seconds::new(43200));
    assert_eq!(config.timeouts.touch_after, Seconds::new(60));
    assert_eq!(config.timeouts.rotation_grace, Seconds::new(10));
    assert_eq!(config.on_store_failure, OnStoreFailure::Deny);
    assert_eq!(config.on_write_failure, OnWriteFailure::Fail);
    assert_eq!(config.subject_key, "user");
    assert_eq!(config.upstream.cookie, None);
    assert_eq!(config.upstream.max_data_bytes, 4096);
    assert_eq!((config.cache.ttl, config.cache.stale_if_error), (Seconds::new(5), Seconds::new(60)));
    assert_eq!(config.cache.slots, 65_536);
    assert!(config.bind.is_empty());
    assert_eq!(config.rules.access(b"", b"/"), Access::OPTIONAL);
}

#[test]
fn every_key_is_read() {
    let config = parse(&json!({
        "gateway": {"cluster": "outbound|9100||session-gateway.mesh.svc.cluster.local", "timeout": "1s", "token_env": "TOKENS"},
        "secrets": [SECRET],
        "cookie": {"name": "sid", "path": "/app", "domain": "example.com", "secure": false, "http_only": false,
                   "same_site": "Strict", "partitioned": false, "max_age": "1h"},
        "create": "eager",
        "timeouts": {"idle": "5m", "absolute": "1d", "touch_after": "0s", "rotation_grace": "0s"},
        "on_store_failure": "continue",
        "on_write_failure": "deliver",
        "subject_key": "account",
        "cache": {"ttl": "0s", "stale_if_error": "10s", "slots": 16.0},
        "bind": ["request.useragent", "connection.tls_version", "request.headers.x-device"],
        "rules": [{"path_prefix": "/account/", "session": "required", "redirect": "/login",
                   "max_age": "5m", "strict": true}],
        "upstream": {"expose": {"user": "X-User"}, "cookie": "JSESSIONID", "auth_time": true, "max_data_bytes": 100.0}
    }))
    .unwrap();
    assert_eq!(config.gateway.timeout, Duration::from_secs(1));
    assert_eq!(config.gateway.authorization, "Bearer first");
    assert_eq!(config.cookie.issue("t"), "sid=t; Path=/app; Domain=example.com; Max-Age=3600; SameSite=Strict");
    assert_eq!(config.create, CreatePolicy::Eager);
    assert_eq!(config.timeouts.idle, Seconds::new(300));
    assert_eq!(config.timeouts.absolute, Seconds::new(86400));
    assert_eq!(config.on_store_failure, OnStoreFailure::Continue);
    assert_eq!(config.on_write_failure, OnWriteFailure::Deliver);
    assert_eq!(config.subject_key, "account");
    assert_eq!(config.upstream.cookie.as_deref(), Some("JSESSIONID"));
    assert_eq!(config.upstream.max_data_bytes, 100);
    assert!(config.upstream.auth_time);
    assert_eq!((config.cache.ttl, config.cache.stale_if_error), (Seconds::ZERO, Seconds::new(10)));
    assert_eq!(config.cache.slots, 16);
    assert_eq!(config.bind[2], ["request", "headers", "x-device"]);
    let login = Login { redirect: Some("/login".into()), max_age: Some(Seconds::new(300)) };
    assert_eq!(config.rules.access(b"", b"/account/x"), Access::Session { is_strict: true, login: Some(login.into()) });
    assert_eq!(config.upstream.expose, [("user".to_owned(), "x-user".to_owned())]);
}

#[test]
fn errors_name_their_key() {
    let rows = [
        ("gateway", "gateway", json!(null)),
        ("gateway", "gateway", json!({})),
        ("gateway.cluster", "gateway.cluster", json!("")),
        ("gateway.cluster", "gateway.cluster", json!(1)),
        ("gateway.timeout", "gateway.timeout", json!("0ms")),
        ("gateway.timeout", "gateway.timeout", json!("3600001ms")),
        ("gateway.timeout", "gateway.timeout", json!(250)),
        ("gateway.timeout", "gateway.timeout", json!("soon")),
        ("gateway.token_env", "gateway.token_env", json!("UNSET")),
        ("gateway.token_env", "gateway.token_env", json!("EMPTY")),
        ("gateway.token_env", "gateway.token_env", json!("SPLIT")),
        ("gateway.hosts", "gateway.hosts", json!([])),
        ("secrets_env", "secrets_env", json!("UNSET")),
        ("secrets_env", "secrets_env", json!("EMPTY")),
        ("secrets_env", "secrets_env (SHORT)", json!("SHORT")),
        ("secrets", "secrets", json!([])),
        ("secrets", "secrets", json!([SECRET, SECRET])),
        ("secrets", "secrets", json!([SECRET, "c2hvcnQ="])),
        ("secrets", "secrets[0]", json!([1])),
        ("cookie.name", "cookie.name", json!("a b")),
        ("cookie.path", "cookie.path", json!("/app")),
        ("cookie.domain", "cookie.domain", json!("example.com")),
        ("cookie.secure", "cookie.secure", json!(false)),
        ("cookie.secure", "cookie.secure", json!("yes")),
        ("cookie.same_site", "cookie.same_site", json!("lax")),
        ("cookie.max_age", "cookie.max_age", json!("0s")),
        ("cookie.max_age", "cookie.max_age", json!("500ms")),
        ("cookie.sameSite", "cookie.sameSite", json!("Lax")),
        ("create", "create", json!("always")),
        ("timeouts.idle", "timeouts.idle", json!("0s")),
        ("timeouts.idle", "timeouts.idle", json!("1500ms")),
        ("timeouts.absolute", "timeouts.absolute", json!("1m")),
        ("timeouts.touch_after", "timeouts.touch_after", json!("30m")),
        ("timeouts.touch_after", "cache.ttl", json!("1795s")),
        ("timeouts.absolute", "timeouts.absolute", json!("3651d")),
        ("timeouts.rotation_grace", "timeouts.rotation_grace", json!("1h")),
        ("on_store_failure", "on_store_failure", json!("ignore")),
        ("on_write_failure", "on_write_failure", json!("ignore")),
        ("subject_key", "subject_key", json!("")),
        ("subject_key", "subject_key", json!("k".repeat(129))),
        ("subject_key", "subject_key", json!("a\nb")),
        ("upstream.cookie", "upstream.cookie", json!("JSESSIONID")),
        ("upstream.max_data_bytes", "upstream.max_data_bytes", json!(-1)),
        ("upstream.max_data_bytes", "upstream.max_data_bytes", json!(1.5)),
        ("upstream.expose", "upstream.expose.user", json!({"user": "x user"})),
        ("upstream.expose", "upstream.expose.user", json!({"user": "Cookie"})),
        ("upstream.expose", "upstream.expose.user", json!({"user": ":path"})),
        ("upstream.expose", "upstream.expose.user", json!({"user": "x-session-id"})),
        ("upstream.expose", "upstream.expose.b", json!({"a": "x-user", "b": "X-User"})),
        ("upstream.expose", "upstream.expose.b", json!({"a": "x-user", "b": "x_user"})),
        ("upstream.expose", "upstream.expose.user", json!({"user": "set_cookie"})),
        ("upstream.expose", "upstream.expose.user", json!({"user": "x_session.id"})),
        ("upstream.expose", "upstream.expose.user", json!({"user": "x_envoy.original-url"})),
        ("cache.ttl", "cache.ttl", json!("30m")),
        ("cache.ttl", "cache.ttl", json!("500ms")),
        ("cache.slots", "cache.slots", json!(0)),
        ("cache.slots", "cache.slots", json!(1_048_577)),
        ("cache.size", "cache.size", json!(1)),
        ("bind", "bind[0]", json!(["useragent"])),
        ("bind", "bind[1]", json!(["request.useragent", "xds.node"])),
        ("rules", "rules[0].path_prefix", json!([{"path_prefix": "account", "session": "off"}])),
        ("rules", "rules[0].path_prefix", json!([{"path_prefix": "/a%2fb", "session": "off"}])),
        ("rules", "rules[0].session", json!([{"path_prefix": "/", "session": "on"}])),
        ("rules", "rules[0].redirect", json!([{"path_prefix": "/", "session": "off", "redirect": "/"}])),
        ("rules", "rules[0].path", json!([{"path": "/", "session": "off"}])),
        ("cookies", "cookies", json!({})),
    ];
    for (path, key, value) in rows {
        let config = with(path, value.clone());
        let error = parse(&config).expect_err("refused");
        assert_eq!(error.key, key, "{path} = {value}: {error}");
        // As a struct it is refused for the same reason, without a line and column. All numbers are doubles there.
        let (reason, _) = error.reason.split_once(" at line ").unwrap_or((&error.reason, ""));
        let reason = reason.replace("integer `1`", "number").replace("integer `250`", "number");
        let as_struct = Config::parse(&encode_struct(&config), environment).expect_err("refused");
        assert_eq!((as_struct.key.as_str(), as_struct.reason.as_str()), (key, reason.as_str()), "{path} = {value}");
    }
}

#[test]
fn what_is_not_an_object_is_refused() {
    for text in ["", "{\"\": 1}", "\n\0", "null", "[]", "{", "\u{0}", r#"{"gateway":{"cluster":"g"}} x"#] {
        let error = Config::parse(text.as_bytes(), environment).expect_err("refused");
        assert_eq!(error.key, "configuration", "{text}: {error}");
    }
}

#[test]
fn an_upstream_cookie_is_not_the_session_cookie() {
    let config = json!({
        "gateway": {"cluster": "g"}, "create": "eager",
        "cookie": {"name": "sid"}, "upstream": {"cookie": "sid"}
    });
    assert_eq!(parse(&config).expect_err("refused").key, "upstream.cookie");
}

#[test]
fn no_error_and_no_debug_output_shows_a_secret() {
    let config = with("secrets", json!([SECRET, "not base64 but secret"]));
    let error = parse(&config).expect_err("refused");
    assert!(!error.to_string().contains("but secret"), "{error}");

    for value in [json!(SECRET), json!([[SECRET]])] {
        let error = parse(&with("secrets", value)).expect_err("refused");
        assert!(!error.to_string().contains("AQEB"), "{error}");
    }

    let shown = format!("{:?}", parse(&with("secrets", json!([SECRET]))).unwrap());
    assert!(!shown.contains("gateway-token") && !shown.contains("AQEB"), "{shown}");
}
