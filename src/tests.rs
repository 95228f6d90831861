//! What becomes of streams on a host like Envoy: steps carried out, lookups shared, what an asker that hangs up leaves
//! behind, refreshes, a replaced configuration.

use std::cell::RefMut;

use serde_json::json;
use session::id::SessionId;
use session::time::UnixSeconds;
use session::version::Version;
use session_filter::binding::Binding;
use session_filter::config::Config;
use session_filter::testing::headers;
use session_filter::token::Token;

use crate::host::fake::{FakeHost, Passage, Sent};
use crate::host::{HeaderList, Side};
use crate::root_context::{Flow, RootContext, refuse};

const NOW: u64 = 1_800_000_000;
pub(crate) const ID: SessionId = SessionId::from_bytes([7; SessionId::BYTES]);

/// Envoy: one root with a configuration, and its streams.
struct World {
    host: FakeHost,
    root: RootContext<FakeHost>,
    next_stream: u32,
}

pub(crate) fn config(extra: &serde_json::Value) -> Config {
    let mut configuration = json!({"gateway": {"cluster": "g"}});
    configuration.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let environment = |_: &str| Some("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".to_owned());
    Config::parse(configuration.to_string().as_bytes(), environment).unwrap()
}

/// The cookie of a client that has seen this version of a stored session.
fn cookie(version: u32) -> (String, Vec<u8>) {
    let token = Token { id: ID, version: Version::new(version), issued_at: UnixSeconds::new(NOW - 10) };
    let token = config(&json!({})).keyring.sign(&token, &Binding::NONE);
    ("cookie".to_owned(), format!("__Host-session={token}").into_bytes())
}

impl World {
    fn new() -> Self {
        Self::with(FakeHost::default(), &json!({}))
    }

    fn with(host: FakeHost, extra: &serde_json::Value) -> Self {
        host.state_mut().now_ms = NOW * 1000;
        Self { root: RootContext::new(config(extra), host.clone()), host, next_stream: 100 }
    }

    /// Makes a callback of a context; one stream's, or the root's.
    fn call_back<T>(&mut self, context: Option<u32>, event: impl FnOnce(&mut RootContext<FakeHost>) -> T) -> T {
        {
            let mut state = self.host.state_mut();
            (state.active, state.effective) = (context, context);
        }
        event(&mut self.root)
    }

    fn message(&mut self, id: u32, side: Side, headers: HeaderList) -> Flow {
        {
            let mut state = self.host.state_mut();
            let passage = state.streams.entry(id).or_default();
            passage.messages[side as usize] = Some(headers);
            passage.in_hand = Some(side);
        }
        let flow = self.call_back(Some(id), |root| match side {
            Side::Request => root.request_headers(id),
            Side::Response => root.response_headers(id),
        });
        if flow == Flow::Continue {
            self.host.state_mut().streams.get_mut(&id).unwrap().in_hand = None;
        }
        flow
    }

    /// A request comes.
    fn request(&mut self, more: impl IntoIterator<Item = (String, Vec<u8>)>) -> (u32, Flow) {
        self.next_stream += 1;
        let id = self.next_stream;
        let mut request = headers(&[(":method", "GET"), (":path", "/"), (":authority", "a.test")]);
        request.extend(more);
        (id, self.message(id, Side::Request, request))
    }

    fn response(&mut self, id: u32, more: &[(&str, &str)]) -> Flow {
        let mut response = headers(&[(":status", "200")]);
        response.extend(headers(more));
        self.message(id, Side::Response, response)
    }

    /// The trailers of a message come, which is not held; what goes on of them.
    fn trailers(&mut self, id: u32, side: Side, trailers: &[(&str, &str)]) -> HeaderList {
        {
            let passage = &mut *self.passage(id);
            assert_ne!(passage.in_hand, Some(side), "the host keeps the trailers back");
            passage.trailers = Some((side, headers(trailers)));
        }
        self.call_back(Some(id), |root| root.trailers(id, side));
        let (_, trailers) = self.passage(id).trailers.take().unwrap();
        trailers
    }

