//! The port for operators: `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinError;

use crate::api::Api;
use crate::metrics::Metrics;
use crate::sessions::SessionError;
use crate::store::Store;

const TEXT: &str = "text/plain; charset=utf-8";
/// The content type that the encoder writes.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the admin port reports about an API.
pub struct Admin<S> {
    api: Arc<Api<S>>,
    metrics: Metrics,
    draining: watch::Receiver<bool>,
    api_runtime: Handle,
}

impl<S: Store> Admin<S> {
    /// The admin port of `api`, which the current runtime serves.
    #[must_use]
    pub fn new(api: Arc<Api<S>>, metrics: Metrics, draining: watch::Receiver<bool>) -> Self {
        Self { api, metrics, draining, api_runtime: Handle::current() }
    }

    /// Runs where the API is served, because the store's connections belong there.
    async fn ready(&self) -> Result<Result<(), SessionError>, JoinError> {
        let api = Arc::clone(&self.api);
        self.api_runtime.spawn(async move { api.ready().await }).await
    }

    /// Answers a request.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".to_owned());
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "alive\n".to_owned()),
            "/readyz" if *self.draining.borrow() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
            "/readyz" => match self.ready().await {
                Ok(Ok(())) => text(StatusCode::OK, "ready\n".to_owned()),
                Ok(Err(error)) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
                Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
            },
            "/metrics" => match self.metrics.render() {
                Ok(metrics) => answer(StatusCode::OK, METRICS, metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "/healthz, /readyz or /metrics\n".to_owned()),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    answer(status, TEXT, body)
}

fn answer(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}
