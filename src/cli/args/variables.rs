//! Flags by environment variables, `CONDAIMG_<FLAG>`: read as people and CI systems write them.

use std::ffi::OsStr;

use clap::builder::{Resettable, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, Error};

/// The command with flags that are true for `1`, `true`, `yes` and `on`, false for `0`, `false`, `no` and `off`, in any
/// case. A flag that a variable makes false is as good as one that is not given, and so is any with an empty variable.
pub fn with_variables(command: Command) -> Command {
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
