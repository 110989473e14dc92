//! Drawing what the library reports: bars on a terminal, one line a step elsewhere, JSON lines on request. All on
//! standard error.

mod bars;
mod json;
mod lines;
mod log;

use std::sync::Arc;

use super::args::{ColorArg, Global, ProgressArg};
use super::terminal::print_line;
use super::values::variable;
use crate::util::report::SharedReporter;
use crate::util::{Error, ErrorKind};
pub use json::conclude;
pub use log::log_details;

/// How progress is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressStyle {
    Tty,
    Plain,
    Json,
}

impl ProgressStyle {
    /// What the user asked for; without a wish, bars only on a terminal that is not a CI's log.
    pub fn choose(asked: ProgressArg, terminal: bool) -> Self {
        match asked {
            ProgressArg::Tty => Self::Tty,
            ProgressArg::Plain => Self::Plain,
            ProgressArg::Json => Self::Json,
            ProgressArg::Auto if terminal && variable("CI").is_none() => Self::Tty,
            ProgressArg::Auto => Self::Plain,
        }
    }
}

/// The reporter for a style.
pub fn reporter(style: ProgressStyle, global: &Global) -> SharedReporter {
    let colour = match global.color {
        ColorArg::Always => true,
        ColorArg::Never => false,
        ColorArg::Auto => style == ProgressStyle::Tty && variable("NO_COLOR").is_none(),
    };
    match style {
        ProgressStyle::Tty => Arc::new(bars::Bars::new(global.quiet, colour)),
        ProgressStyle::Plain => Arc::new(lines::Lines { quiet: global.quiet }),
        ProgressStyle::Json => Arc::new(json::Json { quiet: global.quiet }),
    }
}

/// Prints an error with its causes and hints, and the exit status that it stands for.
pub fn print_error(error: &Error, status: u8, style: ProgressStyle) {
    if style == ProgressStyle::Json {
        return json::error(error, status);
    }
    let chain = error.chain();
    let mut lines = chain.iter();
    if let Some(first) = lines.next() {
        let kind = if error.kind() == ErrorKind::Bug { "error: a defect of condaimg: " } else { "error: " };
        print_line(&format!("{kind}{first}"));
    }
    for cause in lines {
        print_line(&format!("  caused by: {}", cause.replace('\n', "\n    ")));
    }
    for hint in error.hints() {
        print_line(&format!("  hint: {hint}"));
    }
}
