//! conda's own lists of packages: `conda list --export`, `conda export --format requirements`, what `conda list` prints, and
//! files for `conda create --file`. Each line is a package as in an environment.yml (CEP 23 calls it a MatchSpec).

use std::path::Path;

use super::{Choices, Spec, folder, package, pip};
use crate::util::{Error, Result, plural, redact};

/// A line of the header that conda writes; `<env>` may be filled in.
const HEADER: &str = "$ conda create --name ";
/// What `conda list` begins with.
const TABLE: &str = "# packages in environment at ";
/// What `micromamba list` and `mamba list` begin with.
const MAMBA_TABLE: &str = "List of packages in environment: ";

/// Whether a text is such a list.
///
/// # Errors
/// A list without conda's header that has lines only conda writes and lines only pip does: to take it for either would
/// change what is asked for.
pub(super) fn is_one(file: &Path, text: &str) -> Result<bool> {
    let mut comments = text.lines().take_while(|line| line.starts_with('#'));
    if is_table(text) || comments.any(|line| line.contains(HEADER)) {
        return Ok(true);
    }
    let is_named_for_pip =
        file.file_name().is_some_and(|name| name.to_string_lossy().to_lowercase().contains("requirement"));
    // `a==1` is in lists of both, and `a=1` may be a slip for it.
    let is_pips_by_name = is_named_for_pip && !lines(text).any(|(_, line)| is_certainly_condas(line));
    let of_conda = lines(text).find(|(_, line)| is_condas(line));
    let of_pip = lines(text).find(|(_, line)| is_pips(line) || is_pips_by_name && is_exact(line));
    let shown = |line: &str| redact::within(line).chars().take(100).collect::<String>();
    let file = file.display();
    match (of_conda, of_pip) {
        (None, _) => Ok(false),
        (Some((conda, of_conda)), Some((pip, of_pip))) => Err(Error::user(format!(
            "`{file}` is neither a list of conda nor one of pip: `{}` (line {conda}) is conda's, `{}` (line {pip}) is pip's",
            shown(of_conda),
            shown(of_pip)
        ))
        .hint("pip writes `name==1.2`; write both into an environment.yml, pip's below `- pip:`")),
        (Some((number, line)), None) if is_pips_by_name => {
            Err(Error::user(format!("{file}:{number}: `{}` is conda's form, in a file that is named for pip", shown(line)))
                .hint("pip writes `name==1.2`; for conda rename the file, e.g. to packages.txt"))
        }
        (Some(_), None) => Ok(lines(text).all(|(_, line)| package::dependency(line).is_ok() || is_url_of_channel(line))),
    }
}

/// The lines that are no comments, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, without_comment(line).trim()));
    numbered.filter(|(_, line)| !line.is_empty())
}

fn without_comment(line: &str) -> &str {
    let begins = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    line.match_indices('#').find(|(at, _)| begins(*at)).map_or(line, |(at, _)| &line[..at])
}

/// `name=1.2`, `name=1.2=build`, `name 1.2`, `channel::name`: pip knows none of them.
fn is_condas(line: &str) -> bool {
    if line.split_whitespace().next().is_some_and(|word| word.contains("::")) {
        return true;
    }
    let rest = line.trim_start_matches(is_of_name);
    let version = rest.trim_start();
    let is_version = version.starts_with(|char: char| char.is_ascii_digit()) && rest.len() > version.len();
    rest.len() < line.len() && (is_version || rest.starts_with('=') && !rest.starts_with("=="))
}

/// A channel, a build, or Python itself, which pip cannot be asked for.
fn is_certainly_condas(line: &str) -> bool {
    let parts: Vec<&str> = line.split('=').collect();
    let has_build = parts.len() == 3 && parts.iter().all(|part| !part.is_empty());
    let is_python = line.strip_prefix("python").is_some_and(|rest| !rest.starts_with(is_of_name));
    line.contains("::") || has_build || is_python
}

fn is_of_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || "-_.".contains(char)
}

/// `name==1.2`.
fn is_exact(line: &str) -> bool {
    line.contains("==") && !line.contains("::")
}

/// Options, markers, extras, references.
fn is_pips(line: &str) -> bool {
    let is_extra = line.split_once('[').is_some_and(|(_, rest)| !rest.contains('='));
    let is_option = line.starts_with('-') && line.contains(|char: char| char.is_ascii_alphabetic());
    is_option || line.contains([';', '@']) || is_extra
}

