//! Envoy's verdict on configurations; `--mode validate` runs the filter's own check.

use serde_json::{Value, json};
use session_mesh_e2e::envoy::Configuration;

#[test]
fn the_file_is_valid_as_it_stands() {
    Configuration::read().validate().unwrap();
}

#[test]
fn an_error_keeps_envoy_from_starting_and_names_its_key() {
    let rows: [(Value, &str); 6] = [
        (json!({"cokie": {}}), "cokie"),
        (json!({"create": "sometimes"}), "create"),
        (json!({"cookie": {"secure": false}}), "cookie.secure"),
        (json!({"timeouts": {"idle": "soon"}}), "timeouts.idle"),
        (json!({"upstream": {"cookie": "JSESSIONID"}}), "upstream.cookie"),
        (json!({"gateway": {"timeout": "0ms"}}), "gateway.timeout"),
    ];
    for (plugin, key) in rows {
        let printed = Configuration::read().plugin(plugin).validate().expect_err(key);
        assert!(printed.contains(key), "{key}:\n{printed}");
    }
}

#[test]
fn secrets_are_checked_and_never_printed() {
    for secrets in ["", "dG9vIHNob3J0", "not base64 but private"] {
        let printed = Configuration::read().secrets(secrets).validate().expect_err(secrets);
        assert!(printed.contains("SESSION_SECRETS"), "{printed}");
        assert!(secrets.is_empty() || !printed.contains(secrets), "{printed}");
    }
}
