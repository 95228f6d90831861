//! Tests of the subject record, among them against a model that remembers every login by itself.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::record::{DecodeError, NewSession, Timeouts, Tombstone, Write, WriteId};

const NOW: UnixSeconds = UnixSeconds::new(1_700_000_000);
const DAY: Seconds = Seconds::new(86_400);

fn id(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

fn alice() -> Principal {
    Principal { realm: None, subject: "alice".to_owned() }
}

fn member(number: u8) -> Member {
    Member { id: id(number), version: Version::new(2), since: NOW, until: NOW.plus(DAY) }
}

fn limit(max: usize, policy: LimitPolicy) -> Option<SessionLimit> {
    NonZeroUsize::new(max).map(|max| SessionLimit { max, policy })
}

fn subject_of(numbers: impl IntoIterator<Item = u8>) -> Subject {
    let mut subject = Subject::new(Epoch::new(1));
    for number in numbers {
        subject.enlist(member(number), None).unwrap();
    }
    subject
}

fn session(user: &str, epoch: Option<Epoch>) -> Session {
    let data = match json!({ "user": user }) {
        serde_json::Value::Object(data) => data,
        other => panic!("{other}"),
    };
    let new = NewSession {
        data,
        timeouts: Timeouts { idle: DAY, absolute: DAY },
        subject_key: "user".to_owned(),
        realm: None,
        upstream_cookie: None,
        rotation: crate::rotation::Rotation::None,
    };
    let write = Write { now: NOW, id: WriteId::from_random([1; 8]), max_data_bytes: 1000 };
    let session = Session::create(new, write).unwrap();
    match epoch {
        Some(epoch) => session.enlisted_in(epoch),
        None => session,
    }
}

#[test]
fn a_revocation_ends_what_is_listed_and_what_is_not() {
    let before = subject_of(1..=3);
    let after = before.revoke(Epoch::new(9), None);
    assert!(after.members().is_empty());
    for number in 1..=200 {
        assert!(before.admits(id(number), before.epoch(), false));
        assert!(!after.admits(id(number), before.epoch(), false));
    }
}

#[test]
fn a_revocation_always_changes_the_epoch() {
    let before = subject_of([1]);
    let spared = before.revoke(Epoch::new(2), Some((id(1), before.epoch())));
    // The spared session still has epoch 1: neither may come up again.
    for unlucky in [1, 2, u64::MAX] {
        let after = spared.revoke(Epoch::new(unlucky), Some((id(1), Epoch::new(1))));
        assert!(![1, 2].contains(&after.epoch().get()), "{after:?}");
    }
}

#[test]
fn one_session_may_be_spared_again_and_again() {
    let first = subject_of(1..=3);
    let mine = (id(2), first.epoch());
    let second = first.revoke(Epoch::new(5), Some(mine));
    assert_eq!(second.members(), [member(2)]);
    let third = second.revoke(Epoch::new(6), Some(mine));
    for subject in [&second, &third] {
        assert!(subject.admits(mine.0, mine.1, true));
        assert!(!subject.admits(id(1), first.epoch(), false));
    }
    let fourth = third.revoke(Epoch::new(7), Some((id(3), Epoch::new(7))));
    assert!(!fourth.admits(mine.0, mine.1, false));
    assert!(!fourth.admits(id(3), first.epoch(), false), "who is not good is not spared");
}

#[test]
fn the_oldest_leave_a_full_list() {
    let mut subject = subject_of(1..=3);
    assert!(!subject.has_room_for(id(4), limit(3, LimitPolicy::EndOldest)));
    assert!(subject.has_room_for(id(3), limit(3, LimitPolicy::EndOldest)), "it is one of them");
    let ended = subject.enlist(member(4), limit(2, LimitPolicy::EndOldest)).unwrap();
    assert_eq!(ended, [member(1), member(2)]);
    assert_eq!(subject.members(), [member(3), member(4)]);
    let again = subject.enlist(member(3), limit(2, LimitPolicy::EndOldest)).unwrap();
    assert!(again.is_empty());
    assert_eq!(subject.members(), [member(4), member(3)]);
    assert_eq!(subject.enlist(member(5), limit(2, LimitPolicy::Refuse)), Err(SessionLimitError));
    assert_eq!(subject.members(), [member(4), member(3)]);
    assert_eq!(subject.enlist(member(4), limit(2, LimitPolicy::Refuse)), Ok(vec![]));
}

#[test]
fn without_a_limit_only_the_list_is_bounded() {
    let mut subject = Subject::new(Epoch::new(1));
    let nth = |n: u64| SessionId::from_bytes([n.to_le_bytes(), n.to_be_bytes()].concat().try_into().unwrap());
    for n in 0..1500 {
        let member = Member { id: nth(n), ..member(0) };
        assert_eq!(subject.enlist(member, None), Ok(vec![]));
    }
    assert_eq!(subject.members().len(), Subject::MAX_MEMBERS);
    assert!(subject.admits(nth(0), subject.epoch(), false));
    assert!(!subject.admits(nth(0), subject.epoch(), true));
    assert!(subject.encode().len() < 64 * 1024, "{}", subject.encode().len());
}

#[test]
fn the_record_lives_as_long_as_its_longest_session() {
    let mut subject = subject_of([1]);
    subject.enlist(Member { until: NOW, ..member(2) }, None).unwrap();
    assert_eq!(subject.lifetime_left(NOW), Seconds::new(86_400 + 60));
    assert_eq!(subject.revoke(Epoch::new(3), None).lifetime_left(NOW), Seconds::new(86_400 + 60));
    assert_eq!(subject.lifetime_left(NOW.plus(DAY).plus(DAY)), Seconds::new(1));
}

#[test]
fn sessions_whose_time_is_over_make_room() {
    let mut subject = subject_of(1..=3);
    let tomorrow = |seconds| Member { since: NOW.plus(DAY).plus(Seconds::new(seconds)), ..member(4) };
    let refuse = limit(3, LimitPolicy::Refuse);
    assert_eq!(subject.enlist(tomorrow(59), refuse), Err(SessionLimitError));
    assert_eq!(subject.enlist(tomorrow(60), refuse), Ok(vec![]));
    assert_eq!(subject.members(), [tomorrow(60)]);
}

#[test]
fn a_late_departure_does_not_undo_a_return() {
    let mut subject = subject_of([1]);
    subject.forget_before(id(1), Version::new(2));
    assert_eq!(subject.members(), [member(1)]);
    subject.forget(&[Member { version: Version::new(1), ..member(1) }]);
    assert_eq!(subject.members(), [member(1)]);
    subject.forget_before(id(1), Version::new(3));
    assert!(subject.members().is_empty());
}

#[test]
fn what_the_list_may_forget() {
    let subject = subject_of([1]);
    let later = NOW.plus(Seconds::new(61));
    let stale = |version, found: Option<Session>, now| {
        let member = Member { version: Version::new(version), ..member(1) };
        subject.is_stale(member, &alice(), found.map(Stored::Session).as_ref(), now)
    };
    let good = || Some(session("alice", Some(subject.epoch())));
    assert!(!stale(1, good(), NOW));
    assert!(stale(1, good(), NOW.plus(DAY)), "its time is over");
    assert!(stale(1, Some(session("bob", Some(subject.epoch()))), NOW));
    assert!(stale(1, Some(session("alice", Some(Epoch::new(77)))), NOW));
    assert!(stale(1, Some(session("alice", None)), NOW));
    // Enlisted, and not written yet.
    assert!(!stale(2, Some(session("bob", None)), NOW));
    assert!(stale(2, Some(session("bob", None)), later));
    assert!(!stale(1, None, NOW));
    assert!(!stale(2, None, NOW), "it begins with a rotation");
    assert!(stale(1, None, later));
    assert!(stale(3, None, NOW), "nothing can be changed any more");
    let tombstone = Stored::Tombstone(Tombstone { ended: NOW });
    assert!(subject.is_stale(member(1), &alice(), Some(&tombstone), NOW));
}

#[test]
fn the_format_stays_readable() {
    let stored = "U1{\"e\":7,\"k\":[\"02020202020202020202020202020202\",1],\"u\":1700086460}\n\
                  02020202020202020202020202020202 2 1700000000 1700086400\n03030303030303030303030303030303 2 1700000000 1700086400\n";
    let subject = Subject::decode(stored.as_bytes()).unwrap();
    assert_eq!(subject.members(), [member(2), member(3)]);
    assert_eq!(subject.encode(), stored.as_bytes());
    for (id, epoch, limited, good) in [
        (id(2), 1, true, true),
        (id(2), 7, true, true),
        (id(3), 1, false, false),
        (id(3), 7, true, true),
        (id(4), 7, true, false),
        (id(4), 7, false, true),
        (id(4), 8, false, false),
    ] {
        let epoch = Epoch::new(epoch);
        assert_eq!(subject.admits(id, epoch, limited), good, "{id} {epoch:?}");
        assert_eq!(Subject::stored_admits(stored.as_bytes(), id, epoch, limited), Ok(good), "{id} {epoch:?}");
    }
    for (damaged, error) in [
        ("", DecodeError::Format),
        ("S1{\"e\":7,\"u\":1}\n", DecodeError::Format),
        ("U1{\"e\":7,\"u\":1}", DecodeError::Head),
        ("U1{\"e\":-7,\"u\":1}\n", DecodeError::Head),
        ("U1{\"e\":7,\"u\":1,\"x\":1}\n", DecodeError::Head),
        ("U1{\"e\":7,\"k\":[\"x\",1],\"u\":1}\n", DecodeError::Head),
        (&stored[..stored.len() - 1], DecodeError::Data),
        ("U1{\"e\":7,\"u\":1}\n\n", DecodeError::Data),
        ("U1{\"e\":7,\"u\":1}\n02020202020202020202020202020202 2 3\n", DecodeError::Data),
    ] {
        assert_eq!(Subject::decode(damaged.as_bytes()), Err(error), "{damaged}");
    }
}

/// One step in the life of a subject whose sessions have the ids 0 to 4.
#[derive(Clone, Debug)]
enum Step {
    /// A login enlists the session; it is not written yet.
    Enlist(u8),
    /// The oldest login under way writes its session.
    Write,
    Revoke(Option<u8>),
    Logout(u8),
    /// The store loses the record.
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5u8).prop_map(Step::Enlist),
        4 => Just(Step::Write),
        1 => proptest::option::of(0..5u8).prop_map(Step::Revoke),
        1 => (0..5u8).prop_map(Step::Logout),
        1 => Just(Step::Evict),
    ]
}

