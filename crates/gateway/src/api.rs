//! The HTTP API: requests in, answers out, as `docs/gateway-api.md` has it.
//!
//! Plain matches instead of a framework: there are few routes, each answer has to carry the marker whatever
//! happened, and the gateway shares a core with Envoy.

mod answer;
mod body;
mod call;
mod fields;
mod problem;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::Full;
use hyper::body::Body;
use hyper::{Method, Request, Response};
use session_core::id::SessionId;

use self::call::{Call, Route, SessionCall};
use self::problem::Refusal;
use crate::config::Tokens;
use crate::metrics::Metrics;
use crate::server::Trusted;
use crate::sessions::{Created, SessionError, Sessions};
use crate::store::Store;

/// What the API answers with.
pub type Answer = Response<Full<Bytes>>;

/// The bounds of one request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body in bytes.
    pub body_bytes: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
}

/// The API over the sessions of one store.
pub struct Api<S> {
    sessions: Sessions<S>,
    tokens: Tokens,
    limits: Limits,
    metrics: Metrics,
    store_fails: AtomicBool,
    /// When a caller without a good token was last warned of.
    stranger_seen: Mutex<Option<Instant>>,
}

/// A caller with a wrong token comes again with each request of a visitor: one line in this time is enough.
const STRANGERS_EVERY: Duration = Duration::from_mins(1);

impl<S: Store> Api<S> {
    /// The API for whoever knows one of `tokens`.
    #[must_use]
    pub fn new(sessions: Sessions<S>, tokens: Tokens, limits: Limits, metrics: Metrics) -> Self {
        let (store_fails, stranger_seen) = (AtomicBool::new(false), Mutex::new(None));
        Self { sessions, tokens, limits, metrics, store_fails, stranger_seen }
    }

    /// Succeeds while the store answers.
    pub async fn ready(&self) -> Result<(), SessionError> {
        self.sessions.ping().await
    }

    /// Waits until what requests have left to do in the background is done.
    pub async fn finish(&self) {
        self.sessions.finish().await;
    }

    /// Answers a request, whatever it is.
    pub async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let started = Instant::now();
        let method = known(request.method());
        let route = Route::of(request.uri().path());
        let (route_name, session, is_guarded) = (route.name(), route.session(), route.is_guarded());
        let named = |name| request.headers().get(name).cloned();
        let (request_id, traceparent) = (named("x-request-id"), named("traceparent"));
        let path = tracing::enabled!(tracing::Level::DEBUG).then(|| route.loggable(request.uri().path()).to_owned());

        let outcome = AssertUnwindSafe(self.handle(route, request)).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|_| {
            self.metrics.panic();
            Err(Refusal::Panicked)
        });
        self.watch_store(outcome.as_ref().err());
        let is_stranger = matches!(outcome, Err(Refusal::Unauthorized));
        let mut answer = outcome.unwrap_or_else(Refusal::answer);
        if let Some(id) = session.filter(|_| !is_stranger) {
            answer::about(&mut answer, id);
        }
        if is_guarded && !is_stranger {
            answer.extensions_mut().insert(Trusted);
        }

        let status = answer.status().as_u16();
        self.metrics.request(method, route_name, status, started.elapsed());
        tracing::debug!(method, path, status, ?request_id, ?traceparent, "answered");
        if method == "HEAD" { answer::without_body(answer) } else { answer }
    }

    async fn handle<B>(&self, route: Route, request: Request<B>) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        if route.is_guarded() && !self.tokens.admit(request.headers()) {
            self.warn_of_stranger();
            return Err(Refusal::Unauthorized);
        }
        let (head, body) = request.into_parts();
        let call = Call::read(route, &head)?;
        let text = if call.has_body() { body::read(body, &head.headers, self.limits).await? } else { Bytes::new() };
        match call {
            Call::Session(id, call) => self.on_session(id, call, &text).await,
            Call::List(principal) => Ok(answer::list(&self.sessions.of_subject(&principal).await?)),
            Call::Revoke(principal, except) => {
                self.sessions.revoke(&principal, except).await?;
                Ok(answer::no_content())
            }
        }
    }

    async fn on_session(&self, id: SessionId, call: SessionCall, body: &[u8]) -> Result<Answer, Refusal> {
        match call {
            SessionCall::Read { touch, want } => Ok(answer::session(self.sessions.read(id, touch, want).await?)),
            SessionCall::Create(create) => {
                let merge_within = create.merge_within;
                let created = self.sessions.create(id, create.with_body(body)?, merge_within).await?;
                Ok(match created {
                    Created::New(live) => answer::created(live),
                    Created::Merged(live) => answer::session(live),
                })
            }
            SessionCall::Change(change) => {
                let (change, precondition, name) = change.with_body(body)?;
                Ok(answer::session(self.sessions.change(id, &change, &precondition, name).await?))
            }
            SessionCall::Destroy { precondition, presented } => {
                self.sessions.destroy(id, &precondition, presented).await?;
                Ok(answer::no_content())
            }
        }
    }

    fn warn_of_stranger(&self) {
        let mut seen = self.stranger_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_none_or(|seen| seen.elapsed() >= STRANGERS_EVERY) {
            *seen = Some(Instant::now());
            tracing::warn!("a call came without a bearer token of this gateway's, and there may be more");
        }
    }

    /// Says once when the store stops answering and once when it does again: a line per
    /// failed request would fill a disk in an outage.
    fn watch_store(&self, refusal: Option<&Refusal>) {
        let failure = refusal.and_then(Refusal::store_failure);
        if let Some(error) = failure {
            if !self.store_fails.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "the store fails");
            }
        } else if self.store_fails.load(Ordering::Relaxed) && refusal.is_none() {
            self.store_fails.store(false, Ordering::Relaxed);
            tracing::info!("the store answers again");
        }
    }
}

/// The method as a metric's label; what clients invent must not become one.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
