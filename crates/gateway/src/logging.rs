//! Log lines on standard error.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::filter::LevelFilter;

use crate::config::LogFormat;

/// Starts logging, once per process.
pub fn start(level: LevelFilter, format: LogFormat) {
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(stderr).with_ansi(stderr().is_terminal());
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