fn limits() -> impl Strategy<Value = Option<SessionLimit>> {
    prop_oneof![
        Just(None),
        (1..4usize).prop_map(|max| limit(max, LimitPolicy::EndOldest)),
        (1..4usize).prop_map(|max| limit(max, LimitPolicy::Refuse)),
    ]
}

/// What the model knows of one login.
#[derive(Clone, Debug)]
struct Login {
    session: u8,
    epoch: Epoch,
    written: bool,
    /// By a revocation or with the record: whatever happens afterwards, it must stay so.
    revoked: bool,
    /// By whatever else, or revoked.
    ended: bool,
}

proptest! {
    /// The model ends each login by hand; the record has to say the same of every written session after every step.
    #[test]
    fn sessions_are_good_exactly_as_long_as_the_model_says(
        steps in proptest::collection::vec(step(), 0..60),
        limit in limits(),
    ) {
        let mut stored: Option<Vec<u8>> = None;
        let mut logins: Vec<Login> = Vec::new();
        let mut version = Version::FIRST;
        // Not random at all, so that nothing but the rules keeps epochs apart; a new record continues the count.
        for (drawn, step) in (1..).zip(steps) {
            let record = stored.as_deref().map(|bytes| Subject::decode(bytes).unwrap());
            version = version.next();
            match step {
                Step::Enlist(session) => {
                    let mut record = record.unwrap_or_else(|| Subject::new(Epoch::new(drawn * 10)));
                    let member = Member { id: id(session), version, since: NOW, until: NOW.plus(DAY) };
                    let listed = |login: &&mut Login| !login.ended && login.session != session;
                    let others = logins.iter_mut().filter(listed).count();
                    let enlisted = record.enlist(member, limit);
                    let full = limit.is_some_and(|limit| others >= limit.max.get());
                    if full && limit.is_some_and(|limit| limit.policy == LimitPolicy::Refuse) {
                        prop_assert_eq!(enlisted, Err(SessionLimitError));
                        continue;
                    }
                    if full {
                        let oldest = logins.iter_mut().find(listed).map(|login| {
                            login.ended = true;
                            id(login.session)
                        });
                        prop_assert_eq!(enlisted.unwrap().first().map(|member| member.id), oldest);
                    }
                    for login in logins.iter_mut().filter(|login| login.session == session) {
                        login.ended = true;
                    }
                    logins.push(Login { session, epoch: record.epoch(), written: false, revoked: false, ended: false });
                    stored = Some(record.encode());
                }
                Step::Write => {
                    if let Some(login) = logins.iter_mut().find(|login| !login.written) {
                        login.written = true;
                    }
                }
                Step::Revoke(except) => {
                    let mine = |login: &&Login| Some(login.session) == except && login.written && !login.ended;
                    let mine = logins.iter().find(mine).map(|login| (login.session, login.epoch));
                    for login in logins.iter_mut().filter(|login| mine.is_none_or(|mine| mine.0 != login.session)) {
                        (login.revoked, login.ended) = (true, true);
                    }
                    let except = mine.map(|(session, epoch)| (id(session), epoch));
                    stored = record.map(|record| record.revoke(Epoch::new(drawn * 10), except).encode());
                }
                Step::Logout(session) => {
                    for login in logins.iter_mut().filter(|login| login.session == session) {
                        login.ended = true;
                    }
                    stored = record.map(|mut record| {
                        record.forget_before(id(session), version);
                        record.encode()
                    });
                    logins.retain(|login| login.session != session);
                }
                Step::Evict => {
                    stored = None;
                    for login in &mut logins {
                        (login.revoked, login.ended) = (true, true);
                    }
                }
            }
            // A session holds what its latest login wrote; earlier ones are overwritten.
            for session in 0..5 {
                let Some(last) = logins.iter().rfind(|login| login.session == session && login.written) else { continue };
                let limited = limit.is_some();
                let good = stored.as_deref().is_some_and(|bytes| {
                    Subject::stored_admits(bytes, id(session), last.epoch, limited).unwrap()
                });
                prop_assert!(!(good && last.revoked), "session {} of {:?}", session, logins);
                // While its next login is enlisted and not written, it is good under that one's place in the list.
                let bound_again = logins.iter().any(|login| login.session == session && !login.written);
                prop_assert!(bound_again || good != last.ended, "session {} of {:?}", session, logins);
            }
            if let Some(bytes) = &stored {
                let record = Subject::decode(bytes).unwrap();
                prop_assert_eq!(&record.encode(), bytes);
                prop_assert!(limit.is_none_or(|limit| record.members().len() <= limit.max.get()));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, head in prop_oneof![Just(&b"U1{\"e\":1,\"u\":1}\n"[..]), Just(&b"U1"[..])]) {
        let value = [head, &bytes].concat();
        let _ = Subject::stored_admits(&value, id(1), Epoch::new(1), true);
        if let Ok(subject) = Subject::decode(&value) {
            prop_assert_eq!(Subject::decode(&subject.encode()), Ok(subject));
        }
    }
}
