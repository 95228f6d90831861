//! The exchange: any events in any order, and nothing that could split a header.

#![no_main]

use std::rc::Rc;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use session_filter::binding::Binding;
use session_filter::cache::Slots;
use session_filter::config::Config;
use session_filter::edit::Edit;
use session_filter::exchange::{Answer, Exchange, Request, Step};
use session_filter::testing::{HeaderList, borrowed};
use session_filter::token::Token;
use session::id::SessionId;
use session::time::UnixSeconds;
use session::version::Version;

const CONFIGURATIONS: [&str; 5] = [
    r#""create":"lazy""#,
    r#""rules":[{"path_prefix":"/off/","session":"off"},{"path_prefix":"/in/","session":"required","redirect":"/login"},{"path_prefix":"/strict/","session":"strict"}]"#,
    r#""create":"eager","upstream":{"cookie":"JSESSIONID","max_data_bytes":64},"on_store_failure":"continue""#,
    r#""create":"on_write","on_write_failure":"deliver","upstream":{"expose":{"user":"x-user"}}"#,
    r#""create":"lazy","on_store_failure":"continue","on_write_failure":"deliver""#,
];

thread_local! {
    static PARSED: LazyLock<Vec<Rc<Config>>> = LazyLock::new(|| CONFIGURATIONS.map(parse).into());
}

fn parse(rest: &str) -> Rc<Config> {
    let json = format!(
        r#"{{"gateway":{{"cluster":"g"}},"secrets":["AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="],"cookie":{{"name":"sid"}},{rest}}}"#
    );
    Rc::new(Config::parse(json.as_bytes(), |_| Some("token".into())).expect("valid"))
}

#[derive(Arbitrary, Debug)]
enum Name {
    Path,
    Cookie,
    SetCookie,
    CacheControl,
    Patch,
    Control,
    Id,
    Status,
    Marker,
    SessionId,
    Etag,
    MinVersion,
    GraceUntil,
    GraceFrom,
    Created,
    Expires,
    Subject,
    UpstreamCookie,
}

impl Name {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Path => ":path",
            Self::Cookie => "cookie",
            Self::SetCookie => "set-cookie",
            Self::CacheControl => "cache-control",
            Self::Patch => "x-session-patch",
            Self::Control => "x-session-control",
            Self::Id => "x_session_id",
            Self::Status => ":status",
            Self::Marker => "session-gateway",
            Self::SessionId => "session-id",
            Self::Etag => "etag",
            Self::MinVersion => "session-min-version",
            Self::GraceUntil => "session-grace-until",
            Self::GraceFrom => "session-grace-from",
            Self::Created => "session-created",
            Self::Expires => "session-expires",
            Self::Subject => "session-subject",
            Self::UpstreamCookie => "session-upstream-cookie",
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Value {
    Bytes(Vec<u8>),
    Number(u32),
    Etag(u32),
    Status(Status),
    Control(bool),
    Object,
    Path(u8),
    One,
    /// That of the tokens.
    Id,
}

#[derive(Arbitrary, Debug)]
enum Status {
    Ok,
    Created,
    NoContent,
    NotFound,
    Conflict,
    TooLarge,
}

impl Value {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => number.to_string().into_bytes(),
            Self::Etag(number) => format!("\"{number}\"").into_bytes(),
            Self::Status(status) => match status {
                Status::Ok => b"200".to_vec(),
                Status::Created => b"201".to_vec(),
                Status::NoContent => b"204".to_vec(),
                Status::NotFound => b"404".to_vec(),
                Status::Conflict => b"409".to_vec(),
                Status::TooLarge => b"413".to_vec(),
            },
            Self::Control(true) => b"rotate".to_vec(),
            Self::Control(false) => b"destroy".to_vec(),
            Self::Object => br#"{"user":"alice"}"#.to_vec(),
            Self::Path(which) => [&b"/off/"[..], b"/in/x", b"/strict/"][usize::from(which) % 3].to_vec(),
            Self::One => b"1".to_vec(),
            Self::Id => SessionId::from_bytes([7; 16]).to_string().into_bytes(),
        }
    }
}

