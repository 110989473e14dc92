//! Lines of requirements files: continuations, comments, environment variables, options.

use std::path::{Path, PathBuf};

use super::PipOptions;
use crate::util::{Error, Result, redact, variables};

/// A line as it is meant: joined with those that continue it, without comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Of its first line, from 1.
    pub(super) number: usize,
    pub(super) text: String,
}

/// The lines that say something.
pub(super) fn logical(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut open: Option<Line> = None;
    for (index, raw) in text.lines().enumerate() {
        let mut line = open.take().unwrap_or(Line { number: index + 1, text: String::new() });
        // A comment within continued lines ends them, as in pip.
        let comment = raw.trim_start().starts_with('#');
        match raw.strip_suffix('\\').filter(|_| !comment) {
            Some(continued) => {
                line.text.push_str(continued);
                open = Some(line);
            }
            None => {
                if comment {
                    line.text.push(' ');
                }
                line.text.push_str(raw);
                lines.push(line);
            }
        }
    }
    lines.extend(open);
    for line in &mut lines {
        line.text = without_comment(&line.text).trim().to_owned();
    }
    lines.retain(|line| !line.text.is_empty());
    lines
}

/// A comment begins at a `#` at the start or behind white space: that of a URL is none.
fn without_comment(text: &str) -> &str {
    let begins = |at: usize| text[..at].chars().next_back().is_none_or(char::is_whitespace);
    text.match_indices('#').find(|(at, _)| begins(*at)).map_or(text, |(at, _)| &text[..at])
}

/// Options whose value is a URL, wherever that comes from.
const OF_URLS: [&str; 6] = ["-i", "--index-url", "--pypi-url", "--extra-index-url", "-f", "--find-links"];

/// `${NAME}` from the environment, in URLs only; what is not set stays as it is, as in pip.
///
/// # Errors
/// Variables that must not go to the URL's host ([`variables`]).
pub(super) fn expand(text: &str) -> Result<String> {
    expand_from(text, variables::value)
}

fn expand_from(text: &str, value: impl Fn(&str) -> Result<Option<String>>) -> Result<String> {
    let is_of_url = text.starts_with('-') && OF_URLS.contains(&split_option(text).0);
    let words = text.split_inclusive(char::is_whitespace);
    let expanded = words.map(|word| match is_of_url || word.contains("://") {
        true => expand_word(word, &value),
        false => Ok(word.to_owned()),
    });
    expanded.collect()
}

fn expand_word(text: &str, value: &impl Fn(&str) -> Result<Option<String>>) -> Result<String> {
    let (mut expanded, mut names) = (String::with_capacity(text.len()), Vec::new());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        expanded.push_str(before);
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        };
        let found = after.split_once('}').filter(|(name, _)| is_name(name));
        let found = match found {
            Some((name, behind)) => value(name)?.map(|value| (name, value, behind)),
            None => None,
        };
        match found {
            Some((name, value, behind)) => {
                expanded.push_str(&value);
                names.push(name.to_owned());
                rest = behind;
            }
            None => {
                expanded.push_str("${");
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    variables::permit(&names, &expanded)?;
    Ok(expanded)
}

/// An option that has a line for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineOption {
    /// Its long name.
    pub(super) name: String,
    /// Empty for a flag.
    pub(super) value: String,
}

impl LineOption {
    /// The path on this machine that the value of an option is, if it says where packages lie.
    pub(super) fn path(&self, folder: &Path) -> Option<PathBuf> {
        match self.name.as_str() {
            "--index-url" | "--extra-index-url" | "--find-links" if self.value.contains("://") => {
                let url = url::Url::parse(&self.value).ok()?;
                url.to_file_path().ok().filter(|_| url.scheme() == "file")
            }
            "--find-links" => Some(folder.join(&self.value)),
            _ => None,
        }
    }
}

/// Short names, and those that pip has in two forms.
const ALIASES: [(&str, &str); 6] = [
    ("-r", "--requirement"),
    ("-c", "--constraint"),
    ("-e", "--editable"),
    ("-i", "--index-url"),
    ("-f", "--find-links"),
    ("--pypi-url", "--index-url"),
];
const WITH_VALUE: [&str; 8] = [
    "--requirement",
    "--constraint",
    "--editable",
    "--index-url",
    "--extra-index-url",
    "--find-links",
    "--no-binary",
    "--only-binary",
];
const FLAGS: [&str; 4] = ["--no-index", "--pre", "--require-hashes", "--prefer-binary"];

/// The option that a line is; nothing when it is a requirement.
pub(super) fn option(text: &str) -> Result<Option<LineOption>> {
    if !text.starts_with('-') {
        return Ok(None);
    }
    let (name, value) = split_option(text);
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| *name);
    if !FLAGS.contains(&name) && !WITH_VALUE.contains(&name) {
        return Err(unknown(name));
    }
    match (WITH_VALUE.contains(&name), value.is_empty()) {
        (true, true) => Err(Error::user(format!("`{name}` needs a value"))),
        (false, false) => Err(Error::user(format!("`{name}` takes no value"))
            .hint("an option of a requirements file has a line for itself")),
        _ => Ok(Some(LineOption { name: name.to_owned(), value: value.to_owned() })),
    }
}

