//! The date as of which an environment is solved.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rattler_solve::ExcludeNewer;

use crate::util::{Error, Result};

/// Packages that appeared after it are left out, also those of which no channel says when they did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cutoff {
    /// As written: a date, or a time as RFC 3339 has it.
    text: String,
    last: Timestamp,
}

impl Cutoff {
    /// The last moment that counts.
    pub fn timestamp(&self) -> Timestamp {
        self.last
    }

    pub(super) fn exclude_newer(&self) -> ExcludeNewer {
        ExcludeNewer::from_datetime(self.last)
    }
}

impl FromStr for Cutoff {
    type Err = Error;

    /// A date means its end, in UTC wherever this runs.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("`--exclude-newer {text}` is no date"))
                .hint("write `2026-01-31`, whose end (UTC) counts, or a time: `2026-01-31T12:00:00Z`")
        };
        let last = match text.parse::<Timestamp>() {
            Ok(time) => time,
            Err(_) if text.contains(['T', 't', ' ']) => return Err(wrong()),
            Err(_) => {
                let next = text.parse::<Date>().and_then(|date| date.tomorrow()).map_err(|_| wrong())?;
                let midnight = next.to_zoned(TimeZone::UTC).map_err(|_| wrong())?.timestamp();
                Timestamp::from_millisecond(midnight.as_millisecond() - 1).map_err(|_| wrong())?
            }
        };
        Ok(Self { text: text.to_owned(), last })
    }
}

impl fmt::Display for Cutoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_means_its_end() {
        for (text, last) in [
            ("2026-01-31", "2026-01-31T23:59:59.999Z"),
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
        ] {
            assert_eq!(text.parse::<Cutoff>().expect("a date").last, last.parse().expect("a time"), "{text}");
        }
        for wrong in ["", "yesterday", "2026-02-30", "2026-01-31T12:00", "20"] {
            assert!(wrong.parse::<Cutoff>().is_err(), "{wrong}");
        }
    }
}
