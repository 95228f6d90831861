//! What the decisions ask the edge to do to headers.

use std::borrow::Cow;

/// Header names and values as they came over the network: names in lower case, values any bytes.
pub type Headers<'a> = [(&'a [u8], &'a [u8])];

/// One change to a request's or a response's headers; several are applied in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Replace all headers of this name by one.
    Set(Cow<'static, str>, Vec<u8>),
    /// Add one more header of this name.
    Add(&'static str, Vec<u8>),
    /// Remove all headers of this name.
    Remove(Cow<'static, str>),
}

impl Edit {
    pub(crate) fn set(name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        Self::Set(Cow::Borrowed(name), value.into())
    }

    pub(crate) const fn remove(name: &'static str) -> Self {
        Self::Remove(Cow::Borrowed(name))
    }
}

/// Replaces all headers of this name by these, in order; the first `Set` also removes the old ones.
pub(crate) fn replace_all(edits: &mut Vec<Edit>, name: &'static str, values: Vec<Vec<u8>>) {
    let mut values = values.into_iter();
    edits.push(match values.next() {
        Some(first) => Edit::set(name, first),
        None => Edit::remove(name),
    });
    edits.extend(values.map(|value| Edit::Add(name, value)));
}

/// A response from the filter in place of the upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u16,
    /// What a gRPC client gets instead of the status.
    pub grpc_status: GrpcStatus,
    /// Headers; the values are free of CR and LF.
    pub headers: Vec<(Cow<'static, str>, Vec<u8>)>,
    /// The body, plain text.
    pub body: &'static str,
}

/// The gRPC statuses of local replies (<https://grpc.io/docs/guides/status-codes/>). Clients may retry only what is
/// `Unavailable`, which is also what Envoy on its own makes of a 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GrpcStatus {
    /// The subject has too many sessions.
    PermissionDenied = 7,
    /// Something is broken that a retry does not repair.
    Internal = 13,
    /// A retry may succeed.
    Unavailable = 14,
    /// A login is needed.
    Unauthenticated = 16,
}

impl LocalReply {
    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
    }
}

/// The values of all headers of this name.
pub(crate) fn values<'a>(headers: &'a Headers<'_>, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone {
    headers.iter().filter(move |(other, _)| *other == name.as_bytes()).map(|(_, value)| *value)
}

/// The value of the first header of this name, if it is text.
pub(crate) fn text<'a>(headers: &'a Headers<'_>, name: &'a str) -> Option<&'a str> {
    values(headers, name).next().and_then(|value| core::str::from_utf8(value).ok())
}

/// The value of the first header of this name, if it is a number.
pub(crate) fn number<T: core::str::FromStr>(headers: &Headers<'_>, name: &str) -> Option<T> {
    text(headers, name)?.parse().ok()
}
