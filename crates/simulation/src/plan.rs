//! Who does what when, and what fails: drawn from a seed.

use std::fmt;

/// When the first calls come, in milliseconds.
const BEGIN: u64 = 1_000;

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Of the links, and of the gateways' random numbers.
    pub seed: u64,
    /// How many gateways there are.
    pub gateways: usize,
    /// For each node, by how many milliseconds its clock's seconds begin later than the run's.
    pub nodes: Vec<u64>,
    /// How many copies there are of each value: 1 or 2.
    pub copies: usize,
    /// The shortest and the longest way of a message, in microseconds.
    pub distance: (u64, u64),
    /// What each gateway's clock is ahead or behind by, in milliseconds.
    pub skews: Vec<i64>,
    /// The idle timeout of each session, in seconds.
    pub idle: Vec<u64>,
    /// How long the id of an ended session is blocked, in seconds.
    pub tombstone_ttl: u64,
    /// What clients do.
    pub calls: Vec<PlannedCall>,
    /// What fails, one after the other.
    pub faults: Vec<Fault>,
    /// Gateways that hang, whatever else happens.
    pub hangs: Vec<Hang>,
    /// How the nodes and copies change while all this happens.
    pub change: Option<ChangeOfLayout>,
}

/// A change of nodes and copies, through which all gateways go one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeOfLayout {
    /// The nodes before it. The number of copies is the plan's.
    pub from: Vec<usize>,
    /// The nodes after it.
    pub to: Vec<usize>,
    /// The number of copies after it.
    pub copies: usize,
    /// The time between two restarts, in milliseconds.
    pub pause: u64,
}

/// An event of a run, and some time after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The event.
    pub after: Event,
    /// In milliseconds.
    pub millis: u64,
}

/// What others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The run begins.
    Begin,
    /// The fault with this number begins.
    Fault(usize),
    /// It is over.
    Over(usize),
    /// A node joins after it.
    Joining(usize),
    /// All nodes are in use again.
    Recovered(usize),
    /// The nodes and copies have changed.
    Changed,
}

/// A call of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedCall {
    /// When.
    pub at: Moment,
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
    /// The time after everything has recovered from the fault before, in milliseconds.
    pub pause: u64,
    /// How long it takes, in milliseconds.
    pub length: u64,
    /// What.
    pub kind: FaultKind,
}

