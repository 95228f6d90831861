//! The input of an exchange: the request and the response, as the edge has them.

use crate::binding::Binding;
use crate::edit::Headers;
use session::id::SessionId;
use session::time::UnixSeconds;

/// The headers of a request and what else is needed to find its session.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The headers.
    pub headers: &'a Headers<'a>,
    /// The values of the properties that tokens are bound to.
    pub binding: Binding,
    /// The time.
    pub now: UnixSeconds,
    /// A random id that has never been used. It names the session if this turns out to be a new one.
    pub fresh_id: SessionId,
}

/// The headers of a response, read only as far as needed: in Envoy each read is a hostcall.
pub trait ResponseHeaders {
    /// Whether there is a header of this name.
    fn contains(&self, name: &str) -> bool;
    /// Reads all headers.
    fn read<T>(&self, reader: impl FnOnce(&Headers<'_>) -> T) -> T;
}
