//! The `Cookie` header: without ours, what is left says the same about every other cookie.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_filter::cookie;

fuzz_target!(|lines: Vec<Vec<u8>>| {
    let take = |lines: &[Vec<u8>]| {
        let cookies = cookie::extract(lines.iter().map(Vec::as_slice), b"sid", Some(b"JSESSIONID"));
        (cookies.values.len(), cookies.remaining)
    };
    let (found, remaining) = take(&lines);
    let Some(remaining) = remaining else {
        assert_eq!(found, 0);
        return;
    };
    assert_eq!(take(&remaining), (0, None), "none of our cookies is left");
    let kept: usize = remaining.iter().map(Vec::len).sum();
    assert!(kept < lines.iter().map(Vec::len).sum());
});