fn is_url_of_channel(line: &str) -> bool {
    line.contains("://") && line.contains("::")
}

/// Reads such a list.
///
/// # Errors
/// A line that is no package; a list of nothing.
pub(super) fn read(file: &Path, text: &str, choices: &Choices) -> Result<Spec> {
    let shown = file.display();
    let is_table = is_table(text);
    let (mut dependencies, mut places, mut of_pip, mut notices) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (number, line) in lines(text).filter(|(_, line)| !is_table || !is_heading(line)) {
        let line = if is_table { row(line) } else { line.to_owned() };
        if let Some(line) = package::of_pypi(&line) {
            of_pip.push((format!("{shown}:{number}"), line));
            continue;
        }
        let dependency = package::dependency(&line).map_err(|refused| {
            let line: String = redact::within(&line).chars().take(100).collect();
            Error::user(format!("{shown}:{number}: `{line}` is no package specification: {}", refused.reason))
                .hint(refused.hint)
        })?;
        dependencies.push(dependency);
        places.push(number);
    }
    if dependencies.is_empty() {
        return Err(Error::user(format!("`{shown}` names no package of conda"))
            .hint("each line is a package, as `conda list --export` writes it"));
    }
    notices.extend(other_platform(text).map(|platform| {
        format!("{shown}: it was written on {platform}; images are for Linux, whose packages have other builds")
    }));
    if !of_pip.is_empty() {
        let count = plural(of_pip.len(), "package");
        notices.push(format!("{shown}: {count} of pip's (`pypi_0`), from the index and not from a channel"));
    }
    let pip = pip::read_section(folder(file), of_pip, choices)?;
    notices.extend(pip.notices.iter().cloned());
    Ok(Spec { file: file.to_owned(), dependencies, lines: places, pip, notices, ..Spec::default() })
}

/// Whether a text is a table of `conda list`, `mamba list` or `micromamba list`.
fn is_table(text: &str) -> bool {
    let mut beginning = text.lines().take_while(|line| line.starts_with('#'));
    let first = text.lines().find(|line| !line.trim().is_empty());
    beginning.any(|line| line.starts_with(TABLE)) || first.is_some_and(|line| line.starts_with(MAMBA_TABLE))
}

/// A line of a table that is no package: mamba's title, its row of column names, and the rule below it.
fn is_heading(line: &str) -> bool {
    let is_rule = line.chars().all(|char| matches!(char, '─' | '-' | ' '));
    is_rule || line.starts_with(MAMBA_TABLE) || line.split_whitespace().take(3).eq(["Name", "Version", "Build"])
}

/// A row of `conda list`: name, version, build, and the channel unless it is a default one.
fn row(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [name, version, build] | [name, version, build, "pypi" | "<develop>"] => format!("{name}={version}={build}"),
        [name, version, build, channel] => format!("{channel}::{name}={version}={build}"),
        _ => line.to_owned(),
    }
}

