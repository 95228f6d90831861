//! Patches as the languages of upstreams write them into a header: not always quite JSON, not always UTF-8.

use super::{Object, parse_object};

/// A patch as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Spoken {
    /// The patch.
    pub patch: Object,
    /// Whether the header had bytes that are not ASCII. Whether they were UTF-8 or Latin-1 is then a guess: the two
    /// bytes of `é` in UTF-8 are `Ã©` in Latin-1.
    pub is_guessed: bool,
}

/// Parses the value of a patch header; `None` if it can't be read as an object.
///
/// - Bytes that are not UTF-8 are Latin-1, as Node.js and Tomcat write headers.
/// - `[]` is an empty patch: PHP has no other empty object.
#[must_use]
pub fn parse_spoken(value: &[u8]) -> Option<Spoken> {
    let is_guessed = !value.is_ascii();
    let latin;
    let json = if core::str::from_utf8(value).is_ok() {
        value
    } else {
        latin = value.iter().copied().map(char::from).collect::<String>();
        latin.as_bytes()
    };
    let is_empty = || {
        let inside = json.trim_ascii().strip_prefix(b"[")?.strip_suffix(b"]")?;
        inside.trim_ascii().is_empty().then(Object::new)
    };
    let patch = parse_object(json).or_else(is_empty)?;
    Some(Spoken { patch, is_guessed })
}

/// The JSON with `\\ufffd` for each escaped surrogate that has no other half (RFC 8259 section 8.2); `None` if there
/// are none. Backslashes occur only in strings, so it is enough to look for them.
pub(super) fn without_lone_surrogates(json: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(json.len());
    let mut is_changed = false;
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        let taken = match (byte, unit(rest), rest.get(6..).and_then(unit)) {
            (_, Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (_, Some(0xd800..=0xdfff), _) => {
                whole.extend_from_slice(b"\\ufffd");
                is_changed = true;
                rest = rest.get(6..).unwrap_or_default();
                continue;
            }
            // Whatever is escaped here, it does not begin another escape.
            (b'\\', _, _) if !after.is_empty() => 2,
            _ => 1,
        };
        let (copied, after) = rest.split_at_checked(taken)?;
        whole.extend_from_slice(copied);
        rest = after;
    }
    is_changed.then_some(whole)
}

/// `serde_json` reads an object with only this key as a number, so that numbers keep their digits.
const NUMBER: &[u8] = b"$serde_json::private::Number";

/// Whether an object in this JSON could be read as a number. No application means that, so such JSON is refused.
pub(super) fn may_pass_for_a_number(json: &[u8]) -> bool {
    let has = |text: &[u8], part: &[u8]| text.windows(part.len()).any(|window| window == part);
    let may_begin = json.contains(&b'$') || (json.contains(&b'\\') && has(json, b"\\u0024"));
    if !may_begin {
        return false;
    }
    let mut plain = Vec::with_capacity(json.len());
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = unit(rest).and_then(|unit| u8::try_from(unit).ok());
        plain.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { rest.get(6..).unwrap_or_default() } else { after };
    }
    has(&plain, NUMBER)
}