    fn passage(&self, id: u32) -> RefMut<'_, Passage> {
        RefMut::map(self.host.state_mut(), |state| state.streams.get_mut(&id).unwrap())
    }

    /// A stream ends: its client has all, or has hung up.
    fn end(&mut self, id: u32) {
        self.host.state_mut().streams.remove(&id);
        self.call_back(Some(id), |root| root.stream_ended(id));
    }

    /// The callouts sent since this was last asked.
    fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.host.state_mut().sent)
    }

    /// The one callout sent since this was last asked.
    fn only_sent(&self) -> Sent {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// A callout is answered. The answer comes to whom it was asked by, if that is still there.
    fn answer(&mut self, call: &Sent, status: &str, more: &[(&str, &str)], body: &str) {
        let mut answer = headers(&[(":status", status), ("session-gateway", "1")]);
        answer.push(("session-id".to_owned(), call.callout.session.to_hex().as_str().as_bytes().to_vec()));
        answer.extend(headers(more));
        let is_there = call.asked_by.is_none_or(|id| self.host.state().streams.contains_key(&id));
        if is_there {
            let counts = (answer.len(), body.len());
            self.host.state_mut().answer = Some((answer, body.as_bytes().to_vec()));
            self.call_back(call.asked_by, |root| root.call_answered(call.asked_by, call.id, counts.0, counts.1));
        }
    }

    /// The gateway has the session, in this version.
    fn found(&mut self, call: &Sent, version: u32) {
        let (etag, times) = (format!("\"{version}\""), [NOW - 100, NOW + 1000].map(|time| time.to_string()));
        let more = [
            ("etag", etag.as_str()),
            ("session-min-version", "1"),
            ("session-created", &times[0]),
            ("session-expires", &times[1]),
        ];
        self.answer(call, "200", &more, "{\"n\":1}");
    }

    fn fire_timer(&mut self) {
        let period = self.host.state().timer_ms.expect("the timer runs");
        self.host.state_mut().now_ms += period;
        self.call_back(None, RootContext::timer_fired);
    }

    fn seen<T>(&self, id: u32, of: impl FnOnce(&Passage) -> T) -> T {
        of(&self.host.state().streams[&id])
    }

    /// What the upstream sees of a header.
    fn upstream_sees(&self, id: u32, name: &str) -> Option<String> {
        self.header(id, Side::Request, name)
    }

    fn header(&self, id: u32, side: Side, name: &str) -> Option<String> {
        self.seen(id, |passage| {
            let headers = passage.messages[side as usize].as_ref().unwrap();
            let header = headers.iter().find(|(other, _)| other == name);
            header.map(|(_, value)| String::from_utf8(value.clone()).unwrap())
        })
    }

    fn resumed(&self, id: u32) -> Vec<Side> {
        self.seen(id, |passage| passage.resumed.clone())
    }

    fn count(&self, name: &str) -> i64 {
        self.host.state().counters.get(&format!("session_mesh.{name}")).copied().unwrap_or_default()
    }
}

#[test]
fn a_visitor_gets_a_session_and_a_cookie() {
    let mut world = World::new();
    let (id, flow) = world.request([]);
    assert_eq!((flow, world.upstream_sees(id, "x-session-state")), (Flow::Continue, Some("new".to_owned())));
    let state = world.seen(id, |passage| passage.state.clone());
    assert_eq!(state["session_id"], world.upstream_sees(id, "x-session-id").unwrap().as_bytes());
    assert_eq!(world.response(id, &[]), Flow::Continue);
    assert!(world.header(id, Side::Response, "set-cookie").unwrap().starts_with("__Host-session="));
    assert!(world.sent().is_empty());
}

#[test]
fn a_request_that_no_configuration_is_there_for_is_refused_and_shows_no_cookie() {
    let mut world = World::new();
    let (id, _) = world.request([cookie(3)]);
    assert_eq!(refuse(&world.host), Flow::Hold);
    assert_eq!((world.seen(id, |passage| passage.reply), world.upstream_sees(id, "cookie")), (Some(500), None));
}

