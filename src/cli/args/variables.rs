//! Flags by environment variables, `CONDAIMG_<FLAG>`: read as people and CI systems write them.

use std::ffi::{OsStr, OsString};

use clap::builder::{Resettable, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Error};

/// Parses a command line. What stands on it comes before variables: those of flags that conflict with it do not count.
///
/// # Errors
/// What is wrong with it; of a value from a variable, the variable's name.
pub fn parse(command: Command, words: Vec<OsString>) -> Result<ArgMatches, Error> {
    let command = with_variables(command);
    // Without variables, and whatever is wrong: only to see what is on the command line.
    let typed = without_variables(command.clone()).ignore_errors(true).try_get_matches_from(&words);
    let Ok(typed) = typed else { return command.try_get_matches_from(words) };
    let command = without_conflicts(command, &typed)?;
    let variables = variables(&command, &typed);
    command.try_get_matches_from(words).map_err(|error| naming_variable(error, &variables))
}

fn without_variables(command: Command) -> Command {
    command.mut_args(|arg| arg.env(Resettable::Reset)).mut_subcommands(without_variables)
}

fn is_typed(arg: &Arg, typed: &ArgMatches) -> bool {
    // Asking for an argument that the matches do not know would be a defect.
    let known = typed.ids().any(|id| id == arg.get_id());
    known && typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
}

/// The variable of a flag that is not on the command line, if it is set.
fn variable<'a>(arg: &'a Arg, typed: &ArgMatches) -> Option<&'a str> {
    let name = arg.get_env().filter(|name| std::env::var_os(name).is_some())?;
    name.to_str().filter(|_| !is_typed(arg, typed))
}

/// Pairs of flags that exclude each other, by their ids, each in both orders.
fn conflicts(command: &Command) -> Vec<(&Arg, &Arg)> {
    let of = |arg| command.get_arg_conflicts_with(arg).into_iter().map(move |other| (arg, other));
    let one_way: Vec<_> = command.get_arguments().flat_map(of).collect();
    one_way.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

/// The command without the variables of flags that conflict with what is typed.
///
/// # Errors
/// Two variables that exclude each other.
fn without_conflicts(mut command: Command, typed: &ArgMatches) -> Result<Command, Error> {
    let pairs = conflicts(&command);
    let hidden = pairs.iter().filter(|(arg, other)| variable(arg, typed).is_some() && is_typed(other, typed));
    let hidden: Vec<_> = hidden.map(|(arg, _)| arg.get_id().clone()).collect();
    let counts = |arg: &&Arg| !hidden.contains(arg.get_id());
    let both = pairs.iter().filter(|(arg, other)| counts(arg) && counts(other));
    let mut both = both.filter_map(|(arg, other)| Some((variable(arg, typed)?, variable(other, typed)?)));
    if let Some((one, other)) = both.next() {
        let message = format!(
            "the variables `{one}` and `{other}` exclude each other: unset one of them, or give one of the flags\n"
        );
        return Err(Error::raw(ErrorKind::ArgumentConflict, message).with_cmd(&command));
    }
    for id in hidden {
        command = command.mut_arg(id.as_str(), |arg| arg.env(Resettable::Reset));
    }
    match typed.subcommand() {
        Some((name, typed)) => {
            let mut result = Ok(());
            let command = command.mut_subcommand(name, |command| {
                without_conflicts(command.clone(), typed).unwrap_or_else(|error| {
                    result = Err(error);
                    command
                })
            });
            result.map(|()| command)
        }
        None => Ok(command),
    }
}

/// Flags as errors write them, and the variables that say what they are.
fn variables(command: &Command, typed: &ArgMatches) -> Vec<(String, String)> {
    let own = command
        .get_arguments()
        .filter_map(|arg| Some((format!("--{}", arg.get_long()?), variable(arg, typed)?.to_owned())));
    let mut all: Vec<_> = own.collect();
    if let Some((name, typed)) = typed.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        all.extend(variables(command, typed));
    }
    all
}

/// Adds to an error about a flag that the value is a variable's.
fn naming_variable(mut error: Error, variables: &[(String, String)]) -> Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let Some((_, name)) = variables.iter().find(|(known, _)| flag.split([' ', '[', '=']).next() == Some(known)) else {
        return error;
    };
    let tip = format!("this is the value of the variable `{name}`");
    let mut tips = match error.remove(ContextKind::Suggested) {
        Some(ContextValue::StyledStrs(tips)) => tips,
        _ => Vec::new(),
    };
    tips.push(tip.into());
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    error
}

