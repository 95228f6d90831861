//! Reads a serialized `google.protobuf.Struct`.
//!
//! Envoy passes the plugin's configuration in this form if an operator writes it as YAML instead of a string of JSON.
//! The schema is `google/protobuf/struct.proto`, the encoding that of
//! <https://protobuf.dev/programming-guides/encoding/>.

use serde_json::{Map, Number, Value};

/// Deeper than any configuration is.
const MAX_DEPTH: usize = 16;

/// The object in these bytes; `None` unless they are exactly one `Struct`.
pub(super) fn parse(bytes: &[u8]) -> Option<Value> {
    read_struct(bytes, 0)
}

/// `message Struct { map<string, Value> fields = 1; }`
fn read_struct(bytes: &[u8], depth: usize) -> Option<Value> {
    let mut members = Map::new();
    for field in Fields(bytes) {
        let Field { number: 1, value: Wire::Bytes(entry) } = field? else { return None };
        let (mut key, mut value) = (String::new(), Value::Null);
        for field in Fields(entry) {
            match field? {
                Field { number: 1, value: Wire::Bytes(name) } => key = String::from_utf8(name.to_vec()).ok()?,
                Field { number: 2, value: Wire::Bytes(bytes) } => value = read_value(bytes, depth + 1)?,
                _ => return None,
            }
        }
        members.insert(key, value);
    }
    Some(Value::Object(members))
}

/// `message Value { oneof kind { null = 1; number = 2; string = 3; bool = 4; struct = 5; list = 6 } }`
fn read_value(bytes: &[u8], depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut value = Value::Null;
    for field in Fields(bytes) {
        value = match field? {
            Field { number: 1, value: Wire::Varint(0) } => Value::Null,
            Field { number: 2, value: Wire::Fixed64(bits) } => Value::Number(Number::from_f64(f64::from_bits(bits))?),
            Field { number: 3, value: Wire::Bytes(text) } => Value::String(String::from_utf8(text.to_vec()).ok()?),
            Field { number: 4, value: Wire::Varint(flag) } => Value::Bool(flag != 0),
            Field { number: 5, value: Wire::Bytes(bytes) } => read_struct(bytes, depth)?,
            Field { number: 6, value: Wire::Bytes(bytes) } => read_list(bytes, depth)?,
            _ => return None,
        };
    }
    Some(value)
}

/// `message ListValue { repeated Value values = 1; }`
fn read_list(bytes: &[u8], depth: usize) -> Option<Value> {
    let values = Fields(bytes).map(|field| match field? {
        Field { number: 1, value: Wire::Bytes(bytes) } => read_value(bytes, depth + 1),
        _ => None,
    });
    values.collect::<Option<Vec<_>>>().map(Value::Array)
}

struct Field<'a> {
    number: u64,
    value: Wire<'a>,
}

enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, ending with `None` inside if the bytes are garbled.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<Field<'a>> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            _ => return None,
        };
        Some(Field { number: tag >> 3, value })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// The encoder that the parser is tested with, after the same schema.
    fn encode(value: &Value) -> Vec<u8> {
        match value {
            Value::Null => vec![0x08, 0],
            Value::Number(number) => [&[0x11][..], &number.as_f64().unwrap().to_le_bytes()].concat(),
            Value::String(text) => bytes_field(3, text.as_bytes()),
            Value::Bool(flag) => vec![0x20, u8::from(*flag)],
            Value::Object(_) => bytes_field(5, &encode_struct(value)),
            Value::Array(values) => {
                bytes_field(6, &values.iter().flat_map(|value| bytes_field(1, &encode(value))).collect::<Vec<_>>())
            }
        }
    }

    pub(in crate::config) fn encode_struct(value: &Value) -> Vec<u8> {
        let entry = |(key, value): (&String, &Value)| {
            bytes_field(1, &[bytes_field(1, key.as_bytes()), bytes_field(2, &encode(value))].concat())
        };
        value.as_object().unwrap().iter().flat_map(entry).collect()
    }

    fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        field.push(u8::try_from(length).unwrap());
        [field, bytes.to_vec()].concat()
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let value = json!({
            "text": "Zoë", "long": "x".repeat(300), "number": 8192.0, "flag": true, "nothing": null,
            "list": ["a", 1.5, []], "object": {"inner": {"deeper": false}}
        });
        let bytes = encode_struct(&value);
        assert_eq!(parse(&bytes), Some(value));
        for end in 1..bytes.len() {
            assert!(parse(&bytes[..end]).is_none_or(|part| part != parse(&bytes).unwrap()), "cut at {end}");
        }
    }

    #[test]
    fn json_is_no_struct() {
        for text in ["{}", "\n{\"gateway\": {\"cluster\": \"session_gateway\"}}", "\n\n{ }", "null"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let mut value = json!({});
        for _ in 0..100 {
            value = json!({ "a": value });
        }
        assert_eq!(parse(&encode_struct(&value)), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
