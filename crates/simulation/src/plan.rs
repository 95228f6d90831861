//! Who does what when, and what fails: drawn from a seed.

use std::fmt;
use std::ops::Range;

/// The time between the end of a fault and the begin of the next one, in milliseconds. A node that is back has to be
/// noticed, to answer for two seconds, to be told of no more by others for three, and to be brought up to date.
pub const CALM: u64 = 10_000;
/// When the first calls come, in milliseconds.
const BEGIN: u64 = 1_000;

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Of the links, and of the gateways' random numbers.
    pub seed: u64,
    /// How many gateways there are.
    pub gateways: usize,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many copies there are of each value: 1 or 2.
    pub copies: usize,
    /// What each gateway's clock is ahead or behind by, in milliseconds.
    pub skews: Vec<i64>,
    /// The idle timeout of each session, in seconds.
    pub idle: Vec<u64>,
    /// In the order of their begin.
    pub calls: Vec<PlannedCall>,
    /// One after the other.
    pub faults: Vec<Fault>,
}

/// A call of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedCall {
    /// When, in milliseconds.
    pub at: u64,
    /// Through which gateway.
    pub gateway: usize,
    /// What.
    pub what: Request,
    /// Whether the client tries again through another gateway if there is no answer.
    pub insists: bool,
}

/// What a client wants. Sessions and subjects are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A new session.
    Create {
        /// Its number.
        session: usize,
        /// Who is logged in.
        subject: Option<usize>,
        /// Whether it joins one that is there.
        merges: bool,
    },
    /// A look at a session.
    Read {
        /// Its number.
        session: usize,
        /// Whether that extends its life.
        touches: bool,
    },
    /// A change of a session.
    Change {
        /// Its number.
        session: usize,
        /// Who logs in with it.
        login: Option<usize>,
        /// Whether older tokens end.
        rotates: bool,
    },
    /// The end of a session.
    Destroy {
        /// Its number.
        session: usize,
    },
    /// The end of all sessions of a subject.
    Revoke {
        /// Its number.
        subject: usize,
    },
    /// A look at the sessions of a subject.
    List {
        /// Its number.
        subject: usize,
    },
}

/// Something that fails for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From when until when, in milliseconds.
    pub during: Range<u64>,
    /// What.
    pub kind: FaultKind,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A node ends, and is started again, empty.
    Crash {
        /// Which one.
        node: usize,
    },
    /// A node is stopped, and goes on later with what arrived meanwhile.
    Freeze {
        /// Which one.
        node: usize,
    },
    /// No gateway reaches a node.
    CutOff {
        /// Which one.
        node: usize,
        /// Whether that is said at once.
        is_refused: bool,
    },
    /// One gateway does not reach a node.
    CutLink {
        /// The gateway.
        gateway: usize,
        /// The node.
        node: usize,
        /// Whether that is said at once.
        is_refused: bool,
    },
    /// A node is slow for all.
    Slow {
        /// Which one.
        node: usize,
        /// How much each way takes, in milliseconds.
        delay: u64,
    },
    /// Messages between a node and one gateway, or all, are lost or late.
    Lossy {
        /// The gateway, or all.
        gateway: Option<usize>,
        /// The node.
        node: usize,
        /// The chance in percent.
        percent: u8,
    },
    /// A gateway has too few connections to all nodes.
    Crowded {
        /// The gateway.
        gateway: usize,
        /// The chance in percent.
        percent: u8,
    },
    /// A gateway ends and is started again, without what it knew.
    Restart {
        /// Which one.
        gateway: usize,
    },
    /// A gateway's clock steps.
    Step {
        /// The gateway.
        gateway: usize,
        /// By how much, in milliseconds.
        millis: i64,
    },
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let rng = &mut rng;
        let gateways = rng.usize(1..4);
        let nodes = rng.usize(2..4);
        let sessions = rng.usize(1..5);
        let subjects = rng.usize(1..3);
        let faults = faults(rng, gateways, nodes);
        let end = faults.last().map_or(5_000, |fault| fault.during.end) + CALM;
        let idle = (0..sessions).map(|_| if rng.u8(0..4) == 0 { rng.u64(8..20) } else { 1_800 }).collect();
        let skews = (0..gateways).map(|_| rng.i64(-1_500..1_500)).collect();
        let calls = calls(rng, gateways, sessions, subjects, &faults, end);
        Self { seed: rng.u64(..), gateways, nodes, copies: 2, skews, idle, calls, faults }
    }

    /// When everything is over, in milliseconds.
    #[must_use]
    pub fn end(&self) -> u64 {
        let calls = self.calls.iter().map(|call| call.at);
        let faults = self.faults.iter().map(|fault| fault.during.end);
        calls.chain(faults).max().unwrap_or(0) + CALM
    }
}

fn faults(rng: &mut fastrand::Rng, gateways: usize, nodes: usize) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at = BEGIN + rng.u64(500..2_500);
    for _ in 0..rng.usize(1..4) {
        let kind = kind(rng, gateways, nodes);
        let length = match kind {
            FaultKind::Step { .. } => 1,
            _ if rng.bool() => rng.u64(50..1_500),
            _ => rng.u64(1_500..6_000),
        };
        faults.push(Fault { during: at..at + length, kind });
        at += length + CALM + rng.u64(0..2_000);
    }
    faults
}