/// The UTF-16 code unit that is escaped at the beginning of this text.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    core::str::from_utf8(digits).ok().filter(|_| is_hex).and_then(|digits| u16::from_str_radix(digits, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(value: &[u8]) -> Option<Value> {
        parse_spoken(value).map(|spoken| Value::Object(spoken.patch))
    }

    #[test]
    fn every_language_is_understood() {
        let rows: &[(&[u8], Option<Value>)] = &[
            // PHP's empty array, and what is none.
            (b"[]", Some(json!({}))),
            (b" [ ] ", Some(json!({}))),
            (b"[1]", None),
            (b"[", None),
            (b"]", None),
            // JSON.stringify of a cut emoji.
            (br#"{"a":"x\ud83d"}"#, Some(json!({"a": "x\u{fffd}"}))),
            (br#"{"a":"\uDE00\ud83d\ud83d\ude00"}"#, Some(json!({"a": "\u{fffd}\u{fffd}\u{1f600}"}))),
            (br#"{"a":"\\ud83d"}"#, Some(json!({"a": "\\ud83d"}))),
            (br#"{"\ud83d":[{"b":"\\\ud83d"}]}"#, Some(json!({"\u{fffd}": [{"b": "\\\u{fffd}"}]}))),
            (br#"{"a":"\ud83d\u00"}"#, None),
            (br#"{"a":"\u+123"}"#, None),
            // Latin-1, and UTF-8.
            (b"{\"a\":\"Jos\xe9\"}", Some(json!({"a": "José"}))),
            ("{\"a\":\"José\"}".as_bytes(), Some(json!({"a": "José"}))),
            (b"{\"a\":\"\xe9\\ud83d\"}", Some(json!({"a": "é\u{fffd}"}))),
        ];
        for (value, patch) in rows {
            assert_eq!(read(value), *patch, "{}", value.escape_ascii());
        }
    }

    /// No text can make use of the parser's way to keep digits.
    #[test]
    fn an_object_is_never_taken_for_a_number() {
        for key in
            ["$serde_json::private::Number", r"\u0024serde_json::private::Number", r"$serde_json::privat\u0065::Number"]
        {
            for value in [r#""1""#, "1", r#""x""#] {
                let object = format!(r#"{{"user":{{"{key}":{value}}}}}"#);
                assert_eq!(parse_object(object.as_bytes()), None, "{object}");
                assert_eq!(super::super::parse_objects(format!("[{object}]").as_bytes()), None, "{object}");
            }
        }
        for price in [r#"{"price":"$1"}"#, r#"{"$":1}"#, r#"{"a":"\u0024"}"#] {
            assert!(parse_object(price.as_bytes()).is_some(), "{price}");
        }
    }

    #[test]
    fn what_may_be_either_encoding_says_so() {
        let is_guessed = |value: &[u8]| parse_spoken(value).unwrap().is_guessed;
        assert!(is_guessed("{\"a\":\"José\"}".as_bytes()) && is_guessed(b"{\"a\":\"\xe9\"}"));
        assert!(!is_guessed(br#"{"a":"Jos\u00e9"}"#));
    }

    /// JSON.stringify: every unit is escaped where JSON requires it.
    fn stringify(units: &[u16]) -> String {
        units.iter().flat_map(|unit| ["\\u".to_owned(), format!("{unit:04x}")]).collect()
    }

    proptest! {
        /// Any UTF-16 text arrives as the same text, with U+FFFD for units that are not characters.
        #[test]
        fn any_utf16_text_is_read(units in proptest::collection::vec(
            prop_oneof![0xd7f0_u16..0xe010, any::<u16>(), Just(0x5c), Just(0x75)], 0..12,
        )) {
            let json = format!(r#"{{"a":"{}"}}"#, stringify(&units));
            let text = String::from_utf16_lossy(&units);
            prop_assert_eq!(read(json.as_bytes()), Some(json!({ "a": text })));
        }

        /// Any text that Latin-1 can encode arrives unchanged, unless its bytes happen to be UTF-8; then it is marked
        /// as a guess.
        #[test]
        fn any_latin_1_text_is_read(bytes in proptest::collection::vec(0xa0_u8.., 0..12)) {
            let text: String = bytes.iter().copied().map(char::from).collect();
            let spoken = parse_spoken(&[br#"{"a":""#, bytes.as_slice(), br#""}"#].concat()).unwrap();
            let expected = core::str::from_utf8(&bytes).map_or(text.as_str(), |utf8| utf8);
            prop_assert_eq!(spoken.patch.get("a"), Some(&json!(expected)));
            prop_assert_eq!(spoken.is_guessed, !bytes.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, text in r#"[\[\]{}":\\ud0-9 a-f]{0,40}"#) {
            let _ = parse_spoken(&bytes);
            let _ = parse_spoken(text.as_bytes());
            // What is JSON already is read as it is.
            if let Ok(object) = serde_json::from_str::<Object>(&text) {
                prop_assert_eq!(parse_object(text.as_bytes()), Some(object));
            }
        }
    }
}
