//! The host's functions. Each answers with a status, 0 for success, and writes what it returns through pointers.

#![cfg_attr(
    not(target_family = "wasm"),
    expect(clippy::too_many_arguments, reason = "the host's functions have so many")
)]

#[cfg(not(target_family = "wasm"))]
const UNIMPLEMENTED: u32 = 12;

macro_rules! imports {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)+) => {
        #[cfg(target_family = "wasm")]
        #[link(wasm_import_module = "env")]
        unsafe extern "C" {
            $(pub(crate) fn $name($($argument: $type),*) -> u32;)+
        }

        $(
            /// Without a host.
            #[cfg(not(target_family = "wasm"))]
            pub(crate) unsafe fn $name($(_: $type),*) -> u32 {
                UNIMPLEMENTED
            }
        )+
    };
}

imports! {
    fn proxy_log(level: u32, text: *const u8, length: usize);
    fn proxy_get_current_time_nanoseconds(time: *mut u64);
    fn proxy_set_tick_period_milliseconds(period: u32);
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, limit: usize, bytes: *mut *mut u8, length: *mut usize);
    fn proxy_get_header_map_pairs(map: u32, bytes: *mut *mut u8, length: *mut usize);
    fn proxy_get_header_map_value(
        map: u32, name: *const u8, name_length: usize, bytes: *mut *mut u8, length: *mut usize,
    );
    fn proxy_replace_header_map_value(
        map: u32, name: *const u8, name_length: usize, value: *const u8, value_length: usize,
    );
    fn proxy_add_header_map_value(map: u32, name: *const u8, name_length: usize, value: *const u8, value_length: usize);
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_length: usize);
    fn proxy_get_property(path: *const u8, path_length: usize, bytes: *mut *mut u8, length: *mut usize);
    fn proxy_set_property(path: *const u8, path_length: usize, value: *const u8, value_length: usize);
    fn proxy_get_shared_data(
        key: *const u8, key_length: usize, bytes: *mut *mut u8, length: *mut usize, version: *mut u32,
    );
    fn proxy_set_shared_data(key: *const u8, key_length: usize, value: *const u8, value_length: usize, version: u32);
    fn proxy_http_call(
        cluster: *const u8, cluster_length: usize, headers: *const u8, headers_length: usize, body: *const u8,
        body_length: usize, trailers: *const u8, trailers_length: usize, timeout: u32, token: *mut u32,
    );
    fn proxy_send_local_response(
        status: u32, details: *const u8, details_length: usize, body: *const u8, body_length: usize,
        headers: *const u8, headers_length: usize, grpc_status: i32,
    );
    fn proxy_continue_stream(side: u32);
    fn proxy_set_effective_context(context: u32);
    fn proxy_define_metric(kind: u32, name: *const u8, name_length: usize, id: *mut u32);
    fn proxy_increment_metric(id: u32, by: i64);
    fn proxy_record_metric(id: u32, value: u64);
}
