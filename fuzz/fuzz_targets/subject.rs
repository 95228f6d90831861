//! Subject records: what a gateway reads back from a store, and the way to ask one without parsing its list.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session::id::SessionId;
use session::subject::{Epoch, Subject};

fuzz_target!(|input: &[u8]| {
    let stranger = SessionId::from_bytes([7; 16]);
    let Ok(subject) = Subject::decode(input) else { return };
    assert_eq!(Subject::decode(&subject.encode()).as_ref(), Ok(&subject));
    let members = subject.members().iter().map(|member| member.id);
    for id in members.chain([stranger]) {
        for (epoch, limited) in
            [(subject.epoch(), true), (subject.epoch(), false), (Epoch::new(7), true), (Epoch::new(7), false)]
        {
            let admitted = subject.admits(id, epoch, limited);
            assert_eq!(Subject::stored_admits(input, id, epoch, limited), Ok(admitted));
        }
    }
    let revoked = subject.revoke(Epoch::new(subject.epoch().get().wrapping_add(1)), None);
    assert!(subject.members().iter().all(|member| !revoked.admits(member.id, subject.epoch(), false)));
});
