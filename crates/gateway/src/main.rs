//! The `session-gateway` program: flags in, a running gateway out.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use session::time::Seconds;
use session_gateway::admin::Admin;
use session_gateway::api::{Api, Limits};
use session_gateway::config::{
    BEARER_TOKEN_ENV, BearerTokenError, BearerTokens, Command, Flags, Listen, Stores, StoresError,
};
use session_gateway::environment::Environment;
use session_gateway::healthcheck::{HealthcheckError, healthcheck};
use session_gateway::logging;
use session_gateway::metrics::Metrics;
use session_gateway::server::{Connections, Drain, ListenError, Listener, serve};
use session_gateway::sessions::{Sessions, Settings};
use session_gateway::store::{Context, Keyspace, Memory, Nodes, Store, layout::LayoutError};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Admin connections: a scraper, a prober, an operator.
const ADMIN_CONNECTIONS: usize = 64;
const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum GatewayError {
    #[error(transparent)]
    Token(#[from] BearerTokenError),
    #[error(transparent)]
    Stores(#[from] StoresError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("{BEARER_TOKEN_ENV} is not UTF-8")]
    Environment,
    #[error("{0}")]
    System(#[from] std::io::Error),
    #[error("requests were still under way when --drain-timeout expired")]
    DrainTimeout,
    #[error("stopped by a second signal")]
    SecondSignal,
    #[error(transparent)]
    Healthcheck(#[from] HealthcheckError),
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    logging::start(flags.log_level, flags.log_format);
    let outcome = match flags.command {
        None => start(&flags),
        Some(Command::Healthcheck) => flags.admin_listen.iter().try_for_each(healthcheck).map_err(GatewayError::from),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: &Flags) -> Result<(), GatewayError> {
    let variable = match std::env::var(BEARER_TOKEN_ENV) {
        Ok(text) => Some(text),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => return Err(GatewayError::Environment),
    };
    let tokens = BearerTokens::load(variable.as_deref(), flags.token_file.as_deref())?;
    let runtime = runtime(flags)?;
    let stores = flags.stores()?;
    let context =
        Context { keyspace: flags.key_prefix.clone(), environment: Environment::machine(), metrics: Metrics::new() };
    let outcome = runtime.block_on(async {
        match stores {
            Stores::Memory { max_bytes } => {
                run(flags, tokens, Memory::new(max_bytes), flags.key_prefix.clone(), context).await
            }
            Stores::Memcached(start) => {
                let keyspace = start.keyspace(&flags.key_prefix);
                let store = Nodes::open(start, &context).await?;
                run(flags, tokens, store, keyspace, context).await
            }
        }
    });
    // A name lookup may hang in its own thread; the process does not wait for it.
    runtime.shutdown_background();
    outcome
}

/// A single worker never has to wake another thread, which is cheaper than a pool of one.
fn runtime(flags: &Flags) -> std::io::Result<Runtime> {
    match flags.workers.map(std::num::NonZero::get) {
        Some(1) => Builder::new_current_thread().enable_all().build(),
        Some(workers) => Builder::new_multi_thread().worker_threads(workers).enable_all().build(),
        None => Builder::new_multi_thread().enable_all().build(),
    }
}

async fn run<S: Store>(
    flags: &Flags,
    tokens: BearerTokens,
    store: S,
    keyspace: Keyspace,
    context: Context,
) -> Result<(), GatewayError> {
    let Context { environment, metrics, .. } = context;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let settings = Settings {
        keyspace,
        max_data_bytes: usize::try_from(flags.max_session_bytes).unwrap_or(usize::MAX),
        store_timeout: flags.store_timeout,
        tombstone_ttl: Seconds::new(flags.tombstone_ttl.as_secs()),
        session_limit: flags.session_limit(),
        environment,
    };
    let limits = Limits {
        body_bytes: usize::try_from(flags.max_body_bytes).unwrap_or(usize::MAX),
        body_timeout: flags.body_timeout,
        calls: usize::try_from(flags.max_calls).unwrap_or(usize::MAX),
    };
    let sessions = Sessions::new(store, settings, metrics.clone());
    let api = Arc::new(Api::new(sessions, tokens, limits, metrics.clone()));

    // The admin port outlives the API's drain, because it reports that the process is draining.
    let (drain, admin_drain) = (Drain::new(), Drain::new());
    let listeners = listen(flags.listen.clone(), flags.unix_socket_mode).await?;
    // It has its own thread, so it answers however busy the API is.
    let admin_runtime = AdminRuntime(Some(Builder::new_multi_thread().worker_threads(1).enable_all().build()?));
    let admin_listeners = listen(flags.admin_listen.clone(), flags.unix_socket_mode);
    let admin_listeners = admin_runtime.spawn(admin_listeners).await.map_err(std::io::Error::other)??;
    let connections = Connections {
        header_timeout: flags.header_timeout,
        idle_timeout: flags.idle_timeout,
        max: flags.max_connections.get(),
        calls: Some(api.in_flight()),
        metrics: Some(metrics.clone()),
    };
    for listener in listeners {
        tracing::info!(address = %listener.address()?, "serving the API");
        let api = Arc::clone(&api);
        let answer = move |request| Arc::clone(&api).answer(request);
        tokio::spawn(serve(listener, connections.clone(), drain.watch(), answer));
    }
    let (begun, admin_connections) = (
        tokio::sync::watch::Sender::new(false),
        Connections { max: ADMIN_CONNECTIONS, calls: None, metrics: None, ..connections },
    );
    let admin = Arc::new(Admin::new(Arc::clone(&api), metrics, begun.subscribe()));
    for listener in admin_listeners {
        tracing::info!(address = %listener.address()?, "serving the admin port");
        let admin = Arc::clone(&admin);
        let answer = move |request| {
            let admin = Arc::clone(&admin);
            async move { admin.answer(request).await }
        };
        admin_runtime.spawn(serve(listener, admin_connections.clone(), admin_drain.watch(), answer));
    }

    either(&mut terminate, &mut interrupt).await;
    tracing::info!("draining");
    begun.send_replace(true);
    tokio::select! {
        drained = tokio::time::timeout(flags.drain_timeout, finish(&drain, &api)) => {
            drained.map_err(|_| GatewayError::DrainTimeout)?;
        }
        () = either(&mut terminate, &mut interrupt) => return Err(GatewayError::SecondSignal),
    }
    // A scrape under way may finish, but a stuck one is not worth waiting for.
    let _ = tokio::time::timeout(ADMIN_DRAIN_TIMEOUT, admin_drain.finish()).await;
    tracing::info!("drained");
    Ok(())
}

/// Requests come first, because they start work in the background.
async fn finish<S: Store>(drain: &Drain, api: &Api<S>) {
    drain.finish().await;
    api.finish().await;
}

/// A runtime that does not wait for its tasks when it ends.
struct AdminRuntime(Option<Runtime>);

impl AdminRuntime {
    fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        // There always is one until the end.
        match &self.0 {
            Some(runtime) => runtime.spawn(task),
            None => tokio::spawn(task),
        }
    }
}

impl Drop for AdminRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn listen(addresses: Vec<Listen>, mode: u32) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::new();
    for address in &addresses {
        listeners.push(Listener::listen(address, mode).await?);
    }
    Ok(listeners)
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
