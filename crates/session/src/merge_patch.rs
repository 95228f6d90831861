//! JSON merge patch, RFC 7396, on a session's data.
//!
//! Data is always a JSON object, so patches are objects too: any other patch would replace the data with something that
//! isn't one (RFC 7396 section 2).

mod spoken;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use spoken::{Spoken, parse_spoken};

/// A session's data, or a patch on it.
pub type Object = Map<String, Value>;

/// Applies one merge patch to a session's data (RFC 7396 section 2).
pub fn apply(data: &mut Object, patch: Object) {
    for (name, change) in patch {
        match change {
            Value::Null => {
                data.remove(&name);
            }
            Value::Object(change) => {
                let member = data.entry(name).or_insert(Value::Null);
                if !member.is_object() {
                    *member = Value::Object(Object::new());
                }
                // The depth is bounded by the parser: serde_json refuses more than 128 levels.
                if let Value::Object(member) = member {
                    apply(member, change);
                }
            }
            scalar => {
                data.insert(name, scalar);
            }
        }
    }
}

/// Parses bytes as one JSON object; `None` for anything else. A lone surrogate, which languages with UTF-16 strings
/// write for half a character, is read as U+FFFD.
#[must_use]
pub fn parse_object(bytes: &[u8]) -> Option<Object> {
    parse(bytes)
}

/// Parses bytes as a JSON array of objects, each as [`parse_object`] does.
#[must_use]
pub fn parse_objects(bytes: &[u8]) -> Option<Vec<Object>> {
    parse(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    if spoken::may_pass_for_a_number(bytes) {
        return None;
    }
    serde_json::from_slice(bytes).ok().or_else(|| {
        let whole = spoken::without_lone_surrogates(bytes)?;
        serde_json::from_slice(&whole).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// RFC 7396 appendix A, the rows whose target and patch are both objects, verbatim.
    #[test]
    fn examples_of_the_rfc() {
        let rows = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (target, patch, result) in rows {
            let (Value::Object(mut data), Value::Object(patch)) = (target, patch) else {
                panic!("objects only");
            };
            apply(&mut data, patch.clone());
            assert_eq!(Value::Object(data), result, "patch {patch:?}");
        }
    }

    /// The rest of appendix A: patches that are not objects have no place in session data.
    #[test]
    fn patches_that_are_not_objects_are_refused() {
        for text in [r#"["c"]"#, r#""bar""#, "null", "1", "", "{", r#"{"a":1} x"#] {
            assert_eq!(parse_object(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn hostile_depth_is_refused_and_not_followed() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
        assert_eq!(parse_object(deep.as_bytes()), None);
    }

    /// The algorithm as RFC 7396 section 2 writes it, on values of any kind.
    fn naive(target: Value, patch: Value) -> Value {
        let Value::Object(patch) = patch else { return patch };
        let mut target = match target {
            Value::Object(target) => target,
            _ => Map::new(),
        };
        for (name, value) in patch {
            if value.is_null() {
                target.remove(&name);
            } else {
                let member = target.get(&name).cloned().unwrap_or(Value::Null);
                target.insert(name, naive(member, value));
            }
        }
        Value::Object(target)
    }

    fn object() -> impl Strategy<Value = Object> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        });
        proptest::collection::btree_map("[a-c]", value, 0..4).prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #[test]
        fn agrees_with_the_rfc_algorithm(target in object(), patch in object()) {
            let expected = naive(Value::Object(target.clone()), Value::Object(patch.clone()));
            let mut data = target;
            apply(&mut data, patch);
            prop_assert_eq!(Value::Object(data), expected);
        }
    }
}
