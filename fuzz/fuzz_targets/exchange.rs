//! The exchange: any events in any order, and nothing that could split a header.

#![no_main]

use std::rc::Rc;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use session_core::config::Config;
use session_core::edit::Edit;
use session_core::exchange::{Answer, Exchange, ResponseHeaders, Step};
use session_core::id::SessionId;
use session_core::time::UnixSeconds;
use session_core::token::Token;
use session_core::version::Version;

const CONFIGURATIONS: [&str; 4] = [
    r#""create":"lazy""#,
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
    Cookie,
    SetCookie,
    CacheControl,
    Patch,
    Control,
    Id,
    Status,
    Marker,
    Etag,
    MinVersion,
    GraceUntil,
    GraceFrom,
    Created,
    Subject,
    UpstreamCookie,
}

impl Name {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::SetCookie => "set-cookie",
            Self::CacheControl => "cache-control",
            Self::Patch => "x-session-patch",
            Self::Control => "x-session-control",
            Self::Id => "x_session_id",
            Self::Status => ":status",
            Self::Marker => "session-gateway",
            Self::Etag => "etag",
            Self::MinVersion => "session-min-version",
            Self::GraceUntil => "session-grace-until",
            Self::GraceFrom => "session-grace-from",
            Self::Created => "session-created",
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
    One,
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
            Self::One => b"1".to_vec(),
        }
    }
}

type HeaderList = Vec<(Name, Value)>;

#[derive(Arbitrary, Debug)]
enum Event {
    /// With a valid token of this version, or with none.
    Request(HeaderList, Option<u8>),
    Answer(HeaderList, Value),
    NotSent,
    Response(HeaderList),
}

struct List(Vec<(String, Vec<u8>)>);

impl ResponseHeaders for List {
    fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }

    fn all(&self) -> Vec<(String, Vec<u8>)> {
        self.0.clone()
    }
}

fn headers(list: HeaderList) -> Vec<(String, Vec<u8>)> {
    list.into_iter().map(|(name, value)| (name.as_str().to_owned(), value.bytes())).collect()
}

fuzz_target!(|input: (u8, Vec<(Event, u16)>)| {
    let (configuration, events) = input;
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
                    headers.push(("cookie".into(), format!("sid={}", config.keyring.sign(&token)).into_bytes()));
                }
                exchange.request(&headers, UnixSeconds::new(now), SessionId::from_bytes([9; 16]))
            }
            Event::Answer(list, body) => {
                let body = body.bytes();
                exchange.answer(Answer::Received { headers: &headers(list), body: &body }, UnixSeconds::new(now))
            }
            Event::NotSent => exchange.answer(Answer::NotSent, UnixSeconds::new(now)),
            Event::Response(list) => exchange.response(&List(headers(list)), UnixSeconds::new(now)),
        };
        check(step);
        exchange.counts();
    }
});

/// Whatever the core itself writes into a header is visible ASCII; what it passes on of
/// others' cookies and directives goes on as it came.
fn check(step: Step) {
    let is_passed_on = |name: &str| matches!(name, "cookie" | "set-cookie" | "cache-control");
    let edits = match step {
        Step::Forward { edits, .. } | Step::Deliver(edits) => edits,
        Step::Reply(reply) => {
            for (name, value) in reply.headers {
                assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{name}");
            }
            return;
        }
        Step::Call(callout) => {
            for (name, value) in callout.headers {
                assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{name}");
            }
            return;
        }
        Step::Wait => return,
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