fn kind(rng: &mut fastrand::Rng, gateways: usize, nodes: usize) -> FaultKind {
    let (gateway, node) = (rng.usize(0..gateways), rng.usize(0..nodes));
    match rng.u8(0..12) {
        0 | 1 => FaultKind::Crash { node },
        2 | 3 => FaultKind::Freeze { node },
        4 => FaultKind::CutOff { node, is_refused: rng.bool() },
        5 | 6 => FaultKind::CutLink { gateway, node, is_refused: rng.bool() },
        7 => FaultKind::Slow { node, delay: rng.u64(20..300) },
        8 | 9 => {
            let gateway = Some(gateway).filter(|_| rng.bool());
            FaultKind::Lossy { gateway, node, percent: rng.u8(5..50) }
        }
        10 => FaultKind::Crowded { gateway, percent: rng.u8(20..100) },
        _ if rng.bool() => FaultKind::Restart { gateway },
        _ => FaultKind::Step { gateway, millis: rng.i64(-20_000..20_000) },
    }
}

fn calls(
    rng: &mut fastrand::Rng,
    gateways: usize,
    sessions: usize,
    subjects: usize,
    faults: &[Fault],
    end: u64,
) -> Vec<PlannedCall> {
    let mut calls = Vec::new();
    for session in 0..sessions {
        // The same session may begin with two requests at once.
        let subject = Some(rng.usize(0..subjects)).filter(|_| rng.bool());
        let merges = rng.bool();
        let at = BEGIN + rng.u64(0..1_500);
        for _ in 0..rng.usize(1..3) {
            let what = Request::Create { session, subject, merges };
            let (at, gateway) = (at + rng.u64(0..3), rng.usize(0..gateways));
            calls.push(PlannedCall { at, gateway, what, insists: true });
        }
    }
    for _ in 0..rng.usize(10..45) {
        let at = moment(rng, faults, end);
        let what = request(rng, sessions, subjects);
        calls.push(PlannedCall { at, gateway: rng.usize(0..gateways), what, insists: rng.u8(0..3) > 0 });
    }
    // What is left at the end.
    for session in 0..sessions {
        let what = Request::Read { session, touches: false };
        calls.push(PlannedCall { at: end, gateway: rng.usize(0..gateways), what, insists: true });
    }
    calls.sort_by_key(|call| call.at);
    calls
}

/// Mostly near a time at which something changes.
fn moment(rng: &mut fastrand::Rng, faults: &[Fault], end: u64) -> u64 {
    let anywhere = BEGIN + 1_500..end;
    let near = faults.get(rng.usize(0..faults.len())).filter(|_| rng.u8(0..4) > 0);
    let at = match near {
        None => rng.u64(anywhere.clone()),
        Some(fault) if rng.bool() => fault.during.start.saturating_sub(200) + rng.u64(0..2_500),
        Some(fault) => fault.during.end.saturating_sub(200) + rng.u64(0..7_000),
    };
    at.clamp(anywhere.start, anywhere.end)
}

fn request(rng: &mut fastrand::Rng, sessions: usize, subjects: usize) -> Request {
    let (session, subject) = (rng.usize(0..sessions), rng.usize(0..subjects));
    match rng.u8(0..40) {
        0..16 => Request::Read { session, touches: rng.bool() },
        16..34 => {
            let login = Some(subject).filter(|_| rng.u8(0..6) == 0);
            Request::Change { session, login, rotates: login.is_some() || rng.u8(0..8) == 0 }
        }
        34 | 35 => Request::Destroy { session },
        36 => Request::Revoke { subject },
        _ => Request::List { subject },
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { session, subject, merges } => {
                write!(f, "create s{session}")?;
                subject.map_or(Ok(()), |subject| write!(f, " for u{subject}"))?;
                f.write_str(if *merges { " or join it" } else { "" })
            }
            Self::Read { session, touches } => {
                write!(f, "read s{session}{}", if *touches { " and extend it" } else { "" })
            }
            Self::Change { session, login, rotates } => {
                write!(f, "change s{session}")?;
                login.map_or(Ok(()), |subject| write!(f, ", log u{subject} in"))?;
                f.write_str(if *rotates { ", rotate" } else { "" })
            }
            Self::Destroy { session } => write!(f, "end s{session}"),
            Self::Revoke { subject } => write!(f, "end all of u{subject}"),
            Self::List { subject } => write!(f, "list u{subject}"),
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = |is_refused: &bool| if *is_refused { "refused" } else { "silent" };
        match self {
            Self::Crash { node } => write!(f, "n{node} is down, and comes back empty"),
            Self::Freeze { node } => write!(f, "n{node} is frozen"),
            Self::CutOff { node, is_refused } => write!(f, "n{node} is cut off ({})", how(is_refused)),
            Self::CutLink { gateway, node, is_refused } => {
                write!(f, "g{gateway} does not reach n{node} ({})", how(is_refused))
            }
            Self::Slow { node, delay } => write!(f, "n{node} takes {delay} ms each way"),
            Self::Lossy { gateway, node, percent } => {
                let gateway = gateway.map_or_else(|| "all".to_owned(), |gateway| format!("g{gateway}"));
                write!(f, "{gateway} and n{node} lose or delay {percent} % of their messages")
            }
            Self::Crowded { gateway, percent } => write!(f, "g{gateway} has no connection for {percent} %"),
            Self::Restart { gateway } => write!(f, "g{gateway} is down, and starts again"),
            Self::Step { gateway, millis } => write!(f, "the clock of g{gateway} steps by {millis} ms"),
        }
    }
}
