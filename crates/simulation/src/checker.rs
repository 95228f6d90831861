//! What the answers may be: a model of sessions as clients see them, which knows nothing of how they are kept.
//!
//! Every change puts a member of its own into the session's data, its *mark*. So what a read shows tells which changes
//! are in it, in whatever order they were made.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{FaultKind, Plan};

/// How long calls may fail after a node went, in milliseconds: until its third ping is lost and that is recorded.
const UNTIL_NOTICED: u64 = 3_000;
/// How long calls may fail after a node came back, in milliseconds.
const UNTIL_SETTLED: u64 = 2_500;
/// How long calls may still meet a node that joins after it has done so, in milliseconds.
const UNTIL_JOINED: u64 = 500;
/// How much earlier or later than its time a session may expire, in milliseconds: whole seconds at each of the steps.
const EXPIRY_TOLERANCE: u64 = 4_000;
/// How many writes of one session may be too many to be made one after the other in the time that a call has.
const CROWD: usize = 10;
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
    /// When it was to be extended.
    touches: Vec<u64>,
    /// When it was last used, at least and at most.
    used: (u64, u64),
}

/// When something failed, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Failing {
    kind: FaultKind,
    from: u64,
    until: Option<u64>,
    recovered: Option<u64>,
}

/// When a gateway hung, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Hanging {
    gateway: usize,
    until: Option<u64>,
}

/// A model of a run.
pub struct Checker {
    copies: usize,
    /// Whether a node that is away is missed all the time: the only one with a copy, or one of a new layout, of which
    /// the other one does not know whether it has something.
    each_node_counts: bool,
    faults: Vec<Failing>,
    hangs: Vec<Hanging>,
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
            copies: plan.change.as_ref().map_or(plan.copies, |change| change.copies.min(plan.copies)),
            each_node_counts: plan.copies == 1 || plan.change.is_some(),
            faults: Vec::new(),
            hangs: Vec::new(),
            idle: plan.idle.iter().map(|seconds| seconds * 1_000).collect(),
            sessions: plan.idle.iter().map(|_| Known::default()).collect(),
            revocations: BTreeMap::new(),
            about: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    /// A fault begins.
    pub fn fails(&mut self, kind: FaultKind, now: u64) {
        self.faults.push(Failing { kind, from: now, until: None, recovered: None });
    }

    /// The last fault is over.
    pub fn is_over(&mut self, now: u64) {
        self.faults.iter_mut().for_each(|fault| fault.until = fault.until.or(Some(now)));
    }

    /// All nodes are in use again.
    pub fn has_recovered(&mut self, now: u64) {
        self.faults.iter_mut().for_each(|fault| fault.recovered = fault.recovered.or(Some(now)));
    }

    /// The nodes and copies should have changed, but have not.
    pub fn does_not_change(&mut self, now: u64) {
        self.violations.push(format!("{:>7.3} s  the sessions are not all moved", millis(now)));
    }

    /// They should be, but are not.
    pub fn does_not_recover(&mut self, now: u64) {
        self.violations.push(format!("{:>7.3} s  not all nodes are in use again", millis(now)));
    }

    /// A gateway hangs.
    pub fn hangs(&mut self, gateway: usize) {
        self.hangs.push(Hanging { gateway, until: None });
    }

    /// It goes on.
    pub fn goes_on(&mut self, gateway: usize, now: u64) {
        let hangs = self.hangs.iter_mut().filter(|hang| hang.gateway == gateway);
        hangs.for_each(|hang| hang.until = hang.until.or(Some(now)));
    }

    /// Whether a gateway hung at some time after this.
    #[must_use]
    pub fn hung_since(&self, gateway: usize, begin: u64) -> bool {
        let since = |hang: &Hanging| hang.until.is_none_or(|until| until >= begin);
        self.hangs.iter().any(|hang| hang.gateway == gateway && since(hang))
    }

    /// Whether a node may have lost the only copy of something.
    fn may_be_lost(&self) -> bool {
        let loses = |fault: &Failing| matches!(fault.kind, FaultKind::Crash { .. } | FaultKind::Evict { .. });
        self.copies == 1 && self.faults.iter().any(loses)
    }

