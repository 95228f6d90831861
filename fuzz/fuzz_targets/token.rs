//! Tokens: what verifies is what was signed, to the byte.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use session_core::binding::Binding;
use session_core::secret::Secret;
use session_core::token::Keyring;

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    let secret = |text| Secret::from_base64(text).expect("base64 of 32 bytes");
    let old = secret("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=");
    Keyring::new(&secret("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="), &[old], "sid")
});

fuzz_target!(|value: &[u8]| {
    if let Ok(verified) = KEYRING.verify(value, &Binding::NONE) {
        if verified.is_current() {
            assert_eq!(KEYRING.sign(&verified.token, &Binding::NONE).as_bytes(), value);
        }
    }
});
