//! Runs a plan: gateways, nodes, links, clients and faults on one thread, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use session::id::SessionId;
use session::merge_patch::Object;
use session::principal::Principal;
use session::record::{Change, NewSession, Rotation, Session, Timeouts, WriteId};
use session::time::Seconds;
use session_gateway::environment::{Environment, Surroundings};
use session_gateway::metrics::Metrics;
use session_gateway::sessions::{Created, LiveSession, Precondition, SessionError, Sessions, Settings, Touch};
use session_gateway::store::layout::Layout;
use session_gateway::store::{Context, Keyspace, Nodes, Place, Start};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::checker::{About, Answer, Checker, Shown, millis};
use crate::link::{Dice, Gate, Link, Weather};
use crate::node::Node;
use crate::plan::{ChangeOfLayout, Event, FaultKind, Hang, Moment, Plan, PlannedCall, Request};

/// The beginning of every run: some time in 2023.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// How long a client waits until it tries again.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often it tries.
const ATTEMPTS: usize = 4;
/// How long a gateway has for a call: the default of `--store-timeout`.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client waits for a gateway.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
/// The first fault comes no earlier.
const BEFORE_FAULTS: Duration = Duration::from_millis(2_500);
/// After a fault, gateways may need this time to notice that it is over.
const NOTICED: Duration = Duration::from_secs(1);
/// The longest time from the end of a fault until all nodes are in use again.
const LONGEST_RECOVERY: Duration = Duration::from_secs(15);
/// When gateways begin to go through a change of nodes and copies.
const BEFORE_CHANGE: Duration = Duration::from_secs(3);
/// The longest time until all sessions are moved.
const LONGEST_CHANGE: Duration = Duration::from_secs(90);
/// The longest time for which a gateway hangs.
const LONGEST_HANG: Duration = Duration::from_secs(30);

/// What a run has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What should not have been.
    pub violations: Vec<String>,
    /// What happened, a line for each event.
    pub story: Vec<String>,
    /// How many calls there were.
    pub calls: usize,
    /// How long it took, in virtual time.
    pub time: Duration,
}

struct World {
    begun: Instant,
    gateways: Vec<Arc<Gateway>>,
    nodes: Vec<Node>,
    /// How many pairs of nodes have a view, unless that changes.
    pairs: Option<usize>,
    /// Told of each write of a view's record.
    views: Arc<Notify>,
    timeline: Timeline,
    checker: Mutex<Checker>,
    story: Mutex<Vec<String>>,
}

/// Which events there have been, and when.
#[derive(Default)]
struct Timeline {
    reached: Mutex<BTreeMap<Event, Instant>>,
    changed: Notify,
}

impl Timeline {
    fn reach(&self, event: Event) {
        lock(&self.reached).entry(event).or_insert_with(Instant::now);
        self.changed.notify_waiters();
    }

    async fn wait_for(&self, moment: Moment) {
        loop {
            let reached = lock(&self.reached).get(&moment.after).copied();
            if let Some(reached) = reached {
                return sleep_until(reached + Duration::from_millis(moment.millis)).await;
            }
            self.changed.notified().await;
        }
    }
}

struct Gateway {
    links: Vec<Link>,
    gate: Gate,
    /// The layout, and the one after it.
    layouts: Vec<(Layout, Vec<usize>)>,
    /// How far it has come with the change from one to the other.
    step: AtomicUsize,
    tombstone_ttl: Seconds,
    skew: Arc<AtomicI64>,
    environment: Environment,
    running: Mutex<Option<Running>>,
    /// How often it was started.
    starts: AtomicUsize,
    /// The calls under way, which end with the gateway.
    calls: Mutex<Vec<AbortHandle>>,
}

struct Running {
    sessions: Arc<Sessions<Nodes<Link>>>,
    metrics: Metrics,
}

/// A gateway's clock and random numbers.
struct Simulated {
    begun: Instant,
    skew: Arc<AtomicI64>,
    dice: Dice,
}

