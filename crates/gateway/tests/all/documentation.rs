//! `docs/gateway.md` and the program say the same.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory as _;
use session_gateway::config::Flags;

use super::support::fresh_id;
use super::support::gateway::Gateway;
use super::support::memcached::Memcached;

const DOCUMENT: &str = include_str!("../../../../docs/gateway.md");

/// The cells of the tables' rows that start with a `` `prefix…` ``.
fn rows(prefix: &str) -> Vec<Vec<String>> {
    let start = format!("| `{prefix}");
    let rows = DOCUMENT.lines().filter(|line| line.starts_with(&start));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    rows.map(cells).collect()
}

#[test]
fn every_flag_is_documented_and_nothing_else() {
    let documented: BTreeMap<_, _> =
        rows("--").into_iter().map(|row| (row[0].clone(), (row[1].clone(), row[2].clone()))).collect();
    let command = Flags::command();
    let defined: BTreeMap<_, _> = command
        .get_arguments()
        .map(|argument| {
            let flag = format!("--{}", argument.get_long().expect("flags have long names"));
            let variable = argument.get_env().expect("flags have variables").to_str().unwrap().to_owned();
            let expected = flag.trim_start_matches("--").replace('-', "_").to_uppercase();
            assert_eq!(variable, format!("SESSION_GATEWAY_{expected}"));
            let defaults = argument.get_default_values();
            let default = defaults.first().map_or("", |default| default.to_str().unwrap());
            (flag, (variable, default.to_owned()))
        })
        .collect();
    assert_eq!(documented, defined);
}

#[tokio::test]
async fn every_metric_is_documented_and_nothing_else() {
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    gateway.put(&fresh_id(), "{}").await;
    let text = gateway.admin("/metrics").await.body;
    let exposed: BTreeSet<String> = str::from_utf8(&text)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let name = line.split(['{', ' ']).next().unwrap();
            let parts = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            parts.unwrap_or(name).to_owned()
        })
        .collect();
    let documented: BTreeSet<String> = rows("session_gateway_").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(documented, exposed);
}
