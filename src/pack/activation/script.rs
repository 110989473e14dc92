//! Scripts whose effect is known without running them: bash's rules for lines that assign, export and unset.

use std::collections::BTreeMap;

use crate::lock::ActivationStep;
use crate::model::{LONGEST_VARIABLE, is_shell_name};

/// Variables that a shell gives a meaning of its own, or keeps from being set.
const OF_THE_SHELL: [&str; 22] = [
    "_",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "LINENO",
    "OLDPWD",
    "OPTARG",
    "OPTIND",
    "PIPESTATUS",
    "POSIXLY_CORRECT",
    "PPID",
    "PWD",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SHLVL",
    "SRANDOM",
    "UID",
];
/// Variables that an engine sets in a container, if the image does not.
const OF_ENGINES: [&str; 4] = ["HOME", "HOSTNAME", "PATH", "TERM"];
/// Those of them that are always there.
const ALWAYS_EXPORTED: [&str; 2] = ["HOME", "PATH"];
/// Characters that stand for themselves, without quotes, beside letters and digits.
const PLAIN: &str = "_./:@%+,=-";

/// Reads a script; nothing when it does more than set and unset values that can be known now.
///
/// The steps are what the script comes to, one for each variable, of the values before it; `PATH`, which others may refer
/// to, comes last. `placeholder` is the build prefix in the script, if it holds one; it stands for `$CONDA_PREFIX`.
pub fn parse_script(file: &str, script: &str, placeholder: Option<&str>) -> Option<Vec<ActivationStep>> {
    if script.contains('\0') {
        return None;
    }
    let mut parser = Script { placeholder, names: Vec::new(), variables: BTreeMap::new() };
    for line in script.split('\n') {
        parser.line(line)?;
    }
    parser.steps(file)
}

/// Whether a variable goes to programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exported {
    Yes,
    No,
    /// If it did before the script.
    AsBefore,
}

/// What a script has done to a variable.
#[derive(Debug, Clone)]
struct Variable {
    /// Nothing when it is unset.
    value: Option<String>,
    exported: Exported,
}

struct Script<'a> {
    placeholder: Option<&'a str>,
    /// In the order in which they were first touched.
    names: Vec<String>,
    variables: BTreeMap<String, Variable>,
}

/// A word of a line.
#[derive(Debug, Clone, Default)]
struct Word {
    /// Its value: a template for [`super::expand`].
    text: String,
    /// How much of the beginning of `text` is written as it is, and how much of that before the first quote.
    literal: usize,
    plain: usize,
    has_quotes: bool,
    refers: bool,
}

impl Word {
    fn plain(&mut self, text: &str) {
        let has_quotes = self.has_quotes;
        self.quoted(text);
        self.has_quotes = has_quotes;
        if !has_quotes && !self.refers {
            self.plain = self.literal;
        }
    }

    fn quoted(&mut self, text: &str) {
        self.text.push_str(text);
        if !self.refers {
            self.literal = self.text.len();
        }
        self.has_quotes = true;
    }

    fn refer(&mut self, text: &str) {
        self.text.push_str(text);
        self.refers = true;
    }

    /// Name and value of an assignment, whose name has to be among the first so many bytes.
    fn assignment(&self, limit: usize) -> Option<(&str, &str)> {
        let at = self.text.find('=').filter(|at| *at < limit)?;
        Some((&self.text[..at], &self.text[at + 1..]))
    }

    fn is_command(&self, name: &str) -> bool {
        self.text == name && self.plain == name.len()
    }
}

