//! Runs a plan: gateways, nodes, links, clients and faults on one thread, in virtual time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
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
use session_gateway::store::{Keyspace, Pace, Replicated};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::checker::{About, Answer, Checker, Shown, millis};
use crate::link::{Dice, Link, Weather};
use crate::node::Node;
use crate::plan::{Fault, FaultKind, Plan, PlannedCall, Request};

/// The beginning of every run: some time in 2023.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// How long a client waits until it tries again.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often it tries.
const ATTEMPTS: usize = 4;
/// How long a gateway has for a call: the default of `--store-timeout`.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a run has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What should not have been.
    pub violations: Vec<String>,
    /// What happened, a line for each event.
    pub story: Vec<String>,
    /// How many calls there were.
    pub calls: usize,
}

struct World {
    begun: Instant,
    gateways: Vec<Gateway>,
    nodes: Vec<Node>,
    checker: Mutex<Checker>,
    story: Mutex<Vec<String>>,
}

struct Gateway {
    links: Vec<Link>,
    skew: Arc<AtomicI64>,
    environment: Environment,
    running: Mutex<Option<Arc<Sessions<Replicated<Link>>>>>,
    /// The calls under way, which end with the gateway.
    calls: Mutex<Vec<AbortHandle>>,
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
        let nodes: Vec<_> = (0..plan.nodes).map(|_| Node::new()).collect();
        let gateway = |skew: &i64| {
            let skew = Arc::new(AtomicI64::new(*skew));
            let surroundings = Simulated { begun, skew: Arc::clone(&skew), dice: dice.clone() };
            let gateway = Gateway {
                links: nodes.iter().map(|node| Link::new(node.clone(), dice.clone())).collect(),
                skew,
                environment: Environment::new(surroundings),
                running: Mutex::default(),
                calls: Mutex::default(),
            };
            gateway.start();
            gateway
        };
        Self {
            begun,
            gateways: plan.skews.iter().map(gateway).collect(),
            nodes,
            checker: Mutex::new(Checker::new(plan)),
            story: Mutex::default(),
        }
    }

    async fn run(self: Arc<Self>, plan: &Plan) -> Report {
        let faults = plan.faults.iter().map(|fault| tokio::spawn(Arc::clone(&self).fail(fault.clone())));
        let faults: Vec<_> = faults.collect();
        let calls = plan.calls.iter().enumerate().map(|(number, call)| {
            tokio::spawn(Arc::clone(&self).client(number, *call, plan.gateways, plan.idle.clone()))
        });
        let calls: Vec<_> = calls.collect();
        let mut panics = Vec::new();
        for task in calls.into_iter().chain(faults) {
            if let Err(error) = task.await {
                panics.push(format!("a task ended: {error}"));
            }
        }
        let mut violations = std::mem::take(&mut lock(&self.checker).violations);
        violations.extend(panics);
        Report { violations, story: std::mem::take(&mut *lock(&self.story)), calls: plan.calls.len() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tell(&self, what: &str) {
        let line = format!("{:>7.3} s  {what}", millis(self.now()));
        lock(&self.story).push(line);
    }

    async fn fail(self: Arc<Self>, fault: Fault) {
        sleep_until(self.begun + Duration::from_millis(fault.during.start)).await;
        self.tell(&format!("{} ({} ms)", fault.kind, fault.during.end - fault.during.start));
        self.change(fault.kind, true);
        sleep_until(self.begun + Duration::from_millis(fault.during.end)).await;
        self.change(fault.kind, false);
        self.tell("that is over");
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
                if begins { gateway.stop() } else { gateway.start() }
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
        sleep_until(self.begun + Duration::from_millis(call.at)).await;
        lock(&self.checker).begin(number, about(call.what), self.now());
        let mut answer = Answer::Unknown("never asked".to_owned());
        for attempt in 0..ATTEMPTS {
            let through = (call.gateway + attempt) % gateways.max(1);
            let begin = self.now();
            self.tell(&format!("#{number} g{through}: {}", call.what));
            let Some(gateway) = self.gateways.get(through) else { break };
            answer = gateway.answer(number, call.what, &idle).await;
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
    fn start(&self) {
        let metrics = Metrics::new();
        let keyspace = Keyspace::new("sm:").unwrap_or_else(|_| unreachable_keyspace());
        let nodes = self.links.iter().enumerate().map(|(number, link)| (format!("n{number}:11211"), link.clone()));
        let store = Replicated::new(nodes.collect(), &keyspace, Pace::DEFAULT, &self.environment, &metrics);
        let settings = Settings {
            keyspace,
            max_data_bytes: 65_536,
            store_timeout: STORE_TIMEOUT,
            tombstone_ttl: Seconds::new(60),
            session_limit: None,
            environment: self.environment.clone(),
        };
        *lock(&self.running) = Some(Arc::new(Sessions::new(store, settings, metrics)));
    }

    fn stop(&self) {
        *lock(&self.running) = None;
        for call in lock(&self.calls).drain(..) {
            call.abort();
        }
    }

    async fn answer(&self, call: usize, what: Request, idle: &[u64]) -> Answer {
        let Some(sessions) = lock(&self.running).clone() else {
            return Answer::Unknown("the gateway is down".to_owned());
        };
        let idle = idle.to_vec();
        let task = tokio::spawn(async move { Box::pin(made(&sessions, call, what, &idle)).await });
        lock(&self.calls).push(task.abort_handle());
        match timeout(Duration::from_secs(5), task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.is_cancelled() => Answer::Unknown("the gateway went down".to_owned()),
            Ok(Err(error)) => Answer::Wrong(format!("a call has panicked: {error}")),
            Err(_) => Answer::Wrong("a call takes longer than it may".to_owned()),
        }
    }
}

#[expect(clippy::panic, reason = "the prefix is a constant")]
fn unreachable_keyspace() -> Keyspace {
    panic!("not a prefix")
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
async fn made(sessions: &Sessions<Replicated<Link>>, call: usize, what: Request, idle: &[u64]) -> Answer {
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
