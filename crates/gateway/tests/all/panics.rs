//! A bug in the gateway, which is the one thing that these tests can't cause in the real program.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use session::time::Seconds;
use session_gateway::api::{Api, Limits};
use session_gateway::config::BearerTokens;
use session_gateway::environment::Environment;
use session_gateway::metrics::Metrics;
use session_gateway::sessions::{Sessions, Settings};
use session_gateway::store::{Cas, Key, Keyspace, Replaced, Store, StoreEntry, StoreError};

use super::support::fresh_id;
use super::support::gateway::{TOKEN, request};
use super::support::http::Reply;

struct Buggy;

impl Store for Buggy {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        panic!("a bug under {}", key.as_str());
    }
    async fn add(&self, _: &Key, _: &[u8], _: Seconds) -> Result<bool, StoreError> {
        Ok(true)
    }
    async fn replace(&self, _: &Key, _: &[u8], _: Cas, _: Seconds) -> Result<Replaced, StoreError> {
        Ok(Replaced::Missing)
    }
    async fn set(&self, _: &Key, _: &[u8], _: Seconds) -> Result<(), StoreError> {
        Ok(())
    }
    async fn touch(&self, _: &Key, _: Seconds) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_with_the_marker() {
    let metrics = Metrics::new();
    let settings = Settings {
        keyspace: Keyspace::new("sm:").unwrap(),
        max_data_bytes: 1000,
        store_timeout: std::time::Duration::from_mins(1),
        tombstone_ttl: Seconds::new(60),
        session_limit: None,
        environment: Environment::machine(),
    };
    let limits = Limits { body_bytes: 1000, body_timeout: settings.store_timeout, calls: 10 };
    let sessions = Sessions::new(Buggy, settings, metrics.clone());
    let api = Arc::new(Api::new(sessions, BearerTokens::parse(TOKEN).unwrap(), limits, metrics.clone()));
    let answer = async |method: &str, headers: &[(&str, &str)]| {
        let target = format!("/v1/sessions/{}", fresh_id());
        let request: hyper::Request<Full<Bytes>> = request(method, &target, headers, "{}");
        let (head, body) = Arc::clone(&api).answer(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: head.status.as_u16(), headers: head.headers, body }
    };
    answer("GET", &[]).await.expect(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    answer("PUT", &[("content-type", "application/json")]).await.expect(hyper::StatusCode::CREATED);
    assert!(metrics.render().unwrap().contains("session_gateway_panics_total 1\n"));
}