#[test]
fn the_answer_of_a_filter_in_front_has_no_session() {
    let mut world = World::new();
    assert_eq!(world.response(7, &[("x-session-patch", "{\"n\":1}")]), Flow::Continue);
    assert_eq!((world.header(7, Side::Response, "set-cookie"), world.sent().len()), (None, 0));
    world.end(7);
}

#[test]
fn a_request_waits_for_its_session() {
    let mut world = World::new();
    let (id, flow) = world.request([cookie(3)]);
    assert_eq!(flow, Flow::Hold);
    let call = world.only_sent();
    world.found(&call, 3);
    assert_eq!(world.resumed(id), [Side::Request]);
    assert_eq!(world.upstream_sees(id, "x-session-data"), Some("{\"n\":1}".to_owned()));
    assert_eq!(world.upstream_sees(id, "cookie"), None);
}

#[test]
fn a_response_waits_until_its_write_is_committed() {
    let mut world = World::new();
    let (id, _) = world.request([]);
    assert_eq!(world.response(id, &[("x-session-patch", "{\"n\":1}")]), Flow::Hold);
    let call = world.only_sent();
    assert_eq!(call.header(":method"), Some("PUT"));
    world.answer(&call, "503", &[], "");
    assert_eq!(world.seen(id, |passage| passage.reply), Some(503));
}

#[test]
fn trailers_follow_their_message_and_carry_no_session() {
    let mut world = World::new();
    let (id, _) = world.request([cookie(3)]);
    let call = world.only_sent();
    world.found(&call, 3);
    let forged = [("x-session-id", "1"), ("cookie", "a=1"), ("set-cookie", "a=1"), ("x-checksum", "1")];
    let names = |trailers: HeaderList| trailers.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(world.trailers(id, Side::Request, &forged)), ["set-cookie", "x-checksum"]);
    assert_eq!(world.response(id, &[("x-session-control", "destroy")]), Flow::Hold);
    let logout = world.only_sent();
    world.answer(&logout, "204", &[], "");
    assert_eq!(world.resumed(id), [Side::Request, Side::Response]);
    assert_eq!(names(world.trailers(id, Side::Response, &forged)), ["cookie", "x-checksum"]);
}

#[test]
fn requests_of_one_session_share_a_lookup() {
    let mut world = World::new();
    let ids = [cookie(3), cookie(3), cookie(2)].map(|cookie| world.request([cookie]).0);
    let call = world.only_sent();
    // This client has seen a later version than was asked for.
    let (later, _) = world.request([cookie(4)]);
    let later_call = world.only_sent();
    world.found(&call, 4);
    for id in ids {
        assert_eq!(
            (world.resumed(id), world.upstream_sees(id, "x-session-version")),
            (vec![Side::Request], Some("4".into()))
        );
    }
    assert!(world.resumed(later).is_empty());
    world.found(&later_call, 4);
    assert_eq!(world.resumed(later), [Side::Request]);
}

#[test]
fn a_shared_lookup_survives_the_client_that_asked_first() {
    let mut world = World::new();
    let [first, second, third] = [(); 3].map(|()| world.request([cookie(3)]).0);
    let lost = world.only_sent();
    world.end(first);
    world.end(third);
    assert_eq!(world.host.state().timer_ms, Some(1));
    // A new request does not join a lookup that will not be answered.
    let (fourth, _) = world.request([cookie(3)]);
    let own = world.only_sent();
    world.found(&lost, 3);
    assert!(world.resumed(second).is_empty());
    world.fire_timer();
    // The lookup of the fourth will do for the second, too.
    assert!(world.sent().is_empty());
    world.end(fourth);
    world.fire_timer();
    let again = world.only_sent();
    assert_eq!((again.asked_by, again.callout.session), (None, ID));
    world.found(&again, 3);
    assert_eq!(world.resumed(second), [Side::Request]);
    world.found(&own, 3);
    assert_eq!(world.resumed(second), [Side::Request]);
}