/// `--name value`, `--name=value`, `-n value`, `-nvalue`.
fn split_option(text: &str) -> (&str, &str) {
    let (name, value) = match text.strip_prefix("--") {
        Some(_) => text.split_at(text.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(text.len())),
        None => text.split_at(text.char_indices().nth(2).map_or(text.len(), |(at, _)| at)),
    };
    let value = value.strip_prefix('=').unwrap_or(value).trim();
    let quoted = |quote: char| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    (name, quoted('"').or_else(|| quoted('\'')).unwrap_or(value))
}

fn unknown(name: &str) -> Error {
    let error = Error::user(format!("the option `{name}` is not supported in requirements"));
    match name {
        "--trusted-host" => error.hint(
            "hosts that speak plain http need no consent; for a certificate of your own set `SSL_CERT_FILE`",
        ),
        "--hash" => error.hint("it belongs behind the requirement, in the same line"),
        _ => error.hint("pip's own are `-r`, `-c`, `-e`, `-i`, `--extra-index-url`, `-f`, `--no-index`, `--pre`, `--no-binary`, `--only-binary`, `--require-hashes`"),
    }
}

impl PipOptions {
    /// Takes an option that says where packages come from.
    pub(super) fn take(&mut self, option: LineOption, folder: &Path) -> Result<()> {
        let LineOption { name, value } = option;
        match name.as_str() {
            "--index-url" => self.index_url = Some(index(&value)?),
            "--extra-index-url" => self.extra_index_urls.push(index(&value)?),
            "--find-links" => self.find_links.push(links(&value, folder)),
            "--no-index" => self.no_index = true,
            "--pre" => self.pre = true,
            "--require-hashes" => self.require_hashes = true,
            "--no-binary" => self.no_binary.extend(names(&value)),
            "--only-binary" => self.only_binary.extend(names(&value)),
            // Wheels are preferred in any case.
            _ => {}
        }
        Ok(())
    }
}

fn index(value: &str) -> Result<String> {
    let wrong = |why: &str| {
        let shown = redact::within(value);
        Error::user(format!("`{shown}` is no index: {why}")).hint("give its URL, as `https://host/simple/`")
    };
    let url = url::Url::parse(value).map_err(|error| wrong(&error.to_string()))?;
    match url.scheme() {
        "http" | "https" | "file" => Ok(value.to_owned()),
        scheme => Err(wrong(&format!("{scheme}:// is not supported"))),
    }
}

fn links(value: &str, folder: &Path) -> String {
    match value.contains("://") {
        true => value.to_owned(),
        false => folder.join(value).to_string_lossy().into_owned(),
    }
}

fn names(value: &str) -> impl Iterator<Item = String> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_comments_left_out() {
        let text = "# nothing\na==1 \\\n  --hash=sha256:1 \\\n  --hash=sha256:2  # why\n\nb # c\nhttps://h/x.whl#sha256=1\nc \\\n# end\nd\\";
        let lines: Vec<(usize, String)> = logical(text).into_iter().map(|line| (line.number, line.text)).collect();
        let expected = [
            (2, "a==1   --hash=sha256:1   --hash=sha256:2"),
            (6, "b"),
            (7, "https://h/x.whl#sha256=1"),
            (8, "c"),
            (10, "d"),
        ];
        assert_eq!(lines, expected.map(|(number, text)| (number, text.to_owned())));
    }

    #[test]
    fn variables_are_those_that_pip_knows() {
        let value = |name: &str| Ok((name == "TOKEN_1").then(|| "x".to_owned()));
        for (text, expected) in [
            ("https://a${TOKEN_1}b${UNSET}${lower}$TOKEN_1 ${", "https://axb${UNSET}${lower}$TOKEN_1 ${"),
            ("n @ git+https://${TOKEN_1}@h/a ; x == '${TOKEN_1}'", "n @ git+https://x@h/a ; x == '${TOKEN_1}'"),
            ("--index-url ${TOKEN_1}", "--index-url x"),
            ("-i${TOKEN_1}", "-ix"),
            ("a==${TOKEN_1}", "a==${TOKEN_1}"),
            ("-r ${TOKEN_1}.txt", "-r ${TOKEN_1}.txt"),
        ] {
            assert_eq!(expand_from(text, value).expect(text), expected);
        }
        let error = expand("https://${CONDAIMG_REGISTRY_PASSWORD}@h/a.whl").expect_err("is refused").to_string();
        assert!(error.contains("`CONDAIMG_REGISTRY_PASSWORD`"), "{error}");
    }

    #[test]
    fn options_have_several_forms() {
        for text in ["-r a.txt", "-ra.txt", "--requirement a.txt", "--requirement=a.txt", "-r \"a.txt\""] {
            let option = option(text).expect("reads").expect("is an option");
            assert_eq!((option.name.as_str(), option.value.as_str()), ("--requirement", "a.txt"), "{text}");
        }
        assert_eq!(option("numpy").expect("reads"), None);
        for (text, expected) in [
            ("--trusted-host h", "`--trusted-host` is not supported"),
            ("-r", "needs a value"),
            ("--pre now", "takes no value"),
            ("--hash=sha256:1", "`--hash` is not supported"),
        ] {
            let error = option(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
