//! Selectors: what is for one system only. micromamba reads `sel(win): PACKAGE`; conda-build and conda-lock read
//! `PACKAGE  # [win]`, which is a comment to conda.

use std::path::Path;

/// Words that a selector in a comment has, one at least.
const WORDS: [&str; 10] = ["win", "win32", "win64", "osx", "linux", "linux64", "unix", "aarch64", "arm64", "not"];

/// Whether a key is a selector that holds for Linux: nothing when it is no selector, an error with the condition when
/// it is none that is known.
pub(super) fn is_for_linux(key: &str) -> Option<Result<bool, &str>> {
    let condition = key.strip_prefix("sel(")?.strip_suffix(')')?.trim();
    Some(match condition {
        "linux" | "unix" => Ok(true),
        "win" | "osx" => Ok(false),
        other => Err(other),
    })
}

/// What to say of selectors in comments that would leave out a package if they meant something.
pub(super) fn notice(file: &Path, source: &str) -> Option<String> {
    let selectors: Vec<String> = source
        .lines()
        .enumerate()
        .filter_map(|(index, line)| Some((index, in_comment(line)?)))
        .filter(|(_, condition)| !holds_for_linux(condition))
        .map(|(index, condition)| format!("`# [{condition}]` (line {})", index + 1))
        .collect();
    let shown = match selectors.len() {
        0 => return None,
        1..=5 => selectors.join(", "),
        count => format!("{}, and {} more", selectors[..5].join(", "), count - 5),
    };
    Some(format!(
        "{}: comments select nothing, as for conda: {shown}; `sel(win): PACKAGE` leaves a package out",
        file.display()
    ))
}

fn in_comment(line: &str) -> Option<&str> {
    let (item, comment) = line.split_once(" #")?;
    let condition = comment.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    let mut words = condition.split(|char: char| !char.is_ascii_alphanumeric());
    (item.trim_start().starts_with("- ") && words.any(|word| WORDS.contains(&word))).then_some(condition)
}

fn holds_for_linux(condition: &str) -> bool {
    let condition = condition.split_whitespace().collect::<Vec<_>>().join(" ");
    matches!(
        condition.as_str(),
        "linux" | "unix" | "not win" | "not osx" | "linux or osx" | "osx or linux" | "linux or win" | "win or linux"
    )
}
