//! Limits of everything whose size, number or time a stranger declares: authors of packages, channels, indexes, locks,
//! bases and projects. All are in one table; `docs/limits.md` shows it. A limit that a real input could need to exceed
//! is raised with `--limit NAME=VALUE`.
//!
//! The defaults keep the memory that one hostile input takes below 400 MiB (`docs/hostile.md`). They are larger than
//! anything that is known in public channels and indexes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{Error, Result};
use super::size::human;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
    /// Seconds.
    Seconds,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name in `--limit NAME=VALUE`.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Its value, unless it is set.
    pub default: u64,
    /// What it bounds.
    pub bounds: &'static str,
    /// Why the default is what it is.
    pub reason: &'static str,
}

/// Declares the limits once: the enum, and the table in the same order.
macro_rules! limits {
    ($($(#[doc = $bounds:literal])+ $limit:ident = $name:literal, $unit:ident, $default:expr, $reason:literal;)+) => {
        /// A limit. Its row in the table says what it is for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Limit {
            $($(#[doc = $bounds])+ $limit,)+
        }

        /// The table.
        pub const TABLE: &[Row] = &[
            $(Row {
                name: $name,
                unit: Unit::$unit,
                default: $default,
                bounds: concat!($($bounds),+),
                reason: $reason,
            },)+
        ];

        /// The values that count.
        static VALUES: [AtomicU64; TABLE.len()] = [$(AtomicU64::new($default)),+];
    };
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

limits! {
    /// The size of one GNU long name or PAX header
    Header = "header", Bytes, 256 * KIB,
        "PAX headers hold paths and attributes: a few KiB";
    /// The size of all such headers of an archive or layer, beside 2 KiB for each entry
    Headers = "headers", Bytes, 64 * MIB,
        "keeps the time for headers that nothing is made of short";
    /// Entries of a conda archive
    ArchiveEntries = "archive-entries", Count, 150_000,
        "the largest packages have about 100,000 files; each takes 2.5 KiB of memory";
    /// Directories that a package brings
    Directories = "directories", Count, 100_000,
        "each layer names every directory above its files";
    /// The size of all paths and link targets of a conda archive
    ArchiveNames = "archive-names", Bytes, 32 * MIB,
        "150,000 paths of 220 bytes; all are in memory while a package is packed";
    /// Directories above a file, in archives and bases
    PathDepth = "path-depth", Count, 128,
        "node modules, the deepest trees known, reach about 40";
    /// The unpacked size of an archive that is always allowed
    ArchiveSmall = "archive-small", Bytes, GIB,
        "smaller archives may be compressed as well as they like";
    /// How often an archive may unpack to its own size, beyond `archive-small`
    ArchiveRatio = "archive-ratio", Count, 200,
        "text reaches 10, static libraries 20, a file of zeros 20,000";
    /// The unpacked size of an archive
    ArchiveSize = "archive-size", Bytes, 64 * GIB,
        "the largest packages (CUDA libraries) unpack to 8 GiB";
    /// The size of `info/paths.json`, `info/files` and `info/has_prefix`
    PathsFile = "paths-file", Bytes, 64 * MIB,
        "100,000 files take 30 MB";
    /// The size of each other file below `info/` that is read
    InfoFile = "info-file", Bytes, 4 * MIB,
        "index.json has a few KiB";
    /// The size of a script in `etc/conda/activate.d` and of a file in `env_vars.d`
    ActivationScript = "activation-script", Bytes, MIB,
        "the largest, those of compilers, have 20 KiB";
    /// The size of a Python module that is compiled or compared with its bytecode
    Module = "module", Bytes, 32 * MIB,
        "the largest generated modules have 5 MiB";
    /// The size of all modules of one package that are compiled
    Modules = "modules", Bytes, 160 * MIB,
        "modules are in memory while they are compiled";
    /// The size of a bytecode file whose time is rewritten
    BytecodeFile = "bytecode-file", Bytes, 64 * MIB,
        "bytecode is about as large as its module";
    /// The size of a string, or of the first line of a script, around a build prefix that is replaced
    PrefixString = "prefix-string", Bytes, 16 * MIB,
        "strings in libraries have a few KiB";
    /// The size of a text file after its build prefix is replaced
    PrefixText = "prefix-text", Bytes, 2 * GIB,
        "a short build prefix can make a file many times larger";
    /// Files of a wheel
    WheelEntries = "wheel-entries", Count, 200_000,
        "`ansible`, the largest known, has 40,000";
    /// The size of a file of a wheel that is read whole: RECORD, METADATA, WHEEL, entry points
    WheelMetadata = "wheel-metadata", Bytes, 32 * MIB,
        "RECORD of 40,000 files has 5 MB";
    /// The size of an environment.yml, condaimg.yaml or layer policy
    EnvironmentFile = "environment-file", Bytes, 4 * MIB,
        "people write a few KiB, tools export 100 KiB";
    /// The size of a requirements file
    RequirementsFile = "requirements-file", Bytes, 8 * MIB,
        "hashes of 1,000 packages take 4 MB";
    /// The size of a lock
    LockFile = "lock-file", Bytes, 64 * MIB,
        "locks of many environments for five platforms have 20 MB";
    /// Packages that an environment or a requirements file names
    Dependencies = "dependencies", Count, 20_000,
        "complete exports name about 1,000";
    /// The size of the index of a project's git repository
    GitIndex = "git-index", Bytes, 64 * MIB,
        "700,000 files";
    /// Values of a YAML document
    YamlNodes = "yaml-nodes", Count, 1_500_000,
        "a value takes the parser about 100 bytes; a lock of 20 MB has 800,000";
    /// Brackets of a YAML document that are not closed in the same line
    YamlBrackets = "yaml-brackets", Count, 10_000,
        "the parser needs time that grows with the square of open brackets";
    /// Names of one layer of a base
    BaseEntries = "base-entries", Count, 1_000_000,
        "bases with CUDA have 200,000";
    /// Names of all layers of a base
    BaseNames = "base-names", Count, 1_500_000,
        "the tree of a base is in memory";
    /// The size of a manifest, index or config of an image
    ImageDocument = "image-document", Bytes, 8 * MIB,
        "registries need not take more than 4 MiB (distribution-spec)";
    /// The unpacked size of a channel's index
    Index = "index", Bytes, GIB,
        "the largest index of a platform has 400 MB";
    /// How often an index or a shard may unpack to the size that is sent, beyond 64 MiB
    IndexRatio = "index-ratio", Count, 50,
        "indexes reach 20";
    /// The unpacked size of one shard of a channel's index, and of the list of shards
    Shard = "index-shard", Bytes, 32 * MIB,
        "the largest shards have 5 MB";
    /// The size of a download whose size nobody declares
    Download = "download", Bytes, 16 * GIB,
        "the largest archives have 3 GB";
    /// The time in which a server must send at least `stall-bytes`
    StallSeconds = "stall-seconds", Seconds, 15,
        "a broken connection is told from a slow one";
    /// The bytes that a server must send within `stall-seconds`
    StallBytes = "stall-bytes", Bytes, 4 * KIB,
        "modems reached ten times as much";
    /// The time in which a channel's server must begin to answer a request for its index
    AnswerSeconds = "answer-seconds", Seconds, 30,
        "mirrors that fetch the index first need some seconds";
}

impl Limit {
    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its name in `--limit NAME=VALUE`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The value that counts.
    pub fn value(self) -> u64 {
        VALUES[self as usize].load(Ordering::Relaxed)
    }

    /// The value as a number of things in memory.
    pub fn count(self) -> usize {
        usize::try_from(self.value()).unwrap_or(usize::MAX)
    }

    /// The value with its unit, for messages: `4.00 MiB`, `200000`, `15 s`.
    pub fn shown(self) -> String {
        match self.row().unit {
            Unit::Bytes => human(self.value()),
            Unit::Count => self.value().to_string(),
            Unit::Seconds => format!("{} s", self.value()),
        }
    }

    /// How to raise it.
    pub fn hint(self) -> String {
        format!("if the input is right, raise the limit with `--limit {}=VALUE` (docs/limits.md)", self.row().name)
    }

    /// An error about something that is over the limit; `what` is the thing with its verb (`` `x` is larger than``).
    pub fn exceeded(self, what: &str) -> Error {
        Error::user(format!("{what} {}", self.shown())).hint(self.hint())
    }
}

/// Sets a limit from `NAME=VALUE`: a number, with `KiB`, `MiB` or `GiB` if it is of bytes.
///
/// # Errors
/// An unknown name; a value that is no such number.
pub fn set(text: &str) -> Result<()> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let place = TABLE.iter().position(|row| row.name == name.trim());
    let (Some(place), Some(number)) = (place, parse(value.trim())) else {
        let error = match place {
            None => Error::usage(format!("invalid limit `{}`: expected NAME=VALUE", text.escape_debug())),
            Some(_) => Error::usage(format!("invalid limit `{}`: expected a number", text.escape_debug())),
        };
        let names: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
        return Err(error.hint(format!("write e.g. `--limit archive-entries=500000`; names: {}", names.join(", "))));
    };
    VALUES[place].store(number, Ordering::Relaxed);
    Ok(())
}

fn parse(text: &str) -> Option<u64> {
    let units = [("KiB", KIB), ("MiB", MIB), ("GiB", GIB), ("K", KIB), ("M", MIB), ("G", GIB)];
    let unit = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1));
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of `docs/limits.md`.
    fn documented() -> String {
        let row = |row: &Row| {
            let value = match row.unit {
                Unit::Bytes => human(row.default),
                Unit::Count => row.default.to_string(),
                Unit::Seconds => format!("{} s", row.default),
            };
            format!("| `{}` | {value} | {} | {} |\n", row.name, row.bounds.trim(), row.reason)
        };
        TABLE.iter().map(row).collect()
    }

    #[test]
    fn the_docs_show_the_table() {
        let page = include_str!("../../docs/limits.md");
        let table = documented();
        assert!(page.contains(&table), "docs/limits.md lacks:\n{table}");
    }

    #[test]
    fn names_are_unique_and_values_parse() {
        let names: std::collections::BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for (text, expected) in [
            ("1", Some(1)),
            ("2KiB", Some(2048)),
            ("3 MiB", Some(3 << 20)),
            ("1G", Some(1 << 30)),
            ("", None),
            ("-1", None),
            ("1.5GiB", None),
            ("99999999999G", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        for wrong in ["none=1", "header", "header=", "header=x", "=1", ""] {
            assert_eq!(set(wrong).expect_err(wrong).kind(), crate::util::ErrorKind::Usage, "{wrong}");
        }
    }
}
