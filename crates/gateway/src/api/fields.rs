//! Request headers, parsed into what they mean. An error names its header.

use std::borrow::Cow;

use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue, IF_MATCH};
use session::limits::{
    MAX_REALM_BYTES, MAX_SUBJECT_KEY_BYTES, MAX_TIMEOUT, MAX_UPSTREAM_COOKIE_BYTES, is_upstream_cookie,
};
use session::principal::Realm;
use session::record::WriteId;
use session::time::Seconds;
use session::version::Version;

use super::problem::ApiError;
use crate::sessions::Precondition;

/// The maximum number of tags in `if-match`.
const MAX_TAGS: usize = 16;

/// The headers of one request.
pub(super) struct Fields<'a>(&'a HeaderMap);

impl<'a> Fields<'a> {
    pub(super) const fn new(headers: &'a HeaderMap) -> Self {
        Self(headers)
    }

    /// A number of seconds, zero included.
    pub(super) fn seconds(&self, name: &'static str) -> Result<Option<Seconds>, ApiError> {
        self.number(name, MAX_TIMEOUT.get(), "is not a number of seconds up to ten years")
            .map(|seconds| seconds.map(Seconds::new))
    }

    /// A number of seconds, at least one.
    pub(super) fn timeout(&self, name: &'static str) -> Result<Option<Seconds>, ApiError> {
        match self.seconds(name)? {
            Some(Seconds::ZERO) => Err(invalid(name, "must be at least one second")),
            timeout => Ok(timeout),
        }
    }

    pub(super) fn version(&self, name: &'static str) -> Result<Option<Version>, ApiError> {
        let number = self.number(name, u64::from(u32::MAX), "is not a version")?;
        Ok(number.and_then(|number| u32::try_from(number).ok()).map(Version::new))
    }

    /// The name of a write, 16 lowercase hex digits.
    pub(super) fn write_id(&self, name: &'static str) -> Result<Option<WriteId>, ApiError> {
        let Some(value) = self.single(name)? else {
            return Ok(None);
        };
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let text =
            str::from_utf8(value.as_bytes()).ok().filter(|text| text.len() == 16 && text.bytes().all(|b| is_hex(&b)));
        let id = text.and_then(|text| u64::from_str_radix(text, 16).ok());
        id.map(|id| Some(WriteId::from_random(id.to_be_bytes())))
            .ok_or_else(|| invalid(name, "is not 16 lowercase hex digits"))
    }

    /// The media type in lower case, without its parameters. Only ours are recognized.
    pub(super) fn media_type(&self) -> Result<Option<&'static str>, ApiError> {
        use session::gateway_api::{MERGE_PATCH_TYPE, MERGE_PATCHES_TYPE};
        let Some(value) = self.single(CONTENT_TYPE.as_str())? else {
            return Ok(None);
        };
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        let essence = essence.trim_ascii();
        let known = ["application/json", MERGE_PATCH_TYPE, MERGE_PATCHES_TYPE];
        let found = known.into_iter().find(|known| essence.eq_ignore_ascii_case(known.as_bytes()));
        Ok(Some(found.unwrap_or("")))
    }

    /// A data key: any text, since any text may be a key in JSON.
    pub(super) fn data_key(&self, name: &'static str) -> Result<Option<&'a str>, ApiError> {
        let Some(value) = self.single(name)? else {
            return Ok(None);
        };
        match str::from_utf8(value.as_bytes()) {
            Ok(key) if (1..=MAX_SUBJECT_KEY_BYTES).contains(&key.len()) => Ok(Some(key)),
            _ => Err(invalid(name, format!("is not 1 to {MAX_SUBJECT_KEY_BYTES} bytes of UTF-8"))),
        }
    }

    /// The realm of a subject.
    pub(super) fn realm(&self, name: &'static str) -> Result<Option<Realm>, ApiError> {
        let Some(value) = self.single(name)? else {
            return Ok(None);
        };
        let realm = str::from_utf8(value.as_bytes()).ok().and_then(|text| text.parse().ok());
        let reason = || format!("is not 1 to {MAX_REALM_BYTES} letters, digits, -, . and _");
        realm.map(Some).ok_or_else(|| invalid(name, reason()))
    }

    /// The id under which upstreams keep their own state.
    pub(super) fn upstream_cookie(&self, name: &'static str) -> Result<Option<String>, ApiError> {
        let Some(value) = self.single(name)? else {
            return Ok(None);
        };
        match str::from_utf8(value.as_bytes()) {
            Ok(text) if is_upstream_cookie(value.as_bytes()) => Ok(Some(text.to_owned())),
            _ => Err(invalid(name, format!("is not a cookie value of 1 to {MAX_UPSTREAM_COOKIE_BYTES} bytes"))),
        }
    }

    /// `if-match` (RFC 9110 section 13.1.1). A weak tag, or one that is not a version, is valid syntax and never
    /// matches.
    pub(super) fn precondition(&self) -> Result<Precondition, ApiError> {
        const NAME: &str = "if-match";
        const SYNTAX: &str = "is not an entity tag like \"3\", a list of them, or *";
        let mut versions = Vec::new();
        let mut given = 0;
        for value in self.0.get_all(IF_MATCH) {
            let text = value.to_str().map_err(|_| invalid(NAME, SYNTAX))?;
            for tag in text.split(',').map(str::trim_ascii).filter(|tag| !tag.is_empty()) {
                given += 1;
                if tag == "*" {
                    // The methods that use it need an existing session anyway.
                    return Ok(Precondition::None);
                }
                let strong = tag.strip_prefix("W/").unwrap_or(tag);
                let inner = strong.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                let inner = inner.filter(|inner| !inner.contains('"') && given <= MAX_TAGS);
                let inner = inner.ok_or_else(|| invalid(NAME, SYNTAX))?;
                if strong == tag
                    && let Ok(version) = inner.parse()
                {
                    versions.push(version);
                }
            }
        }
        if given == 0 && self.0.contains_key(IF_MATCH) {
            return Err(invalid(NAME, SYNTAX));
        }
        Ok(if given == 0 { Precondition::None } else { Precondition::Versions(versions) })
    }

    fn number(&self, name: &'static str, max: u64, reason: &'static str) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.single(name)? else {
            return Ok(None);
        };
        // `parse` alone would accept a sign.
        let digits = value.as_bytes().iter().all(u8::is_ascii_digit);
        let number = str::from_utf8(value.as_bytes()).ok().filter(|_| digits);
        match number.and_then(|digits| digits.parse().ok()) {
            Some(number) if number <= max => Ok(Some(number)),
            _ => Err(invalid(name, reason)),
        }
    }

    fn single(&self, name: &'static str) -> Result<Option<&'a HeaderValue>, ApiError> {
        let mut values = self.0.get_all(name).iter();
        let first = values.next();
        if values.next().is_some() {
            return Err(invalid(name, "is given twice"));
        }
        Ok(first)
    }
}

fn invalid(name: &'static str, reason: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError::Header { name, reason: reason.into() }
}
