//! Commands of a script: builtins, and options of builtins, that a shell lacks.

use super::bashisms::{Walk, When};

/// Builtins that only bash has.
const OF_BASH: [&str; 18] = [
    "declare",
    "typeset",
    "shopt",
    "mapfile",
    "readarray",
    "pushd",
    "popd",
    "dirs",
    "enable",
    "builtin",
    "complete",
    "compgen",
    "compopt",
    "caller",
    "disown",
    "bind",
    "logout",
    "suspend",
];

/// What POSIX and dash know behind `set -o`.
const SET_OPTIONS: [&str; 17] = [
    "allexport",
    "debug",
    "emacs",
    "errexit",
    "ignoreeof",
    "interactive",
    "monitor",
    "noclobber",
    "noexec",
    "noglob",
    "nolog",
    "notify",
    "nounset",
    "stdin",
    "verbose",
    "vi",
    "xtrace",
];
/// The letters that dash knows behind `set -`.
const SET_LETTERS: &str = "aefnuvxIimsVECb";

/// Checks a command by its name and its arguments, as they are written.
pub(super) fn check(walk: &mut Walk<'_>, line: usize, name: &str, arguments: &[String]) {
    match name {
        "source" | "let" => walk.dash_lacks(line, When::Run, name),
        "." if arguments.len() > 1 => walk.lacks(line, When::Run, ". with arguments"),
        "[" => test(walk, line, arguments, true),
        "test" => test(walk, line, arguments, false),
        "local" | "export" | "readonly" => declaration(walk, line, name, arguments),
        "set" => set(walk, line, arguments),
        "read" => read(walk, line, arguments),
        "echo" | "type" => {
            let letters = if name == "echo" { "eE" } else { "tpPaf" };
            if let Some(option) = option(arguments, letters) {
                walk.dash_lacks(line, When::Run, &format!("{name} -{option}"));
            } else if name == "echo"
                && let Some(escaped) = arguments.iter().find(|argument| has_escape(argument))
            {
                walk.dash_lacks(line, When::Run, &format!("echo {escaped}"));
            }
        }
        "printf" => match arguments.first().map(String::as_str) {
            Some("-v") => walk.lacks(line, When::Run, "printf -v"),
            Some(format) if format.contains("%q") => walk.lacks(line, When::Run, "printf %q"),
            Some(format) if format.contains("%(") => walk.lacks(line, When::Run, "printf %("),
            Some(format) if format.contains("\\x") => walk.dash_lacks(line, When::Run, "printf \\x"),
            _ => {}
        },
        "trap" => {
            if let Some(signal) = arguments.iter().skip(1).find(|it| matches!(it.as_str(), "ERR" | "DEBUG" | "RETURN"))
            {
                walk.lacks(line, When::Run, &format!("trap {signal}"));
            }
            signals(walk, line, name, arguments);
        }
        "kill" => signals(walk, line, name, arguments),
        "wait" if option(arguments, "n").is_some() => walk.lacks(line, When::Run, "wait -n"),
        "ulimit" if option(arguments, "u").is_some() => walk.dash_lacks(line, When::Run, "ulimit -u"),
        "exec" if arguments.iter().any(|it| it.starts_with('{') && it.ends_with('}')) => {
            walk.lacks(line, When::Run, "exec {fd}>");
        }
        "command" | "exec" => {
            if let Some((name, arguments)) = arguments.split_first().filter(|(name, _)| !name.starts_with('-')) {
                check(walk, line, name, arguments);
            }
        }
        name if OF_BASH.contains(&name) => walk.lacks(line, When::Run, name),
        _ => {}
    }
}

/// The first of some letters among the options that come first.
fn option(arguments: &[String], letters: &str) -> Option<char> {
    let options = arguments.iter().map_while(|argument| argument.strip_prefix('-').filter(|rest| !rest.is_empty()));
    options.take_while(|option| *option != "-").flat_map(str::chars).find(|letter| letters.contains(*letter))
}

/// Signals by names that POSIX does not have.
fn signals(walk: &mut Walk<'_>, line: usize, name: &str, arguments: &[String]) {
    let mut names = arguments.iter().map(|argument| argument.trim_start_matches('-'));
    if let Some(signal) = names.find(|it| it.len() > 3 && it.starts_with("SIG")) {
        walk.dash_lacks(line, When::Run, &format!("{name} {signal}"));
    }
}

/// Whether a quoted text has what dash's `echo` makes other characters of.
fn has_escape(argument: &str) -> bool {
    let follows = |text: &str| text.starts_with(|char: char| "abcefnrtv0".contains(char));
    argument.contains(['\'', '"']) && argument.split('\\').skip(1).any(follows)
}

fn test(walk: &mut Walk<'_>, line: usize, arguments: &[String], bracket: bool) {
    let shown = |operator: &str| if bracket { format!("[ {operator} ]") } else { format!("test {operator}") };
    let mut before = None;
    for (index, argument) in arguments.iter().enumerate() {
        let begins = matches!(before, None | Some("!" | "-a" | "-o" | "("));
        let operand = arguments.get(index + 1).is_some_and(|next| next != "]");
        match argument.as_str() {
            "==" => walk.dash_lacks(line, When::Run, &shown("==")),
            "=~" => walk.lacks(line, When::Run, &shown("=~")),
            operator @ ("-v" | "-R" | "-N") if begins && operand => walk.lacks(line, When::Run, &shown(operator)),
            _ => {}
        }
        before = Some(argument.as_str());
    }
}

fn declaration(walk: &mut Walk<'_>, line: usize, name: &str, arguments: &[String]) {
    let letters = if name == "local" { "aAirnxtulgpfF" } else { "aAfnitul" };
    if let Some(option) = option(arguments, letters) {
        walk.lacks(line, When::Run, &format!("{name} -{option}"));
    }
}

fn set(walk: &mut Walk<'_>, line: usize, arguments: &[String]) {
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let Some(letters) = argument.strip_prefix(['-', '+']).filter(|rest| !rest.is_empty() && *rest != "-") else {
            return;
        };
        for letter in letters.chars() {
            if letter == 'o' {
                let Some(option) = arguments.next() else { return };
                if option == "pipefail" {
                    walk.dash_lacks(line, When::Run, "set -o pipefail");
                } else if !SET_OPTIONS.contains(&option) && !option.contains('$') {
                    walk.lacks(line, When::Run, &format!("set -o {option}"));
                }
            } else if letter.is_ascii_alphabetic() && !SET_LETTERS.contains(letter) {
                walk.lacks(line, When::Run, &format!("set -{letter}"));
            }
        }
    }
}

fn read(walk: &mut Walk<'_>, line: usize, arguments: &[String]) {
    for argument in arguments.iter().map_while(|argument| argument.strip_prefix('-')) {
        match argument.chars().find(|letter| letter.is_ascii_alphabetic() && !"rp".contains(*letter)) {
            Some(option @ ('d' | 'n' | 's' | 't' | 'u')) => {
                walk.dash_lacks(line, When::Run, &format!("read -{option}"))
            }
            Some(option) => walk.lacks(line, When::Run, &format!("read -{option}")),
            None => {}
        }
    }
}
