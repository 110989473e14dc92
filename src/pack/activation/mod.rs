//! What activating an environment does, read from the packages instead of run: `etc/conda/env_vars.d/*.json`
//! and `etc/conda/activate.d/*.sh`. Scripts that only export or unset literals (and `$CONDA_PREFIX`, `$PATH`, or
//! what they set before) become steps, which end up in the image's `Env`; any other script is "dynamic".

mod bashisms;
mod commands;
mod shell;
mod variables;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use crate::lock::{Activation, ActivationStep};
use crate::model::is_shell_name;

pub use shell::{Shell, warnings};
pub use variables::parse_variables;

/// The longest value of a variable with which Linux starts a program (MAX_ARG_STRLEN, execve(2)).
const LONGEST_VALUE: usize = 128 << 10;

/// The folder of the scripts that conda sources when it activates an environment.
pub const ACTIVATE_FOLDER: &str = "etc/conda/activate.d/";
/// The folder of JSON objects of variables that conda sets before that.
pub const ENV_VARS_FOLDER: &str = "etc/conda/env_vars.d/";

/// Reads a script; nothing when it does more than set and unset values that can be known now.
///
/// `placeholder` is the build prefix in the script, if it holds one; it stands for `$CONDA_PREFIX`.
pub fn parse_script(file: &str, script: &str, placeholder: Option<&str>) -> Option<Vec<ActivationStep>> {
    let mut parser = Script { file, placeholder, steps: Vec::new(), local: BTreeMap::new(), known: BTreeSet::new() };
    for line in script.lines() {
        parser.line(line)?;
    }
    Some(parser.steps)
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
        if expanded.len() > LONGEST_VALUE {
            return None;
        }
        rest = after;
    }
    expanded.push_str(rest);
    (expanded.len() <= LONGEST_VALUE).then_some(expanded)
}

fn name_length(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
}

struct Script<'a> {
    file: &'a str,
    placeholder: Option<&'a str>,
    steps: Vec<ActivationStep>,
    /// Assigned but not exported yet.
    local: BTreeMap<String, String>,
    /// Set by a step, so that later lines may refer to it.
    known: BTreeSet<String>,
}