/// The command with flags that are true for `1`, `true`, `yes` and `on`, false for `0`, `false`, `no` and `off`, in any
/// case. A flag that a variable makes false is as good as one that is not given, and so is any with an empty variable.
fn with_variables(command: Command) -> Command {
    command.mut_args(with_variable).mut_subcommands(with_variables)
}

fn with_variable(arg: Arg) -> Arg {
    let Some(name) = arg.get_env().map(OsStr::to_owned) else { return arg };
    let value = std::env::var_os(&name);
    let is_empty = value.as_ref().is_some_and(|value| value.is_empty());
    let is_false = || value.as_deref().and_then(OsStr::to_str).and_then(switch) == Some(false);
    let (arg, is_switch) = match arg.get_action() {
        ArgAction::SetTrue => (arg.value_parser(Switch), true),
        ArgAction::Count => (arg.value_parser(Level), true),
        _ => (arg, false),
    };
    // Otherwise it would be in the way of flags that it conflicts with.
    match is_empty || (is_switch && is_false()) {
        true => arg.env(Resettable::Reset),
        false => arg,
    }
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" | "y" | "t" => Some(true),
        "0" | "false" | "no" | "off" | "n" | "f" => Some(false),
        _ => None,
    }
}

/// Reads what is either true or false.
#[derive(Debug, Clone, Copy)]
pub struct Switch;

impl TypedValueParser for Switch {
    type Value = bool;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<bool, Error> {
        value.to_str().and_then(switch).ok_or_else(|| refused(command, arg, value, ""))
    }
}

/// Reads how often a flag is given: a number, or whether once.
#[derive(Debug, Clone, Copy)]
struct Level;

impl TypedValueParser for Level {
    type Value = u8;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<u8, Error> {
        let level = |text: &str| text.parse().ok().or_else(|| switch(text).map(u8::from));
        value.to_str().and_then(level).ok_or_else(|| refused(command, arg, value, "a number, or "))
    }
}

fn refused(command: &Command, arg: Option<&Arg>, value: &OsStr, more: &str) -> Error {
    let flag = arg.and_then(Arg::get_long).map(|flag| format!("--{flag}")).unwrap_or_default();
    let variable = arg.and_then(Arg::get_env).map(|name| format!(" (`{}`)", name.display())).unwrap_or_default();
    let message = format!(
        "invalid value `{}` for `{flag}`{variable}: expected {more}1, true, yes or on, or 0, false, no or off\n",
        value.display()
    );
    Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn every_switch_has_a_variable() {
        fn check(command: &Command) {
            for arg in command.get_arguments().filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue)) {
                let flag = arg.get_long().unwrap_or_default();
                let expected = format!("CONDAIMG_{}", flag.replace('-', "_").to_uppercase());
                assert_eq!(arg.get_env().and_then(OsStr::to_str), Some(expected.as_str()), "{}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn command_lines_are_parsed_with_their_conflicts() {
        let parse = |words: &[&str]| {
            let words = ["condaimg"].iter().chain(words).map(OsString::from).collect();
            super::parse(Cli::command(), words)
        };
        for words in [&["cache", "dir"][..], &["build", "--base", "scratch", "x"], &["lock", "--upgrade"], &["schema"]]
        {
            parse(words).expect("is right");
        }
        for words in [&["build", "--base", "scratch", "--from", "x"][..], &["build", "--jobs", "x"], &["nothing"], &[]]
        {
            parse(words).expect_err("is wrong");
        }
    }

    #[test]
    fn conflicts_are_known_in_both_directions() {
        let command = Cli::command();
        let build = command.find_subcommand("build").expect("a command");
        let pairs: Vec<_> = conflicts(build).iter().map(|(a, b)| (a.get_id().as_str(), b.get_id().as_str())).collect();
        for (one, other) in [("base", "from"), ("locked", "frozen"), ("file", "path"), ("push", "offline")] {
            assert!(pairs.contains(&(one, other)) && pairs.contains(&(other, one)), "{one} {other}: {pairs:?}");
        }
    }

    #[test]
    fn switches_are_read_as_people_write_them() {
        for text in ["1", "true", "True", "YES", "on"] {
            assert_eq!(switch(text), Some(true), "{text}");
        }
        for text in ["0", "false", "No", "OFF"] {
            assert_eq!(switch(text), Some(false), "{text}");
        }
        for text in ["", "2", "maybe", "truee"] {
            assert_eq!(switch(text), None, "{text}");
        }
    }
}