/// A gateway that does nothing for some time, as if its process were stopped, and then goes on with what it believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hang {
    /// Which one.
    pub gateway: usize,
    /// When it begins.
    pub from: Moment,
    /// When it goes on.
    pub until: Moment,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing: what is left of a fault that a shorter plan does without.
    Nothing,
    /// A node ends, and is started again, empty.
    Crash {
        /// Which one.
        node: usize,
    },
    /// A node forgets a part of the sessions.
    Evict {
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
        let copies = if rng.u8(0..8) == 0 { 1 } else { 2 };
        let nodes: Vec<_> = (0..rng.usize(2..4)).map(|_| rng.u64(0..1_000)).collect();
        let distance = if rng.u8(0..3) == 0 { (500, 5_000) } else { (50, 500) };
        let sessions = rng.usize(1..5);
        let subjects = rng.usize(1..3);
        let faults: Vec<_> = (0..rng.usize(1..4)).map(|_| fault(rng, gateways, nodes.len())).collect();
        let mut faults = faults;
        // Nobody notices, so only the node that still has them may not fail after that.
        if rng.u8(0..6) == 0
            && let Some(last) = faults.last_mut()
        {
            last.kind = FaultKind::Evict { node: rng.usize(0..nodes.len()) };
        }
        let hangs = (0..rng.usize(0..3)).map(|_| hang(rng, gateways, faults.len())).collect();
        let idle: Vec<_> = (0..sessions).map(|_| if rng.u8(0..4) == 0 { rng.u64(8..20) } else { 1_800 }).collect();
        let skews = (0..gateways).map(|_| rng.i64(-1_500..1_500)).collect();
        let calls = calls(rng, gateways, &idle, subjects, faults.len());
        let tombstone_ttl = rng.u64(8..60);
        let seed = rng.u64(..);
        let mut plan = Self {
            seed,
            gateways,
            nodes,
            copies,
            distance,
            skews,
            idle,
            tombstone_ttl,
            calls,
            faults,
            hangs,
            change: None,
        };
        match rng.u8(0..12) {
            0 | 1 => plan.let_a_gateway_miss_two_changes(rng),
            2 => plan.let_a_gateway_miss_a_change(rng),
            3 => plan.use_sessions_when_they_expire(rng),
            4 => plan.end_sessions_while_a_node_is_out(rng),
            5 => plan.write_while_a_node_joins(rng),
            6 => plan.let_a_gateway_speak_too_late(rng),
            7 => plan.wipe_one_node_after_the_other(rng),
            8 | 9 => plan.change_the_layout(rng),
            _ => {}
        }
        plan
    }

    /// One node is out and comes back, then the other one is out. A gateway that hangs meanwhile believes what was true
    /// in between.
    fn let_a_gateway_miss_two_changes(&mut self, rng: &mut fastrand::Rng) {
        self.gateways = self.gateways.max(2);
        self.skews.resize(self.gateways, 0);
        let first = rng.usize(0..self.nodes.len());
        let second = (first + rng.usize(1..self.nodes.len())) % self.nodes.len();
        let mut outage =
            |node| Fault { pause: rng.u64(0..300), length: rng.u64(2_000..3_000), kind: outage(rng, node) };
        self.faults = vec![outage(first), outage(second)];
        // Perhaps it goes on only after all nodes are in use again.
        let after = if rng.u8(0..3) == 0 { Event::Recovered(1) } else { Event::Over(1) };
        let from = match after {
            Event::Over(_) => Moment { after: Event::Fault(0), millis: rng.u64(1_200..1_900) },
            _ => Moment { after: Event::Begin, millis: rng.u64(2_300..2_500) },
        };
        let until = Moment { after, millis: rng.u64(0..1_500) };
        self.hangs = vec![Hang { gateway: 0, from, until }];
        self.begin_anew(rng);
        self.call_while_it_hangs(rng, until);
    }

    /// A node is out and reachable again while a gateway hangs.
    fn let_a_gateway_miss_a_change(&mut self, rng: &mut fastrand::Rng) {
        self.gateways = self.gateways.max(2);
        self.skews.resize(self.gateways, 0);
        let node = rng.usize(0..self.nodes.len());
        self.faults = vec![Fault { pause: rng.u64(0..300), length: rng.u64(1_500..4_000), kind: outage(rng, node) }];
        let from = Moment { after: Event::Begin, millis: rng.u64(2_400..2_600) };
        let until = Moment { after: Event::Over(0), millis: rng.u64(0..1_800) };
        self.hangs = vec![Hang { gateway: 0, from, until }];
        self.begin_anew(rng);
        self.call_while_it_hangs(rng, until);
    }

    /// Many calls around the time at which the sessions expire, some of which are late or lost.
    fn use_sessions_when_they_expire(&mut self, rng: &mut fastrand::Rng) {
        self.idle.fill_with(|| rng.u64(6..9));
        let expiry = self.idle.iter().copied().min().unwrap_or(0) * 1_000;
        let node = rng.usize(0..self.nodes.len());
        let kind = FaultKind::Lossy { gateway: None, node, percent: rng.u8(20..70) };
        self.faults = vec![Fault { pause: expiry - 2_500, length: rng.u64(4_000..6_000), kind }];
        self.hangs.clear();
        self.calls.clear();
        for session in 0..self.idle.len() {
            let at = Moment { after: Event::Begin, millis: BEGIN + rng.u64(0..500) };
            self.call(rng, at, Request::Create { session, subject: None, merges: false });
            let is_extended = rng.u8(0..4) == 0;
            for _ in 0..20 {
                let at = Moment { after: Event::Begin, millis: BEGIN + expiry + rng.u64(0..5_000) - 1_000 };
                let read = Request::Read { session, touches: false };
                let what = if is_extended { request_of(rng, session) } else { read };
                self.call(rng, at, what);
            }
        }
    }

    /// Sessions end while a node is out, and their ends are over before it is back.
    fn end_sessions_while_a_node_is_out(&mut self, rng: &mut fastrand::Rng) {
        self.tombstone_ttl = rng.u64(8..10);
        let node = rng.usize(0..self.nodes.len());
        let kind = match rng.u8(0..2) {
            0 => FaultKind::Freeze { node },
            _ => FaultKind::CutOff { node, is_refused: rng.bool() },
        };
        // Perhaps long enough that even a gateway that has missed all of it finds nothing of the end.
        let is_missed = rng.bool();
        let length = if is_missed { rng.u64(12_000..14_000) } else { rng.u64(5_000..8_000) };
        self.faults = vec![Fault { pause: rng.u64(0..300), length, kind }];
        self.hangs.clear();
        if is_missed {
            self.gateways = self.gateways.max(2);
            self.skews.resize(self.gateways, 0);
            let from = Moment { after: Event::Begin, millis: rng.u64(2_400..2_600) };
            self.hangs.push(Hang {
                gateway: 0,
                from,
                until: Moment { after: Event::Over(0), millis: rng.u64(0..1_800) },
            });
        }
        self.begin_anew(rng);
        for session in 0..self.idle.len() {
            let at = Moment { after: Event::Fault(0), millis: rng.u64(1_500..2_500) };
            let what = Request::Destroy { session };
            self.calls.push(PlannedCall { at, gateway: self.gateways - 1, what, insists: true });
            for _ in 0..3 {
                let at = Moment { after: Event::Over(0), millis: rng.u64(0..2_000) };
                let what = Request::Read { session, touches: false };
                self.calls.push(PlannedCall { at, gateway: 0, what, insists: false });
            }
            for _ in 0..6 {
                let at = Moment { after: Event::Recovered(0), millis: rng.u64(0..8_000) };
                let what = request_of(rng, session);
                self.call(rng, at, what);
            }
        }
    }

    /// Writes that begin before a node joins and end after it, and nothing that would repair what they left before the
    /// other node fails.
    fn write_while_a_node_joins(&mut self, rng: &mut fastrand::Rng) {
        self.gateways = self.gateways.max(2);
        self.skews.resize(self.gateways, 0);
        self.distance = (500, 5_000);
        let first = rng.usize(0..self.nodes.len());
        let second = (first + rng.usize(1..self.nodes.len())) % self.nodes.len();
        self.faults = vec![
            Fault { pause: rng.u64(0..300), length: rng.u64(1_500..2_000), kind: outage(rng, first) },
            Fault { pause: 0, length: rng.u64(1_500..3_000), kind: FaultKind::Crash { node: second } },
        ];
        let joining = |millis| Moment { after: Event::Joining(0), millis };
        self.hangs = vec![Hang { gateway: 0, from: joining(0), until: joining(rng.u64(50..600)) }];
        self.idle = vec![1_800; 8];
        self.calls.clear();
        for session in 0..self.idle.len() {
            let at = Moment { after: Event::Begin, millis: BEGIN + rng.u64(0..500) };
            self.call(rng, at, Request::Create { session, subject: None, merges: false });
            for number in 0..20 {
                let at = Moment { after: Event::Over(0), millis: 1_900 + number * 50 + rng.u64(0..50) };
                let what = Request::Change { session, login: None, rotates: false };
                self.calls.push(PlannedCall { at, gateway: 0, what, insists: false });
            }
            let at = Moment { after: Event::Over(1), millis: rng.u64(0..3_000) };
            self.call(rng, at, Request::Read { session, touches: false });
        }
    }

    /// A gateway hangs while it takes a node out, and goes on when that one is back and it does not reach the other
    /// one.
    fn let_a_gateway_speak_too_late(&mut self, rng: &mut fastrand::Rng) {
        self.gateways = 1;
        self.skews.truncate(1);
        self.distance = (5_000, 15_000);
        let first = rng.usize(0..self.nodes.len());
        let second = (first + rng.usize(1..self.nodes.len())) % self.nodes.len();
        let cut_off = |node, length| Fault { pause: 0, length, kind: FaultKind::CutOff { node, is_refused: false } };
        self.faults = vec![cut_off(first, rng.u64(1_200..3_000)), cut_off(second, rng.u64(2_000..4_000))];
        let from = Moment { after: Event::Fault(0), millis: rng.u64(850..1_650) };
        let until = Moment { after: Event::Fault(1), millis: rng.u64(0..300) };
        self.hangs = vec![Hang { gateway: 0, from, until }];
        self.idle.fill(1_800);
        self.calls.clear();
        for session in 0..self.idle.len() {
            let at = Moment { after: Event::Begin, millis: BEGIN + rng.u64(0..500) };
            self.call(rng, at, Request::Create { session, subject: None, merges: false });
            let at = Moment { after: Event::Fault(1), millis: rng.u64(1_500..4_000) };
            self.call(rng, at, Request::Change { session, login: None, rotates: false });
            let at = Moment { after: Event::Recovered(1), millis: rng.u64(0..3_000) };
            self.call(rng, at, Request::Read { session, touches: false });
        }
    }

    /// Nodes that are down for so short a time that nobody takes them out, and sessions that nobody uses in between.
    fn wipe_one_node_after_the_other(&mut self, rng: &mut fastrand::Rng) {
        let first = rng.usize(0..self.nodes.len());
        let second = (first + rng.usize(1..self.nodes.len())) % self.nodes.len();
        let mut wipe = |node| Fault { pause: 0, length: rng.u64(1..500), kind: FaultKind::Crash { node } };
        self.faults = vec![wipe(first), wipe(second)];
        self.hangs.clear();
        self.begin_anew(rng);
        if rng.bool() {
            self.calls
                .retain(|call| matches!(call.what, Request::Create { .. }) || call.at.after == Event::Recovered(1));
        }
    }

    /// Nodes are added or removed, or there are more copies or fewer.
    fn change_the_layout(&mut self, rng: &mut fastrand::Rng) {
        self.copies = rng.usize(1..3);
        let copies = rng.usize(1..3);
        let mut some = |at_least| {
            let mut nodes: Vec<_> = (0..self.nodes.len()).collect();
            rng.shuffle(&mut nodes);
            nodes.truncate(rng.usize(at_least..=self.nodes.len()));
            nodes
        };
        let (from, to) = (some(self.copies), some(copies));
        self.change = Some(ChangeOfLayout { from, to, copies, pause: rng.u64(0..1_500) });
        self.hangs.clear();
        // What a node loses is lost, unless there are two copies all the time.
        for fault in &mut self.faults {
            if let FaultKind::Crash { node } = fault.kind {
                fault.kind = FaultKind::Freeze { node };
            }
        }
        self.begin_anew(rng);
        for session in 0..self.idle.len() {
            if rng.bool() {
                let at = Moment { after: Event::Begin, millis: 3_500 + rng.u64(0..6_000) };
                self.call(rng, at, Request::Destroy { session });
            }
            for _ in 0..3 {
                let at = Moment { after: Event::Changed, millis: rng.u64(0..12_000) };
                let what = request_of(rng, session);
                self.call(rng, at, what);
            }
        }
    }

    /// New calls, for the faults that there are now.
    fn begin_anew(&mut self, rng: &mut fastrand::Rng) {
        self.idle.fill(1_800);
        self.calls = calls(rng, self.gateways, &self.idle, 2, self.faults.len());
    }

    /// Calls through the first gateway, which go on when it does, and some through others before and after that.
    fn call_while_it_hangs(&mut self, rng: &mut fastrand::Rng, until: Moment) {
        let fault = self.faults.len() - 1;
        for session in 0..self.idle.len() {
            for _ in 0..3 {
                let at = Moment { after: Event::Fault(fault), millis: rng.u64(1_200..2_000) };
                let what = Request::Change { session, login: None, rotates: false };
                self.calls.push(PlannedCall { at, gateway: 1, what, insists: true });
                let at = Moment { millis: until.millis.saturating_sub(rng.u64(0..1_000)), ..until };
                let what = request_of(rng, session);
                self.calls.push(PlannedCall { at, gateway: 0, what, insists: false });
                let at = Moment { millis: until.millis + rng.u64(0..300), ..until };
                self.call(rng, at, Request::Read { session, touches: false });
            }
        }
    }

    fn call(&mut self, rng: &mut fastrand::Rng, at: Moment, what: Request) {
        self.calls.push(PlannedCall { at, gateway: rng.usize(0..self.gateways), what, insists: rng.bool() });
    }
}

