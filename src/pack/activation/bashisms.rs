//! What a script does that its shell cannot. A parser of bash reads the script, and the tree is walked: `dash -n`
//! accepts `[[ ]]`, `source`, `${x//a/b}` and `&>`, and fails, or does something else, when it runs them.

use std::sync::mpsc;
use std::time::Duration;

use brush_parser::ast::{
    AndOr, AndOrList, Assignment, AssignmentName, AssignmentValue, CaseItemPostAction, Command,
    CommandPrefixOrSuffixItem, CompoundCommand, CompoundList, FunctionDefinition, IoFileRedirectKind,
    IoFileRedirectTarget, IoRedirect, Pipeline, Program, SimpleCommand, SourceLocation as _, Word,
};
use brush_parser::{Parser, ParserOptions, Token, tokenize_str};

use super::{commands, words};
use crate::model::is_shell_name;

/// How long a script is read before it counts as one that cannot be: a hostile one keeps a parser with backtracking
/// busy for years.
const PATIENCE: Duration = Duration::from_secs(5);
/// The stack of the parser, which calls itself for all that is nested.
const STACK: usize = 256 << 20;
/// Opening brackets and words in a script, or commands in commands, beyond which it is not read: more than any that is
/// written by a person.
const MOST_NESTING: usize = 4_000;
const MOST_DEPTH: usize = 50;

/// What a shell that is not bash can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// dash, and every shell of which only POSIX is known.
    Posix,
    /// The ash of busybox, which knows a part of bash.
    Busybox,
}

/// A construct that the shell lacks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Its line, from 1.
    pub line: usize,
    /// As it is written, shortened.
    pub what: String,
}

/// Why a script could not be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread(pub String);

/// The constructs in a script that a shell lacks, by line; each kind once.
///
/// # Errors
/// When the script is not bash either, or is nested too deeply to be read.
pub fn faults(script: &str, dialect: Dialect) -> Result<Vec<Fault>, Unread> {
    if nesting(script) > MOST_NESTING {
        return Err(Unread("it is nested too deeply".to_owned()));
    }
    let (sender, receiver) = mpsc::channel();
    let text = script.to_owned();
    let reading = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        let _ = sender.send(read(&text, dialect));
    });
    // A reader that is still busy ends with the process.
    match reading {
        Ok(_) => {
            receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(Unread("it takes too long to read".to_owned())))
        }
        Err(error) => Err(Unread(error.to_string())),
    }
}

/// An upper limit of how deeply anything in a script can be nested.
fn nesting(script: &str) -> usize {
    let openings = script.bytes().filter(|byte| matches!(byte, b'(' | b'{' | b'`' | b'!')).count();
    let words = script.split(|char: char| !char.is_ascii_alphanumeric());
    openings + words.filter(|word| matches!(*word, "if" | "while" | "until" | "for" | "case" | "coproc")).count()
}

fn read(script: &str, dialect: Dialect) -> Result<Vec<Fault>, Unread> {
    let mut walk =
        Walk { dialect, faults: Vec::new(), source: Source { text: script, first: 1 }, guarded: false, depth: 0 };
    let program = parse(script).map_err(Unread)?;
    walk.operators(script);
    walk.program(&program);
    let mut faults = walk.faults;
    faults.sort();
    let mut seen = std::collections::BTreeSet::new();
    faults.retain(|fault| seen.insert(fault.what.clone()));
    Ok(faults)
}

fn parse(text: &str) -> Result<Program, String> {
    Parser::new(text.as_bytes(), &ParserOptions::default()).parse_program().map_err(|error| error.to_string())
}

/// A text that is walked: a script, or what stands in one of its command substitutions.
#[derive(Clone, Copy)]
struct Source<'a> {
    text: &'a str,
    /// The line of its first line in the script.
    first: usize,
}

/// What becomes of a construct in a shell that lacks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// The script is not read beyond it, whether it would be run or not.
    Read,
    /// It fails, or does something else, when it is run.
    Run,
}

/// Goes through the tree of a script.
pub(super) struct Walk<'a> {
    dialect: Dialect,
    faults: Vec<Fault>,
    source: Source<'a>,
    /// Whether the script asks for bash before it comes here.
    guarded: bool,
    depth: usize,
}

