//! One HTTP stream, and which of its messages the filter has.

use session_filter::edit::{Edit, Headers};
use session_filter::exchange::{Exchange, ResponseHeaders};

use crate::host::{HeaderList, Host, Side};

/// One HTTP stream.
pub(crate) struct Stream {
    pub(crate) exchange: Exchange,
    /// Whether its request is a gRPC call.
    pub(crate) is_grpc: bool,
    /// The message that the filter has: in its callback, or held. The host provides only the headers of that one.
    pub(crate) in_hand: Option<Side>,
}

impl Stream {
    pub(crate) const fn new(exchange: Exchange) -> Self {
        Self { exchange, is_grpc: false, in_hand: None }
    }

    /// Applies edits in order, if the filter has that message.
    pub(crate) fn edit(&self, host: &impl Host, side: Side, edits: &[Edit]) {
        if edits.is_empty() {
            return;
        }
        if self.in_hand != Some(side) {
            log::error!("tried to change a message that has already been passed on");
            return;
        }
        for edit in edits {
            host.edit_headers(side, edit);
        }
    }
}

/// Whether these headers are those of a gRPC call, as Envoy decides it (`Grpc::Common::hasGrpcContentType`).
pub(crate) fn is_grpc(headers: &Headers<'_>) -> bool {
    let content_type = headers.iter().find(|(name, _)| *name == b"content-type").map(|(_, value)| *value);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
}

/// Headers in the form that the decisions need.
pub(crate) fn borrowed(headers: &HeaderList) -> Vec<(&[u8], &[u8])> {
    headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect()
}

/// The response of the current callback, read only as far as needed.
pub(crate) struct PassingResponse<'a, H>(pub(crate) &'a H);

impl<H: Host> ResponseHeaders for PassingResponse<'_, H> {
    fn contains(&self, name: &str) -> bool {
        self.0.has_header(Side::Response, name)
    }

    fn read<T>(&self, reader: impl FnOnce(&Headers<'_>) -> T) -> T {
        reader(&borrowed(&self.0.headers(Side::Response)))
    }
}
