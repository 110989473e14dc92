//! YAML with errors that people can use: a size limit, UTF-8, `FILE:LINE:COLUMN`, and a way for a reader to
//! give its own message and hint.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::path::Path;

use serde::de;

use crate::util::{Error, Limit, Result, files, redact, text, yaml};

/// The text of a YAML file that must say something.
///
/// # Errors
/// When it cannot be read, is too long, is not UTF-8, or holds nothing.
pub(super) fn load(file: &Path) -> Result<String> {
    let text = text(file)?;
    if text.lines().all(|line| matches!(line.split('#').next().map(str::trim), Some("" | "---" | "..."))) {
        return Err(Error::user(format!("`{}` is empty", file.display()))
            .hint("write at least `dependencies:` with a list of packages"));
    }
    Ok(text)
}

/// The text of a YAML file, which may be empty.
///
/// # Errors
/// When it cannot be read, is too long, or is not UTF-8.
pub(crate) fn text(file: &Path) -> Result<String> {
    let bytes = files::read_limited(file, Limit::EnvironmentFile)?;
    let text = text::decode(bytes).map_err(|line| {
        Error::user(format!("{}:{line}: the file is not UTF-8", file.display())).hint("save it as UTF-8")
    })?;
    refuse_endless_brackets(file, &text)?;
    yaml::check(&text).map_err(|error| at(file, &error))?;
    Ok(text)
}

/// An error of a file, with its hints.
fn at(file: &Path, error: &Error) -> Error {
    let placed = Error::user(format!("failed to read `{}`: {error}", file.display()));
    error.hints().into_iter().map(str::to_owned).fold(placed, Error::hint)
}

/// Any document.
///
/// # Errors
/// When the text is no YAML.
pub(crate) fn document(file: &Path, text: &str) -> Result<serde_yaml::Value> {
    serde_yaml::from_str(text).map_err(|error| Context::new().explain(file, text, &error))
}

/// The parser needs time that grows with the square of the number of brackets in one line: refuse what no person
/// writes. (Measured: 1,000 take 2 ms, five million more than 100 s.)
fn refuse_endless_brackets(file: &Path, text: &str) -> Result<()> {
    const MOST: usize = 1_000;
    let opening = |line: &str| line.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    match text.lines().position(|line| opening(line) > MOST) {
        Some(index) => Err(Error::user(format!("{}:{}: too many brackets in one line", file.display(), index + 1))),
        None => Ok(()),
    }
}

/// What a reader of a document shares between its parts: the first problem with its hint, and how much text the
/// document may still grow to through aliases.
pub(super) struct Context {
    problem: RefCell<Option<Problem>>,
    left: Cell<usize>,
    /// How many packages were met.
    packages: Cell<usize>,
    /// Where to fail, to learn the place: the parser tells places only in errors.
    stop_at: Option<String>,
}

struct Problem {
    message: String,
    hint: Option<String>,
}

impl Context {
    pub(super) fn new() -> Self {
        Self {
            problem: RefCell::new(None),
            left: Cell::new(Limit::EnvironmentFile.count().saturating_mul(4)),
            packages: Cell::new(0),
            stop_at: None,
        }
    }

    /// One for a reader that is to fail at a value.
    pub(super) fn stopping_at(path: &str) -> Self {
        Self { stop_at: Some(path.to_owned()), ..Self::new() }
    }

    /// Fails when the reader is where it was to stop.
    pub(super) fn arrive<E: de::Error>(&self, path: &str) -> Result<(), E> {
        match self.stop_at.as_deref() == Some(path) {
            true => Err(self.fail("here", None)),
            false => Ok(()),
        }
    }

    /// The number of the next package, from 0.
    pub(super) fn count(&self) -> usize {
        self.packages.replace(self.packages.get() + 1)
    }

    /// A check's error at the place where the reader is.
    pub(super) fn refuse<E: de::Error>(&self, error: &Error) -> E {
        self.fail(error, error.hints().first().copied())
    }