impl Walk<'_> {
    /// Notes a construct that neither shell has.
    pub(super) fn lacks(&mut self, line: usize, when: When, what: &str) {
        if self.guarded && when == When::Run {
            return;
        }
        let mut shown: String = what.split_whitespace().collect::<Vec<_>>().join(" ");
        if shown.chars().count() > 40 {
            shown = shown.chars().take(40).chain(['…']).collect();
        }
        self.faults.push(Fault { line: self.source.first + line.max(1) - 1, what: shown });
    }

    /// Notes a construct that busybox has.
    pub(super) fn dash_lacks(&mut self, line: usize, when: When, what: &str) {
        if self.dialect == Dialect::Posix {
            self.lacks(line, when, what);
        }
    }

    /// Walks what stands in a command substitution that begins in a line of this text.
    pub(super) fn within(&mut self, text: &str, line: usize) {
        if self.depth == MOST_DEPTH {
            return;
        }
        let Ok(program) = parse(text) else { return };
        let inner = Source { text, first: self.source.first + line.max(1) - 1 };
        let mut walk = Walk {
            dialect: self.dialect,
            faults: std::mem::take(&mut self.faults),
            source: inner,
            guarded: self.guarded,
            depth: self.depth + 1,
        };
        walk.operators(text);
        walk.program(&program);
        self.faults = walk.faults;
    }

    /// What the tree does not keep.
    fn operators(&mut self, text: &str) {
        for token in tokenize_str(text).unwrap_or_default() {
            if let Token::Operator(operator, place) = token
                && operator == "|&"
            {
                self.lacks(place.start.line, When::Read, "|&");
            }
        }
    }

    fn program(&mut self, program: &Program) {
        program.complete_commands.iter().for_each(|list| self.list(list));
    }

    fn list(&mut self, list: &CompoundList) {
        list.0.iter().for_each(|item| self.and_or(&item.0));
    }

    fn and_or(&mut self, list: &AndOrList) {
        self.pipeline(&list.first);
        let outer = self.guarded;
        self.guarded |= !list.additional.is_empty() && asks_for_bash(&list.first.to_string());
        for AndOr::And(next) | AndOr::Or(next) in &list.additional {
            self.pipeline(next);
        }
        self.guarded = outer;
    }

    fn pipeline(&mut self, pipeline: &Pipeline) {
        pipeline.seq.iter().for_each(|command| self.command(command));
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Simple(simple) => self.simple(simple),
            Command::Compound(compound, redirects) => {
                self.compound(compound);
                let line = compound.location().map_or(1, |place| place.start.line);
                redirects.iter().flat_map(|list| &list.0).for_each(|redirect| self.redirect(redirect, line));
            }
            Command::Function(function) => self.function(function),
            Command::ExtendedTest(test, _) => self.dash_lacks(test.loc.start.line, When::Run, "[["),
        }
    }

    fn compound(&mut self, compound: &CompoundCommand) {
        match compound {
            CompoundCommand::Arithmetic(command) => self.lacks(command.loc.start.line, When::Run, "(( ))"),
            CompoundCommand::ArithmeticForClause(clause) => {
                self.lacks(clause.loc.start.line, When::Read, "for ((");
                self.list(&clause.body.list);
            }
            CompoundCommand::BraceGroup(group) => self.list(&group.list),
            CompoundCommand::Subshell(subshell) => self.list(&subshell.list),
            CompoundCommand::ForClause(clause) => {
                clause.values.iter().flatten().for_each(|word| self.expanded_word(word, clause.loc.start.line));
                self.list(&clause.body.list);
            }
            CompoundCommand::CaseClause(clause) => {
                self.word(&clause.value, clause.loc.start.line);
                for case in &clause.cases {
                    let line = case.loc.as_ref().map_or(clause.loc.start.line, |place| place.start.line);
                    for pattern in &case.patterns {
                        self.word(pattern, line);
                        if pattern.value.contains("[^") {
                            self.dash_lacks(line, When::Run, &pattern.value);
                        }
                    }
                    match case.post_action {
                        CaseItemPostAction::ExitCase => {}
                        CaseItemPostAction::UnconditionallyExecuteNextCaseItem => self.lacks(line, When::Read, ";&"),
                        CaseItemPostAction::ContinueEvaluatingCases => self.lacks(line, When::Read, ";;&"),
                    }
                    case.cmd.iter().for_each(|list| self.list(list));
                }
            }
            CompoundCommand::IfClause(clause) => {
                self.list(&clause.condition);
                let outer = self.guarded;
                self.guarded |= asks_for_bash(&clause.condition.to_string());
                self.list(&clause.then);
                for part in clause.elses.iter().flatten() {
                    if let Some(condition) = &part.condition {
                        self.list(condition);
                        self.guarded |= asks_for_bash(&condition.to_string());
                    }
                    self.list(&part.body);
                }
                self.guarded = outer;
            }
            CompoundCommand::WhileClause(clause) | CompoundCommand::UntilClause(clause) => {
                self.list(&clause.0);
                self.list(&clause.1.list);
            }
            CompoundCommand::Coprocess(coprocess) => {
                self.lacks(coprocess.loc.start.line, When::Read, "coproc");
                self.command(&coprocess.body);
            }
        }
    }

    fn function(&mut self, function: &FunctionDefinition) {
        let name = &function.fname;
        let (line, at) = name.loc.as_ref().map_or((1, 0), |place| (place.start.line, place.start.index));
        let before: String = self.source.text.chars().take(at).collect();
        if before.trim_end().ends_with("function") {
            self.dash_lacks(line, When::Read, &format!("function {}", name.value));
        } else if !is_shell_name(&name.value) {
            self.dash_lacks(line, When::Read, &format!("{}()", name.value));
        }
        self.compound(&function.body.0);
        function.body.1.iter().flat_map(|list| &list.0).for_each(|redirect| self.redirect(redirect, line));
    }

    fn simple(&mut self, simple: &SimpleCommand) {
        let line = simple.location().map_or(1, |place| place.start.line);
        let mut arguments = Vec::new();
        for item in simple.prefix.iter().flat_map(|prefix| &prefix.0) {
            self.item(item, line, &mut Vec::new());
        }
        if let Some(name) = &simple.word_or_name {
            self.expanded_word(name, line);
        }
        for item in simple.suffix.iter().flat_map(|suffix| &suffix.0) {
            self.item(item, line, &mut arguments);
        }
        if let Some(name) = &simple.word_or_name {
            commands::check(self, line, name.value.trim_start_matches('\\'), &arguments);
        } else if self.depth > 0 && reads_a_file(simple) {
            self.lacks(line, When::Run, "$(<");
        }
    }

    fn item(&mut self, item: &CommandPrefixOrSuffixItem, line: usize, arguments: &mut Vec<String>) {
        match item {
            CommandPrefixOrSuffixItem::IoRedirect(redirect) => self.redirect(redirect, line),
            CommandPrefixOrSuffixItem::Word(word) => {
                self.expanded_word(word, line);
                arguments.push(word.value.clone());
            }
            CommandPrefixOrSuffixItem::AssignmentWord(assignment, word) => {
                self.assignment(assignment);
                arguments.push(word.value.clone());
            }
            CommandPrefixOrSuffixItem::ProcessSubstitution(_, subshell) => {
                self.lacks(line, When::Read, "<( )");
                self.list(&subshell.list);
            }
        }
    }

    fn assignment(&mut self, assignment: &Assignment) {
        let line = assignment.loc.start.line;
        let name = match &assignment.name {
            AssignmentName::VariableName(name) => name.clone(),
            AssignmentName::ArrayElementName(name, index) => {
                self.lacks(line, When::Run, &format!("{name}[{index}]="));
                name.clone()
            }
        };
        if assignment.append {
            self.lacks(line, When::Run, &format!("{name}+="));
        }
        match &assignment.value {
            AssignmentValue::Scalar(word) => self.word(word, line),
            AssignmentValue::Array(items) => {
                self.lacks(line, When::Read, &format!("{name}=( )"));
                items.iter().for_each(|(_, word)| self.word(word, line));
            }
        }
    }

    fn redirect(&mut self, redirect: &IoRedirect, line: usize) {
        match redirect {
            IoRedirect::File(_, kind, target) => match target {
                IoFileRedirectTarget::ProcessSubstitution(_, subshell) => {
                    self.lacks(line, When::Read, "<( )");
                    self.list(&subshell.list);
                }
                IoFileRedirectTarget::Filename(word) => self.word(word, line),
                IoFileRedirectTarget::Duplicate(word) => {
                    let plain = word.value.chars().all(|char| char.is_ascii_digit() || char == '-');
                    let output = matches!(kind, IoFileRedirectKind::DuplicateOutput);
                    if output && !plain && !word.value.contains('$') {
                        self.lacks(line, When::Run, &format!(">&{}", word.value));
                    }
                }
                IoFileRedirectTarget::Fd(_) => {}
            },
            IoRedirect::HereDocument(_, document) if document.requires_expansion => {
                words::here_document(self, &document.doc, line);
            }
            IoRedirect::HereDocument(..) => {}
            IoRedirect::HereString(_, word) => {
                self.lacks(line, When::Read, "<<<");
                self.word(word, line);
            }
            // dash runs the command in the background, and empties the file.
            IoRedirect::OutputAndError(word, append) => {
                self.dash_lacks(line, When::Run, if *append { "&>>" } else { "&>" });
                self.word(word, line);
            }
        }
    }

    /// A word in whose text braces are not expanded.
    fn word(&mut self, word: &Word, line: usize) {
        words::check(self, word, word.loc.as_ref().map_or(line, |place| place.start.line));
    }

    /// A word of a command.
    fn expanded_word(&mut self, word: &Word, line: usize) {
        let line = word.loc.as_ref().map_or(line, |place| place.start.line);
        words::check(self, word, line);
        words::braces(self, word, line);
    }
}

