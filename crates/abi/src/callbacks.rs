//! What the host calls.

/// What becomes of a message whose headers have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// It goes on.
    Continue = 0,
    /// It is held as a whole, until [`resume`](crate::hostcalls::resume) or a local reply.
    ///
    /// This is `StopAllIterationAndWatermark`. The ABI's own "pause" (1) would let bodies pass where the plugin's
    /// option `allow_on_headers_stop_iteration` is set, unless the callbacks for bodies and trailers held them, too:
    /// callbacks that Envoy would then make for all messages.
    Hold = 4,
}

/// A filter: what one VM does, for all of its configurations and streams.
///
/// The host numbers both from one sequence. A root is created, then configured; its streams are created under it, and
/// deleted before it. Callbacks never nest.
pub trait Filter: Default {
    /// A context begins: a stream's, or with `root` 0 that of a configuration.
    fn create(&mut self, context: u32, root: u32);
    /// The configuration of a root can be read. `false` refuses it.
    fn configure(&mut self, root: u32) -> bool;
    /// The timer of a root has fired.
    fn tick(&mut self, root: u32);
    /// The headers of a stream's request have come.
    fn request_headers(&mut self, stream: u32) -> Verdict;
    /// The headers of a stream's response have come.
    fn response_headers(&mut self, stream: u32) -> Verdict;
    /// The trailers of a stream's request have come, after it was let go on.
    fn request_trailers(&mut self, _stream: u32) {}
    /// The trailers of a stream's response have come, after it was let go on.
    fn response_trailers(&mut self, _stream: u32) {}
    /// A callout has been answered. It was made by the root or one of its streams; `headers` is 0 if it failed.
    fn http_call_response(&mut self, root: u32, token: u32, headers: usize, body_size: usize);
    /// A context is over.
    fn delete(&mut self, context: u32);
}

/// What a module does first: nothing of Rust's library works before.
pub fn initialize() {
    #[cfg(target_os = "wasi")]
    {
        unsafe extern "C" {
            fn __wasm_call_ctors();
        }
        // SAFETY: made by the linker, and called once, by the host before any other function (WASI's reactors).
        unsafe { __wasm_call_ctors() };
    }
}

/// Exports a [`Filter`] as a module: these callbacks and no others.
#[macro_export]
macro_rules! export {
    ($filter:ty) => {
        std::thread_local! {
            static FILTER: std::cell::RefCell<$filter> = std::cell::RefCell::default();
        }

        /// Callbacks never nest, so that the borrow never fails; a panic would be worse than `otherwise`.
        fn enter<T>(otherwise: T, callback: impl FnOnce(&mut $filter) -> T) -> T {
            FILTER.with(|filter| match filter.try_borrow_mut() {
                Ok(mut filter) => callback(&mut filter),
                Err(_) => otherwise,
            })
        }

        #[unsafe(no_mangle)]
        extern "C" fn _initialize() {
            $crate::initialize();
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_abi_version_0_2_1() {}

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_context_create(context: u32, root: u32) {
            enter((), |filter| $crate::Filter::create(filter, context, root));
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_configure(root: u32, _size: usize) -> u32 {
            enter(false, |filter| $crate::Filter::configure(filter, root)).into()
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_tick(root: u32) {
            enter((), |filter| $crate::Filter::tick(filter, root));
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_headers(stream: u32, _headers: usize, _is_end: u32) -> u32 {
            enter($crate::Verdict::Hold, |filter| $crate::Filter::request_headers(filter, stream)) as u32
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_headers(stream: u32, _headers: usize, _is_end: u32) -> u32 {
            enter($crate::Verdict::Hold, |filter| $crate::Filter::response_headers(filter, stream)) as u32
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_trailers(stream: u32, _trailers: usize) -> u32 {
            enter((), |filter| $crate::Filter::request_trailers(filter, stream));
            $crate::Verdict::Continue as u32
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_trailers(stream: u32, _trailers: usize) -> u32 {
            enter((), |filter| $crate::Filter::response_trailers(filter, stream));
            $crate::Verdict::Continue as u32
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_http_call_response(
            root: u32,
            token: u32,
            headers: usize,
            body: usize,
            _trailers: usize,
        ) {
            enter((), |filter| $crate::Filter::http_call_response(filter, root, token, headers, body));
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_delete(context: u32) {
            enter((), |filter| $crate::Filter::delete(filter, context));
        }
    };
}
