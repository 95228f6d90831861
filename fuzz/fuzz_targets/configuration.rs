//! The plugin's configuration, in both of its forms.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_filter::config::Config;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = Config::parse(bytes, |_| Some("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".into())) {
        assert!(!error.key.is_empty());
    }
});
