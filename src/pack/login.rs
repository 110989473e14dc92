//! Login shells: their `/etc/profile` sets `PATH` anew, and `su -` drops all variables. A script in the base's directory for
//! that (`/etc/profile.d`) gives the environment back.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::environment::shell_quote;

/// Name of the script. Others of the directory come before it or after it; it looks at what they left.
pub const NAME: &str = "condaimg.sh";

/// Variables that are the user's, whoever that is.
const OF_THE_USER: [&str; 2] = ["HOME", "USER"];

/// The script, for every POSIX shell: `path` is the image's, `bin` the environment's directory in it.
///
/// A `PATH` that has the environment stays as it is. Else it becomes the image's, and what else it had comes after that.
/// Variables are set unless they are.
pub fn script(bin: &str, path: &str, variables: &BTreeMap<String, String>) -> String {
    let mut text = String::from("# The conda environment for login shells. Written by condaimg.\n");
    let (quoted, path) = (shell_quote(bin), shell_quote(path));
    let _ = write!(
        text,
        "case :${{PATH-}}: in\n*:{quoted}:*) ;;\n*)\n\
         \x20   condaimg_rest=${{PATH-}}:\n\
         \x20   PATH={path}\n\
         \x20   while [ -n \"$condaimg_rest\" ]; do\n\
         \x20       case :$PATH: in\n\
         \x20       *:\"${{condaimg_rest%%:*}}\":*) ;;\n\
         \x20       *) [ -z \"${{condaimg_rest%%:*}}\" ] || PATH=$PATH:${{condaimg_rest%%:*}} ;;\n\
         \x20       esac\n\
         \x20       condaimg_rest=${{condaimg_rest#*:}}\n\
         \x20   done\n\
         \x20   unset condaimg_rest\n\
         \x20   export PATH\n\
         \x20   ;;\nesac\n",
    );
    for (name, value) in variables {
        if name != "PATH" && !OF_THE_USER.contains(&name.as_str()) && is_name(name) {
            let _ = writeln!(text, "[ -n \"${{{name}+x}}\" ] || export {name}={}", shell_quote(value));
        }
    }
    text
}

/// Whether a shell can have a variable of this name.
fn is_name(name: &str) -> bool {
    let is_first = |char: char| char.is_ascii_alphabetic() || char == '_';
    name.starts_with(is_first) && name.chars().all(|char| is_first(char) || char.is_ascii_digit())
}
