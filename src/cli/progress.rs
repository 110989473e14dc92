//! Drawing what the library reports: bars on a terminal, one line a step elsewhere, JSON lines on request. All on
//! standard error.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde_json::json;

use super::args::{ColorArg, Global, ProgressArg};
use crate::util::report::{Progress, Reporter, SharedReporter, Step};
use crate::util::{Error, ErrorKind};

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
            ProgressArg::Auto if terminal && std::env::var_os("CI").is_none() => Self::Tty,
            ProgressArg::Auto => Self::Plain,
        }
    }
}

/// The reporter for a style.
pub fn reporter(style: ProgressStyle, global: &Global) -> SharedReporter {
    let colour = match global.color {
        ColorArg::Always => true,
        ColorArg::Never => false,
        ColorArg::Auto => style == ProgressStyle::Tty && std::env::var_os("NO_COLOR").is_none(),
    };
    match style {
        ProgressStyle::Tty => Arc::new(Bars {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            quiet: global.quiet,
            colour,
        }),
        ProgressStyle::Plain => Arc::new(Lines { quiet: global.quiet, json: false }),
        ProgressStyle::Json => Arc::new(Lines { quiet: global.quiet, json: true }),
    }
}

/// Prints a line to standard error; a closed one is nobody's loss.
pub fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints an error with its causes and hints.
pub fn print_error(error: &Error, style: ProgressStyle) {
    let chain = error.chain();
    let hints = error.hints();
    if style == ProgressStyle::Json {
        print_line(&json!({"type": "error", "message": chain.join(": "), "hints": hints}).to_string());
        return;
    }
    let mut lines = chain.iter();
    if let Some(first) = lines.next() {
        let kind = if error.kind() == ErrorKind::Bug { "error: a defect of condaimg: " } else { "error: " };
        print_line(&format!("{kind}{first}"));
    }
    for cause in lines {
        print_line(&format!("  caused by: {}", cause.replace('\n', "\n    ")));
    }
    for hint in hints {
        print_line(&format!("  hint: {hint}"));
    }
}

/// One line a step, as text or JSON.
struct Lines {
    quiet: bool,
    json: bool,
}

impl Lines {
    fn line(&self, kind: &str, message: &str) {
        if self.json {
            print_line(&json!({"type": kind, "message": message}).to_string());
        } else if kind == "notice" {
            print_line(message);
        } else {
            print_line(&format!("{kind}: {message}"));
        }
    }
}

impl Reporter for Lines {
    fn begin(&self, step: Step, total: u64) -> Box<dyn Progress> {
        if self.json && !self.quiet {
            print_line(&json!({"type": "begin", "step": step.name(), "total": total}).to_string());
        }
        Box::new(LineStep {
            step,
            quiet: self.quiet,
            json: self.json,
            begun: Instant::now(),
            done: AtomicU64::new(0),
            told: Mutex::new(Instant::now()),
        })
    }

    fn warn(&self, message: &str) {
        self.line("warning", message);
    }

    fn notice(&self, message: &str) {
        if !self.quiet {
            self.line("notice", message);
        }
    }
}

struct LineStep {
    step: Step,
    quiet: bool,
    json: bool,
    begun: Instant,
    done: AtomicU64,
    told: Mutex<Instant>,
}

impl Progress for LineStep {
    fn grow(&self, _bytes: u64) {}

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if !self.json || self.quiet {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // Twice a second is enough for a machine that draws, and little for one that stores.
        if told.elapsed().as_millis() >= 500 {
            *told = Instant::now();
            print_line(&json!({"type": "progress", "step": self.step.name(), "bytes": done}).to_string());
        }
    }

    fn item(&self, _name: &str) {}

    fn finish(&self, summary: &str) {
        if self.quiet {
            return;
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        if self.json {
            let done = self.done.load(Ordering::Relaxed);
            let line =
                json!({"type": "end", "step": self.step.name(), "bytes": done, "seconds": seconds, "message": summary});
            print_line(&line.to_string());
        } else {
            print_line(&format!("{:<9} {summary} ({seconds:.1} s)", self.step.name()));
        }
    }
}

/// Bars, one a step.
struct Bars {
    bars: MultiProgress,
    quiet: bool,
    colour: bool,
}

impl Bars {
    fn say(&self, prefix: &str, ansi: &str, message: &str) {
        let prefix = if self.colour { format!("\x1b[{ansi}m{prefix}\x1b[0m") } else { prefix.to_owned() };
        // Above the bars, which are drawn again below it.
        self.bars.suspend(|| print_line(&format!("{prefix}{message}")));
    }
}

impl Reporter for Bars {
    fn begin(&self, step: Step, total: u64) -> Box<dyn Progress> {
        let bar = if self.quiet { ProgressBar::hidden() } else { self.bars.add(ProgressBar::new(total)) };
        let template = match step {
            Step::Solve => "{prefix:<9} {spinner} {elapsed} {wide_msg}",
            _ => "{prefix:<9} [{bar:24}] {bytes:>10}/{total_bytes:<10} {bytes_per_sec:<12} {wide_msg}",
        };
        bar.set_style(
            BarStyle::with_template(template).unwrap_or_else(|_| BarStyle::default_bar()).progress_chars("=> "),
        );
        bar.set_prefix(step.name());
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
        Box::new(BarStep { bar, step, bars: self.bars.clone(), begun: Instant::now(), quiet: self.quiet })
    }

    fn warn(&self, message: &str) {
        self.say("warning: ", "33", message);
    }

    fn notice(&self, message: &str) {
        if !self.quiet {
            self.say("", "0", message);
        }
    }
}

struct BarStep {
    bar: ProgressBar,
    step: Step,
    bars: MultiProgress,
    begun: Instant,
    quiet: bool,
}

impl Progress for BarStep {
    fn grow(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn item(&self, name: &str) {
        self.bar.set_message(name.to_owned());
    }

    fn finish(&self, summary: &str) {
        self.bar.finish_and_clear();
        if !self.quiet {
            let seconds = self.begun.elapsed().as_secs_f64();
            self.bars.suspend(|| print_line(&format!("{:<9} {summary} ({seconds:.1} s)", self.step.name())));
        }
    }
}

impl Drop for BarStep {
    fn drop(&mut self) {
        if !self.bar.is_finished() {
            self.bar.finish_and_clear();
        }
    }
}

/// A size for people.
pub fn human(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}
