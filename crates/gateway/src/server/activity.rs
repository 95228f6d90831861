//! Tracks a connection's activity, to recognize idle ones.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::in_flight::InFlight;

/// Marks an answer to a caller with a valid token, in the answer's extensions. Connections without one have to make
/// room for others.
#[derive(Clone, Copy, Debug)]
pub struct Trusted;

/// The requests of one connection, and the bytes read in between.
#[derive(Default)]
pub(super) struct Activity {
    open: AtomicUsize,
    /// Whether the head of a request has arrived since the last check.
    any: AtomicBool,
    /// Whether bytes have arrived that may begin a request's head whose end has not arrived yet.
    has_begun: AtomicBool,
    is_trusted: AtomicBool,
    /// In HTTP/2, some bytes don't begin a request.
    is_http2: AtomicBool,
    pub(super) is_unwanted: Notify,
}

impl Activity {
    /// Counts a request with a complete head, until the guard is dropped.
    pub(super) fn request(activity: &Arc<Self>, version: Version) -> OpenRequest {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.any.store(true, Ordering::Relaxed);
        activity.has_begun.store(false, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            activity.is_http2.store(true, Ordering::Relaxed);
        }
        OpenRequest(Arc::clone(activity))
    }

    /// The caller has presented a valid token.
    pub(super) fn trust(&self) {
        self.is_trusted.store(true, Ordering::Relaxed);
    }

    /// Whether the connection may be closed to make room: no caller waits for an answer, and none has presented a
    /// bearer token.
    pub(super) fn is_expendable(&self) -> bool {
        !self.is_trusted.load(Ordering::Relaxed) && self.open.load(Ordering::Relaxed) == 0
    }

    fn has_read(&self) {
        if self.open.load(Ordering::Relaxed) == 0 && !self.is_http2.load(Ordering::Relaxed) {
            self.has_begun.store(true, Ordering::Relaxed);
        }
    }
}

/// A request that is being answered.
pub(super) struct OpenRequest(Arc<Activity>);

impl OpenRequest {
    pub(super) fn activity(&self) -> &Activity {
        &self.0
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Checks a connection periodically ([`every`](Self::every)) and says when its time is over.
///
/// There is one timer per connection, for both versions of HTTP and for a peer that never says which, and no work per
/// request. So anything that exceeds its time is noticed after twice that time at the latest.
pub(super) struct Watch {
    idle_timeout: Duration,
    every: Duration,
    idle_for: Duration,
    /// Whether a head had begun at the last check.
    had_begun: bool,
}

impl Watch {
    pub(super) fn new(header_timeout: Duration, idle_timeout: Duration) -> Self {
        let every = header_timeout.min(idle_timeout);
        Self { idle_timeout, every, idle_for: Duration::ZERO, had_begun: false }
    }

    pub(super) const fn every(&self) -> Duration {
        self.every
    }

    /// Whether to close the connection.
    pub(super) fn ends(&mut self, activity: &Activity) -> bool {
        let any = activity.any.swap(false, Ordering::Relaxed);
        if any || activity.open.load(Ordering::Relaxed) > 0 {
            self.idle_for = Duration::ZERO;
            self.had_begun = activity.has_begun.load(Ordering::Relaxed);
            return false;
        }
        self.idle_for = self.idle_for.saturating_add(self.every);
        let has_begun = activity.has_begun.load(Ordering::Relaxed);
        let is_slow = self.had_begun && has_begun;
        self.had_begun = has_begun;
        is_slow || activity.is_expendable() || self.idle_for >= self.idle_timeout
    }
}

/// A stream whose reads are tracked, and wait for their turn under overload.
pub(super) struct Watched<I> {
    stream: I,
    activity: Arc<Activity>,
    calls: Option<InFlight>,
    turn: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<I> Watched<I> {
    pub(super) const fn new(stream: I, activity: Arc<Activity>, calls: Option<InFlight>) -> Self {
        Self { stream, activity, calls, turn: None }
    }

    pub(super) const fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Waits while other connections come first. Returns whether it had to wait.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.turn.is_none() {
            let Some(calls) = self.calls.as_ref().filter(|calls| !calls.is_roomy()) else { return Poll::Ready(false) };
            self.turn = Some(Box::pin(calls.clone().turn()));
        }
        if let Some(turn) = &mut self.turn {
            ready!(turn.as_mut().poll(cx));
            self.turn = None;
        }
        Poll::Ready(true)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let has_waited = ready!(self.poll_turn(cx));
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.has_read();
        } else if let Some(calls) = self.calls.as_ref().filter(|_| has_waited) {
            calls.pass();
        }
        poll
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::metrics::Metrics;

    const SECOND: Duration = Duration::from_secs(1);

    fn watched() -> (Arc<Activity>, Watch) {
        (Arc::default(), Watch::new(SECOND, 5 * SECOND))
    }

    #[test]
    fn a_connection_without_a_token_has_one_look() {
        let (activity, mut watch) = watched();
        activity.has_read();
        assert!(watch.ends(&activity));
        let (activity, mut watch) = watched();
        let open = Activity::request(&activity, Version::HTTP_11);
        assert!(!watch.ends(&activity) && !watch.ends(&activity));
        drop(open);
        assert!(watch.ends(&activity));
    }

    #[test]
    fn a_trusted_one_may_be_idle_but_not_half_way() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let (activity, mut watch) = watched();
            Activity::request(&activity, version).activity().trust();
            let looks = (0..10).take_while(|_| !watch.ends(&activity)).count();
            assert_eq!(looks, 5, "the look that sees the request, and four more");

            let (activity, mut watch) = watched();
            Activity::request(&activity, version).activity().trust();
            activity.has_read();
            let looks = (0..10).take_while(|_| !watch.ends(&activity)).count();
            // An HTTP/2 ping does not begin a request.
            assert_eq!(looks, if version == Version::HTTP_2 { 5 } else { 1 });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_much_is_to_be_done_what_comes_waits() {
        let calls = InFlight::new(1, Metrics::default());
        let (mut caller, stream) = duplex(64);
        let mut stream = Watched::new(stream, Arc::default(), Some(calls.clone()));
        caller.write_all(b"first").await.unwrap();
        let place = calls.enter();
        let mut first = [0; 5];
        assert!(stream.read_exact(&mut first).now_or_never().is_none(), "nothing is read");
        drop(place);
        assert!(stream.read_exact(&mut first).now_or_never().is_some(), "it is there, and there is room");

        let _place = calls.enter();
        caller.write_all(b"later").await.unwrap();
        let started = Instant::now();
        stream.read_exact(&mut first).await.unwrap();
        assert!(started.elapsed() > Duration::ZERO && &first == b"later", "it is not waited for any longer");
    }
}