impl Script<'_> {
    fn line(&mut self, line: &str) -> Option<()> {
        let (mut words, mut assigns): (Vec<Word>, bool) = (Vec::new(), false);
        let mut rest = line;
        while let Some(start) = next_word(rest, words.is_empty() && !assigns)? {
            let (word, after) = self.word(start)?;
            rest = after;
            // Assignments are done one by one: the second may refer to the first.
            match word.assignment(word.plain).filter(|_| words.is_empty()) {
                Some((name, value)) => {
                    self.assign(name, value)?;
                    assigns = true;
                }
                // Assignments before a command are for the command alone.
                None if assigns => return None,
                None => words.push(word),
            }
        }
        match words.split_first() {
            None => Some(()),
            Some((command, words)) if command.is_command("export") => words.iter().try_for_each(|it| self.export(it)),
            Some((command, words)) if command.is_command("unset") => words.iter().try_for_each(|it| self.unset(it)),
            Some(_) => None,
        }
    }

    fn export(&mut self, word: &Word) -> Option<()> {
        match word.assignment(word.literal) {
            Some((name, value)) => self.set(name, Some(value.to_owned()), Exported::Yes),
            None if !word.refers => {
                let variable = self.variables.get_mut(&word.text)?;
                // One without a value is exported once it has one.
                variable.value.as_ref()?;
                variable.exported = Exported::Yes;
                Some(())
            }
            None => None,
        }
    }

    fn unset(&mut self, word: &Word) -> Option<()> {
        if word.refers || OF_ENGINES.contains(&word.text.as_str()) {
            return None;
        }
        self.set(&word.text, None, Exported::No)
    }

    fn assign(&mut self, name: &str, value: &str) -> Option<()> {
        let before = self.variables.get(name).map_or(Exported::AsBefore, |variable| variable.exported);
        let exported = if ALWAYS_EXPORTED.contains(&name) { Exported::Yes } else { before };
        self.set(name, Some(value.to_owned()), exported)
    }

    fn set(&mut self, name: &str, value: Option<String>, exported: Exported) -> Option<()> {
        // The prefix is what every template stands on.
        let is_special = OF_THE_SHELL.contains(&name) || name.starts_with("BASH") || name == "CONDA_PREFIX";
        if is_special || !is_shell_name(name) || value.as_ref().is_some_and(|value| value.len() > LONGEST_VARIABLE) {
            return None;
        }
        if self.variables.insert(name.to_owned(), Variable { value, exported }).is_none() {
            self.names.push(name.to_owned());
        }
        Some(())
    }

    /// What the script has come to.
    fn steps(self, file: &str) -> Option<Vec<ActivationStep>> {
        let mut steps = Vec::new();
        let (last, first): (Vec<String>, Vec<String>) = self.names.into_iter().partition(|name| name == "PATH");
        for name in first.into_iter().chain(last) {
            let Variable { value, exported } = self.variables.get(&name)?.clone();
            if exported == Exported::AsBefore && OF_ENGINES.contains(&name.as_str()) {
                return None;
            }
            steps.push(ActivationStep {
                file: file.to_owned(),
                value: value.filter(|_| exported != Exported::No),
                if_set: exported == Exported::AsBefore,
                name,
            });
        }
        Some(steps)
    }

    /// The word at the beginning of a text, and what comes after it; nothing when it needs a shell.
    fn word<'t>(&self, text: &'t str) -> Option<(Word, &'t str)> {
        let mut word = Word::default();
        let mut rest = text;
        while let Some(char) = rest.chars().next() {
            let after = &rest[char.len_utf8()..];
            rest = match char {
                ' ' | '\t' | ';' => break,
                '\'' => {
                    let (quoted, after) = after.split_once('\'')?;
                    word.quoted(&self.literal(quoted));
                    after
                }
                '"' => self.double_quoted(&mut word, after)?,
                '$' => self.reference(&mut word, after)?,
                _ => {
                    let is_plain = |char: char| char.is_alphanumeric() || PLAIN.contains(char);
                    let end = rest.find(|char| !is_plain(char)).unwrap_or(rest.len());
                    if end == 0 {
                        return None;
                    }
                    word.plain(&self.literal(&rest[..end]));
                    &rest[end..]
                }
            };
        }
        Some((word, rest))
    }

    fn double_quoted<'t>(&self, word: &mut Word, mut rest: &'t str) -> Option<&'t str> {
        loop {
            let at = rest.find(['"', '\\', '$', '`'])?;
            word.quoted(&self.literal(&rest[..at]));
            let after = &rest[at + 1..];
            rest = match rest.as_bytes()[at] {
                b'"' => return Some(after),
                b'\\' => {
                    let escaped = after.chars().next().filter(|char| "\"\\$`".contains(*char))?;
                    word.quoted(&self.literal(&escaped.to_string()));
                    &after[escaped.len_utf8()..]
                }
                b'$' => self.reference(word, after)?,
                _ => return None,
            };
        }
    }

    /// `$NAME` or `${NAME}`, if the value can be known when the image is made.
    fn reference<'t>(&self, word: &mut Word, rest: &'t str) -> Option<&'t str> {
        let (name, rest) = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}')?,
            None => rest.split_at(super::name_length(rest)),
        };
        match self.variables.get(name) {
            Some(variable) => word.refer(variable.value.as_deref().unwrap_or_default()),
            None if name == "CONDA_PREFIX" || name == "PATH" => word.refer(&format!("${{{name}}}")),
            None => return None,
        }
        (word.text.len() <= LONGEST_VARIABLE).then_some(rest)
    }

    fn literal(&self, text: &str) -> String {
        let text = text.replace('$', "$$");
        match self.placeholder {
            Some(placeholder) => text.replace(placeholder, "${CONDA_PREFIX}"),
            None => text,
        }
    }
}