#[test]
fn a_lookup_that_cannot_be_asked_again_is_an_outage_for_those_who_wait() {
    let mut world = World::new();
    let [first, second] = [(); 2].map(|()| world.request([cookie(3)]).0);
    world.end(first);
    world.host.state_mut().is_cut_off = true;
    world.fire_timer();
    assert_eq!(world.seen(second, |passage| passage.reply), Some(503));
}

#[test]
fn a_client_that_hangs_up_alone_leaves_nothing_behind() {
    let mut world = World::new();
    let (first, _) = world.request([cookie(3)]);
    let lost = world.only_sent();
    world.end(first);
    let (second, _) = world.request([cookie(3)]);
    let call = world.only_sent();
    world.found(&lost, 3);
    world.found(&call, 3);
    assert_eq!(world.resumed(second), [Side::Request]);
}

/// What an answer leads to for others than its asker must not hang on its asker either.
#[test]
fn what_follows_from_a_shared_lookup_outlives_the_client_that_asked_first() {
    for outcome in ["404", "503"] {
        let mut world = World::with(FakeHost::default(), &json!({"create": "eager", "on_store_failure": "continue"}));
        let [first, second, third] = [(); 3].map(|()| world.request([cookie(3)]).0);
        let call = world.only_sent();
        world.answer(&call, outcome, &[], "");
        if outcome == "503" {
            assert_eq!(world.resumed(second), [Side::Request]);
            continue;
        }
        // Each has a session of its own to be stored.
        world.fire_timer();
        let sent = world.sent();
        assert_eq!(sent.iter().map(|sent| sent.asked_by).collect::<Vec<_>>(), [Some(first), None, None]);
        world.end(first);
        for call in &sent {
            world.answer(call, "503", &[], "");
        }
        for id in [second, third] {
            assert_eq!((world.resumed(id), world.response(id, &[])), (vec![Side::Request], Flow::Continue));
        }
    }
}

#[test]
fn no_request_joins_a_lookup_from_before_a_write() {
    let mut world = World::with(FakeHost::default(), &json!({"cache": {"ttl": "0s"}}));
    let (writer, _) = world.request([cookie(3)]);
    let call = world.only_sent();
    world.found(&call, 3);
    let (before, _) = world.request([cookie(3)]);
    let old = world.only_sent();
    assert_eq!(world.response(writer, &[("x-session-control", "destroy")]), Flow::Hold);
    let logout = world.only_sent();
    assert_eq!(logout.header(":method"), Some("DELETE"));
    world.answer(&logout, "204", &[], "");
    assert_eq!(world.resumed(writer), [Side::Request, Side::Response]);
    let (after, _) = world.request([cookie(3)]);
    let new = world.only_sent();
    world.found(&old, 3);
    assert_eq!((world.resumed(before), world.resumed(after)), (vec![Side::Request], vec![]));
    world.answer(&new, "404", &[], "");
    assert_eq!(world.upstream_sees(after, "x-session-state"), Some("expired".to_owned()));
}

/// No answer will say whether the write was made.
#[test]
fn what_a_client_that_hangs_up_may_have_written_is_looked_up() {
    for (name, value) in [("x-session-control", "destroy"), ("x-session-patch", "{\"n\":2}")] {
        let mut world = World::new();
        let (writer, _) = world.request([cookie(3)]);
        let call = world.only_sent();
        world.found(&call, 3);
        // The copy is good, but not for a client that has seen more.
        assert_eq!(world.request([cookie(3)]).1, Flow::Continue);
        let (before, _) = world.request([cookie(4)]);
        let old = world.only_sent();
        assert_eq!(world.response(writer, &[(name, value)]), Flow::Hold);
        let write = world.only_sent();
        world.end(writer);
        let (after, flow) = world.request([cookie(3)]);
        let new = world.only_sent();
        world.found(&old, 4);
        assert_eq!((flow, world.resumed(before), world.resumed(after)), (Flow::Hold, vec![Side::Request], vec![]));
        world.answer(&write, "204", &[], "");
        world.answer(&new, "404", &[], "");
        assert_eq!(world.upstream_sees(after, "x-session-state"), Some("expired".to_owned()));
        // What was asked for before the write, too, is no copy to go by.
        assert_eq!(world.request([cookie(3)]).1, Flow::Hold);
    }
}

