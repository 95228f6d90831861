//! Many runs, on all cores.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use session_gateway::store::rules::{Rule, break_rule};

use crate::plan::Plan;
use crate::world::{Report, run};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The seed of the first run. Each further run has the next one.
    pub first: u64,
    /// How many runs.
    pub runs: u64,
    /// How many at a time.
    pub jobs: usize,
    /// The rule of the copies that is broken.
    pub broken: Option<Rule>,
    /// Whether to go on after a run has failed.
    pub keep_going: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Totals {
    /// How many runs there were.
    pub runs: u64,
    /// The seeds of those that failed, each with its first violation.
    pub failed: Vec<(u64, String)>,
    calls: usize,
    faults: usize,
    virtual_time: Duration,
}

impl Campaign {
    /// Runs it, and tells its progress with `tell`, after each failure and now and then.
    pub fn run(self, tell: impl Fn(&Totals) + Sync) -> Totals {
        let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let state = Mutex::new((Totals::default(), Instant::now()));
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    break_rule(self.broken);
                    while !is_over.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.runs {
                            return;
                        }
                        let seed = self.first.wrapping_add(number);
                        let plan = Plan::from_seed(seed);
                        let report = run(&plan);
                        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                        let (totals, told) = &mut *state;
                        totals.count(&plan, &report);
                        let violation = report.violations.into_iter().next();
                        let is_news = violation.is_some();
                        if let Some(violation) = violation {
                            totals.failed.push((seed, violation));
                            is_over.store(!self.keep_going, Ordering::Relaxed);
                        }
                        if is_news || told.elapsed() >= PROGRESS {
                            *told = Instant::now();
                            tell(totals);
                        }
                    }
                });
            }
        });
        state.into_inner().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Totals {
    fn count(&mut self, plan: &Plan, report: &Report) {
        self.runs += 1;
        self.calls += report.calls;
        self.faults += plan.faults.len() + plan.hangs.len();
        self.virtual_time += report.time;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, calls, faults, virtual_time, failed } = self;
        let hours = virtual_time.as_secs() / 3_600;
        write!(f, "{runs} runs, {calls} calls, {faults} faults, {hours} h of virtual time, {} failed", failed.len())
    }
}