impl Script<'_> {
    fn line(&mut self, line: &str) -> Option<()> {
        let words = self.words(line)?;
        match words.first().map(String::as_str) {
            None => Some(()),
            Some("export") => words[1..].iter().try_for_each(|word| self.export(word)),
            Some("unset") => words[1..].iter().try_for_each(|word| self.unset(word)),
            Some(_) => words.iter().try_for_each(|word| self.assign(word)),
        }
    }

    fn export(&mut self, word: &str) -> Option<()> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (word.to_owned(), self.local.remove(word)?),
        };
        self.push(name, Some(value))
    }

    fn unset(&mut self, name: &str) -> Option<()> {
        self.push(name.to_owned(), None)
    }

    fn assign(&mut self, word: &str) -> Option<()> {
        let (name, value) = word.split_once('=')?;
        if !is_shell_name(name) {
            return None;
        }
        if self.known.contains(name) {
            // An exported variable stays exported.
            return self.push(name.to_owned(), Some(value.to_owned()));
        }
        self.local.insert(name.to_owned(), value.to_owned());
        Some(())
    }

    fn push(&mut self, name: String, value: Option<String>) -> Option<()> {
        if !is_shell_name(&name) {
            return None;
        }
        if value.is_some() {
            self.known.insert(name.clone());
        } else {
            self.known.remove(&name);
        }
        self.steps.push(ActivationStep { file: self.file.to_owned(), name, value });
        Some(())
    }

    /// The words of a line as templates for [`expand`]; nothing when the line needs a shell.
    fn words(&self, line: &str) -> Option<Vec<String>> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut rest = line;
        while let Some(char) = rest.chars().next() {
            let after = &rest[char.len_utf8()..];
            rest = match char {
                ' ' | '\t' | '\r' => {
                    words.extend(word.take());
                    after
                }
                ';' => {
                    // Only as the end of the line: two commands on one line are left to the shell.
                    return after.trim().is_empty().then(|| words.into_iter().chain(word).collect());
                }
                '#' if word.is_none() => break,
                '\'' => {
                    let (quoted, after) = after.split_once('\'')?;
                    self.literal(word.get_or_insert_default(), quoted);
                    after
                }
                '"' => self.double_quoted(word.get_or_insert_default(), after)?,
                '$' => self.reference(word.get_or_insert_default(), after)?,
                char if char.is_alphanumeric() || "_./:@%+,=-".contains(char) => {
                    let end = rest
                        .find(|char: char| !char.is_alphanumeric() && !"_./:@%+,=-".contains(char))
                        .unwrap_or(rest.len());
                    self.literal(word.get_or_insert_default(), &rest[..end]);
                    &rest[end..]
                }
                _ => return None,
            };
        }
        words.extend(word);
        Some(words)
    }

    fn double_quoted<'t>(&self, word: &mut String, mut rest: &'t str) -> Option<&'t str> {
        loop {
            let at = rest.find(['"', '\\', '$', '`'])?;
            self.literal(word, &rest[..at]);
            let after = &rest[at + 1..];
            rest = match rest.as_bytes()[at] {
                b'"' => return Some(after),
                b'\\' => {
                    let escaped = after.chars().next().filter(|char| "\"\\$`".contains(*char))?;
                    self.literal(word, &escaped.to_string());
                    &after[escaped.len_utf8()..]
                }
                b'$' => self.reference(word, after)?,
                _ => return None,
            };
        }
    }

    /// `$NAME` or `${NAME}`, if the value can be known when the image is made.
    fn reference<'t>(&self, word: &mut String, rest: &'t str) -> Option<&'t str> {
        let (name, rest) = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}')?,
            None => rest.split_at(name_length(rest)),
        };
        if let Some(value) = self.local.get(name) {
            if word.len() + value.len() > LONGEST_VALUE {
                return None;
            }
            word.push_str(value);
        } else if name == "CONDA_PREFIX" || name == "PATH" || self.known.contains(name) {
            word.push_str(&format!("${{{name}}}"));
        } else {
            return None;
        }
        Some(rest)
    }

    fn literal(&self, word: &mut String, text: &str) {
        let text = text.replace('$', "$$");
        match self.placeholder {
            Some(placeholder) => word.push_str(&text.replace(placeholder, "${CONDA_PREFIX}")),
            None => word.push_str(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Option<Vec<(String, Option<String>)>> {
        let steps = parse_script("etc/conda/activate.d/x.sh", script, Some("/placeholder"))?;
        let mut variables: BTreeMap<String, String> =
            [("CONDA_PREFIX".into(), "/prefix".into()), ("PATH".into(), "/bin".into())].into();
        let mut seen = Vec::new();
        for step in steps {
            let lookup = |name: &str| variables.get(name).map(String::as_str);
            let value = step.value.map(|value| expand(&value, lookup).expect("is short"));
            if let Some(value) = &value {
                variables.insert(step.name.clone(), value.clone());
            }
            seen.push((step.name, value));
        }
        Some(seen)
    }

    #[test]
    fn literals_become_steps() {
        let script = "#!/bin/sh\n\nexport A=1 B='two $x words' # why\nexport C=\"$CONDA_PREFIX/c:${PATH}\\\"\"\n\
                      D=local\nexport D;\nexport PATH=\"/placeholder/x:$PATH\"\nexport E=$A-e\nunset F G\n";
        let expected = [
            ("A", Some("1")),
            ("B", Some("two $x words")),
            ("C", Some("/prefix/c:/bin\"")),
            ("D", Some("local")),
            ("PATH", Some("/prefix/x:/bin")),
            ("E", Some("1-e")),
            ("F", None),
            ("G", None),
        ]
        .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        assert_eq!(run(script), Some(expected.to_vec()));
    }

    #[test]
    fn anything_else_needs_a_shell() {
        for script in [
            "if [ -n \"$X\" ]; then export A=1; fi",
            "export A=$(date)",
            "export A=`date`",
            "export A=\"${B:-1}\"",
            "export A=$UNKNOWN",
            "source other.sh",
            "export A=1; echo x",
            "export A=x*",
            "export 1A=x",
            "echo 'open",
            "A=1 command",
        ] {
            assert_eq!(run(script), None, "{script}");
        }
    }

    #[test]
    fn variables_that_double_and_double_end() {
        let doubling = |export: &str| format!("{export}A=aa\n") + &format!("{export}A=$A$A\n").repeat(60);
        assert_eq!(parse_script("x.sh", &doubling(""), None), None);
        let steps = parse_script("x.sh", &doubling("export "), None).expect("parses");
        let mut value = String::new();
        let fits = steps.iter().all(|step| {
            let template = step.value.as_deref().expect("sets");
            let next = expand(template, |_| Some(value.as_str()));
            next.map(|next| value = next).is_some()
        });
        assert!(!fits && value.len() <= LONGEST_VALUE, "{}", value.len());
    }
}
