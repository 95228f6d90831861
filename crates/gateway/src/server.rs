//! Listening, serving HTTP connections, and ending both.

mod activity;
mod listener;
mod places;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at};

use crate::in_flight::InFlight;
use crate::metrics::Metrics;

use self::activity::{Activity, Watch, Watched};
use self::places::ConnectionPlaces;

pub use activity::Trusted;
pub use listener::{ListenError, Listener};

/// The pause after a failed `accept`, most likely because file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The largest head of an HTTP/2 request, decoded. The filter's are a tenth of it.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// The number of streams that a peer may reset before they are answered (CVE-2023-44487).
const MAX_RESETS: usize = 64;
/// How often a silent HTTP/2 connection is pinged to see whether its peer is alive, and how long the answer may take.
const PING_EVERY: Duration = Duration::from_mins(1);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How connections are treated.
#[derive(Clone)]
pub struct Connections {
    /// How long the head of a request may take: the first one from the connection's start, each further one from its
    /// first byte. A connection on which no caller has presented a bearer token ([`Trusted`]) is also closed after that
    /// time without a request.
    pub header_timeout: Duration,
    /// The earliest time after which a connection without requests is closed; the latest is twice that.
    pub idle_timeout: Duration,
    /// The maximum number of connections.
    pub max: usize,
    /// The calls in flight on them: while there are many, connections are read in turn. With `None` they are read
    /// without waiting.
    pub calls: Option<InFlight>,
    /// The metrics in which they are counted, if any.
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
    /// Draining has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Becomes true when draining begins. As long as a receiver exists, [`finish`](Self::finish) waits.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    /// Tells all watchers to end.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Tells all watchers to end, and waits until they have.
    pub async fn finish(&self) {
        self.begin();
        self.0.closed().await;
    }
}

/// Serves `listener` with `answer` until `drain` begins. Connections then end on their own.
pub async fn serve<H, F>(listener: Listener, connections: Connections, mut drain: watch::Receiver<bool>, answer: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let places = ConnectionPlaces::new(connections.max);
    let mut http = Builder::new(TokioExecutor::new());
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS);
    let http = Arc::new(http);
    loop {
        let accepted = async {
            let stream = listener.accept().await?;
            let activity = Arc::<Activity>::default();
            // One connection beyond the limit has been accepted by now, and waits here.
            let place = places.take(&activity).await;
            io::Result::Ok((stream, activity, place))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            // Dropping the listener closes it: new callers are refused and go elsewhere.
            () = begun(&mut drain) => break,
        };
        let (stream, activity, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                places.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let counted = connections.metrics.as_ref().map(Metrics::connection);
        let (http, drain, answer) = (Arc::clone(&http), drain.clone(), answer.clone());
        let watch = Watch::new(connections.header_timeout, connections.idle_timeout);
        let calls = connections.calls.clone();
        tokio::spawn(async move {
            match stream {
                listener::Stream::Tcp(stream) => {
                    converse(&http, Watched::new(stream, activity, calls), watch, drain, answer).await;
                }
                listener::Stream::Unix(stream) => {
                    converse(&http, Watched::new(stream, activity, calls), watch, drain, answer).await;
                }
            }
            drop((place, counted));
        });
    }
    // The order matters: a caller that waits for the end finds the socket's file removed.
    drop(listener);
    drop(drain);
}

async fn begun(drain: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it everything that serves.
    let _ = drain.wait_for(|begun| *begun).await;
}

/// Serves one connection to its end.
async fn converse<I, H, F>(
    http: &Builder<TokioExecutor>,
    stream: Watched<I>,
    mut watch: Watch,
    mut drain: watch::Receiver<bool>,
    answer: H,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let activity = Arc::clone(stream.activity());
    let seen = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| {
        let open = Activity::request(&seen, request.version());
        let answered = answer(request);
        async move {
            let answer = answered.await;
            if answer.extensions().get::<Trusted>().is_some() {
                open.activity().trust();
            }
            drop(open);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut looks = interval_at(Instant::now() + watch.every(), watch.every());
    let mut draining = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = begun(&mut drain), if !draining => {
                // Closes the connection now if it is idle, otherwise after the answer to the request under way.
                connection.as_mut().graceful_shutdown();
                draining = true;
            }
            _ = looks.tick() => if watch.ends(&activity) { break Ok(()) },
            () = activity.is_unwanted.notified() => if activity.is_expendable() { break Ok(()) },
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
