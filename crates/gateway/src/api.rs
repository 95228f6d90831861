//! The HTTP API: requests in, answers out, as described in `docs/gateway-api.md`.
//!
//! It uses plain matches instead of a framework: there are few routes, every answer must carry the marker whatever has
//! happened, and the gateway shares a core with Envoy.

mod answer;
mod body;
mod call;
mod fields;
mod problem;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::Full;
use hyper::body::Body;
use hyper::{HeaderMap, Method, Request, Response};
use session::id::SessionId;
use tokio::time::timeout;

use self::call::{Call, Route, SessionCall};
use self::problem::ApiError;
use crate::config::BearerTokens;
use crate::in_flight::{CallPlace, InFlight};
use crate::metrics::Metrics;
use crate::server::Trusted;
use crate::sessions::{Created, SessionError, Sessions};
use crate::store::Store;

/// What the API answers with.
pub type Answer = Response<Full<Bytes>>;

/// The limits for requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body in bytes.
    pub body_bytes: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// The maximum number of calls in flight.
    pub calls: usize,
}

/// The API over the sessions of one store.
pub struct Api<S> {
    sessions: Sessions<S>,
    tokens: BearerTokens,
    limits: Limits,
    metrics: Metrics,
    in_flight: InFlight,
    store_fails: AtomicBool,
    warned_of_strangers: Seldom,
    warned_of_overload: Seldom,
}

/// A call gives up its place if its body has not arrived after this time.
const BODY_PATIENCE: Duration = Duration::from_millis(10);
/// What happens to one call happens to many, so one log line in this time is enough.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// The time of the last warning, so that warnings are rare.
#[derive(Default)]
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    fn is_time(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = last.is_none_or(|last| last.elapsed() >= WARN_EVERY);
        if is_time {
            *last = Some(Instant::now());
        }
        is_time
    }
}

impl<S: Store> Api<S> {
    /// The API for callers that know one of `tokens`.
    #[must_use]
    pub fn new(sessions: Sessions<S>, tokens: BearerTokens, limits: Limits, metrics: Metrics) -> Self {
        Self {
            sessions,
            tokens,
            limits,
            in_flight: InFlight::new(limits.calls, metrics.clone()),
            metrics,
            store_fails: AtomicBool::new(false),
            warned_of_strangers: Seldom::default(),
            warned_of_overload: Seldom::default(),
        }
    }

    /// The calls in flight, for the code that reads connections.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.clone()
    }

    /// Succeeds while the store answers.
    pub async fn ready(&self) -> Result<(), SessionError> {
        self.sessions.ping().await
    }

    /// Waits until the background work of all requests is done.
    pub async fn finish(&self) {
        self.sessions.finish().await;
    }

    /// Answers any request. The request counts as in flight from this call on, not only once the future is polled.
    /// Otherwise requests would pile up in the runtime uncounted.
    pub fn answer<B>(self: Arc<Self>, request: Request<B>) -> impl Future<Output = Answer> + Send
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let started = Instant::now();
        let route = Route::of(request.uri().path());
        let place = self.admit(&route, request.headers());
        async move { self.conclude(started, route, place, request).await }
    }

    async fn conclude<B>(
        &self,
        started: Instant,
        route: Route,
        place: Result<Option<CallPlace>, ApiError>,
        request: Request<B>,
    ) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let method = known(request.method());
        let (route_name, session, is_guarded) = (route.name(), route.session(), route.is_guarded());
        let request_id = request.headers().get("x-request-id").cloned();
        let traceparent = request.headers().get("traceparent").cloned();
        let path = tracing::enabled!(tracing::Level::DEBUG).then(|| route.loggable(request.uri().path()).to_owned());

        let outcome = match place {
            Ok(place) => {
                // It is boxed because the result is moved with each request, and this is a hundred times the size of a
                // refusal.
                let handled = Box::pin(self.handle(route, place, request));
                let outcome = AssertUnwindSafe(handled).catch_unwind().await;
                outcome.unwrap_or_else(|_| {
                    self.metrics.panic();
                    Err(ApiError::Panicked)
                })
            }
            Err(refusal) => Err(refusal),
        };
        self.watch(outcome.as_ref().err());
        let is_stranger = matches!(outcome, Err(ApiError::Unauthorized));
        let mut answer = outcome.unwrap_or_else(ApiError::answer);
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

    /// The call's place among those in flight. A caller without a token needs none, and can't take one from callers
    /// with a token.
    fn admit(&self, route: &Route, headers: &HeaderMap) -> Result<Option<CallPlace>, ApiError> {
        if !route.is_guarded() {
            return Ok(None);
        }
        if !self.tokens.admit(headers) {
            return Err(ApiError::Unauthorized);
        }
        self.in_flight.enter().map(Some).ok_or(ApiError::Overloaded)
    }

    async fn handle<B>(&self, route: Route, place: Option<CallPlace>, request: Request<B>) -> Result<Answer, ApiError>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let (head, body) = request.into_parts();
        let call = Call::read(route, &head)?;
        let (text, _place) =
            if call.has_body() { self.body(body, &head.headers, place).await? } else { (Bytes::new(), place) };
        match call {
            Call::Session(id, call) => self.on_session(id, call, &text).await,
            Call::List(principal) => Ok(answer::list(&self.sessions.of_subject(&principal).await?)),
            Call::Revoke(principal, except) => {
                self.sessions.revoke(&principal, except).await?;
                Ok(answer::no_content())
            }
        }
    }

    /// The body. While a slow body is arriving, the call has no place, so that slow callers don't keep others out.
    async fn body<B>(
        &self,
        body: B,
        headers: &HeaderMap,
        place: Option<CallPlace>,
    ) -> Result<(Bytes, Option<CallPlace>), ApiError>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let mut body = pin!(body::read(body, headers, self.limits));
        if let Ok(text) = timeout(BODY_PATIENCE, body.as_mut()).await {
            return Ok((text?, place));
        }
        drop(place);
        let text = body.await?;
        let place = self.in_flight.enter().ok_or(ApiError::Overloaded)?;
        Ok((text, Some(place)))
    }

    async fn on_session(&self, id: SessionId, call: SessionCall, body: &[u8]) -> Result<Answer, ApiError> {
        match call {
            SessionCall::Read { touch } => Ok(answer::session(self.sessions.read(id, touch).await?)),
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

    /// Logs what an operator has to know. It logs once when the store stops answering and once when it answers again,
    /// because a line per failed request would fill a disk in an outage.
    fn watch(&self, refusal: Option<&ApiError>) {
        if matches!(refusal, Some(ApiError::Unauthorized)) && self.warned_of_strangers.is_time() {
            tracing::warn!("a call had no valid bearer token; logged at most once a minute");
        }
        if let Some(too_much) = refusal.and_then(ApiError::too_much) {
            self.metrics.call_refused(too_much);
            if self.warned_of_overload.is_time() {
                tracing::warn!(?too_much, "overloaded: calls are refused");
            }
        }
        let failure = refusal.and_then(ApiError::store_failure);
        if let Some(error) = failure {
            if !self.store_fails.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "the store is failing");
            }
        } else if self.store_fails.load(Ordering::Relaxed) && refusal.is_none() {
            self.store_fails.store(false, Ordering::Relaxed);
            tracing::info!("the store has recovered");
        }
    }
}

/// The method as a metric's label. Methods that clients invent must not become labels.
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
