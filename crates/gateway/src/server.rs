//! Listening, HTTP connections, and the end of both.

mod listener;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, interval_at};

use crate::metrics::Metrics;

pub use listener::{BindError, Listener};

/// After an `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections are treated.
#[derive(Clone)]
pub struct Connections {
    /// When one without requests is closed, at the earliest; at the latest after twice that.
    pub idle_timeout: Duration,
    /// How many there may be at a time.
    pub most: usize,
    /// Where they are counted, if they are.
    pub metrics: Option<Metrics>,
}

/// Tells listeners and connections when to end, and knows when they have.
#[derive(Debug)]
pub struct Drain(watch::Sender<bool>);

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// Nothing is to end yet.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Turns true when it begins. As long as one is held, [`finish`](Self::finish) waits.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    /// Begins.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Begins, and waits until everything that watches has ended.
    pub async fn finish(&self) {
        self.begin();
        self.0.closed().await;
    }
}

/// Serves `listener` with `answer` until `drain` begins; connections end on their own after that.
pub async fn serve<H, F>(listener: Listener, connections: Connections, mut drain: watch::Receiver<bool>, answer: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let free = Arc::new(Semaphore::new(connections.most));
    let mut http = Builder::new(TokioExecutor::new());
    http.http2().timer(TokioTimer::new());
    let http = Arc::new(http);
    loop {
        let accepted = async {
            let place = Arc::clone(&free).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            // Dropping the listener closes it: who connects now is refused and goes elsewhere.
            () = begun(&mut drain) => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let counted = connections.metrics.as_ref().map(Metrics::connection);
        let (http, drain, answer) = (Arc::clone(&http), drain.clone(), answer.clone());
        let idle_timeout = connections.idle_timeout;
        tokio::spawn(async move {
            match stream {
                listener::Stream::Tcp(stream) => converse(&http, stream, idle_timeout, drain, answer).await,
                listener::Stream::Unix(stream) => converse(&http, stream, idle_timeout, drain, answer).await,
            }
            drop((place, counted));
        });
    }
    // In this order, so that whoever waits for the end finds the socket's file gone.
    drop(listener);
    drop(drain);
}

async fn begun(drain: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it everything that serves.
    let _ = drain.wait_for(|begun| *begun).await;
}

/// Carries one connection to its end.
async fn converse<I, H, F>(
    http: &Builder<TokioExecutor>,
    stream: I,
    idle_timeout: Duration,
    mut drain: watch::Receiver<bool>,
    answer: H,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let seen = Arc::clone(&activity);
    let service = service_fn(move |request| {
        let answered = answer(request);
        let open = Activity::request(&seen);
        async move {
            let answer = answered.await;
            drop(open);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // One timer a connection, for both versions of HTTP and for a peer that never says which.
    let mut looks = interval_at(Instant::now() + idle_timeout, idle_timeout);
    let mut draining = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = begun(&mut drain), if !draining => {
                // Closes it now if it is idle, else after the answer to the request under way.
                connection.as_mut().graceful_shutdown();
                draining = true;
            }
            _ = looks.tick() => if activity.none_since_last_look() { break Ok(()) },
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// The requests of one connection, so that an idle one can be told.
#[derive(Default)]
struct Activity {
    open: AtomicUsize,
    any: AtomicBool,
}

impl Activity {
    /// Counts a request until the guard is dropped.
    fn request(activity: &Arc<Self>) -> OpenRequest {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.any.store(true, Ordering::Relaxed);
        OpenRequest(Arc::clone(activity))
    }

    fn none_since_last_look(&self) -> bool {
        !self.any.swap(false, Ordering::Relaxed) && self.open.load(Ordering::Relaxed) == 0
    }
}

struct OpenRequest(Arc<Activity>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
