//! The root context: one per worker and configuration.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use session_core::config::Config;

use crate::entropy::Entropy;
use crate::host;
use crate::metrics::Metrics;
use crate::stream::Stream;

/// What the streams of one configuration share.
pub(crate) struct Shared {
    pub(crate) config: Rc<Config>,
    pub(crate) metrics: Metrics,
    pub(crate) entropy: RefCell<Entropy>,
}

#[derive(Default)]
pub(crate) struct Root {
    shared: Option<Rc<Shared>>,
}

impl Context for Root {}

impl RootContext for Root {
    /// `false` keeps Envoy from starting, or an update from replacing a configuration that works.
    fn on_configure(&mut self, _size: usize) -> bool {
        match Config::parse(&host::plugin_configuration(), |name| std::env::var(name).ok()) {
            Ok(config) => {
                self.shared = Some(Rc::new(Shared {
                    config: Rc::new(config),
                    metrics: Metrics::define(),
                    entropy: RefCell::default(),
                }));
                true
            }
            Err(error) => {
                log::error!("session-mesh configuration: {error}");
                false
            }
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(self.shared.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
