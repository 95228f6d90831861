//! Envoy's contexts, as the SDK has them.
//!
//! The SDK lends out one context for each callback, and an event of one stream concerns others. So the contexts are
//! handles on the [`RootContext`] that they share. Callbacks never nest: Envoy puts off what a hostcall leads to until
//! the callback is over. Should one nest all the same, it gets what a filter without a configuration has to say.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{self, Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, ContextType};
use session_filter::config::Config;

use crate::envoy::Envoy;
use crate::host::Side;
use crate::root_context::{self, Flow, RootContext};

/// What the contexts of one root share; `None` before it was configured.
type Shared = Rc<RefCell<Option<RootContext<Envoy>>>>;

fn with<T>(shared: &Shared, event: impl FnOnce(&mut RootContext<Envoy>) -> T) -> Option<T> {
    shared.try_borrow_mut().ok()?.as_mut().map(event)
}

/// For headers only: `tools/wasm-trim` makes a pause one of the whole message, whose body and trailers Envoy keeps back
/// without asking.
impl From<Flow> for Action {
    fn from(flow: Flow) -> Self {
        match flow {
            Flow::Continue => Self::Continue,
            Flow::Hold => Self::Pause,
        }
    }
}

/// One configuration in one VM. A replaced one lives on beside the new one until its last stream ends.
#[derive(Default)]
pub(crate) struct Root(Shared);

impl Context for Root {
    /// An answer to what the root has asked.
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

    /// A handle only. What belongs to a stream begins with its request: Envoy also makes contexts for the access log of
    /// requests that were answered in front of the filter, and over HTTP/3 it never deletes those.
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
    /// An answer to what this stream has asked, for itself and maybe for others.
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
        // Without a configuration the response is our own refusal.
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
