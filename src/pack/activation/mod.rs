//! What activating an environment does, read from the packages instead of run: `etc/conda/env_vars.d/*.json`
//! and `etc/conda/activate.d/*.sh`. Scripts that only export or unset literals (and `$CONDA_PREFIX`, `$PATH`, or
//! what they set before) become steps, which end up in the image's `Env`; any other script is "dynamic".

mod bashisms;
mod commands;
mod order;
mod script;
mod shell;
mod state;
mod variables;
mod words;

use crate::lock::Activation;
use crate::model::LONGEST_VARIABLE;

pub use order::{Order, order};
pub use script::parse_script;
pub use shell::{Shell, warnings};
pub use state::State;
pub use variables::parse_variables;

/// The folder of the scripts that conda sources when it activates an environment.
pub const ACTIVATE_FOLDER: &str = "etc/conda/activate.d/";
/// The folder of JSON objects of variables that conda sets before that.
pub const ENV_VARS_FOLDER: &str = "etc/conda/env_vars.d/";

/// A file that activation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// Sourced.
    Script,
    /// Read as JSON.
    Variables,
}

/// What a path in the prefix is to activation. conda looks into the two folders, and not below them.
pub fn file(path: &str) -> Option<File> {
    let is_in = |folder: &str, end: &str| {
        path.strip_prefix(folder).is_some_and(|name| name.ends_with(end) && !name.contains('/'))
    };
    if is_in(ACTIVATE_FOLDER, ".sh") {
        return Some(File::Script);
    }
    is_in(ENV_VARS_FOLDER, ".json").then_some(File::Variables)
}

/// The longest script whose text is kept, and the most of all scripts of a package, in bytes.
const LONGEST_SCRIPT: usize = 64 << 10;
const MOST_SCRIPTS: usize = 256 << 10;

/// Takes note of a script of `activate.d`: of what it does, or that it needs a shell, with its text. `content` is
/// nothing of a link, whose target nobody knows here.
pub fn add_script(activation: &mut Activation, file: &str, content: Option<&[u8]>, placeholder: Option<&str>) {
    let text = content.and_then(|content| std::str::from_utf8(content).ok());
    match text.and_then(|text| parse_script(file, text, placeholder)) {
        Some(steps) => activation.steps.extend(steps),
        None => {
            activation.dynamic.insert(file.to_owned());
            let kept: usize = activation.scripts.values().map(String::len).sum();
            if let Some(text) = text.filter(|text| text.len() <= LONGEST_SCRIPT && kept + text.len() <= MOST_SCRIPTS) {
                activation.scripts.insert(file.to_owned(), text.to_owned());
            }
        }
    }
}

/// Fills a step's value: `$NAME` by the value of that variable, `$$` by a dollar. Nothing when it becomes too long
/// for any program to start with: a few lines that double a variable would fill all memory.
pub fn expand<'a>(template: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let mut expanded = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(name_length(after)),
        };
        expanded.push_str(lookup(name).unwrap_or(""));
        if expanded.len() > LONGEST_VARIABLE {
            return None;
        }
        rest = after;
    }
    expanded.push_str(rest);
    (expanded.len() <= LONGEST_VARIABLE).then_some(expanded)
}

fn name_length(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
}