/// Something that takes a node out, but leaves it what it has.
fn outage(rng: &mut fastrand::Rng, node: usize) -> FaultKind {
    if rng.bool() { FaultKind::Freeze { node } } else { FaultKind::CutOff { node, is_refused: rng.bool() } }
}

fn fault(rng: &mut fastrand::Rng, gateways: usize, nodes: usize) -> Fault {
    let kind = kind(rng, gateways, nodes);
    let length = match kind {
        FaultKind::Step { .. } => 1,
        _ if rng.bool() => rng.u64(50..1_500),
        _ => rng.u64(1_500..6_000),
    };
    let pause = if rng.bool() { rng.u64(0..100) } else { rng.u64(0..3_000) };
    Fault { pause, length, kind }
}

/// Often from within one fault into the next one, so that the gateway believes something that was true long ago.
fn hang(rng: &mut fastrand::Rng, gateways: usize, faults: usize) -> Hang {
    let first = rng.usize(0..faults);
    let last = (first + rng.usize(0..2)).min(faults - 1);
    let from = match rng.u8(0..3) {
        0 if first > 0 => Event::Recovered(first - 1),
        _ => Event::Fault(first),
    };
    let until = match rng.u8(0..4) {
        0 => Event::Fault(last),
        1 => Event::Recovered(last),
        _ => Event::Over(last),
    };
    let from = Moment { after: from, millis: rng.u64(0..3_000) };
    Hang { gateway: rng.usize(0..gateways), from, until: Moment { after: until, millis: rng.u64(0..3_000) } }
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

fn calls(rng: &mut fastrand::Rng, gateways: usize, idle: &[u64], subjects: usize, faults: usize) -> Vec<PlannedCall> {
    let sessions = idle.len();
    let mut calls = Vec::new();
    let begin = |millis: u64| Moment { after: Event::Begin, millis };
    for (session, idle) in idle.iter().enumerate() {
        // The same session may begin with two requests at once.
        let subject = Some(rng.usize(0..subjects)).filter(|_| rng.bool());
        let merges = rng.bool();
        let first = BEGIN + rng.u64(0..1_500);
        for _ in 0..rng.usize(1..3) {
            let what = Request::Create { session, subject, merges };
            let (at, gateway) = (begin(first + rng.u64(0..3)), rng.usize(0..gateways));
            calls.push(PlannedCall { at, gateway, what, insists: true });
        }
        // Some sessions are used just when they expire, if nobody has used them before.
        if *idle < 60 && rng.bool() {
            for _ in 0..rng.usize(5..20) {
                let at = begin(first + idle * 1_000 + rng.u64(0..2_500) - 1_500);
                let what = request_of(rng, session);
                calls.push(PlannedCall { at, gateway: rng.usize(0..gateways), what, insists: rng.bool() });
            }
        }
    }
    for _ in 0..rng.usize(10..45) {
        let at = moment(rng, faults);
        let what = request(rng, sessions, subjects);
        calls.push(PlannedCall { at, gateway: rng.usize(0..gateways), what, insists: rng.u8(0..3) > 0 });
    }
    // One session is written to all the time while a node joins.
    if rng.u8(0..4) == 0 {
        let (session, after) = (rng.usize(0..sessions), Event::Joining(rng.usize(0..faults)));
        for number in 0..rng.u64(8..16) {
            let at = Moment { after, millis: number * rng.u64(1..4) };
            let what = Request::Change { session, login: None, rotates: false };
            calls.push(PlannedCall { at, gateway: rng.usize(0..gateways), what, insists: false });
        }
    }
    // What is left at the end.
    for session in 0..sessions {
        let at = Moment { after: Event::Recovered(faults - 1), millis: 4_000 };
        let what = Request::Read { session, touches: false };
        calls.push(PlannedCall { at, gateway: rng.usize(0..gateways), what, insists: true });
    }
    calls
}

/// Mostly when something changes.
fn moment(rng: &mut fastrand::Rng, faults: usize) -> Moment {
    let fault = rng.usize(0..faults);
    let (after, longest) = match rng.u8(0..12) {
        0 | 1 => (Event::Begin, 10_000),
        2..5 => (Event::Fault(fault), 3_000),
        5..8 => (Event::Over(fault), 5_000),
        8 | 9 => (Event::Joining(fault), 60),
        _ => (Event::Recovered(fault), 3_000),
    };
    let least = if after == Event::Begin { BEGIN + 1_500 } else { 0 };
    Moment { after, millis: least + rng.u64(0..longest) }
}

fn request_of(rng: &mut fastrand::Rng, session: usize) -> Request {
    match rng.u8(0..4) {
        0 => Request::Change { session, login: None, rotates: false },
        1 => Request::Read { session, touches: true },
        _ => Request::Read { session, touches: false },
    }
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
            Self::Nothing => f.write_str("nothing fails"),
            Self::Crash { node } => write!(f, "n{node} is down, and comes back empty"),
            Self::Evict { node } => write!(f, "n{node} evicts a part of the sessions"),
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

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("the beginning"),
            Self::Fault(number) => write!(f, "fault {number}"),
            Self::Over(number) => write!(f, "the end of fault {number}"),
            Self::Joining(number) => write!(f, "a node joins after fault {number}"),
            Self::Changed => f.write_str("the nodes and copies have changed"),
            Self::Recovered(number) => write!(f, "all is well after fault {number}"),
        }
    }
}