#[test]
fn where_no_callout_can_be_sent_the_client_hears_at_once() {
    let mut world = World::new();
    world.host.state_mut().is_cut_off = true;
    let (id, flow) = world.request([cookie(3)]);
    assert_eq!((flow, world.seen(id, |passage| passage.reply)), (Flow::Hold, Some(503)));
}

#[test]
fn a_refresh_is_the_roots_and_outlives_the_stream_that_needs_it() {
    let mut world = World::with(FakeHost::default(), &json!({"timeouts": {"touch_after": "1s"}}));
    let (id, _) = world.request([cookie(3)]);
    let call = world.only_sent();
    world.found(&call, 3);
    world.end(id);
    // The copy is good, and the store should hear that the session is in use.
    world.host.state_mut().now_ms += 2000;
    for _ in 0..2 {
        let (id, flow) = world.request([cookie(3)]);
        assert_eq!((flow, world.upstream_sees(id, "x-session-state")), (Flow::Continue, Some("active".to_owned())));
        world.end(id);
    }
    assert!(world.sent().is_empty());
    world.fire_timer();
    let refresh = world.only_sent();
    assert_eq!((refresh.asked_by, refresh.header(":method")), (None, Some("GET")));
    world.found(&refresh, 5);
    let (id, flow) = world.request([cookie(3)]);
    assert_eq!((flow, world.upstream_sees(id, "x-session-version")), (Flow::Continue, Some("5".to_owned())));
    assert!(world.sent().is_empty());
}

#[test]
fn a_replaced_configuration_serves_its_streams_to_the_end() {
    let mut old = World::new();
    let (id, _) = old.request([cookie(3)]);
    let call = old.only_sent();
    // The new one has its own root, and all configurations share the copies.
    let mut new = World::with(old.host.clone(), &json!({"create": "eager"}));
    new.next_stream = 200;
    old.found(&call, 3);
    assert_eq!(old.resumed(id), [Side::Request]);
    let (other, flow) = new.request([cookie(3)]);
    assert_eq!((flow, new.upstream_sees(other, "x-session-state")), (Flow::Continue, Some("active".to_owned())));
    assert_eq!(old.response(id, &[]), Flow::Continue);
}

#[test]
fn the_timer_is_never_set_for_longer_than_a_day() {
    // A look comes after a quarter of it: 2^32 milliseconds are 49 days.
    for days in [20, 300] {
        let timeouts = json!({"idle": "3650d", "absolute": "3650d", "touch_after": format!("{days}d")});
        let mut world = World::with(FakeHost::default(), &json!({"timeouts": timeouts}));
        let (_, flow) = world.request([cookie(3)]);
        assert_eq!(flow, Flow::Hold);
        let call = world.only_sent();
        world.found(&call, 3);
        world.fire_timer();
        assert_eq!(world.host.state().timer_ms, Some(24 * 60 * 60 * 1000), "{days}");
    }
}

#[test]
fn counts_are_gathered_for_a_second() {
    let mut world = World::new();
    for _ in 0..3 {
        world.request([]);
    }
    assert_eq!((world.count("requests.new"), world.host.state().timer_ms), (0, Some(1000)));
    world.fire_timer();
    assert_eq!((world.count("requests.new"), world.host.state().timer_ms), (3, None));
    // What is left when the configuration goes is not lost.
    world.request([]);
    world.root.end();
    assert_eq!((world.count("requests.new"), world.host.state().timer_ms), (4, None));
}
