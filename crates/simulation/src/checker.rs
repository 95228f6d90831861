//! What the answers may be: a model of sessions as clients see them, which knows nothing of how they are kept.
//!
//! Every change puts a member of its own into the session's data, its *mark*. So what a read shows tells which changes
//! are in it, in whatever order they were made.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Fault, FaultKind, Plan};

/// How long calls may fail after a node went, in milliseconds: until its third ping is lost and that is recorded.
const UNTIL_NOTICED: u64 = 3_000;
/// How long calls may fail after a node came back, in milliseconds.
const UNTIL_SETTLED: u64 = 2_500;
/// How long after it came back a node joins and has joined, in milliseconds.
const UNTIL_JOINED: u64 = 7_000;
/// How much earlier or later than its time a session may expire, in milliseconds: whole seconds at each of the steps.
const EXPIRY_TOLERANCE: u64 = 4_000;
/// How late a message may arrive, in milliseconds.
const LATEST: u64 = 6_200;

/// A session as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its version.
    pub version: u32,
    /// The least version of a token that opens it.
    pub min_version: u32,
    /// The marks of the changes that are in it.
    pub marks: BTreeSet<usize>,
    /// Who is logged in.
    pub subject: Option<usize>,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The session.
    Shown(Shown),
    /// A new session.
    Created(Shown),
    /// There is no such session.
    NotFound,
    /// There is one already.
    Exists,
    /// It is done.
    Done,
    /// The sessions of a subject.
    Listed(Vec<(usize, Shown)>),
    /// It could not be done, or it is not known whether it was: `503`.
    Unknown(String),
    /// Anything else.
    Wrong(String),
}

/// What a call was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A creation or a change of a session.
    Write {
        /// The session.
        session: usize,
        /// Who logs in.
        login: Option<usize>,
        /// Whether older tokens end.
        rotates: bool,
        /// Whether it creates the session.
        creates: bool,
    },
    /// A read of a session.
    Read {
        /// The session.
        session: usize,
        /// Whether it extends its life.
        touches: bool,
    },
    /// The end of a session.
    End {
        /// The session.
        session: usize,
    },
    /// The end of a subject's sessions.
    Revoke {
        /// The subject.
        subject: usize,
    },
    /// A look at a subject's sessions.
    List {
        /// The subject.
        subject: usize,
    },
}

/// Times of calls, in milliseconds since the run began. `end` is `None` until there is an answer, and after one that
/// says nothing.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: u64,
    end: Option<u64>,
}

impl Span {
    /// Whether it was over before `time`.
    fn is_before(self, time: u64) -> bool {
        self.end.is_some_and(|end| end < time)
    }
}

/// What is known of one session.
#[derive(Debug, Default)]
struct Known {
    /// By mark.
    writes: BTreeMap<usize, Span>,
    creations: Vec<Span>,
    logins: Vec<(usize, Span)>,
    ends: Vec<Span>,
    /// What answers have shown, and when they were there.
    shown: Vec<(u64, Shown)>,
    /// The versions from which on rotations were acknowledged, and when.
    rotations: Vec<(u64, u32)>,
    /// When it was first seen to be gone after it had been there.
    gone: Option<u64>,
    /// When it was last used, at least and at most.
    used: (u64, u64),
}

/// A model of a run.
pub struct Checker {
    faults: Vec<Fault>,
    idle: Vec<u64>,
    sessions: Vec<Known>,
    revocations: BTreeMap<usize, Vec<Span>>,
    about: BTreeMap<usize, (About, u64)>,
    /// What should not have been.
    pub violations: Vec<String>,
}

