//! The one error type: what went wrong, with what, and what to do next.

use std::fmt;

/// A result whose error can be shown to a user as it is.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who has to act, which decides the exit status (`interface.md`, "Exit status").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The user's input or the world is wrong: exit status 1.
    User,
    /// The command line is wrong: exit status 2.
    Usage,
    /// A defect of condaimg: exit status 70 (`EX_SOFTWARE`).
    Bug,
    /// A signal ended the work; the number is the exit status (130 or 143).
    Interrupted(u8),
}

/// An error with its culprit, its cause and a hint at the way out.
///
/// Messages are lower-case sentences without a full stop that name the file, package or host. They must
/// never hold a secret: pass URLs through [`crate::util::redact`].
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    hints: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hints: Vec::new(), source: None }))
    }

    /// The user's input or the world is wrong.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::User, message)
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// An invariant of condaimg does not hold.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message)
    }

    /// A signal asked for the end; `status` is the exit status.
    pub fn interrupted(status: u8) -> Self {
        Self::new(ErrorKind::Interrupted(status), "interrupted")
    }

    /// Adds a line that says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// Sets the underlying error.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do next, most specific first; of this error and of the errors below it.
    pub fn hints(&self) -> Vec<&str> {
        let mut hints: Vec<&str> = self.0.hints.iter().map(String::as_str).collect();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            if let Some(inner) = error.downcast_ref::<Error>() {
                hints.extend(inner.0.hints.iter().map(String::as_str));
            }
            source = error.source();
        }
        hints
    }

    /// The message and its causes, outermost first, without repetitions.
    pub fn chain(&self) -> Vec<String> {
        let mut lines = vec![self.0.message.clone()];
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let line = error.to_string();
            if lines.last().is_none_or(|last| !last.contains(&line)) {
                lines.push(line);
            }
            source = error.source();
        }
        lines
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// `fs_err` names the path in its message, so an I/O error may pass upwards as it is.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        // An error that a reader or writer of ours had to disguise as an I/O error comes out as it went in.
        let error = match error.downcast::<Error>() {
            Ok(inner) => return inner,
            Err(error) => error,
        };
        let result = Error::user(error.to_string());
        let hint = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Some("free some space, or choose another folder with `--cache-dir` or `--output`")
            }
            _ if is_memory(&error) => Some("free some memory, or do less at once with `--jobs 1`"),
            std::io::ErrorKind::NotFound => Some("is the path right? A relative one begins in the working folder"),
            std::io::ErrorKind::PermissionDenied => {
                Some("look at its owner and permissions, and at those of its folders")
            }
            std::io::ErrorKind::ReadOnlyFilesystem => Some("choose a folder that can be written to"),
            std::io::ErrorKind::NotADirectory => Some("a part of the path is a file"),
            _ => None,
        };
        let result = hint.into_iter().fold(result, Error::hint);
        result.caused_by(error)
    }
}

/// Whether this machine lacks memory or space: what was read or written is not at fault.
pub fn is_resource(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull};
    matches!(error.kind(), FileTooLarge | OutOfMemory | QuotaExceeded | StorageFull) || is_memory(error)
}

/// Whether memory ran out. Decoders have no kind of error for that.
fn is_memory(error: &std::io::Error) -> bool {
    // zstd: "Allocation error : not enough memory".
    error.kind() == std::io::ErrorKind::OutOfMemory || error.to_string().contains("not enough memory")
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}

/// Adds what was being done to an error.
pub trait ResultExt<T> {
    /// Wraps the error in one with this message; the kind of a condaimg error is kept.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let error: Error = error.into();
            Error::new(error.kind(), message()).caused_by(error)
        })
    }
}
