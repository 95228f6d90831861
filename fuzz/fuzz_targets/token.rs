//! Tokens: what verifies is what was signed, to the byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_filter::binding::Binding;
use session_filter::secret::Secret;
use session_filter::token::Keyring;

thread_local! {
    static KEYRING: Keyring = keyring();
}

fn keyring() -> Keyring {
    let secret = |text| Secret::from_base64(text).expect("base64 of 32 bytes");
    let old = secret("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=");
    Keyring::new(&secret("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="), &[old], "sid")
}

fuzz_target!(|value: &[u8]| KEYRING.with(|keyring| {
    let verified = keyring.verify(value, &Binding::NONE);
    assert_eq!(keyring.verify(value, &Binding::NONE), verified, "the second time, when it may be remembered");
    if let Ok(verified) = verified {
        if verified.is_current() {
            assert_eq!(keyring.sign(&verified.token, &Binding::NONE).as_bytes(), value);
        }
    }
}));
