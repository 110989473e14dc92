//! The classes of stability of solved or pinned packages, by what the indexes of their channels have.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rattler_conda_types::{PackageRecord, RepoDataRecord};

use super::rate::{newest, stability_of};
use crate::model::{Cutoff, Stability};

/// Of an index with no more names than this, everything is looked at to tell its newest record.
pub(super) const SMALL_INDEX: usize = 512;

/// The class of each of `wanted`, by name: of how often its channel released that name, for the target and noarch.
/// Packages of which no record has a timestamp have none.
///
/// `seen` is what was read of the indexes: all records of each wanted name, and more. "Now" is the end of the month (UTC)
/// of the newest of them, or the cutoff where that is earlier: not today, since a lock must not depend on the clock. The
/// end of a month, because of a large index only what may be needed is read, and what else is asked for must not count.
pub(super) fn classes<'a>(
    wanted: impl IntoIterator<Item = &'a RepoDataRecord>,
    seen: impl IntoIterator<Item = &'a RepoDataRecord>,
    cutoff: Option<&Cutoff>,
) -> BTreeMap<String, Stability> {
    let seen: Vec<&RepoDataRecord> = seen.into_iter().collect();
    let last = cutoff.map(Cutoff::last);
    let counts = |record: &&PackageRecord| match (&record.timestamp, last) {
        (Some(time), Some(last)) => time.jiff_timestamp() <= last,
        (time, _) => time.is_some(),
    };
    let Some(newest) = newest(seen.iter().map(|record| &record.package_record).filter(counts)) else {
        return BTreeMap::new();
    };
    let month = end_of_month(newest);
    let now = last.map_or(month, |last| last.min(month));
    let mut releases: HashMap<(&str, Option<&str>), Vec<&PackageRecord>> =
        wanted.into_iter().map(|record| (place(record), Vec::new())).collect();
    for record in seen {
        if let Some(releases) = releases.get_mut(&place(record)) {
            releases.push(&record.package_record);
        }
    }
    let class =
        |((name, _), records): ((&str, _), Vec<&PackageRecord>)| Some((name.to_owned(), stability_of(records, now)?));
    releases.into_iter().filter_map(class).collect()
}

/// What tells the releases of a package from those of others: its name, and the channel that it comes from.
fn place(record: &RepoDataRecord) -> (&str, Option<&str>) {
    let channel = record.channel.as_deref().map(|channel| channel.trim_end_matches('/'));
    (record.package_record.name.as_normalized(), channel)
}

fn end_of_month(time: Timestamp) -> Timestamp {
    let last = time.to_zoned(TimeZone::UTC).date().last_of_month();
    let next = last.tomorrow().and_then(|date| date.to_zoned(TimeZone::UTC));
    // The calendar ends in the year 9999.
    next.map_or(time, |next| next.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const DAY: i64 = 86_400_000;

    fn moment(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_millisecond()
    }

    fn record(channel: &str, name: &str, timestamp: i64) -> RepoDataRecord {
        let file = format!("{name}-{timestamp}-0.conda");
        serde_json::from_value(json!({
            "name": name, "version": "1", "build": "0", "build_number": 0, "subdir": "linux-64", "depends": [],
            "timestamp": timestamp, "fn": file, "url": format!("{channel}/linux-64/{file}"), "channel": channel,
        }))
        .expect("a record")
    }

    /// Releases every `days` days, for two years before `last`.
    fn released(channel: &str, name: &str, last: i64, days: i64) -> Vec<RepoDataRecord> {
        (0..=730 / days).map(|count| record(channel, name, last - count * days * DAY)).collect()
    }

    fn of(wanted: &[&RepoDataRecord], seen: &[RepoDataRecord], cutoff: Option<&str>) -> BTreeMap<String, Stability> {
        let cutoff = cutoff.map(|text| text.parse().expect("a date"));
        classes(wanted.iter().copied(), seen.iter(), cutoff.as_ref())
    }

    #[test]
    fn the_class_is_that_of_the_channel_that_a_package_comes_from() {
        let last = moment("2024-05-08T00:00:00Z");
        let often = released("https://a.example", "zlib", last, 14);
        let seldom = released("https://b.example", "zlib", last, 150);
        let seen = [often.clone(), seldom.clone()].concat();
        assert_eq!(of(&[&often[0]], &seen, None), [("zlib".to_owned(), Stability::Lively)].into());
        assert_eq!(of(&[&seldom[0]], &seen, None), [("zlib".to_owned(), Stability::Slow)].into());
        let with_slash = record("https://a.example/", "zlib", last);
        assert_eq!(of(&[&with_slash], &seen, None)["zlib"], Stability::Lively, "one that another tool wrote");
        assert!(of(&[&record("https://c.example", "zlib", last)], &seen, None).is_empty(), "not listed");
    }

    #[test]
    fn later_records_are_not_seen() {
        let last = moment("2024-05-08T00:00:00Z");
        let seen = released("https://a.example", "zlib", last, 60);
        let expected = of(&[&seen[0]], &seen, None);
        let later = [seen.clone(), released("https://a.example", "zlib", last + 730 * DAY, 7)].concat();
        assert_ne!(of(&[&seen[0]], &later, None), expected);
        assert_eq!(of(&[&seen[0]], &later, Some("2024-05-08")), expected);
        assert_eq!(of(&[&seen[0]], &seen, Some("2034-05-08")), expected, "an index that ends before the cutoff");
        assert!(of(&[&seen[0]], &seen, Some("2004-05-08")).is_empty());
    }

    #[test]
    fn months_end_where_the_next_begins() {
        for (time, end) in
            [("2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z"), ("2023-12-01T00:00:00Z", "2024-01-01T00:00:00Z")]
        {
            let time: Timestamp = time.parse().expect("a time");
            assert_eq!(end_of_month(time).to_string(), end);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever else was asked for and read in the same month.
        #[test]
        fn no_class_depends_on_another_package(
            days in 5_i64..400, others in prop::collection::vec(("[a-z]{1,6}-x", 5_i64..400, 0_i64..14), 0..6),
        ) {
            let first = moment("2024-05-09T00:00:00Z");
            let own = released("https://a.example", "zlib", first, days);
            let alone = of(&[&own[0]], &own, None);
            let mut seen = own.clone();
            seen.extend(others.iter().flat_map(|(name, days, later)| {
                released("https://a.example", name, first + later * DAY, *days)
            }));
            let wanted: Vec<&RepoDataRecord> = seen.iter().collect();
            prop_assert_eq!(of(&wanted, &seen, None).remove("zlib"), alone.get("zlib").copied());
        }
    }
}
