//! A session's data as it is stored and sent: one JSON object in ASCII.
//!
//! It is ASCII because HTTP headers carry it upstream. It is encoded once, when it changes, so that a read only copies
//! it.

use core::fmt;
use std::io;

use serde::Serialize as _;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

use super::DecodeError;
use crate::merge_patch::{self, Object};

/// The ASCII text of a JSON object.
#[derive(Clone, PartialEq, Eq)]
pub struct Data(String);

impl Data {
    /// Writes the object, compact, with `\uXXXX` for characters outside ASCII.
    #[must_use]
    pub fn from_object(object: &Object) -> Self {
        let mut text = Vec::with_capacity(128);
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, Ascii);
        // Keys are strings and a Vec takes any write, so neither serializing nor the
        // conversion fails; an empty object is the harmless answer if that ever changed.
        let written = object.serialize(&mut serializer).ok();
        Self(written.and_then(|()| String::from_utf8(text).ok()).unwrap_or_else(|| "{}".to_owned()))
    }

    /// Takes text that [`from_object`](Self::from_object) wrote. Only its ends and its characters are checked: a read
    /// on the hot path does not parse what it passes on.
    pub(super) fn from_stored(text: &[u8]) -> Result<Self, DecodeError> {
        let framed = text.starts_with(b"{") && text.ends_with(b"}") && text.is_ascii();
        let text = core::str::from_utf8(text).ok().filter(|_| framed);
        text.map(|text| Self(text.to_owned())).ok_or(DecodeError::Data)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The owned text.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// The object. Fails if the store holds something that no gateway wrote.
    pub fn parse(&self) -> Result<Object, DecodeError> {
        merge_patch::parse_object(self.0.as_bytes()).ok_or(DecodeError::Data)
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

/// Whether a header may hold it: ASCII except DEL, which JSON allows unescaped but HTTP does not (RFC 9110 section
/// 5.5). JSON itself escapes the other control characters.
const fn is_plain(character: char) -> bool {
    character.is_ascii() && character != '\u{7f}'
}

/// `serde_json`'s compact form, restricted to what a header may hold (RFC 8259 section 7: anything may be escaped).
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.chars().all(is_plain) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        let mut utf8 = [0; 4];
        for character in fragment.chars() {
            if is_plain(character) {
                writer.write_all(character.encode_utf8(&mut utf8).as_bytes())?;
                continue;
            }
            for unit in character.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        CompactFormatter.write_char_escape(writer, escape)
    }
}