/// `$(<FILE)`: no command at all, only an input.
fn reads_a_file(simple: &SimpleCommand) -> bool {
    let items = simple.prefix.iter().flat_map(|prefix| &prefix.0);
    let mut inputs = items.filter(|item| {
        matches!(item, CommandPrefixOrSuffixItem::IoRedirect(IoRedirect::File(_, IoFileRedirectKind::Read, _)))
    });
    inputs.next().is_some()
}

/// Whether a condition is about which shell it is.
fn asks_for_bash(condition: &str) -> bool {
    ["BASH_VERSION", "BASH_VERSINFO", "BASH_SOURCE", "ZSH_VERSION", "ZSH_EVAL_CONTEXT", "$BASH", "${BASH"]
        .iter()
        .any(|name| condition.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(script: &str, dialect: Dialect) -> Vec<String> {
        faults(script, dialect).expect(script).into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn each_bashism_is_found_for_dash() {
        for (script, expected) in [
            ("if [[ -n $X ]]; then :; fi", "[["),
            ("source \"$CONDA_PREFIX/x.sh\"", "source"),
            ("export A=${B//a/b}", "${B//a/b}"),
            ("A=${B:1:2}", "${B:1:2}"),
            ("A=${B^^}", "${B^^}"),
            ("A=\"x${!B}\"", "${!B}"),
            ("A=(1 2)", "A=( )"),
            ("f() { local -a x; }", "local -a"),
            ("f() { local x=(1); }", "x=( )"),
            ("A[0]=1", "A[0]="),
            ("A+=:x", "A+="),
            ("export PATH+=:x", "PATH+="),
            ("while read -r x; do :; done < <(ls)", "<( )"),
            ("diff <(ls) x", "<( )"),
            ("function f { :; }", "function f"),
            ("function f() { :; }", "function f"),
            ("my-f() { :; }", "my-f()"),
            ("ls &>/dev/null", "&>"),
            ("cat <<<\"$x\"", "<<<"),
            ("[ \"$x\" == y ]", "[ == ]"),
            ("test \"$x\" == y", "test =="),
            ("[ -v X ]", "[ -v ]"),
            ("export A=$'a\\n'", "$'a\\n'"),
            ("mkdir -p x/{a,b}", "x/{a,b}"),
            ("for i in {1..3}; do :; done", "{1..3}"),
            ("((x++))", "(( ))"),
            ("for ((i=0; i<3; i++)); do :; done", "for (("),
            ("declare -x A=1", "declare"),
            ("shopt -s nullglob", "shopt"),
            ("set -o pipefail", "set -o pipefail"),
            ("set -eo pipefail", "set -o pipefail"),
            ("read -a x", "read -a"),
            ("printf -v x y", "printf -v"),
            ("echo -e 'a\\n'", "echo -e"),
            ("export -f f", "export -f"),
            ("trap 'x' ERR", "trap ERR"),
            ("ls |& cat", "|&"),
            ("case x in x) ls ;& y) ls ;; esac", ";&"),
            ("A=$(<file)", "$(<"),
            ("A=$(cd x && source y)", "source"),
            ("A=`source y`", "source"),
            ("A=\"$(echo \"${x/a/b}\")\"", "${x/a/b}"),
            ("A=${B:-${C//a/b}}", "${C//a/b}"),
            ("A=$((2 ** 3))", "$((2 ** 3))"),
            ("A=$[1+2]", "$[1+2]"),
            ("cat <<EOF\n${x//a/b}\nEOF", "${x//a/b}"),
            ("D=$(dirname \"${BASH_SOURCE[0]}\")", "${BASH_SOURCE[0]}"),
            ("D=$BASH_SOURCE", "$BASH_SOURCE"),
            ("ls >&file", ">&file"),
            ("command source x", "source"),
            ("A=1 B=2 source x", "source"),
            (". x.sh argument", ". with arguments"),
            ("type -t ls", "type -t"),
            ("R=$RANDOM", "$RANDOM"),
            ("R=$((16#ff))", "$((16#ff))"),
            ("R=$((1,2))", "$((1,2))"),
            ("printf '\\x41'", "printf \\x"),
            ("printf '%(%Y)T' 0", "printf %("),
            ("case b in [^a]) ls ;; esac", "[^a]"),
            ("echo 'a\\tb'", "echo 'a\\tb'"),
            ("wait -n", "wait -n"),
            ("ulimit -u 5", "ulimit -u"),
            ("kill -s SIGURG 1", "kill SIGURG"),
            ("trap 'x' SIGINT", "trap SIGINT"),
        ] {
            assert!(
                whats(script, Dialect::Posix).contains(&expected.to_owned()),
                "{script}: {:?}",
                faults(script, Dialect::Posix)
            );
        }
    }

    #[test]
    fn what_posix_has_is_no_fault() {
        for script in [
            "export A=\"${B:-x}\" C=${D#x} E=${F%%/*} G=${#H}",
            "if [ -n \"$X\" ] && [ \"$A\" = b ]; then . \"$CONDA_PREFIX/x.sh\"; fi",
            "f() { local a=1; unset b; }\nf \"$@\"",
            "A=$(cat <file | sed 's/{a,b}/[[x]]/; s/==/x/') || true",
            "ls >/dev/null 2>&1; ls >&2 2>&-; exec 3>&1",
            "case \"$x\" in a|b*) ls ;; *) ls ;; esac",
            "echo 'source x; [[ y ]]' \"function f { :; }\" # source z [[",
            "A=$((1 + 2)); B=`date`; C='{a,b}'; D={a,b}",
            "cat <<'EOF'\n${x//a/b} [[\nEOF",
            "for i in a b; do echo \"$i\"; done; while true; do break; done",
            "set -eu; set +e; trap 'x' EXIT INT; read -r x; printf '%s' x; echo -n x; set -o nounset",
            "D=${BASH_SOURCE:-$0}",
            "A=$((${#B} + $(f a,b))); kill -s URG 1; trap - INT; wait; ulimit -n; echo 'a\\\\.b' a\\tb; R=${RANDOM:-1}",
            "export A=~/x B=\"a b\"; echo {} \\{a,b\\} \"{a,b}\" ${x}{",
            "[ -f x ] || [ ! -d y ] && test -z \"$z\"",
        ] {
            assert_eq!(faults(script, Dialect::Posix), Ok(Vec::new()), "{script}");
        }
    }

    #[test]
    fn busybox_has_a_part_of_bash() {
        for script in ["[[ -n x ]]", "source x", "A=${B//a/b}", "A=$'x'", "ls &>x", "[ a == b ]", "set -o pipefail"] {
            assert_eq!(whats(script, Dialect::Busybox), Vec::<String>::new(), "{script}");
        }
        for script in ["A=(1)", "shopt -s x", "cat <<<x", "A+=x", "declare A=1", "echo {a,b}", "A=${!B}"] {
            assert!(!whats(script, Dialect::Busybox).is_empty(), "{script}");
        }
    }

    #[test]
    fn what_only_bash_reaches_is_no_fault() {
        let guarded = "if [ -n \"$BASH_VERSION\" ]; then\n  shopt -s x\n  source y\nfi\n\
                       [ -n \"${BASH_VERSION:-}\" ] && declare -x A=1";
        assert_eq!(faults(guarded, Dialect::Posix), Ok(Vec::new()));
        // dash reads an array before it knows that it does not come to it.
        assert_eq!(whats("if [ -n \"$BASH_VERSION\" ]; then A=(1); fi", Dialect::Posix), ["A=( )"]);
    }

    #[test]
    fn faults_have_lines_and_come_once() {
        let script = "#!/bin/sh\n# comment\nexport A=1\n\nX=$(\n  source a\n)\n[[ a ]]\n[[ b ]]\n";
        let found: Vec<(usize, String)> =
            faults(script, Dialect::Posix).expect("reads").into_iter().map(|fault| (fault.line, fault.what)).collect();
        assert_eq!(found, [(6, "source".to_owned()), (8, "[[".to_owned())]);
    }

    #[test]
    fn scripts_that_no_shell_reads_end() {
        for script in [
            "if then",
            "echo 'open",
            &"(".repeat(60_000),
            &format!("{}ls{}", "$(".repeat(3_000), ")".repeat(3_000)),
            &format!("{}x{}", "case x in x) ".repeat(40), " esac".repeat(40)),
        ] {
            // Whatever is said of it, it is said soon.
            let _ = faults(script, Dialect::Posix);
        }
        assert!(faults("if then", Dialect::Posix).is_err());
        assert!(faults(&"(".repeat(60_000), Dialect::Posix).is_err());
    }
}