type Fields = Vec<(Name, Value)>;

#[derive(Arbitrary, Debug)]
enum Event {
    /// With a valid token of this version, or with none.
    Request(Fields, Option<u8>),
    Answer(Fields, Value),
    NotSent,
    Response(Fields),
    Touched(Fields, Value),
}

/// A cache of one slot, with anything in it at first.
struct Slot(Option<Vec<u8>>);

impl Slots for Slot {
    fn read(&self, _: u32) -> Option<Vec<u8>> {
        self.0.clone()
    }
}

fn headers(list: Fields) -> HeaderList {
    list.into_iter().map(|(name, value)| (name.as_str().to_owned(), value.bytes())).collect()
}

fuzz_target!(|input: (u8, Option<Vec<u8>>, Vec<(Event, u16)>)| {
    let (configuration, slot, events) = input;
    let mut slot = Slot(slot);
    let config = PARSED.with(|all| Rc::clone(&all[usize::from(configuration) % CONFIGURATIONS.len()]));
    let mut exchange = Exchange::new(Rc::clone(&config));
    let mut now = 1_000_000;
    for (event, pause) in events {
        now += u64::from(pause);
        let step = match event {
            Event::Request(list, version) => {
                let mut headers = headers(list);
                if let Some(version) = version {
                    let token = Token {
                        id: SessionId::from_bytes([7; 16]),
                        version: Version::new(version.into()),
                        issued_at: UnixSeconds::new(1_000_000),
                    };
                    headers.push(("cookie".into(), format!("sid={}", config.keyring.sign(&token, &Binding::NONE)).into_bytes()));
                }
                let request = Request {
                    headers: &borrowed(&headers),
                    binding: Binding::NONE,
                    now: UnixSeconds::new(now),
                    fresh_id: SessionId::from_bytes([9; 16]),
                };
                exchange.request(&request, &slot)
            }
            Event::Answer(list, body) => {
                let body = body.bytes();
                exchange.answer(Answer::Received { headers: &borrowed(&headers(list)), body: &body }, &slot, UnixSeconds::new(now))
            }
            Event::NotSent => exchange.answer(Answer::NotSent, &slot, UnixSeconds::new(now)),
            Event::Response(list) => exchange.response(&headers(list), &slot, || UnixSeconds::new(now)),
            Event::Touched(list, body) => {
                let (body, now) = (body.bytes(), UnixSeconds::new(now));
                exchange.touched(Answer::Received { headers: &borrowed(&headers(list)), body: &body }, now, now);
                assert!(exchange.in_use().is_some() || exchange.due_touch(now).is_none());
                Step::Hold
            }
        };
        check(step);
        let effects = exchange.take_effects();
        for write in effects.cache.into_iter().chain(effects.replaced) {
            slot = Slot(Some(write.value));
        }
    }
});

/// Whatever the filter itself writes into a header is visible ASCII; what it passes on of
/// others' cookies and directives goes on as it came.
fn check(step: Step) {
    let is_passed_on = |name: &str| matches!(name, "cookie" | "set-cookie" | "cache-control");
    let edits = match step {
        Step::Forward { edits, .. } | Step::Deliver(edits) => edits,
        Step::Reply(reply) => {
            for (name, value) in reply.headers {
                // What lets a script read the response that is replaced is the upstream's.
                let is_passed_on = name == "vary" || name.starts_with("access-control-");
                assert!(is_passed_on || value.iter().all(|byte| (b' '..=b'~').contains(byte)), "{name}");
            }
            return;
        }
        Step::Call(callout) => {
            for (name, value) in callout.headers {
                assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{name}");
            }
            return;
        }
        Step::LookUp { .. } | Step::Hold => return,
    };
    for edit in edits {
        match edit {
            Edit::Set(name, _) if is_passed_on(&name) => {}
            Edit::Add(name, _) if is_passed_on(name) => {}
            Edit::Set(_, value) | Edit::Add(_, value) => {
                assert!(value.iter().all(|byte| (b' '..=b'~').contains(byte)));
            }
            Edit::Remove(_) => {}
        }
    }
}