impl Surroundings for Simulated {
    fn since_epoch(&self) -> Duration {
        let skew = self.skew.load(Ordering::Relaxed);
        let now = EPOCH + self.begun.elapsed();
        let by = Duration::from_millis(skew.unsigned_abs());
        if skew < 0 { now.saturating_sub(by) } else { now + by }
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), getrandom::Error> {
        self.dice.rng().fill(bytes);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a plan. The same plan gives the same report.
///
/// # Panics
///
/// If no runtime can be built.
#[must_use]
pub fn run(plan: &Plan) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    #[expect(clippy::expect_used, reason = "a simulation without a runtime can only end")]
    let runtime = runtime.expect("a runtime without I/O");
    runtime.block_on(async {
        let world = Arc::new(World::new(plan));
        world.run(plan).await
    })
}

impl World {
    fn new(plan: &Plan) -> Self {
        let dice = Dice::new(plan.seed);
        let begun = Instant::now();
        let views = Arc::new(Notify::new());
        let node = |phase: &u64| Node::new(Duration::from_millis(*phase), Arc::clone(&views));
        let nodes: Vec<_> = plan.nodes.iter().map(node).collect();
        let gateway = |skew: &i64| {
            let skew = Arc::new(AtomicI64::new(*skew));
            let surroundings = Simulated { begun, skew: Arc::clone(&skew), dice: dice.clone() };
            let gate = Gate::default();
            let link = |node: &Node| Link::new(node.clone(), gate.clone(), plan.distance, dice.clone());
            let gateway = Gateway {
                links: nodes.iter().map(link).collect(),
                gate: gate.clone(),
                layouts: layouts(plan),
                step: AtomicUsize::new(0),
                starts: AtomicUsize::new(0),
                tombstone_ttl: Seconds::new(plan.tombstone_ttl),
                skew,
                environment: Environment::new(surroundings),
                running: Mutex::default(),
                calls: Mutex::default(),
            };
            Arc::new(gateway)
        };
        Self {
            begun,
            gateways: plan.skews.iter().map(gateway).collect(),
            nodes,
            pairs: plan.change.is_none().then(|| {
                let nodes = plan.nodes.len();
                if plan.copies == 1 { 0 } else { nodes * (nodes - 1) / 2 }
            }),
            views,
            timeline: Timeline::default(),
            checker: Mutex::new(Checker::new(plan)),
            story: Mutex::default(),
        }
    }

