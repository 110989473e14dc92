//! Warnings that servers send with their answers (`Warning: 299 - "text"`; RFC 7234, 5.5, distribution-spec 1.1).

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use reqwest::header::{HeaderMap, WARNING};

use crate::util::report::SharedReporter;

/// No warning is longer.
const LONGEST: usize = 500;

/// Tells warnings, each once.
pub(crate) struct Warnings {
    reporter: Option<SharedReporter>,
    told: Mutex<HashSet<String>>,
}

impl fmt::Debug for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warnings").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Warnings {
    /// Warnings for a reporter; without one they are left out.
    pub(crate) fn new(reporter: Option<SharedReporter>) -> Self {
        Self { reporter, told: Mutex::default() }
    }

    /// Tells what an answer of `whom` warns of.
    pub(crate) fn tell(&self, whom: &str, headers: &HeaderMap) {
        let Some(reporter) = &self.reporter else { return };
        for text in texts(headers) {
            let message = format!("{whom} warns: {text}");
            if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(message.clone()) {
                reporter.warn(&message);
            }
        }
    }
}

/// The texts of the warnings of an answer, fit to be shown.
fn texts(headers: &HeaderMap) -> impl Iterator<Item = String> {
    headers.get_all(WARNING).iter().filter_map(|value| text(value.to_str().ok()?))
}

/// The text of a warning with the code 299 ("miscellaneous persistent warning"); others are about caches.
fn text(value: &str) -> Option<String> {
    let (agent, quoted) = value.trim().strip_prefix("299")?.trim_start().split_once('"')?;
    let mut plain = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => plain.extend(characters.next()),
            character => plain.push(if character.is_control() { ' ' } else { character }),
        }
        if plain.len() > LONGEST {
            break;
        }
    }
    (agent.split_whitespace().count() == 1 && !plain.trim().is_empty()).then(|| plain.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_warnings_are_read() {
        for (value, expected) in [
            (r#"299 - "this tag goes away""#, Some("this tag goes away")),
            (
                r#"299 registry.example:5000 "say \"no\" to \\" "Wed, 21 Oct 2015 07:28:00 GMT""#,
                Some(r#"say "no" to \"#),
            ),
            (r#"110 - "stale""#, None),
            (r#"299 - """#, None),
            ("299 - unquoted", None),
            (r#"299 - "open"#, None),
        ] {
            assert_eq!(text(value).as_deref(), expected, "{value}");
        }
    }
}