    /// An error at the place where the reader is.
    pub(super) fn fail<E: de::Error>(&self, message: impl Display, hint: Option<&str>) -> E {
        let message = message.to_string();
        let error = E::custom(&message);
        *self.problem.borrow_mut() = Some(Problem { message, hint: hint.map(str::to_owned) });
        error
    }

    /// Counts text that was read, so that aliases cannot make a small file a huge value.
    pub(super) fn spend<E: de::Error>(&self, text: &str) -> Result<(), E> {
        // Every value has some cost besides its text.
        match self.left.get().checked_sub(text.len() + 16) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(self.fail("aliases (`*name`) make the file grow beyond all measure", None)),
        }
    }

    /// The parser's error as one of ours, with `FILE:LINE:COLUMN` before and the reader's message and hint.
    pub(super) fn explain(&self, file: &Path, text: &str, error: &serde_yaml::Error) -> Error {
        let problem = self.problem.borrow_mut().take();
        let (message, hint) = match problem {
            Some(problem) => (problem.message, problem.hint),
            // It may show a value, such as a channel with a password.
            None => (redact::within(&plain_message(error)), None),
        };
        let Some((line, column)) = place(error, text) else {
            return with_hint(Error::user(format!("{}: {message}", file.display())), hint);
        };
        let hint = hint.or_else(|| line_hint(text, line));
        with_hint(Error::user(format!("{}:{line}:{column}: {message}", file.display())), hint)
    }
}

fn with_hint(error: Error, hint: Option<String>) -> Error {
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Line and column, from 1. For characters that YAML does not allow the parser tells but their position.
fn place(error: &serde_yaml::Error, text: &str) -> Option<(usize, usize)> {
    let message = error.to_string();
    let before = message.split_once(" at position ").and_then(|(_, position)| text.get(..position.parse().ok()?));
    match before {
        Some(before) => {
            let column =
                before.lines().last().filter(|_| !before.ends_with('\n')).map_or(0, |line| line.chars().count());
            Some((before.matches('\n').count() + 1, column + 1))
        }
        None => error.location().map(|place| (place.line(), place.column())),
    }
}

/// The parser's message without the place, which stands before it, and in our words where its are obscure.
fn plain_message(error: &serde_yaml::Error) -> String {
    let mut message = error.to_string();
    if let Some(place) = error.location() {
        message = message.replacen(&format!(" at line {} column {}", place.line(), place.column()), "", 1);
    }
    if let Some((before, _)) = message.split_once(" at position ") {
        message.truncate(before.len());
    }
    match message.as_str() {
        "deserializing from YAML containing more than one document is not supported" => {
            "the file holds more than one YAML document (`---`)".to_owned()
        }
        "repetition limit exceeded" => "aliases (`*name`) make the file grow beyond all measure".to_owned(),
        "recursion limit exceeded" => "the file is nested too deeply".to_owned(),
        _ => message,
    }
}

/// The most frequent causes of errors of the parser's own, which it does not know.
fn line_hint(text: &str, line: usize) -> Option<String> {
    let line = text.lines().nth(line.checked_sub(1)?)?;
    let indentation = &line[..line.len() - line.trim_start().len()];
    let begins = |marks: &[&str]| marks.iter().any(|mark| line.starts_with(mark));
    let hint = if indentation.contains('\t') {
        "YAML allows no tabs for indentation: use spaces"
    } else if line.contains("{{") || line.contains("{%") {
        "templates (jinja) are not rendered: write the values, or render the file first"
    } else if begins(&["<<<<<<< ", "=======", ">>>>>>> "]) {
        "the file has the marks of a merge conflict: resolve it"
    } else if begins(&["<!DOCTYPE", "<!doctype", "<html"]) {
        "this is a web page, as of an error or a login: download the file itself"
    } else {
        return None;
    };
    Some(hint.to_owned())
}
