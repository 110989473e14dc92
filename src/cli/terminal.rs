//! The one way of text to a terminal or to the log of a CI system. Much of it comes from strangers (packages, indexes,
//! files, servers): characters that steer a terminal, that turn the direction of text or that cannot be seen are shown
//! escaped, and nothing becomes a command of a CI system.

use std::io::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::util::{Error, Result, files};

/// Prints lines to standard error; a closed one is nobody's loss.
pub fn print_line(text: &str) {
    write_line(&shown(text));
}

/// As [`print_line`], behind a prefix of condaimg's own that may hold colours.
pub fn print_behind(prefix: &str, text: &str) {
    write_line(&format!("{prefix}{}", shown(text)));
}

/// Prints a line of JSON to standard error.
pub fn print_json_line(json: &str) {
    write_line(&shown_json(json));
}

fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a table for people to standard output.
///
/// # Errors
/// As [`print_data`].
pub fn print_table(text: &str) -> Result<()> {
    print_data(shown(text).as_bytes())
}

/// Writes a value as JSON to standard output.
///
/// # Errors
/// As [`print_data`].
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| Error::bug("what is to be told has no JSON form").caused_by(error))?;
    print_data(format!("{}\n", shown_json(&json)).as_bytes())
}

/// Writes what a program reads to standard output, byte for byte. A reader that has gone away wants nothing more; any
/// other failure is one, since whoever relies on the output would not get it.
///
/// # Errors
/// When standard output takes no more.
pub fn print_data(bytes: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            Err(Error::user("failed to write to `standard output`")
                .hint("free some space where standard output goes, or send it elsewhere")
                .caused_by(error))
        }
        Err(error) => Err(files::named(Path::new("standard output"), error)),
        Ok(()) => Ok(()),
    }
}

/// A text as it may be shown. Line feeds and tabs stay.
pub fn shown(text: &str) -> String {
    let escape = |char: char| match char {
        '\r' => "\\r".to_owned(),
        char => char.escape_unicode().to_string(),
    };
    let clean = clean(text, &|char| !matches!(char, '\n' | '\t') && is_hidden(char), &escape);
    if !clean.contains("::") {
        return clean;
    }
    let mut lines = String::with_capacity(clean.len());
    for line in clean.split_inclusive('\n') {
        let command = line.trim_start();
        match command.strip_prefix("::") {
            Some(rest) => lines.extend([&line[..line.len() - command.len()], &escape(':'), ":", rest]),
            None => lines.push_str(line),
        }
    }
    lines
}

/// A text as it may be shown in one line.
pub fn shown_in_line(text: &str) -> String {
    shown(text).replace('\n', "\\n")
}

/// JSON as it may be shown: the same values, with more escapes. Its line feeds stand between values.
fn shown_json(json: &str) -> String {
    let escape = |char: char| {
        let mut units = [0; 2];
        char.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>()
    };
    clean(json, &|char| char != '\n' && is_hidden(char), &escape)
}

/// Escapes characters, and the beginnings of commands that CI systems find anywhere in a line: `##[command]` (GitHub,
/// Azure), `##vso[` (Azure), `##teamcity[`.
fn clean(text: &str, is_escaped: &dyn Fn(char) -> bool, escape: &dyn Fn(char) -> String) -> String {
    let mut clean = String::with_capacity(text.len());
    for (at, char) in text.char_indices() {
        match is_escaped(char) || char == '#' && begins_command(&text[at..]) {
            true => clean.push_str(&escape(char)),
            false => clean.push(char),
        }
    }
    clean
}

fn begins_command(text: &str) -> bool {
    let name = text.strip_prefix("##").map(|rest| rest.trim_start_matches(|char: char| char.is_ascii_alphabetic()));
    name.is_some_and(|rest| rest.starts_with('['))
}

/// Characters that a terminal obeys or does not show: control characters, marks, embeddings, overrides and isolates of
/// direction (UAX 9), separators of lines and paragraphs, and those without width.
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        for (text, expected) in [
            ("plain ünïcode 数\twith\nlines", "plain ünïcode 数\twith\nlines"),
            ("a\x1b[2Jb\x07\x7f", "a\\u{1b}[2Jb\\u{7}\\u{7f}"),
            ("\u{9b}31m\u{85}", "\\u{9b}31m\\u{85}"),
            ("evil\u{202e}gnp.exe \u{2066}x\u{2069}", "evil\\u{202e}gnp.exe \\u{2066}x\\u{2069}"),
            ("ok\rerror", "ok\\rerror"),
            ("a\u{200b}b\u{feff}\u{e0041}\u{2028}", "a\\u{200b}b\\u{feff}\\u{e0041}\\u{2028}"),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown_in_line("a\nb"), "a\\nb");
    }

    #[test]
    fn commands_of_ci_systems_are_defused() {
        for (text, expected) in [
            ("::set-output name=x::y", "\\u{3a}:set-output name=x::y"),
            ("said:\n \t::error::x\n::b", "said:\n \t\\u{3a}:error::x\n\\u{3a}:b"),
            ("a ##vso[task.setvariable]x", "a \\u{23}#vso[task.setvariable]x"),
            ("##[error]x ##teamcity[y", "\\u{23}#[error]x \\u{23}#teamcity[y"),
            ("conda-forge::numpy # [win] ## x", "conda-forge::numpy # [win] ## x"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn json_keeps_its_values() {
        let value = serde_json::json!({"a\u{202e}": "\u{1b}[2J \u{9b} ##[x] \u{e0041} \n"});
        for json in [value.to_string(), serde_json::to_string_pretty(&value).expect("has a form")] {
            let shown = shown_json(&json);
            assert!(shown.chars().all(|char| char == '\n' || !is_hidden(char)) && !shown.contains("##["), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("is JSON"), value);
        }
    }
}
