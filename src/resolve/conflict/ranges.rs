//! Many alternatives of one dependency as one range, for messages.

use std::collections::BTreeSet;

use rattler_conda_types::version_spec::{LogicalOperator, RangeOperator, StrictRangeOperator};
use rattler_conda_types::{
    MatchSpec, Matches as _, ParseStrictness, RepoDataRecord, Version, VersionBumpType, VersionSpec,
};

/// More alternatives than this are only counted.
const MOST_SHOWN: usize = 3;

/// A limit of a range, and whether it belongs to the range.
type Limit = Option<(Version, bool)>;

/// The alternatives of a dependency on `name` for a message. `other` are packages of that name that satisfy none of them;
/// the text is true of them too: one range from the least to the greatest version if `other` lies outside of it, else a list.
pub(super) fn shown(name: &str, alternatives: &BTreeSet<String>, other: &[&RepoDataRecord]) -> String {
    if alternatives.len() > 1
        && let Some(range) = range(name, alternatives)
        && !takes_any(&range, other)
    {
        return format!("`{range}`");
    }
    let mut shown: Vec<String> = alternatives.iter().rev().take(MOST_SHOWN).map(|text| format!("`{text}`")).collect();
    if alternatives.len() > MOST_SHOWN {
        shown.push(format!("{} more", alternatives.len() - MOST_SHOWN));
    }
    shown.join(" or ")
}

/// Whether one of these packages is in a range.
fn takes_any(range: &str, other: &[&RepoDataRecord]) -> bool {
    let parsed = MatchSpec::from_str(range, ParseStrictness::Lenient);
    parsed.map_or(true, |range| other.iter().any(|record| range.matches(*record)))
}

/// One range that holds all alternatives; none if one of them is no range.
fn range(name: &str, alternatives: &BTreeSet<String>) -> Option<String> {
    let mut limits: Vec<(Limit, Limit)> = Vec::new();
    for text in alternatives {
        let spec = MatchSpec::from_str(text, ParseStrictness::Lenient).ok()?;
        limits.push(limits_of(&spec.version?)?);
    }
    let lower: Option<Vec<_>> = limits.iter().map(|(lower, _)| lower.clone()).collect();
    let upper: Option<Vec<_>> = limits.iter().map(|(_, upper)| upper.clone()).collect();
    // With the limit itself a range is wider.
    let lower = lower.and_then(|all| all.into_iter().min_by_key(|(version, with)| (version.clone(), !with)));
    let upper = upper.and_then(|all| all.into_iter().max_by_key(|(version, with)| (version.clone(), *with)));
    let limit =
        |sign: &str, (version, with): (Version, bool)| format!("{sign}{}{version}", if with { "=" } else { "" });
    let parts: Vec<String> = lower.map(|it| limit(">", it)).into_iter().chain(upper.map(|it| limit("<", it))).collect();
    (!parts.is_empty()).then(|| format!("{name} {}", parts.join(",")))
}

/// The limits of what is one range.
fn limits_of(spec: &VersionSpec) -> Option<(Limit, Limit)> {
    match spec {
        VersionSpec::Range(operator, version) => {
            let version = version.clone();
            Some(match operator {
                RangeOperator::Greater => (Some((version, false)), None),
                RangeOperator::GreaterEquals => (Some((version, true)), None),
                RangeOperator::Less => (None, Some((version, false))),
                RangeOperator::LessEquals => (None, Some((version, true))),
            })
        }
        VersionSpec::StrictRange(StrictRangeOperator::StartsWith, version) => {
            let version: &Version = version.as_ref();
            let next = version.bump(VersionBumpType::Last).ok()?;
            Some((Some((version.clone(), true)), Some((next, false))))
        }
        VersionSpec::Group(LogicalOperator::And, parts) => {
            let limits: Vec<(Limit, Limit)> = parts.iter().map(limits_of).collect::<Option<_>>()?;
            let lower = limits.iter().filter_map(|(lower, _)| lower.clone());
            let upper = limits.iter().filter_map(|(_, upper)| upper.clone());
            let lower = lower.max_by_key(|(version, with)| (version.clone(), !with));
            let upper = upper.min_by_key(|(version, with)| (version.clone(), *with));
            Some((lower, upper))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(alternatives: &[&str], other: &[&str]) -> String {
        let record = |version: &&str| -> RepoDataRecord {
            let file = format!("python-{version}-0.conda");
            serde_json::from_value(serde_json::json!({
                "name": "python", "version": version, "build": "0", "build_number": 0, "subdir": "linux-64",
                "depends": [], "fn": file, "url": format!("https://host/c/linux-64/{file}"), "channel": "https://host/c",
            }))
            .expect("a record")
        };
        let other: Vec<RepoDataRecord> = other.iter().map(record).collect();
        let alternatives = alternatives.iter().map(|text| (*text).to_owned()).collect();
        shown("python", &alternatives, &other.iter().collect::<Vec<_>>())
    }

    #[test]
    fn alternatives_become_a_range_that_is_true() {
        let builds = ["python >=3.9,<3.10.0a0", "python >=3.10,<3.11.0a0", "python >=3.12,<3.13.0a0"];
        assert_eq!(text(&builds, &["3.13.0"]), "`python >=3.9,<3.13.0a0`");
        assert_eq!(text(&builds, &["3.11.4"]).matches(" or ").count(), 2, "3.11 is in the range, so they are listed");
        assert_eq!(text(&["python 3.9.*", "python 3.10.*"], &["3.11.0"]), "`python >=3.9,<3.11`");
        assert_eq!(text(&["python <3", "python >=3.9"], &[]), "`python >=3.9` or `python <3`");
        assert_eq!(text(&["python <3,>2", "python <=3"], &["3.1"]), "`python <=3`");
        assert_eq!(text(&["python"], &[]), "`python`");
        let many = ["python 2.7.1", "python 2.7.2", "python 2.7.3", "python 2.7.4"];
        assert!(text(&many, &["3"]).ends_with("or 1 more"));
    }
}
