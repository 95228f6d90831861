//! `simulation`: runs as many plans as asked for, and tells the shortest story of the first that fails.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use session_gateway::store::rules::{Rule, break_rule};
use simulation::campaign::Campaign;
use simulation::plan::Plan;
use simulation::shrink::shrink;
use simulation::world::run;

/// Gateways and memcacheds on simulated time, with faults: checks what the copies promise.
#[derive(Parser)]
struct Flags {
    /// How many runs
    #[arg(long, default_value_t = 10_000)]
    runs: u64,
    /// The first run's seed; each further run has the next one. Random if not given
    #[arg(long)]
    seed: Option<u64>,
    /// How many runs at a time
    #[arg(long, default_value_t = default_jobs())]
    jobs: usize,
    /// Tell the story of the first run, whatever comes of it
    #[arg(long)]
    story: bool,
    /// Go on after a failure, and count them
    #[arg(long)]
    keep_going: bool,
    /// Break each rule of the copies, one after the other, and succeed if each is noticed within so many runs
    #[arg(long)]
    break_rules: bool,
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let first = match flags.seed.map_or_else(getrandom::u64, Ok) {
        Ok(seed) => seed,
        Err(error) => {
            eprintln!("no random numbers: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Flags { runs, jobs, keep_going, .. } = flags;
    let campaign = Campaign { first, runs, jobs, broken: None, keep_going };
    if flags.story {
        tell(&Plan::from_seed(first));
        return ExitCode::SUCCESS;
    }
    println!("up to {runs} runs from seed {first}");
    if flags.break_rules { break_each_rule(campaign) } else { keep_all_rules(campaign) }
}

fn keep_all_rules(campaign: Campaign) -> ExitCode {
    let began = Instant::now();
    let totals = campaign.run(|totals| match totals.failed.last() {
        Some((seed, violation)) => println!("{totals}, the last with seed {seed}: {violation}"),
        None => println!("{totals}"),
    });
    println!("{totals} in {:.1} s", began.elapsed().as_secs_f64());
    let Some((seed, _)) = totals.failed.first() else { return ExitCode::SUCCESS };
    println!("\nThe shortest plan found that fails, from seed {seed}:\n");
    tell(&shrink(&Plan::from_seed(*seed)));
    ExitCode::FAILURE
}

fn break_each_rule(campaign: Campaign) -> ExitCode {
    let mut outcome = ExitCode::SUCCESS;
    for rule in Rule::ALL {
        let totals = Campaign { broken: Some(rule), keep_going: false, ..campaign }.run(|_| {});
        if let Some((seed, violation)) = totals.failed.first() {
            println!("{rule:?}: noticed after {} runs, with seed {seed}: {violation}", totals.runs);
        } else {
            println!("{rule:?}: NOT NOTICED in {} runs", totals.runs);
            outcome = ExitCode::FAILURE;
        }
    }
    break_rule(None);
    outcome
}

fn tell(plan: &Plan) {
    let Plan { gateways, nodes, copies, skews, idle, tombstone_ttl, .. } = plan;
    println!("{gateways} gateways with clocks off by {skews:?} ms, {} nodes, {copies} copies", nodes.len());
    println!("sessions with idle timeouts of {idle:?} s, tombstones for {tombstone_ttl} s");
    let report = run(plan);
    for line in &report.story {
        println!("{line}");
    }
    for line in &report.violations {
        println!("VIOLATION  {line}");
    }
}
