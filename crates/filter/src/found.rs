//! A session as it was found: the parts of the gateway's answer that requests need.

use crate::config::Config;
use crate::edit::{Headers, number, text, values};
use crate::exposed;
use session::gateway_api as api;
use session::merge_patch;
use session::rotation::Grace;
use session::time::UnixSeconds;
use session::version::Version;

/// A session as it was found in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSession {
    /// How many changes it has had.
    pub version: Version,
    /// Tokens of an older version are refused unless the grace covers them.
    pub min_version: Version,
    /// The grace of its last rotation.
    pub grace: Option<Grace>,
    /// When it was first stored.
    pub created: UnixSeconds,
    /// When it ends unless it is used.
    pub expires: UnixSeconds,
    /// Who is logged in, percent-encoded.
    pub subject: Option<String>,
    /// When they last proved their identity.
    pub auth_time: Option<UnixSeconds>,
    /// The id that upstreams keep their own state under, if it isn't the session's.
    pub upstream_cookie: Option<String>,
    /// Its data.
    pub data: VisibleData,
    /// The values of the headers in `upstream.expose`, in that order.
    pub exposed: Vec<Option<String>>,
}

/// The part of a session's data that upstreams get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VisibleData {
    /// An ASCII JSON object, fit for a header.
    Whole(Vec<u8>),
    /// The data has this many bytes, which is too much for a header.
    Omitted(usize),
}

impl FoundSession {
    /// After a change that was made with this token: whether the token was good on its own before the change, and not
    /// only by the grace of an earlier rotation. If the change itself was a rotation (only a rotation raises
    /// `min_version` to its own version), it was: the gateway lets no token rotate that is valid only by a grace.
    pub(crate) fn was_good(&self, token: Version) -> bool {
        self.min_version == self.version || token >= self.min_version
    }

    /// Reads a gateway's answer; `None` if a header is missing or malformed, or if the data is not allowed in a header.
    pub(crate) fn read(config: &Config, headers: &Headers<'_>, body: &[u8]) -> Option<Self> {
        let is_object = body.first() == Some(&b'{') && body.last() == Some(&b'}');
        if !is_object || !body.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return None;
        }
        Some(Self {
            version: etag(headers)?,
            min_version: number(headers, api::MIN_VERSION)?,
            grace: match (number(headers, api::GRACE_UNTIL), number(headers, api::GRACE_FROM)) {
                (Some(until), Some(from)) => Some(Grace { from, until }),
                _ => None,
            },
            created: number(headers, api::CREATED)?,
            expires: number(headers, api::EXPIRES)?,
            subject: visible(headers, api::SUBJECT),
            auth_time: number(headers, api::AUTH_TIME),
            upstream_cookie: visible(headers, api::UPSTREAM_COOKIE),
            exposed: if config.upstream.expose.is_empty() {
                Vec::new()
            } else {
                exposed::values(config, &merge_patch::parse_object(body)?)
            },
            data: if body.len() <= config.upstream.max_data_bytes {
                VisibleData::Whole(body.to_vec())
            } else {
                VisibleData::Omitted(body.len())
            },
        })
    }
}

fn etag(headers: &Headers<'_>) -> Option<Version> {
    text(headers, "etag")?.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// A value of visible ASCII: what may be copied into another header as it is.
fn visible(headers: &Headers<'_>, name: &str) -> Option<String> {
    let value = values(headers, name).next()?;
    let is_visible = !value.is_empty() && value.iter().all(u8::is_ascii_graphic);
    is_visible.then(|| String::from_utf8(value.to_vec()).ok())?
}