    /// Whether calls through this gateway may have failed at this time.
    fn may_fail(&self, through: usize, begin: u64, now: u64, is_overtaken: bool) -> bool {
        let hangs = self.hangs.iter().filter(|hang| hang.gateway == through);
        let is_hung = |hang: &Hanging| hang.until.is_none_or(|until| begin <= until + UNTIL_SETTLED);
        // It writes what it meant to write in an earlier view.
        let went_on = |hang: &Hanging| hang.until.is_some_and(|until| begin <= until + UNTIL_SETTLED && until <= now);
        let joins = |fault: &Failing| {
            fault.until.is_some() && fault.recovered.is_none_or(|recovered| begin <= recovered + UNTIL_JOINED)
        };
        hangs.into_iter().any(is_hung)
            || self.faults.iter().any(|fault| may_fail(fault, self.each_node_counts, through, begin, now))
            || (is_overtaken && (self.faults.iter().any(joins) || self.hangs.iter().any(went_on)))
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
            About::Read { session, touches: true } => {
                if let Some(known) = self.sessions.get_mut(session) {
                    known.touches.push(now);
                }
            }
            About::Read { .. } | About::List { .. } => {}
        }
    }

    /// One attempt of a call through `gateway` has failed.
    pub fn failed(&mut self, call: usize, gateway: usize, begin: u64, now: u64, why: &str) {
        // A write that meets another one at the very moment at which a node joins or has joined.
        let is_crowded = why.contains("no time left") && self.is_crowded(call, begin, now);
        if !is_crowded && !self.may_fail(gateway, begin, now, why.contains("overtaken")) {
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
                if matches!(answer, Answer::Created(_)) && self.was_there(session, begin) && !self.may_be_lost() {
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
            && !self.may_be_lost()
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
        let may_be_lost = self.may_be_lost();
        let Some(known) = self.sessions.get_mut(session) else { return };
        // It may have been lost, and created once more by a client that got no answer.
        if may_be_lost {
            if let Some(mark) = shown.marks.iter().find(|mark| !known.writes.contains_key(mark)) {
                self.violate(call, now, &format!("s{session} shows #{mark}, which nobody wrote to it"));
            }
            return;
        }
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
        let is_leaving = |gone: u64| {
            known.logins.iter().any(|(_, login)| login.begin <= gone && login.end.is_none_or(|end| end >= gone))
        };
        // It had expired, and a request that began in time has extended it all the same, possibly without an answer.
        let is_extended = |gone: u64| {
            let in_time = |begin: u64| begin <= gone && gone <= begin + LATEST;
            let by_write =
                known.writes.values().any(|write| in_time(write.begin) && write.end.is_none_or(|end| end >= gone));
            by_write || known.touches.iter().any(|touch| in_time(*touch))
        };
        let is_expiry = known.gone.is_some_and(|gone| {
            let idle = self.idle.get(session).copied().unwrap_or(u64::MAX);
            gone + EXPIRY_TOLERANCE >= known.used.0 + idle && !known.ends.iter().any(|end| end.begin <= gone)
        });
        let is_gone =
            known.gone.is_some_and(|gone| gone < begin && !is_leaving(gone) && !(is_expiry && is_extended(gone)));
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
        let is_lost = self.may_be_lost();
        let Some(known) = self.sessions.get_mut(session) else { return };
        let is_ended = known.ends.iter().any(|end| end.begin <= now);
        let is_revoked = known.logins.iter().any(|(subject, _)| {
            self.revocations.get(subject).into_iter().flatten().any(|revoked| revoked.begin <= now)
        });
        let idle = self.idle.get(session).copied().unwrap_or(u64::MAX);
        let is_expired = now + EXPIRY_TOLERANCE >= known.used.0 + idle;
        known.gone.get_or_insert(now);
        if !is_ended && !is_revoked && !is_expired && !is_lost {
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
                || self.may_be_lost()
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

    /// Whether many others wrote to the session of this call at the same time.
    fn is_crowded(&self, call: usize, begin: u64, now: u64) -> bool {
        let Some((About::Write { session, .. } | About::Read { session, .. }, _)) = self.about.get(&call) else {
            return false;
        };
        let Some(known) = self.sessions.get(*session) else { return false };
        let overlaps = |span: &&Span| span.begin <= now && span.end.is_none_or(|end| end >= begin);
        known.writes.values().filter(overlaps).count() > CROWD
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

/// Whether a call through this gateway may have failed at this time because of a fault.
fn may_fail(fault: &Failing, each_node_counts: bool, through: usize, begin: u64, now: u64) -> bool {
    let Failing { kind, from, until, .. } = *fault;
    let overlaps = |since: u64, last: u64| begin <= last && since <= now;
    let is_soon_after = |time: u64, millis: u64| overlaps(time, time + millis);
    let during = |more: u64| overlaps(from, until.unwrap_or(now) + more);
    match kind {
        FaultKind::Crash { .. } | FaultKind::Freeze { .. } | FaultKind::CutOff { .. } | FaultKind::CutLink { .. } => {
            is_soon_after(from, UNTIL_NOTICED)
                || until.is_some_and(|until| is_soon_after(until, UNTIL_SETTLED))
                || (each_node_counts && during(UNTIL_SETTLED))
        }
        FaultKind::Slow { .. } | FaultKind::Lossy { .. } => during(UNTIL_NOTICED),
        FaultKind::Crowded { gateway, .. } | FaultKind::Restart { gateway } => {
            gateway == through && during(UNTIL_SETTLED)
        }
        FaultKind::Step { .. } | FaultKind::Evict { .. } | FaultKind::Nothing => false,
    }
}

/// For people.
#[expect(clippy::cast_precision_loss, reason = "a run takes minutes")]
pub(crate) fn millis(time: u64) -> f64 {
    time as f64 / 1_000.0
}