impl Checker {
    /// Of a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            faults: plan.faults.clone(),
            idle: plan.idle.iter().map(|seconds| seconds * 1_000).collect(),
            sessions: plan.idle.iter().map(|_| Known::default()).collect(),
            revocations: BTreeMap::new(),
            about: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    /// A client begins call number `call`.
    pub fn begin(&mut self, call: usize, about: About, now: u64) {
        self.about.insert(call, (about, now));
        let span = Span { begin: now, end: None };
        match about {
            About::Write { session, login, creates, .. } => {
                let Some(known) = self.sessions.get_mut(session) else { return };
                known.writes.insert(call, span);
                if creates {
                    known.creations.push(span);
                }
                known.logins.extend(login.map(|subject| (subject, span)));
            }
            About::End { session } => {
                if let Some(known) = self.sessions.get_mut(session) {
                    known.ends.push(span);
                }
            }
            About::Revoke { subject } => self.revocations.entry(subject).or_default().push(span),
            About::Read { .. } | About::List { .. } => {}
        }
    }

    /// One attempt of a call through `gateway` has failed.
    pub fn failed(&mut self, call: usize, gateway: usize, begin: u64, now: u64, why: &str) {
        // A write that meets another one at the very moment at which a node joins or has joined.
        let joins = if why.contains("overtaken") { UNTIL_JOINED } else { 0 };
        let may_fail = self.faults.iter().any(|fault| may_fail(fault, gateway, begin.saturating_sub(joins), now));
        if !may_fail {
            self.violate(call, now, &format!("g{gateway} fails without a reason: {why}"));
        }
        // It may have extended the session all the same, or still do so.
        if let Some(About::Write { session, .. } | About::Read { session, touches: true }) =
            self.about.get(&call).map(|(about, _)| *about)
            && let Some(known) = self.sessions.get_mut(session)
        {
            known.used.1 = known.used.1.max(now + LATEST);
        }
    }

    /// The client has got its answer, possibly after several attempts.
    pub fn answered(&mut self, call: usize, answer: &Answer, now: u64) {
        let Some((about, begin)) = self.about.get(&call).copied() else { return };
        if let Answer::Wrong(what) = answer {
            self.violate(call, now, what);
            return;
        }
        let is_known = !matches!(answer, Answer::Unknown(_));
        match about {
            About::Write { session, .. } | About::Read { session, .. } => {
                self.about_session(call, about, session, answer, (begin, now));
            }
            About::End { session } => {
                if let Some(known) = self.sessions.get_mut(session)
                    && is_known
                {
                    finish(known.ends.iter_mut(), begin, now);
                }
            }
            About::Revoke { subject } => {
                if is_known {
                    finish(self.revocations.entry(subject).or_default().iter_mut(), begin, now);
                }
            }
            About::List { subject } => {
                if let Answer::Listed(listed) = answer {
                    self.listed(call, subject, listed, (begin, now));
                }
            }
        }
    }

    fn about_session(&mut self, call: usize, about: About, session: usize, answer: &Answer, (begin, now): (u64, u64)) {
        match answer {
            Answer::Shown(shown) | Answer::Created(shown) => {
                self.shown(call, session, shown, (begin, now));
                if matches!(answer, Answer::Created(_)) && self.was_there(session, begin) {
                    self.violate(call, now, &format!("s{session} is created a second time"));
                }
                self.acknowledged(call, about, session, shown, (begin, now));
            }
            Answer::NotFound => self.not_found(call, session, (begin, now)),
            Answer::Exists => {
                let has_reason = |known: &Known| known.creations.len() > 1 || !known.ends.is_empty();
                if !self.sessions.get(session).is_some_and(has_reason) {
                    self.violate(call, now, &format!("s{session} exists before it was created"));
                }
            }
            _ => {}
        }
    }

    fn acknowledged(&mut self, call: usize, about: About, session: usize, shown: &Shown, (begin, now): (u64, u64)) {
        let lacks = matches!(about, About::Write { .. }) && !shown.marks.contains(&call);
        if lacks {
            self.violate(call, now, "an acknowledged change is not in its own answer");
        }
        if let About::Write { login: Some(subject), .. } = about
            && let Some(known) = self.sessions.get(session)
            && let Some(gone) = known.gone.filter(|gone| *gone < now)
            && (gone < begin || self.ended_under_another(known, shown.version, subject, gone))
        {
            self.violate(call, now, &format!("a login with s{session} is acknowledged after it was seen to be gone"));
        }
        let Some(known) = self.sessions.get_mut(session) else { return };
        match about {
            About::Write { login, rotates, .. } => {
                finish(known.writes.get_mut(&call).into_iter(), begin, now);
                finish(known.creations.iter_mut(), begin, now);
                if let Some(subject) = login {
                    let of_it = known.logins.iter_mut().filter(|(other, _)| *other == subject);
                    finish(of_it.map(|(_, span)| span), begin, now);
                }
                if rotates && !matches!(about, About::Write { creates: true, .. }) {
                    known.rotations.push((now, shown.min_version));
                }
                known.used = (known.used.0.max(begin), known.used.1.max(now));
            }
            About::Read { touches: true, .. } => known.used.1 = known.used.1.max(now + LATEST),
            _ => {}
        }
    }

