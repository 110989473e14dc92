//! How often a package changes, in four classes.

use serde::{Deserialize, Serialize};

/// How often new archives of a package appear in its channel. A class instead of a rate, so that a rate that is
/// measured a week later moves nothing: the layer plan depends on the class alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stability {
    /// Hardly ever: less than one release in a year.
    Settled,
    /// Less than four releases in a year.
    Slow,
    /// Less than twelve releases in a year.
    Steady,
    /// Twelve releases in a year or more.
    Lively,
}

impl Stability {
    /// All classes, most stable first.
    pub const ALL: [Self; 4] = [Self::Settled, Self::Slow, Self::Steady, Self::Lively];

    /// The class of a number of releases in a year.
    pub fn of_rate(releases_per_year: f64) -> Self {
        match releases_per_year {
            rate if rate < 1.0 => Self::Settled,
            rate if rate < 4.0 => Self::Slow,
            rate if rate < 12.0 => Self::Steady,
            _ => Self::Lively,
        }
    }

    /// As locks and policies write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Slow => "slow",
            Self::Steady => "steady",
            Self::Lively => "lively",
        }
    }
}
