//! A reporter that gives each warning once: what is wrong with a package is mostly wrong on every platform.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::util::report::{Event, Progress, Reporter, SharedReporter, Step};

/// Passes everything on, but no warning twice.
pub struct Once {
    reporter: SharedReporter,
    said: Mutex<BTreeSet<String>>,
}

impl Once {
    /// A reporter that has said nothing yet.
    pub fn new(reporter: SharedReporter) -> Self {
        Self { reporter, said: Mutex::default() }
    }
}

impl Reporter for Once {
    fn begin(&self, step: Step, total: u64) -> Box<dyn Progress> {
        self.reporter.begin(step, total)
    }

    fn warn(&self, message: &str) {
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(message.to_owned()) {
            self.reporter.warn(message);
        }
    }

    fn notice(&self, message: &str) {
        self.reporter.notice(message);
    }

    fn event(&self, event: &Event) {
        self.reporter.event(event);
    }
}