    /// A session is there.
    fn shown(&mut self, call: usize, session: usize, shown: &Shown, (begin, now): (u64, u64)) {
        let mut wrong = Vec::new();
        let Some(known) = self.sessions.get_mut(session) else { return };
        for mark in &shown.marks {
            if !known.writes.contains_key(mark) {
                wrong.push(format!("s{session} shows #{mark}, which nobody wrote to it"));
            }
        }
        let acknowledged = known.writes.iter().filter(|(_, span)| span.is_before(begin)).map(|(mark, _)| mark);
        if let Some(lost) = acknowledged.into_iter().find(|mark| !shown.marks.contains(mark)) {
            wrong.push(format!("s{session} has lost #{lost}, which was acknowledged"));
        }
        for (then, before) in &known.shown {
            if *then < begin && (before.version > shown.version || !before.marks.is_subset(&shown.marks)) {
                wrong.push(format!("s{session} goes back from version {} to {}", before.version, shown.version));
                break;
            }
            if before.version == shown.version && before.marks != shown.marks {
                wrong.push(format!("s{session} has had two versions {}", shown.version));
                break;
            }
        }
        if let Some((_, from)) = known.rotations.iter().find(|(then, from)| *then < begin && *from > shown.min_version)
        {
            wrong.push(format!("s{session} opens for tokens before {from}, which were ended"));
        }
        // A login that takes the session from one subject to another is made before it is known whether the former one
        // had ended it: until it is answered, it may show.
        let is_leaving = |gone: u64| known.logins.iter().any(|(_, login)| login.begin <= gone && login.end.is_none());
        let is_gone = known.gone.is_some_and(|gone| gone < begin && !is_leaving(gone));
        if known.ends.iter().any(|end| end.is_before(begin)) || is_gone {
            wrong.push(format!("s{session} is there, though it has ended"));
        }
        if let Some(subject) = shown.subject {
            let revocations = self.revocations.get(&subject).into_iter().flatten();
            for revoked in revocations.filter(|revoked| revoked.is_before(begin)) {
                let is_later = |(other, login): &(usize, Span)| {
                    *other == subject && login.end.is_none_or(|end| end >= revoked.begin)
                };
                if !known.logins.iter().any(is_later) {
                    wrong.push(format!("s{session} is there, though all of u{subject} have ended"));
                }
            }
            if !known.logins.iter().any(|(other, _)| *other == subject) {
                wrong.push(format!("s{session} shows u{subject}, who never logged in with it"));
            }
        }
        let idle = self.idle.get(session).copied().unwrap_or(u64::MAX);
        if known.used.1 > 0 && begin > known.used.1 + idle + EXPIRY_TOLERANCE {
            wrong.push(format!("s{session} is there, though it was not used for longer than it may"));
        }
        known.shown.push((now, shown.clone()));
        for what in wrong {
            self.violate(call, now, &what);
        }
    }

    /// A session is not there.
    fn not_found(&mut self, call: usize, session: usize, (begin, now): (u64, u64)) {
        if !self.was_there(session, begin) {
            return;
        }
        let Some(known) = self.sessions.get_mut(session) else { return };
        let is_ended = known.ends.iter().any(|end| end.begin <= now);
        let is_revoked = known.logins.iter().any(|(subject, _)| {
            self.revocations.get(subject).into_iter().flatten().any(|revoked| revoked.begin <= now)
        });
        let idle = self.idle.get(session).copied().unwrap_or(u64::MAX);
        let is_expired = now + EXPIRY_TOLERANCE >= known.used.0 + idle;
        known.gone.get_or_insert(now);
        if !is_ended && !is_revoked && !is_expired {
            self.violate(call, now, &format!("s{session} is not there, and nothing has ended it"));
        }
    }

