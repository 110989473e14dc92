//! What condaimg's own code traces (`-v`, `-vv`), on standard error: as text, or as `log` events among JSON lines.

use std::fmt;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::{ProgressStyle, json as lines};

/// Writes what condaimg's own code traces to standard error. Nobody else's: an HTTP library logs whole URLs, and these
/// may hold a secret.
pub fn log_details(verbose: u8, style: ProgressStyle) {
    let level = match verbose {
        0 => return,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let registry = tracing_subscriber::registry().with(Targets::new().with_target("condaimg", level));
    // Only a second subscriber could be refused.
    let _ = match style {
        ProgressStyle::Json => registry.with(JsonLog).try_init(),
        _ => {
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).without_time();
            registry.with(lines).try_init()
        }
    };
}

/// Traces as JSON lines.
struct JsonLog;

impl<S: Subscriber> Layer<S> for JsonLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.0.remove("message");
        let (level, target) = (event.metadata().level().as_str().to_lowercase(), event.metadata().target());
        lines::emit("log", None, json!({"level": level, "target": target, "message": message, "fields": fields.0}));
    }
}

/// The fields of a trace by their names.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}
