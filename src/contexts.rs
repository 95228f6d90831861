//! Envoy's contexts, in the SDK's form.
//!
//! The SDK lends out one context for each callback, but an event of one stream can concern others. So the contexts are
//! handles to the [`RootContext`] that they share. Callbacks never nest, because Envoy defers the consequences of a
//! hostcall until the callback has returned. A callback that did nest would be treated as in a filter without a
//! configuration.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{self, Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, ContextType};
use session_filter::config::Config;

use crate::envoy::Envoy;
use crate::host::Side;
use crate::root_context::{self, Flow, RootContext};

/// What the contexts of one root share; `None` until it is configured.
type Shared = Rc<RefCell<Option<RootContext<Envoy>>>>;

fn with<T>(shared: &Shared, event: impl FnOnce(&mut RootContext<Envoy>) -> T) -> Option<T> {
    shared.try_borrow_mut().ok()?.as_mut().map(event)
}

/// Only headers need this: `tools/wasm-trim` turns a pause into one of the whole message, and Envoy then holds the body
/// and trailers on its own.
impl From<Flow> for Action {
    fn from(flow: Flow) -> Self {
        match flow {
            Flow::Continue => Self::Continue,
            Flow::Hold => Self::Pause,
        }
    }
}

/// One configuration in one VM. A replaced configuration stays next to the new one until its last stream ends.
#[derive(Default)]
pub(crate) struct Root(Shared);

impl Context for Root {
    /// The answer to a callout of the root.
    fn on_http_call_response(&mut self, call: u32, headers: usize, body_size: usize, _trailers: usize) {
        with(&self.0, |root| root.call_answered(None, call, headers, body_size));
    }
}

impl traits::RootContext for Root {
    /// `false` keeps Envoy from starting, or an update from replacing a configuration that works.
    fn on_configure(&mut self, _size: usize) -> bool {
        let bytes = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten();
        let config = Config::parse(&bytes.unwrap_or_default(), |name| std::env::var(name).ok());
        match (config, self.0.try_borrow_mut()) {
            (Ok(config), Ok(mut root)) => {
                *root = Some(RootContext::new(config, Envoy));
                true
            }
            (Err(error), _) => {
                log::error!("session-mesh configuration: {error}");
                false
            }
            (Ok(_), Err(_)) => false,
        }
    }

    fn on_tick(&mut self) {
        with(&self.0, RootContext::timer_fired);
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    /// Only a handle. The state of a stream begins with its request: Envoy also creates contexts for the access log of
    /// requests that another filter in front responded to, and over HTTP/3 it never deletes them.
    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { id, root: Rc::clone(&self.0) }))
    }
}

/// The configuration was replaced and its last stream is over, or Envoy ends.
impl Drop for Root {
    fn drop(&mut self) {
        with(&self.0, RootContext::end);
    }
}

/// One HTTP stream.
struct Stream {
    id: u32,
    root: Shared,
}

impl Context for Stream {
    /// The answer to a callout that this stream has made, for itself and possibly for others.
    fn on_http_call_response(&mut self, call: u32, headers: usize, body_size: usize, _trailers: usize) {
        with(&self.root, |root| root.call_answered(Some(self.id), call, headers, body_size));
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        with(&self.root, |root| root.request_headers(self.id)).unwrap_or_else(|| root_context::refuse(&Envoy)).into()
    }

    fn on_http_request_trailers(&mut self, _trailers: usize) -> Action {
        with(&self.root, |root| root.trailers(self.id, Side::Request));
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        // Without a configuration, the response is our own refusal.
        with(&self.root, |root| root.response_headers(self.id)).unwrap_or(Flow::Continue).into()
    }

    fn on_http_response_trailers(&mut self, _trailers: usize) -> Action {
        with(&self.root, |root| root.trailers(self.id, Side::Response));
        Action::Continue
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        with(&self.root, |root| root.stream_ended(self.id));
    }
}
