//! How often a package is released, by its channel's own index. Pure, and without a clock: "now" is what the caller
//! says, so that the same index gives the same rate on every machine and on every day.

use jiff::Timestamp;
use rattler_conda_types::PackageRecord;

use crate::model::Stability;

/// What counts: the last three years before `as_of`.
const WINDOW_DAYS: f64 = 3.0 * YEAR_DAYS;
/// A package that is younger than this is taken to be as old, so that one release last week is not fifty a year.
const LEAST_DAYS: f64 = 0.5 * YEAR_DAYS;
const YEAR_DAYS: f64 = 365.25;
const DAY_MS: f64 = 86_400_000.0;
const WEEK_MS: i64 = 7 * 86_400_000;

/// Releases in a year of one package, as of a moment; nothing when no record before it has a timestamp.
///
/// `records` are all that the channel has of **one name**, for the target's platform and noarch, of every version and
/// build. What is later than `as_of` is not seen. `as_of` is the cutoff (`--exclude-newer`), or without one the newest
/// timestamp of the whole index ([`newest`]).
///
/// Archives that appear within a week are one release: the builds for several Pythons of one version, and their repair
/// on the next day. A node that pulls weekly sees no more.
pub fn release_rate<'a>(records: impl IntoIterator<Item = &'a PackageRecord>, as_of: Timestamp) -> Option<f64> {
    let now = as_of.as_millisecond();
    let mut times: Vec<i64> = records.into_iter().filter_map(millisecond).filter(|&time| time <= now).collect();
    times.sort_unstable();
    let days_ago = |time: i64| (now - time) as f64 / DAY_MS;
    let age = days_ago(*times.first()?).clamp(LEAST_DAYS, WINDOW_DAYS);
    let mut releases: Vec<i64> = Vec::new();
    for time in times {
        if releases.last().is_none_or(|&begun| time - begun >= WEEK_MS) {
            releases.push(time);
        }
    }
    let recent = releases.into_iter().filter(|&time| days_ago(time) < WINDOW_DAYS).count();
    Some(recent as f64 / age * YEAR_DAYS)
}

/// The class of a package, for the facts of a lock; see [`release_rate`].
pub fn stability_of<'a>(records: impl IntoIterator<Item = &'a PackageRecord>, as_of: Timestamp) -> Option<Stability> {
    release_rate(records, as_of).map(Stability::of_rate)
}

/// The newest timestamp of an index: what "now" is to it, without a cutoff.
pub fn newest<'a>(records: impl IntoIterator<Item = &'a PackageRecord>) -> Option<Timestamp> {
    let newest = records.into_iter().filter_map(millisecond).max()?;
    Timestamp::from_millisecond(newest).ok()
}

fn millisecond(record: &PackageRecord) -> Option<i64> {
    record.timestamp.as_ref().map(|time| time.jiff_timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2024-05-08T00:00:00Z";

    fn record(days_ago: i64) -> PackageRecord {
        let now: Timestamp = NOW.parse().expect("a time");
        serde_json::from_value(json!({
            "name": "zlib", "version": "1", "build": "0", "build_number": 0, "subdir": "linux-64", "depends": [],
            "timestamp": now.as_millisecond() - days_ago * 86_400_000,
        }))
        .expect("a record")
    }

    fn rate(days_ago: &[i64]) -> Option<f64> {
        let records: Vec<PackageRecord> = days_ago.iter().copied().map(record).collect();
        release_rate(&records, NOW.parse().expect("a time"))
    }

    #[test]
    fn builds_of_one_week_are_one_release() {
        let year = rate(&[400, 399, 398, 200, 199, 30]).expect("a rate");
        assert!((year - 3.0 / 400.0 * 365.25).abs() < 1e-9, "{year}");
    }

    #[test]
    fn what_is_later_is_not_seen() {
        assert_eq!(rate(&[400, 100]), rate(&[400, 100, -1, -30]));
        assert_eq!(rate(&[-1]), None);
        assert_eq!(rate(&[]), None);
    }

    #[test]
    fn young_and_old_packages() {
        assert_eq!(rate(&[3]), Some(2.0), "half a year at least");
        assert_eq!(rate(&[2000]), Some(0.0), "out of the window");
        assert_eq!(stability_of(&[record(2000)], NOW.parse().expect("a time")), Some(Stability::Settled));
        assert_eq!(newest(&[record(9), record(4)]), Some(record(4).timestamp.expect("set").jiff_timestamp()));
    }
}
