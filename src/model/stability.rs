//! How often a package changes, in four classes.

use serde::{Deserialize, Serialize};

/// How often new archives of a package appear in its channel. A class instead of a rate, so that a rate that is
/// measured a week later moves nothing: the layer plan depends on the class alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stability {
    /// Hardly ever: less than two releases in a year.
    Settled,
    /// Less than five releases in a year.
    Slow,
    /// Less than nine releases in a year.
    Steady,
    /// Nine releases in a year or more.
    Lively,
}

impl Stability {
    /// All classes, most stable first.
    pub const ALL: [Self; 4] = [Self::Settled, Self::Slow, Self::Steady, Self::Lively];

    /// The class of a number of releases in a year.
    pub fn of_rate(releases_per_year: f64) -> Self {
        match releases_per_year {
            rate if rate < 2.0 => Self::Settled,
            rate if rate < 5.0 => Self::Slow,
            rate if rate < 9.0 => Self::Steady,
            _ => Self::Lively,
        }
    }

    /// What a package is taken to be of whose releases nothing is known: a wheel, one of an index that was not there.
    pub const UNKNOWN: Self = Self::Steady;

    /// The probability that a week brings no release: what the replay of real history showed of packages of the class
    /// (docs/layers.md). A table, because `exp` differs between machines and plans must not.
    pub fn keeps(self) -> f64 {
        match self {
            Self::Settled => 0.989,
            Self::Slow => 0.944,
            Self::Steady => 0.869,
            Self::Lively => 0.760,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_probabilities_belong_together() {
        for class in Stability::ALL {
            let releases_per_year = -class.keeps().ln() * 365.25 / 7.0;
            assert_eq!(Stability::of_rate(releases_per_year), class, "{releases_per_year}");
        }
        assert!(Stability::ALL.windows(2).all(|pair| pair[0].keeps() > pair[1].keeps()));
    }
}