    async fn run(self: Arc<Self>, plan: &Plan) -> Report {
        let calls = plan.calls.iter().enumerate().map(|(number, call)| {
            tokio::spawn(Arc::clone(&self).client(number, *call, plan.gateways, plan.idle.clone()))
        });
        let hangs = plan.hangs.iter().map(|hang| tokio::spawn(Arc::clone(&self).hang(hang.clone())));
        let changes = plan.change.iter().map(|change| tokio::spawn(Arc::clone(&self).change_layout(change.clone())));
        let tasks: Vec<_> = calls.chain(hangs).chain(changes).collect();
        self.gateways.iter().for_each(Gateway::start);
        self.timeline.reach(Event::Begin);
        sleep(BEFORE_FAULTS).await;
        for (number, fault) in plan.faults.iter().enumerate() {
            sleep(Duration::from_millis(fault.pause)).await;
            self.wait_until_whole().await;
            self.fail(number, fault.kind, Duration::from_millis(fault.length)).await;
            self.recover(number).await;
        }
        let mut panics = Vec::new();
        for task in tasks {
            if let Err(error) = task.await {
                panics.push(format!("a task ended: {error}"));
            }
        }
        let mut violations = std::mem::take(&mut lock(&self.checker).violations);
        violations.extend(panics);
        Report {
            violations,
            story: std::mem::take(&mut *lock(&self.story)),
            calls: plan.calls.len(),
            time: self.begun.elapsed(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tell(&self, what: &str) {
        let line = format!("{:>7.3} s  {what}", millis(self.now()));
        lock(&self.story).push(line);
    }

    async fn fail(&self, number: usize, kind: FaultKind, length: Duration) {
        self.tell(&format!("{kind} ({} ms)", length.as_millis()));
        lock(&self.checker).fails(kind, self.now());
        self.change(kind, true);
        self.timeline.reach(Event::Fault(number));
        sleep(length).await;
        self.change(kind, false);
        self.tell("that is over");
        lock(&self.checker).is_over(self.now());
        self.timeline.reach(Event::Over(number));
    }

    /// A gateway that goes on after it has hung may still record what it found before.
    async fn wait_until_whole(&self) {
        let began = Instant::now();
        while !self.is_whole() && began.elapsed() < LONGEST_RECOVERY {
            let _ = timeout(NOTICED / 4, self.views.notified()).await;
        }
    }

    /// Waits until all nodes are in use again after a fault.
    async fn recover(&self, number: usize) {
        let over = Instant::now();
        let mut began = over;
        while !self.is_whole() || over.elapsed() < NOTICED {
            if self.nodes.iter().flat_map(Node::views).any(|(_, view)| view.contains("joining")) {
                self.timeline.reach(Event::Joining(number));
            }
            // Perhaps the only one that can do something about it.
            if self.gateways.iter().any(|gateway| gateway.gate.is_closed()) {
                began = Instant::now();
            }
            if began.elapsed() >= LONGEST_RECOVERY {
                lock(&self.checker).does_not_recover(self.now());
                break;
            }
            let _ = timeout(NOTICED / 4, self.views.notified()).await;
        }
        self.tell(&Event::Recovered(number).to_string());
        lock(&self.checker).has_recovered(self.now());
        self.timeline.reach(Event::Joining(number));
        self.timeline.reach(Event::Recovered(number));
    }

    /// Whether every two nodes agree that both are in use.
    fn is_whole(&self) -> bool {
        let mut pairs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let has_changed = lock(&self.timeline.reached).contains_key(&Event::Changed);
        let in_use = |(pair, _): &(String, String)| !has_changed || pair.starts_with("sm:2:");
        for (pair, view) in self.nodes.iter().flat_map(Node::views).filter(in_use) {
            pairs.entry(pair).or_default().push(view);
        }
        self.pairs.is_none_or(|all| pairs.len() == all)
            && pairs.values().all(|views| match views.as_slice() {
                [one, two] => one == two && one.matches(" in:").count() == 2,
                _ => false,
            })
    }

    /// All gateways go through a change of nodes and copies, one after the other.
    async fn change_layout(self: Arc<Self>, change: ChangeOfLayout) {
        sleep(BEFORE_CHANGE).await;
        for step in ["a next store", "a previous store", "the new store only"] {
            if step == "the new store only" {
                let are_moved = || self.gateways.iter().all(|gateway| gateway.has_moved_all());
                let began = Instant::now();
                while !are_moved() {
                    if began.elapsed() > LONGEST_CHANGE {
                        lock(&self.checker).does_not_change(self.now());
                        break;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
            for (number, gateway) in self.gateways.iter().enumerate() {
                self.tell(&format!("g{number} is restarted with {step}"));
                lock(&self.checker).hangs(number);
                gateway.stop();
                gateway.step.fetch_add(1, Ordering::Relaxed);
                Gateway::start(gateway);
                let began = Instant::now();
                while lock(&gateway.running).is_none() && began.elapsed() < LONGEST_CHANGE {
                    sleep(Duration::from_millis(50)).await;
                }
                sleep(Duration::from_millis(change.pause)).await;
                lock(&self.checker).goes_on(number, self.now());
            }
        }
        self.tell(&Event::Changed.to_string());
        self.timeline.reach(Event::Changed);
    }

    async fn hang(self: Arc<Self>, hang: Hang) {
        let Some(gateway) = self.gateways.get(hang.gateway) else { return };
        self.timeline.wait_for(hang.from).await;
        self.tell(&format!("g{} hangs until {} ms after {}", hang.gateway, hang.until.millis, hang.until.after));
        lock(&self.checker).hangs(hang.gateway);
        gateway.gate.close();
        let _ = timeout(LONGEST_HANG, self.timeline.wait_for(hang.until)).await;
        self.tell(&format!("g{} goes on", hang.gateway));
        gateway.gate.open();
        if !gateway.gate.is_closed() {
            lock(&self.checker).goes_on(hang.gateway, self.now());
        }
    }

    fn change(&self, kind: FaultKind, begins: bool) {
        let node = |node: usize| self.nodes.get(node);
        let weather = |gateway: Option<usize>, node: Option<usize>, change: &dyn Fn(&mut Weather)| {
            let gateways =
                self.gateways.iter().enumerate().filter(|(number, _)| gateway.is_none_or(|it| it == *number));
            for (_, gateway) in gateways {
                let links = gateway.links.iter().enumerate().filter(|(number, _)| node.is_none_or(|it| it == *number));
                links.for_each(|(_, link)| link.change(change));
            }
        };
        let cut = |is_refused: bool| {
            move |weather: &mut Weather| {
                weather.refused = begins && is_refused;
                weather.cut = begins;
            }
        };
        let chance = |percent: u8| if begins { percent } else { 0 };
        match kind {
            FaultKind::Nothing => {}
            FaultKind::Evict { node: which } => {
                node(which).filter(|_| begins).into_iter().for_each(|node| {
                    node.evict(|key| key.contains("s:") && key.bytes().map(u64::from).sum::<u64>().is_multiple_of(2));
                });
            }
            FaultKind::Crash { node: which } if begins => node(which).into_iter().for_each(Node::crash),
            FaultKind::Crash { node: which } => node(which).into_iter().for_each(Node::start),
            FaultKind::Freeze { node: which } if begins => node(which).into_iter().for_each(Node::freeze),
            FaultKind::Freeze { node: which } => node(which).into_iter().for_each(Node::thaw),
            FaultKind::CutOff { node, is_refused } => weather(None, Some(node), &cut(is_refused)),
            FaultKind::CutLink { gateway, node, is_refused } => weather(Some(gateway), Some(node), &cut(is_refused)),
            FaultKind::Slow { node, delay } => {
                weather(None, Some(node), &|weather| weather.delay = if begins { delay } else { 0 });
            }
            FaultKind::Lossy { gateway, node, percent } => weather(gateway, Some(node), &|weather| {
                weather.lost = chance(percent / 3);
                weather.mute = chance(percent / 3);
                weather.late = chance(percent / 3);
            }),
            FaultKind::Crowded { gateway, percent } => {
                weather(Some(gateway), None, &|weather| weather.crowded = chance(percent));
            }
            FaultKind::Restart { gateway } => {
                let Some(gateway) = self.gateways.get(gateway) else { return };
                if begins { gateway.stop() } else { Gateway::start(gateway) }
            }
            FaultKind::Step { gateway, millis } => {
                if let Some(gateway) = self.gateways.get(gateway).filter(|_| begins) {
                    gateway.skew.fetch_add(millis, Ordering::Relaxed);
                }
            }
        }
    }

    /// A client makes a call, possibly several times, until it gets an answer.
    async fn client(self: Arc<Self>, number: usize, call: PlannedCall, gateways: usize, idle: Vec<u64>) {
        self.timeline.wait_for(call.at).await;
        lock(&self.checker).begin(number, about(call.what), self.now());
        let mut answer = Answer::Unknown("never asked".to_owned());
        for attempt in 0..ATTEMPTS {
            let through = (call.gateway + attempt) % gateways.max(1);
            let begin = self.now();
            self.tell(&format!("#{number} g{through}: {}", call.what));
            let Some(gateway) = self.gateways.get(through) else { break };
            answer = match timeout(CLIENT_TIMEOUT, gateway.answer(number, call.what, &idle)).await {
                Ok(answer) => answer,
                Err(_) if lock(&self.checker).hung_since(through, begin) => Answer::Unknown("no answer".to_owned()),
                Err(_) => Answer::Wrong("a call takes longer than it may".to_owned()),
            };
            // The session may be this client's own, of an attempt that was not answered.
            if attempt > 0 && answer == Answer::Exists {
                answer = Answer::Unknown("exists, perhaps by this".to_owned());
                break;
            }
            self.tell(&format!("#{number} g{through}: {answer}"));
            let Answer::Unknown(why) = &answer else { break };
            lock(&self.checker).failed(number, through, begin, self.now(), why);
            if !call.insists {
                break;
            }
            sleep(PATIENCE).await;
        }
        lock(&self.checker).answered(number, &answer, self.now());
    }
}

impl Gateway {
    /// Starts it, with the flags of the step that it has come to.
    fn start(self: &Arc<Self>) {
        let gateway = Arc::clone(self);
        let number = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::spawn(async move {
            let metrics = Metrics::new();
            let context = Context {
                keyspace: Keyspace::new("sm:").unwrap_or_else(|_| unreachable_keyspace()),
                environment: gateway.environment.clone(),
                metrics: metrics.clone(),
            };
            let start = gateway.flags();
            let settings = Settings {
                keyspace: start.keyspace(&context.keyspace),
                max_data_bytes: 65_536,
                store_timeout: STORE_TIMEOUT,
                tombstone_ttl: gateway.tombstone_ttl,
                session_limit: None,
                environment: gateway.environment.clone(),
            };
            // It is refused if a node that has the last record does not answer: then it is started once more.
            let mut opened = Nodes::open(start, &context).await;
            while opened.is_err() && gateway.starts.load(Ordering::Relaxed) == number {
                sleep(Duration::from_secs(1)).await;
                opened = Nodes::open(gateway.flags(), &context).await;
            }
            let Ok(store) = opened else { return };
            if gateway.starts.load(Ordering::Relaxed) == number {
                let sessions = Arc::new(Sessions::new(store, settings, metrics.clone()));
                *lock(&gateway.running) = Some(Running { sessions, metrics });
            }
        });
    }

    fn flags(&self) -> Start<Link> {
        let place = |which: usize| {
            let (layout, nodes) = self.layouts.get(which).cloned()?;
            let nodes = nodes.iter().filter_map(|node| Some((name(*node), self.links.get(*node)?.clone()))).collect();
            Some(Place { layout, nodes })
        };
        let only = |which| place(which).map(Start::Only);
        let (old, new) = (place(0), place(1));
        let start = match (self.step.load(Ordering::Relaxed), old, new) {
            (1, Some(old), Some(new)) => Some(Start::Before { old, new }),
            (2, Some(old), Some(new)) => Some(Start::During { old, new }),
            (0..=2, _, _) => only(0),
            _ => only(1),
        };
        #[expect(clippy::expect_used, reason = "every plan has a first layout, and a second one if it changes")]
        start.expect("a layout")
    }

    /// Whether no session is left in the old layout, as far as this gateway knows.
    fn has_moved_all(&self) -> bool {
        let is_none_left = |running: &Running| {
            let text = running.metrics.render().unwrap_or_default();
            text.lines().any(|line| line == "session_gateway_store_keys_to_move 0")
        };
        lock(&self.running).as_ref().is_some_and(is_none_left)
    }

    fn stop(&self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        *lock(&self.running) = None;
        for call in lock(&self.calls).drain(..) {
            call.abort();
        }
    }

    async fn answer(&self, call: usize, what: Request, idle: &[u64]) -> Answer {
        let sessions = lock(&self.running).as_ref().map(|running| Arc::clone(&running.sessions));
        let Some(sessions) = sessions else {
            return Answer::Unknown("the gateway is down".to_owned());
        };
        let idle = idle.to_vec();
        let task = tokio::spawn(async move { Box::pin(made(&sessions, call, what, &idle)).await });
        lock(&self.calls).push(task.abort_handle());
        match task.await {
            Ok(answer) => answer,
            Err(error) if error.is_cancelled() => Answer::Unknown("the gateway went down".to_owned()),
            Err(error) => Answer::Wrong(format!("a call has panicked: {error}")),
        }
    }
}

#[expect(clippy::panic, reason = "the prefix is a constant")]
fn unreachable_keyspace() -> Keyspace {
    panic!("not a prefix")
}

fn name(node: usize) -> String {
    format!("n{node}:11211")
}

/// The layouts of a plan, each with its nodes.
fn layouts(plan: &Plan) -> Vec<(Layout, Vec<usize>)> {
    let layout = |number: u16, copies: usize, nodes: &[usize]| {
        let names: Vec<_> = nodes.iter().copied().map(name).collect();
        (Layout::new(number, copies, &names), nodes.to_vec())
    };
    match &plan.change {
        None => vec![layout(1, plan.copies, &(0..plan.nodes.len()).collect::<Vec<_>>())],
        Some(change) => vec![layout(1, plan.copies, &change.from), layout(2, change.copies, &change.to)],
    }
}

fn id(session: usize) -> SessionId {
    let mut bytes = [7; SessionId::BYTES];
    if let Some(last) = bytes.last_mut() {
        *last = u8::try_from(session).unwrap_or(u8::MAX);
    }
    SessionId::from_bytes(bytes)
}

fn number(id: SessionId) -> usize {
    id.as_bytes().last().copied().map_or(0, usize::from)
}

fn principal(subject: usize) -> Principal {
    Principal { realm: None, subject: format!("u{subject}") }
}

fn about(request: Request) -> About {
    match request {
        Request::Create { session, subject, .. } => {
            About::Write { session, login: subject, rotates: false, creates: true }
        }
        Request::Read { session, touches } => About::Read { session, touches },
        Request::Change { session, login, rotates } => About::Write { session, login, rotates, creates: false },
        Request::Destroy { session } => About::End { session },
        Request::Revoke { subject } => About::Revoke { subject },
        Request::List { subject } => About::List { subject },
    }
}

/// The member that a call puts into the data, and who logs in.
fn patch(call: usize, login: Option<usize>) -> Object {
    let mut object = Object::new();
    object.insert(format!("m{call}"), serde_json::Value::Bool(true));
    if let Some(subject) = login {
        object.insert("user".to_owned(), serde_json::Value::String(format!("u{subject}")));
    }
    object
}

fn shown(session: &Session) -> Result<Shown, Answer> {
    let data = session.data().parse().map_err(|error| Answer::Wrong(format!("the data: {error}")))?;
    let marks: BTreeSet<usize> = data.keys().filter_map(|member| member.strip_prefix('m')?.parse().ok()).collect();
    let subject = session.subject().and_then(|subject| subject.strip_prefix('u')?.parse().ok());
    Ok(Shown { version: session.version().get(), min_version: session.min_version().get(), marks, subject })
}

fn answer(live: &LiveSession, wrap: impl Fn(Shown) -> Answer) -> Answer {
    shown(&live.session).map_or_else(|wrong| wrong, wrap)
}

fn failure(error: SessionError) -> Answer {
    match error {
        SessionError::NotFound => Answer::NotFound,
        SessionError::Exists { .. } => Answer::Exists,
        SessionError::Store(error) => Answer::Unknown(error.to_string()),
        SessionError::TimedOut => Answer::Unknown("no time left".to_owned()),
        other => Answer::Wrong(other.to_string()),
    }
}

/// Makes a call as the API would.
async fn made(sessions: &Sessions<Nodes<Link>>, call: usize, what: Request, idle: &[u64]) -> Answer {
    let outcome = match what {
        Request::Create { session, subject, merges } => {
            let idle = Seconds::new(idle.get(session).copied().unwrap_or(1_800));
            let new = NewSession {
                data: patch(call, subject),
                timeouts: Timeouts { idle, absolute: Seconds::new(43_200) },
                subject_key: "user".to_owned(),
                realm: None,
                upstream_cookie: None,
                rotation: Rotation::None,
            };
            let merge_within = Some(Seconds::new(10)).filter(|_| merges);
            Box::pin(sessions.create(id(session), new, merge_within)).await.map(|created| match created {
                Created::New(live) => answer(&live, Answer::Created),
                Created::Merged(live) => answer(&live, Answer::Shown),
            })
        }
        Request::Read { session, touches } => {
            let touch = touches.then_some(Touch::default());
            sessions.read(id(session), touch).await.map(|live| answer(&live, Answer::Shown))
        }
        Request::Change { session, login, rotates } => {
            let change = Change {
                patches: vec![patch(call, login)],
                rotation: if rotates { Rotation::Authenticated } else { Rotation::None },
                grace: Seconds::new(10),
                subject_key: "user".to_owned(),
                ..Change::default()
            };
            let name = u64::try_from(call).unwrap_or(u64::MAX) + 1;
            let name = WriteId::from_random(name.to_ne_bytes());
            let changed = Box::pin(sessions.change(id(session), &change, &Precondition::None, Some(name))).await;
            changed.map(|live| answer(&live, Answer::Shown))
        }
        Request::Destroy { session } => {
            sessions.destroy(id(session), &Precondition::None, None).await.map(|()| Answer::Done)
        }
        Request::Revoke { subject } => sessions.revoke(&principal(subject), None).await.map(|()| Answer::Done),
        Request::List { subject } => sessions.of_subject(&principal(subject)).await.map(|listed| {
            let listed = listed.iter().map(|listed| Ok((number(listed.id), shown(&listed.live.session)?)));
            listed.collect::<Result<_, _>>().map_or_else(|wrong| wrong, Answer::Listed)
        }),
    };
    outcome.unwrap_or_else(failure)
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shown(shown) => write!(f, "{shown}"),
            Self::Created(shown) => write!(f, "created, {shown}"),
            Self::NotFound => f.write_str("not found"),
            Self::Exists => f.write_str("exists"),
            Self::Done => f.write_str("done"),
            Self::Listed(listed) => {
                f.write_str("list:")?;
                listed.iter().try_for_each(|(session, shown)| write!(f, " s{session} ({shown})"))
            }
            Self::Unknown(why) => write!(f, "not known: {why}"),
            Self::Wrong(what) => write!(f, "WRONG: {what}"),
        }
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "version {}", self.version)?;
        self.subject.map_or(Ok(()), |subject| write!(f, " of u{subject}"))?;
        f.write_str(" with")?;
        self.marks.iter().try_for_each(|mark| write!(f, " #{mark}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_replays_the_same_run() {
        for seed in 0..20 {
            let stories = [(); 2].map(|()| run(&Plan::from_seed(seed)).story);
            assert!(stories.iter().all(|story| story.len() > 10));
            assert_eq!(stories.first(), stories.last(), "seed {seed}");
        }
    }
}
