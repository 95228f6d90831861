//! Stored values and merge patches: what a gateway reads back from a store.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session::merge_patch;
use session::record::{Change, Rotation, Stored, Write, WriteId};
use session::time::{Seconds, UnixSeconds};

// The stored value, a zero byte, the patch.
fuzz_target!(|input: &[u8]| {
    let Some(end) = input.iter().position(|byte| *byte == 0) else { return };
    let (stored, patch) = (&input[..end], &input[end + 1..]);
    let Ok(Stored::Session(session)) = Stored::decode(stored) else { return };
    let Some(patch) = merge_patch::parse_object(patch) else { return };
    let change = Change {
        patches: vec![patch],
        rotation: Rotation::Authenticated,
        grace: Seconds::new(10),
        subject_key: "user".into(),
        ..Change::default()
    };
    let write = Write { now: UnixSeconds::new(1_000_000), id: WriteId::from_random([1; 8]), max_data_bytes: 1 << 16 };
    if let Ok(changed) = session.change(change, write) {
        assert!(changed.version() >= session.version());
        assert_eq!(Stored::decode(&changed.encode()), Ok(Stored::Session(changed)));
    }
});