    fn listed(&mut self, call: usize, subject: usize, listed: &[(usize, Shown)], (begin, now): (u64, u64)) {
        for (session, shown) in listed {
            if shown.subject != Some(subject) {
                self.violate(call, now, &format!("the list of u{subject} has a session of another"));
            }
            self.shown(call, *session, shown, (begin, now));
        }
        let is_revoked = self.revocations.get(&subject).into_iter().flatten().any(|revoked| revoked.begin <= now);
        let mut lacks = Vec::new();
        for (session, known) in self.sessions.iter().enumerate() {
            let is_in = known.logins.iter().any(|(other, span)| *other == subject && span.is_before(begin));
            let may_be_out = is_revoked
                || known.logins.iter().any(|(other, _)| *other != subject)
                || known.ends.iter().any(|end| end.begin <= now)
                || known.gone.is_some()
                || now + EXPIRY_TOLERANCE >= known.used.0 + self.idle.get(session).copied().unwrap_or(u64::MAX);
            if is_in && !may_be_out && !listed.iter().any(|(other, _)| *other == session) {
                lacks.push(format!("the list of u{subject} lacks s{session}"));
            }
        }
        for what in lacks {
            self.violate(call, now, &what);
        }
    }

    /// Whether a session that was gone then had been ended as one of another subject than the one who logged in with
    /// this version. If so, the login came too late. Otherwise it may have been first.
    fn ended_under_another(&self, known: &Known, version: u32, subject: usize, gone: u64) -> bool {
        let before = known.shown.iter().map(|(_, shown)| shown).filter(|shown| shown.version < version);
        let former = before.max_by_key(|shown| shown.version).and_then(|shown| shown.subject);
        let revoked =
            |subject: usize| self.revocations.get(&subject).into_iter().flatten().any(|revoked| revoked.begin <= gone);
        let is_ended = known.ends.iter().any(|end| end.begin <= gone);
        former.is_some_and(|former| former != subject && revoked(former)) && !revoked(subject) && !is_ended
    }

    /// Whether the session certainly was there before.
    fn was_there(&self, session: usize, before: u64) -> bool {
        self.sessions.get(session).is_some_and(|known| known.shown.iter().any(|(then, _)| *then < before))
    }

    fn violate(&mut self, call: usize, now: u64, what: &str) {
        self.violations.push(format!("{:>7.3} s  #{call}  {what}", millis(now)));
    }
}

/// Ends the span that began then.
fn finish<'a>(spans: impl Iterator<Item = &'a mut Span>, begin: u64, now: u64) {
    for span in spans.filter(|span| span.begin == begin && span.end.is_none()) {
        span.end = Some(now);
    }
}

/// Whether a call through this gateway may fail at this time.
fn may_fail(fault: &Fault, through: usize, begin: u64, end: u64) -> bool {
    let overlaps = |from: u64, until: u64| begin <= until && from <= end;
    let (from, until) = (fault.during.start, fault.during.end);
    match fault.kind {
        FaultKind::Crash { .. } | FaultKind::Freeze { .. } | FaultKind::CutOff { .. } | FaultKind::CutLink { .. } => {
            overlaps(from, from + UNTIL_NOTICED) || overlaps(until, until + UNTIL_SETTLED)
        }
        FaultKind::Slow { .. } | FaultKind::Lossy { .. } => overlaps(from, until + UNTIL_NOTICED),
        FaultKind::Crowded { gateway, .. } | FaultKind::Restart { gateway } => {
            gateway == through && overlaps(from, until + UNTIL_SETTLED)
        }
        FaultKind::Step { .. } => false,
    }
}

/// For people.
#[expect(clippy::cast_precision_loss, reason = "a run takes minutes")]
pub(crate) fn millis(time: u64) -> f64 {
    time as f64 / 1_000.0
}