/// The text from the next word of a line on: none at its end; nothing when the line needs a shell.
fn next_word(text: &str, is_first: bool) -> Option<Option<&str>> {
    let rest = text.trim_start_matches([' ', '\t']);
    match rest.chars().next() {
        None | Some('#') => Some(None),
        // Only as the end of the line: two commands on one line are left to the shell.
        Some(';') => {
            let after = rest[1..].trim_start_matches([' ', '\t']);
            (!is_first && (after.is_empty() || after.starts_with('#'))).then_some(None)
        }
        Some(_) => Some(Some(rest)),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::pack::activation::{State, expand};

    const FILE: &str = "etc/conda/activate.d/x.sh";

    fn start() -> BTreeMap<String, String> {
        let start = [
            ("CONDA_DEFAULT_ENV", "default"),
            ("CONDA_PREFIX", "/prefix"),
            ("HOME", "/home/conda"),
            ("LD_LIBRARY_PATH", "/of/base"),
            ("PATH", "/prefix/bin:/usr/bin:/bin"),
            ("USER", "conda"),
            ("XX", "1"),
        ];
        start.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// What the steps of a script make of the variables.
    fn stepped(script: &str) -> Option<BTreeMap<String, String>> {
        let mut state = State { variables: start(), ..State::default() };
        for step in parse_script(FILE, script, None)? {
            state.apply(&step).expect("is short");
        }
        Some(state.variables)
    }

    /// What bash makes of them, when it sources the script in a function as conda does.
    fn sourced(script: &str) -> BTreeMap<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x.sh");
        fs_err::write(&file, script).expect("writes");
        let mut bash = Command::new("/bin/bash");
        bash.args(["-c", "f() { . \"$0\" >/dev/null; }; f; exec /usr/bin/env -0"]).arg(&file).env_clear().envs(start());
        let output = bash.output().expect("runs").stdout;
        let text = String::from_utf8(output).expect("UTF-8");
        let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
        let of_bash = ["_", "SHLVL", "PWD", "OLDPWD"];
        pairs
            .filter(|(name, _)| !of_bash.contains(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// Scripts that are done without a shell.
    const STATIC: [&str; 52] = [
        "#!/bin/sh\n\nexport A=1 B='two $x words' # why",
        "export A='x'y\"z\" B=a=b=c C=a,b+c%d@e D=é",
        "A=1\nexport A\nA=2",
        "export A=1\nA=2\nexport B=$A",
        "export PATH=$PATH:",
        "PATH=$CONDA_PREFIX/zz:$PATH\nexport PATH",
        "PATH=\"$CONDA_PREFIX/bp/bin:$PATH\"",
        "export A=\"$CONDA_PREFIX\"/x B=${CONDA_PREFIX}x",
        "# comment \\\nexport A=1 # c ' quote",
        "export A=\"a!b\"",
        "A=1\nunset A\nA=2",
        "export A=1\nunset A\nA=2",
        "unset A; ",
        "unset XX USER",
        "unset XX\nXX=3",
        "HOME=/h",
        "USER=u\nCONDA_DEFAULT_ENV=foo\nXX=2",
        "A=\"/x:$CONDA_PREFIX\"\nLD_LIBRARY_PATH=$A",
        "export LD_LIBRARY_PATH=/x",
        "export A=$PATH\nexport PATH=/q:$PATH\nexport B=$PATH",
        "A=$PATH\nPATH=/q:$PATH\nexport A",
        "A=1 B=2\nexport A B C=$A$B",
        "A=0\nA=1 B=$A\nexport B",
        "A=0\nexport A=1 B=$A",
        "A='$CONDA_PREFIX' B=\"\\$CONDA_PREFIX\"\nexport A B\nexport C=$B",
        "export 'A=x y'",
        "export A=\n",
        "export",
        "unset",
        "export A=''",
        "export A=\"x\"\"y\"'z'",
        "export\tA=1 ; ",
        "A=1;",
        "  A=1 ; # not this\n",
        "A==x\nexport A",
        "A=1\nA=$A:2\nexport A",
        "export A=x\nA=$A:y",
        "if=1\nexport if",
        "A=/p\nexport A=$A/q\nexport A=$A/r",
        "LIBX=/a\nexport LIBX=$LIBX:/b\nexport LDX=$LIBX",
        "A=1\nunset A\nexport B=x$A",
        "export A=1\nunset A\nexport B=x$A",
        "A=1\nexport A\nexport A",
        "export A=1\nexport B=$A\nexport A=2",
        "A=1\nB=$A\nA=2\nexport B",
        "export A=1 A=2",
        "A=1 A=2\nexport A",
        "export A=\"a b\"\nexport B=$A\nC=$A\nexport C",
        "export export=1\nexport unset=$export",
        "export A=%s B=-x C=x-",
        "XX=$PATH:3\nunset XX\nXX=$PATH",
        "XX=4\nexport XX",
    ];
    /// Scripts that are left to the shell: whatever they do, it does it.
    const DYNAMIC: [&str; 51] = [
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
        "A=1 export B=2",
        "exportX=1 export B=2",
        "export A=$CONDA_PREFIXx",
        "export A=~/x",
        "export A=x:~/y",
        "export A=a\\ b",
        "export A=$'a'",
        "export A='a\nb'",
        "export A=a$",
        "export A=\"a$ b\"",
        "export A B=2",
        "export A=1\nunset A\nexport A",
        "export -- A=1",
        "export A=1 -x",
        "=x\nexport A=1",
        "A''=1\nexport A",
        "'A'=1\nexport B=1",
        "A\"B\"=1",
        "A='B=1'\nexport $A",
        "A=B\nexport $A=1",
        "A=1\nunset $A",
        "'export' A=1",
        "export A=1\r\n",
        "A=1\r\nexport A\r\n",
        "; export A=1",
        "export A=1\n;\n",
        "export A=1;;",
        "\u{feff}export A=1",
        "export A=1\u{b}B=2",
        "export A=\u{a0}x",
        "export A=[a]",
        "CONDA_PREFIX=/zz\nexport A=$CONDA_PREFIX/x",
        "A=$CONDA_PREFIX/a\nexport CONDA_PREFIX=/b\nexport A",
        "unset PATH",
        "unset HOME",
        "TERM=xterm",
        "UID=3\nexport A=1",
        "export RANDOM=3\nexport A=$RANDOM",
        "unset -f f",
        "export A=a\0b",
    ];

    #[test]
    fn static_scripts_come_to_what_bash_makes() {
        for script in STATIC {
            let ours = stepped(script).unwrap_or_else(|| panic!("{script:?} is left to the shell"));
            assert_eq!(ours, sourced(script), "{script:?}");
        }
    }

    #[test]
    fn anything_else_needs_a_shell() {
        for script in DYNAMIC {
            assert_eq!(parse_script(FILE, script, None), None, "{script:?}");
        }
    }

    #[test]
    fn random_scripts_come_to_what_bash_makes() {
        let lines = [
            "A=/p",
            "export A=$A/q",
            "B=$A",
            "export B",
            "unset A",
            "export A",
            "XX=$A$B",
            "PATH=/x:$PATH",
            "export C=$PATH",
            "A=$PATH B=$A",
            "export A=1 B=$A",
            "unset B XX",
            "USER=$XX",
            "export XX",
            "B=$XX;",
            "A=",
        ];
        let (mut state, mut known) = (12_345_u32, 0);
        for _ in 0..400 {
            let mut script = String::new();
            for _ in 0..6 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                script += lines[(state >> 16) as usize % lines.len()];
                script.push('\n');
            }
            if let Some(ours) = stepped(&script) {
                known += 1;
                assert_eq!(ours, sourced(&script), "{script:?}");
            }
        }
        assert!(known > 20, "{known}");
    }

    #[test]
    fn the_placeholder_stands_for_the_prefix() {
        let script = "export A=/placeholder/x:$PATH B='/placeholder' C=\"/placeholder\"\n";
        let steps = parse_script(FILE, script, Some("/placeholder")).expect("parses");
        let values = steps.iter().map(|step| {
            let lookup = |name: &str| Some(if name == "PATH" { "/bin" } else { "/prefix" });
            expand(step.value.as_deref().expect("sets"), lookup).expect("is short")
        });
        assert_eq!(values.collect::<Vec<_>>(), ["/prefix/x:/bin", "/prefix", "/prefix"]);
    }

    #[test]
    fn variables_that_double_and_double_end() {
        for export in ["", "export "] {
            let script = format!("{export}A=aa\n") + &format!("{export}A=$A$A\n").repeat(60);
            assert_eq!(parse_script("x.sh", &script, None), None);
        }
        let script = "export PATH=$PATH$PATH\n".repeat(60);
        assert_eq!(parse_script("x.sh", &script, None), None);
    }
}
