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

    /// What a package is taken to be of whose releases nothing is known: a wheel, one of an index that was not there.
    pub const UNKNOWN: Self = Self::Steady;

    /// Releases in a year that a package of the class is taken to have: of the classes with two bounds about their
    /// geometric mean.
    pub fn releases_per_year(self) -> f64 {
        match self {
            Self::Settled => 0.5,
            Self::Slow => 2.0,
            Self::Steady => 7.0,
            Self::Lively => 20.0,
        }
    }

    /// The probability that there is no release in so many days, when releases come independently of each other.
    pub fn keeps(self, days: f64) -> f64 {
        (-self.releases_per_year() * days / 365.25).exp()
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
    fn classes_are_of_their_own_rate() {
        for class in Stability::ALL {
            assert_eq!(Stability::of_rate(class.releases_per_year()), class);
            assert!(class.keeps(0.0) == 1.0 && class.keeps(7.0) < 1.0 && class.keeps(7.0) > class.keeps(8.0));
        }
        assert!(Stability::ALL.windows(2).all(|pair| pair[0].keeps(7.0) > pair[1].keeps(7.0)));
    }
}
