//! Members of the data that upstreams get as separate headers (`upstream.expose`).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::config::Config;
use crate::edit::Edit;
use crate::upstream_api::is_spelling_of;
use session::merge_patch::Object;

/// Whether upstreams could read this header name as an exposed one.
pub(crate) fn is_exposed(config: &Config, name: &[u8]) -> bool {
    config.upstream.expose.iter().any(|(_, header)| is_spelling_of(name, header))
}

/// The header value of each exposed member, in the order of the configuration. Like the data as a whole, a value larger
/// than `max_data_bytes` is omitted: no session may make requests too large for their upstream, or copies too large for
/// the cache.
pub(crate) fn values(config: &Config, data: &Object) -> Vec<Option<String>> {
    let limit = config.upstream.max_data_bytes;
    config
        .upstream
        .expose
        .iter()
        .map(|(key, _)| header_value(data.get(key)?).filter(|value| value.len() <= limit))
        .collect()
}

/// One header for each exposed member that exists.
pub(crate) fn edits(config: &Config, values: Vec<Option<String>>) -> impl Iterator<Item = Edit> {
    config
        .upstream
        .expose
        .iter()
        .zip(values)
        .filter_map(|((_, header), value)| Some(Edit::Set(Cow::Owned(header.clone()), value?.into_bytes())))
}

/// A text is unchanged if it is visible ASCII without `%`, otherwise percent-encoded. Numbers and booleans are written
/// as in JSON. There is no common way to write lists and objects in headers, and no header for `null`.
fn header_value(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(percent_encode(text)),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The bytes to encode: all but visible ASCII, and `%` itself.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

pub(crate) fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_fit_into_a_header() {
        let rows = [
            (json!("alice"), Some("alice")),
            (json!("alice@example.com"), Some("alice@example.com")),
            (json!("Zoë 100%\r\nx: y"), Some("Zo%C3%AB%20100%25%0D%0Ax:%20y")),
            (json!(""), Some("")),
            (json!(42), Some("42")),
            (json!(true), Some("true")),
            (json!(null), None),
            (json!([1]), None),
            (json!({"a": 1}), None),
        ];
        for (value, header) in rows {
            assert_eq!(header_value(&value).as_deref(), header, "{value}");
        }
    }
}
