//! Bars on a terminal, one a step.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::end_line;
use crate::cli::terminal::{print_behind, print_line, shown_in_line};
use crate::util::report::{Outcome, Progress, Reporter, Step};

/// Bars, one a step.
pub(super) struct Bars {
    bars: MultiProgress,
    quiet: bool,
    colour: bool,
}

impl Bars {
    pub(super) fn new(quiet: bool, colour: bool) -> Self {
        Self { bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), quiet, colour }
    }

    fn say(&self, prefix: &str, ansi: &str, message: &str) {
        let prefix =
            if self.colour && !prefix.is_empty() { format!("\x1b[{ansi}m{prefix}\x1b[0m") } else { prefix.to_owned() };
        // Above the bars, which are drawn again below it.
        self.bars.suspend(|| print_behind(&prefix, message));
    }
}

impl Reporter for Bars {
    fn begin(&self, step: Step, total: u64) -> Box<dyn Progress> {
        let bar = if self.quiet { ProgressBar::hidden() } else { self.bars.add(ProgressBar::new(total)) };
        let template = match step {
            Step::Base | Step::Solve | Step::Resolve | Step::Read | Step::Cache | Step::Fetch => {
                "{prefix:<9} {spinner} {elapsed} {wide_msg}"
            }
            _ => "{prefix:<9} [{bar:24}] {bytes:>10}/{total_bytes:<10} {bytes_per_sec:<12} {wide_msg}",
        };
        bar.set_style(
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        bar.set_prefix(step.name());
        bar.enable_steady_tick(Duration::from_millis(120));
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
        self.bar.set_message(shown_in_line(name));
    }

    fn finish(&self, outcome: &Outcome) {
        self.bar.finish_and_clear();
        let told = outcome.to_string();
        if !self.quiet && !told.is_empty() {
            self.bars.suspend(|| print_line(&end_line(self.step, &told, self.begun.elapsed())));
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
