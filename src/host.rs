//! What the filter needs from its host.

#[cfg(test)]
pub(crate) mod fake;

use std::time::Duration;

use session_filter::edit::{Edit, LocalReply};
use session_filter::exchange::{Callout, Trace};

/// Names in lower case and values of any bytes, in order.
pub(crate) type HeaderList = Vec<(String, Vec<u8>)>;

/// Which message of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// On its way to the upstream.
    Request,
    /// On its way to the client.
    Response,
}

/// The host can't send a callout now: no such cluster, no endpoint, an open circuit breaker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotSent;

/// A host, as seen from one callback. Headers, trailers and properties are those of the stream that the callback
/// belongs to, or that [`act_for`](Self::act_for) has named since.
///
/// A method that accesses a message may be called only while the filter has that message: in its own callback, or while
/// it is held.
pub(crate) trait Host {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// The headers of the request or the response.
    fn headers(&self, side: Side) -> HeaderList;
    /// Whether there is a header of this name.
    fn has_header(&self, side: Side, name: &str) -> bool;
    /// Changes the headers.
    fn edit_headers(&self, side: Side, edit: &Edit);

    /// The trailers of the request or the response, in their callback.
    fn trailers(&self, side: Side) -> HeaderList;
    /// Changes the trailers, in their callback.
    fn edit_trailers(&self, side: Side, edit: &Edit);

    /// The value of an attribute of Envoy's, `None` without one.
    fn property(&self, path: &[String]) -> Option<Vec<u8>>;
    /// Sets the filter state `wasm.<name>`, for logs and other filters.
    fn set_filter_state(&self, name: &str, value: &[u8]);

    /// The value that all workers share under a key, and the version for replacing it.
    fn shared_data(&self, key: &str) -> (Option<Vec<u8>>, Option<u32>);
    /// Replaces the value that all workers share under a key, if it still has this version; `false` if it does not.
    fn set_shared_data(&self, key: &str, value: &[u8], version: Option<u32>) -> bool;

    /// Sends a callout; its answer arrives with this id. The timeout has 32 bits of milliseconds.
    fn send(&self, cluster: &str, callout: &Callout, trace: &Trace, timeout: Duration) -> Result<u32, NotSent>;
    /// The headers of the answer to a callout, in its callback.
    fn answer_headers(&self) -> HeaderList;
    /// The body of the answer to a callout, in its callback.
    fn answer_body(&self) -> Vec<u8>;

    /// Makes the next calls refer to another stream's messages; `false` if that stream is gone.
    fn act_for(&self, stream: u32) -> bool;
    /// Releases a held message.
    fn resume(&self, side: Side);
    /// Responds to the client in place of the upstream.
    fn reply(&self, reply: &LocalReply, is_grpc: bool);

    /// Sets the timer's period, in milliseconds of 32 bits; zero stops it.
    fn set_timer(&self, millis: u64);

    /// Defines a counter, or finds it; its id.
    fn define_counter(&self, name: &str) -> Option<u32>;
    /// Defines a histogram, or finds it; its id.
    fn define_histogram(&self, name: &str) -> Option<u32>;
    /// Increments a counter by 1 or more.
    fn raise(&self, counter: u32, by: i64);
    /// Adds a value to a histogram.
    fn record(&self, histogram: u32, value: u64);
}
