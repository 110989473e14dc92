//! Plain lines: one for each step that is over, and one every ten seconds while a step runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::json;
use crate::cli::terminal::print_line;
use crate::util::human;
use crate::util::report::{Outcome, Progress, Reporter, Step};

/// How often a step that runs says so. CI systems end jobs that are silent for minutes; people wait less.
const BEAT: Duration = Duration::from_secs(10);

/// One line a step.
pub(super) struct Lines {
    pub(super) quiet: bool,
}

impl Reporter for Lines {
    fn begin(&self, step: Step, total: u64) -> Box<dyn Progress> {
        let state = State::begin(step, total);
        let heart = (!self.quiet).then(|| Heart::begin(state.clone(), Pulse::Plain));
        Box::new(LineStep { state, heart: Mutex::new(heart), quiet: self.quiet })
    }

    fn warn(&self, message: &str) {
        print_line(&format!("warning: {message}"));
    }

    fn notice(&self, message: &str) {
        if !self.quiet {
            print_line(message);
        }
    }
}

struct LineStep {
    state: State,
    heart: Mutex<Option<Heart>>,
    quiet: bool,
}

impl Progress for LineStep {
    fn grow(&self, bytes: u64) {
        self.state.grow(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.state.advance(bytes);
    }

    fn item(&self, name: &str) {
        self.state.set_item(name);
    }

    fn finish(&self, outcome: &Outcome) {
        drop(self.heart.lock().unwrap_or_else(PoisonError::into_inner).take());
        if !self.quiet {
            print_end(&self.state, outcome);
        }
    }
}

/// Prints what a step did, if it says so.
fn print_end(state: &State, outcome: &Outcome) {
    let told = outcome.to_string();
    if !told.is_empty() {
        print_line(&end_line(state.step(), &told, state.elapsed()));
    }
}

/// The line at the end of a step.
pub(super) fn end_line(step: Step, told: &str, took: Duration) -> String {
    format!("{:<9} {told} ({:.1} s)", step.name(), took.as_secs_f64())
}

/// How far a step is.
#[derive(Clone)]
pub(super) struct State(Arc<Inner>);

struct Inner {
    step: Step,
    begun: Instant,
    total: AtomicU64,
    done: AtomicU64,
    item: Mutex<String>,
    told: Mutex<Instant>,
    over: AtomicBool,
}

impl State {
    /// A step that begins now; `total` is in bytes, 0 when it is not known.
    pub(super) fn begin(step: Step, total: u64) -> Self {
        Self(Arc::new(Inner {
            step,
            begun: Instant::now(),
            total: AtomicU64::new(total),
            done: AtomicU64::new(0),
            item: Mutex::default(),
            told: Mutex::new(Instant::now()),
            over: AtomicBool::new(false),
        }))
    }

    pub(super) fn step(&self) -> Step {
        self.0.step
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.begun.elapsed()
    }

    pub(super) fn grow(&self, bytes: u64) {
        self.0.total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }

    /// Bytes in all, if that is known.
    pub(super) fn total(&self) -> Option<u64> {
        Some(self.0.total.load(Ordering::Relaxed)).filter(|total| *total > 0)
    }

    pub(super) fn set_item(&self, name: &str) {
        name.clone_into(&mut self.0.item.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What the step works on, if it says so.
    pub(super) fn item(&self) -> Option<String> {
        Some(self.0.item.lock().unwrap_or_else(PoisonError::into_inner).clone()).filter(|item| !item.is_empty())
    }

    /// Whether so much time has passed since the last call that gave true.
    pub(super) fn is_due(&self, interval: Duration) -> bool {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.elapsed() >= interval;
        if due {
            *told = Instant::now();
        }
        due
    }

    /// Whether the step was over before; it is from now on.
    pub(super) fn is_over(&self) -> bool {
        self.0.over.swap(true, Ordering::Relaxed)
    }

    /// `12.00 MiB of 40.00 MiB, numpy`.
    fn told(&self) -> String {
        let done = match (self.done(), self.total()) {
            (0, None) => None,
            (done, None) => Some(human(done)),
            (done, Some(total)) => Some(format!("{} of {}", human(done), human(total))),
        };
        let parts: Vec<String> = done.into_iter().chain(self.item()).collect();
        if parts.is_empty() { "still running".to_owned() } else { parts.join(", ") }
    }
}

/// How a step says that it runs.
#[derive(Clone, Copy)]
pub(super) enum Pulse {
    Plain,
    Json,
}

/// A thread that says every ten seconds that a step runs; dropped, it ends.
pub(super) struct Heart {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    pub(super) fn begin(state: State, pulse: Pulse) -> Self {
        let (stop, stopped) = channel();
        let beat = move || {
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                match pulse {
                    Pulse::Plain => {
                        let (name, seconds) = (state.step().name(), state.elapsed().as_secs());
                        print_line(&format!("{name:<9} {} ({seconds} s so far)", state.told()));
                    }
                    Pulse::Json => json::progress(&state),
                }
            }
        };
        // Without a thread, the step is silent.
        let thread = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(beat).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_step_tells_how_far_it_is() {
        let state = State::begin(Step::Pack, 0);
        assert_eq!(state.told(), "still running");
        state.set_item("numpy");
        assert_eq!(state.told(), "numpy");
        state.grow(40 << 20);
        state.advance(12 << 20);
        assert_eq!(state.told(), "12.00 MiB of 40.00 MiB, numpy");
    }
}
