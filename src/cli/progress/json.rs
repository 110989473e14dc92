//! JSON lines: each an object with `event`, `step` and typed fields; docs/log.md describes them. The last one is
//! `result` or `error`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::lines::{Heart, Pulse, State};
use crate::cli::terminal::print_json_line;
use crate::util::report::{Event, Outcome, Progress, Reporter, Step};
use crate::util::{Error, ErrorKind};

/// Twice a second is enough for a machine that draws, and little for one that stores.
const INTERVAL: Duration = Duration::from_millis(500);

/// What the command came to, told at its end; and whether that was told: nothing follows it.
static END: Mutex<(Option<Event>, bool)> = Mutex::new((None, false));

/// A line. Fields of a step or an event stand beside its name.
#[derive(Serialize)]
struct Line<'a, T> {
    event: &'a str,
    /// None of what belongs to no step.
    step: Option<&'static str>,
    #[serde(flatten)]
    fields: T,
}

/// Prints a line, unless the last one was printed.
pub(super) fn emit(event: &str, step: Option<Step>, fields: impl Serialize) {
    let end = END.lock().unwrap_or_else(PoisonError::into_inner);
    if !end.1 {
        print(event, step, fields);
    }
}

/// Prints the last line.
fn emit_last(event: &str, fields: impl Serialize) {
    let mut end = END.lock().unwrap_or_else(PoisonError::into_inner);
    if !std::mem::replace(&mut end.1, true) {
        print(event, None, fields);
    }
}

fn print(event: &str, step: Option<Step>, fields: impl Serialize) {
    let line = Line { event, step: step.map(Step::name), fields };
    // Maps with keys that are no text have no JSON form; there are none.
    if let Ok(text) = serde_json::to_string(&line) {
        print_json_line(&text);
    }
}

/// Seconds as JSON lines have them: to the millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Prints what a command that succeeded came to: the last line.
pub fn conclude(command: &str) {
    let told = END.lock().unwrap_or_else(PoisonError::into_inner).0.take();
    let mut fields = json!({"command": command});
    if let (Some(fields), Some(told)) = (fields.as_object_mut(), told.as_ref().and_then(|told| told.fields.as_object()))
    {
        fields.extend(told.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    emit_last("result", fields);
}

/// Prints an error: the last line.
pub(super) fn error(error: &Error, status: u8) {
    let kind = match error.kind() {
        ErrorKind::User => "user",
        ErrorKind::Usage => "usage",
        ErrorKind::Bug => "defect",
        ErrorKind::Interrupted(_) => "interrupted",
    };
    let chain = error.chain();
    let (message, causes) = chain.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let hints = error.hints();
    emit_last(
        "error",
        json!({"kind": kind, "message": message, "causes": causes, "hints": hints, "exit-status": status}),
    );
}

/// Each report as a JSON object.
pub(super) struct Json {
    pub(super) quiet: bool,
}

impl Reporter for Json {
    fn begin(&self, step: Step, total: u64) -> Box<dyn Progress> {
        let state = State::begin(step, total);
        if self.quiet {
            return Box::new(JsonStep { state, heart: Mutex::default(), quiet: true });
        }
        emit("begin", Some(step), json!({"total-bytes": state.total()}));
        let heart = Heart::begin(state.clone(), Pulse::Json);
        Box::new(JsonStep { state, heart: Mutex::new(Some(heart)), quiet: false })
    }

    fn warn(&self, message: &str) {
        emit("warning", None, json!({"message": message}));
    }

    fn notice(&self, message: &str) {
        if !self.quiet {
            emit("notice", None, json!({"message": message}));
        }
    }

    fn event(&self, event: &Event) {
        if self.quiet {
            return;
        }
        match event.name {
            "result" => END.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(event.clone()),
            name => emit(name, None, &event.fields),
        }
    }
}

struct JsonStep {
    state: State,
    heart: Mutex<Option<Heart>>,
    quiet: bool,
}

/// Tells how far a step is.
pub(super) fn progress(state: &State) {
    let fields = json!({
        "done-bytes": state.done(),
        "total-bytes": state.total(),
        "item": state.item(),
        "seconds": seconds(state.elapsed()),
    });
    emit("progress", Some(state.step()), fields);
}

impl Progress for JsonStep {
    fn grow(&self, bytes: u64) {
        self.state.grow(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.state.advance(bytes);
        if !self.quiet && self.state.is_due(INTERVAL) {
            progress(&self.state);
        }
    }

    fn item(&self, name: &str) {
        self.state.set_item(name);
    }

    fn finish(&self, outcome: &Outcome) {
        self.end(true, outcome);
    }
}

impl JsonStep {
    fn end(&self, ok: bool, outcome: &Outcome) {
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct End<'a> {
            ok: bool,
            seconds: f64,
            done_bytes: u64,
            #[serde(flatten)]
            outcome: &'a Outcome,
        }
        // No beat after the end.
        drop(self.heart.lock().unwrap_or_else(PoisonError::into_inner).take());
        if !self.state.is_over() && !self.quiet {
            let (seconds, done_bytes) = (seconds(self.state.elapsed()), self.state.done());
            emit("end", Some(self.state.step()), End { ok, seconds, done_bytes, outcome });
        }
    }
}

impl Drop for JsonStep {
    fn drop(&mut self) {
        self.end(false, &Outcome::Quiet {});
    }
}