/// The platform that the header names, if it is not Linux.
fn other_platform(text: &str) -> Option<&str> {
    let comments = text.lines().take_while(|line| line.starts_with('#'));
    let platform = comments.filter_map(|line| line.trim_start_matches('#').trim().strip_prefix("platform:")).next()?;
    Some(platform.trim()).filter(|platform| !platform.starts_with("linux"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPORT: &str = "# This file may be used to create an environment using:\n# $ conda create --name <env> --file <this file>\n# platform: linux-64\n# created-by: conda 25.1.1\n";

    fn read_text(text: &str) -> Result<Spec> {
        read(Path::new("spec.txt"), text, &Choices::default())
    }

    #[test]
    fn lists_of_conda_are_told_by_their_lines() {
        let in_spec_txt = |text: &str| is_one(Path::new("spec.txt"), text).expect(text);
        assert!(in_spec_txt("numpy=1.26\nscipy\n") && in_spec_txt("numpy 1.26.*\n"));
        let is_one = |text: &str| is_one(Path::new("requirements.txt"), text);
        for text in [
            &format!("{EXPORT}numpy\n"),
            "python=3.11.4=h1_0_cpython\n",
            "numpy=1.26.4=py311_0\nscipy\n",
            "# mine\nconda-forge::numpy  # why\nscipy >=1.2,<2\n",
            "# packages in environment at /opt/conda:\n#\nnumpy  1.26.4  py311_0\n",
            "python=3.9\nnumpy==1.21\n",
        ] {
            assert!(is_one(text).expect(text), "{text}");
        }
        for text in [
            "numpy\n",
            "numpy==1.26\n",
            "numpy>=1.2,<2\n-r more.txt\n",
            "",
            "a @ https://host/a=1.whl\n",
            "https://host/a.whl\n",
            "# numpy=1\n",
        ] {
            assert!(!is_one(text).expect(text), "{text}");
        }
        assert!(in_spec_txt("requests==2.31\nnumpy=1.26\n"), "its name says nothing of pip");
        is_one("Package Version\n------- -------\nnumpy   1.26.4\n").expect_err("is of `pip list`");
        let message = is_one("flask\nrequests=2.31\n").expect_err("is a slip").to_string();
        assert!(message.starts_with("requirements.txt:2: `requests=2.31`"), "{message}");
        let message = is_one("requests==2.31\nnumpy=1.26\n").expect_err("is both").to_string();
        assert!(
            message.contains("`numpy=1.26` (line 2)") && message.contains("`requests==2.31` (line 1)"),
            "{message}"
        );
    }

    #[test]
    fn lists_of_conda_become_dependencies() {
        let text = format!(
            "{EXPORT}_libgcc_mutex=0.1=conda_forge\npython=3.11.4=h1_0_cpython\nrequests=2.31.0=pypi_0\n\nconda-forge::numpy[version='>=1']\n"
        );
        let spec = read_text(&text).expect("reads");
        let texts: Vec<&str> = spec.dependencies.iter().map(|dependency| dependency.text.as_str()).collect();
        assert_eq!(
            texts,
            ["_libgcc_mutex=0.1=conda_forge", "python=3.11.4=h1_0_cpython", "conda-forge::numpy[version='>=1']"]
        );
        assert_eq!([spec.place_of(0), spec.place_of(2)], ["spec.txt:5", "spec.txt:9"]);
        assert_eq!(spec.pip.requirements[0].text, "requests==2.31.0");
        assert_eq!(spec.pip.requirements[0].place, "spec.txt:7");
        assert!(spec.notices.iter().any(|notice| notice.contains("pypi_0")), "{:?}", spec.notices);

        let table = "# packages in environment at /opt/conda:\n#\n# Name  Version  Build  Channel\npython  3.11.4  h1_0\nnumpy  1.26.4  py311_0  conda-forge\nclick  8.1  pypi_0  pypi\n";
        let spec = read_text(table).expect("reads");
        let texts: Vec<&str> = spec.dependencies.iter().map(|dependency| dependency.text.as_str()).collect();
        assert_eq!(texts, ["python=3.11.4=h1_0", "conda-forge::numpy=1.26.4=py311_0"]);
        assert_eq!(spec.pip.requirements[0].text, "click==8.1");

        let table = "List of packages in environment: \"/opt/conda\"\n\n  Name    Version  Build    Channel    \n──────────────\n  python  3.11.4   h1_0     conda-forge\n  numpy   1.26.4   py311_0  conda-forge\n";
        assert!(is_one(Path::new("requirements.txt"), table).expect("is told"));
        let spec = read_text(table).expect("reads");
        let texts: Vec<&str> = spec.dependencies.iter().map(|dependency| dependency.text.as_str()).collect();
        assert_eq!(texts, ["conda-forge::python=3.11.4=h1_0", "conda-forge::numpy=1.26.4=py311_0"]);
        assert_eq!(spec.place_of(1), "spec.txt:6");
    }

    #[test]
    fn lists_of_conda_name_what_is_wrong() {
        let message = |text: &str| read_text(&format!("{EXPORT}{text}")).expect_err(text).to_string();
        assert!(message("numpy=1\nscipy==1==2\n").contains("spec.txt:6: `scipy==1==2`"));
        assert!(message("").contains("`spec.txt` names no package"));
        let notices = read_text(&EXPORT.replace("linux-64", "win-64").replace("conda 25.1.1\n", "conda\nnumpy=1=0\n"))
            .expect("reads")
            .notices;
        assert!(notices[0].contains("written on win-64"), "{notices:?}");
    }
}
