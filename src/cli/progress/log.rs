//! What condaimg's own code traces (`-v`, `-vv`), on standard error: as text, or as `log` events among JSON lines.

use std::fmt;
use std::io::{self, Write};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::{ProgressStyle, json as lines};
use crate::cli::terminal;
use crate::util::redact;

/// Writes what condaimg's own code traces to standard error. Nobody else's: an HTTP library logs whole URLs, and these
/// may hold a secret. What condaimg itself is told by others may hold one as well: URLs lose theirs here.
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
            let writer = || Clean(io::stderr());
            let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false).without_time();
            registry.with(lines).try_init()
        }
    };
}

/// Writes lines as a terminal may show them, without the secrets of the URLs in them. Each line comes as one piece.
struct Clean<W>(W);

impl<W: Write> Write for Clean<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(terminal::shown(&redact::within(&String::from_utf8_lossy(line))).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
        self.0.insert(field.name().to_owned(), redact::within(&format!("{value:?}")).into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), redact::within(value).into());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_the_secrets_of_urls() {
        let mut written = Vec::new();
        let line = "DEBUG condaimg: no error=for url (https://u:pw@host/t/hush/c?a=b) next=\"x\"\n";
        Clean(&mut written).write_all(line.as_bytes()).expect("writes");
        assert_eq!(String::from_utf8_lossy(&written), "DEBUG condaimg: no error=for url (https://host/c next=\"x\"\n");
    }
}
