//! `condaimg cache`: where the store is, what it holds, and keeping it small.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use super::args::{CacheArgs, CacheCommand, CacheListArgs, CachePruneArgs, Global};
use super::terminal;
use super::world::cache_dir;
use crate::image;
use crate::store::{Item, Limits, Store};
use crate::util::report::SharedReporter;
use crate::util::{Error, Result, human, plural};

/// Runs the command.
///
/// # Errors
/// When the store cannot be read, or something in it cannot be removed.
pub fn run(args: CacheArgs, global: &Global, reporter: &SharedReporter) -> Result<()> {
    let folder = cache_dir(global)?;
    match args.command {
        CacheCommand::Dir => terminal::print_data(format!("{}\n", folder.display()).as_bytes()),
        CacheCommand::Ls(args) => list(args, &folder),
        CacheCommand::Prune(args) => prune(args, &folder, reporter),
    }
}

/// One line of the list.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    kind: String,
    /// Of a single thing: its path in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    count: usize,
    /// Bytes on the disk.
    size: u64,
    /// Of the thing that was not used for the longest time.
    oldest_use: Timestamp,
    latest_use: Timestamp,
}

impl Row {
    fn new(item: &Item, store: &Store, whole: bool) -> Result<Self> {
        let used = timestamp(item.used)?;
        Ok(Self {
            kind: item.kind.to_owned(),
            path: whole.then(|| store.shown(&item.path)),
            count: 1,
            size: item.size,
            oldest_use: used,
            latest_use: used,
        })
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.size += other.size;
        self.oldest_use = self.oldest_use.min(other.oldest_use);
        self.latest_use = self.latest_use.max(other.latest_use);
    }
}

fn timestamp(time: SystemTime) -> Result<Timestamp> {
    let time = Timestamp::try_from(time)
        .map_err(|error| Error::user("something in the cache has a time that is none").caused_by(error))?;
    // Finer than a second is of no use to anybody.
    Timestamp::from_second(time.as_second()).map_err(|error| Error::bug("a time without fractions").caused_by(error))
}

fn list(args: CacheListArgs, folder: &Path) -> Result<()> {
    let store = Store::open(folder)?;
    let items = store.items()?;
    let mut rows: Vec<Row> = items.iter().map(|item| Row::new(item, &store, args.all)).collect::<Result<_>>()?;
    if !args.all {
        let mut kinds: BTreeMap<String, Row> = BTreeMap::new();
        for row in rows {
            match kinds.get_mut(&row.kind) {
                Some(known) => known.add(&row),
                None => drop(kinds.insert(row.kind.clone(), row)),
            }
        }
        rows = kinds.into_values().collect();
    }
    match args.json {
        true => terminal::print_json(&rows),
        false => terminal::print_table(&table(&rows)),
    }
}

fn table(rows: &[Row]) -> String {
    let now = Timestamp::now();
    let mut lines = String::new();
    for row in rows {
        let size = human(row.size);
        let (latest, oldest) = (ago(now, row.latest_use), ago(now, row.oldest_use));
        lines += &match &row.path {
            Some(path) => format!("{size:>12}  {latest:>8}  {path}\n"),
            None => format!("{:<13} {:>6}  {size:>12}  used {latest} to {oldest} ago\n", row.kind, row.count),
        };
    }
    let total = rows.iter().map(|row| row.size).sum();
    lines + &format!("{} in all\n", human(total))
}

/// The time since, in the largest unit that suits.
fn ago(now: Timestamp, then: Timestamp) -> String {
    match now.as_second().saturating_sub(then.as_second()) {
        seconds @ ..60 => format!("{} s", seconds.max(0)),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

fn prune(args: CachePruneArgs, folder: &Path, reporter: &SharedReporter) -> Result<()> {
    if let Some(layout) = &args.layout {
        let removed = image::remove_unused_blobs(layout, args.older_than)?;
        reporter.notice(&format!("{} removed, {}", human(removed.size), plural(removed.count, "blob")));
        return Ok(());
    }
    if args.max_size.is_none() && args.older_than.is_none() {
        return Err(Error::usage("`cache prune` needs to know what may go")
            .hint("give `--max-size 20G`, `--older-than 30d`, or both; `--layout DIR` for an OCI layout"));
    }
    let store = Store::open(folder)?;
    let pruned = store.prune(Limits { size: args.max_size, age: args.older_than })?;
    let gone: u64 = pruned.removed.iter().map(|item| item.size).sum();
    reporter.notice(&format!("{} removed, {} in all; {} left", human(gone), pruned.removed.len(), human(pruned.left)));
    if args.max_size.is_some_and(|limit| pruned.left > limit) {
        reporter.warn("the cache is still larger than `--max-size`: the rest was used within the last hour");
    }
    Ok(())
}

/// A time span: `90s`, `30m`, `12h`, `30d`, `2w`.
pub fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number with s, m, h, d or w behind it, as `30d`".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        assert_eq!(span("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(span("0s"), Ok(Duration::ZERO));
        for wrong in ["", "d", "3", "1.5h", "-1d", "99999999999999999999w", "3 years", "7ü"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_told_in_the_unit_that_suits() {
        let now = Timestamp::from_second(10_000_000).expect("a time");
        for (seconds, expected) in
            [(-5, "0 s"), (59, "59 s"), (61, "1 min"), (7200, "2 h"), (172_799, "47 h"), (172_800, "2 days")]
        {
            assert_eq!(ago(now, Timestamp::from_second(10_000_000 - seconds).expect("a time")), expected);
        }
    }
}
