//! Words of a script: expansions that a shell lacks.

use brush_parser::ParserOptions;
use brush_parser::ast::Word;
use brush_parser::word::{
    BraceExpressionOrText, Parameter, ParameterExpr, ParameterTestType, WordPiece, WordPieceWithSource, parse,
    parse_brace_expansions, parse_heredoc,
};

use super::bashisms::{Walk, When};

/// Variables that only bash sets.
const OF_BASH: [&str; 16] = [
    "BASH_SOURCE",
    "BASH_LINENO",
    "BASH_REMATCH",
    "BASH_SUBSHELL",
    "BASHPID",
    "FUNCNAME",
    "PIPESTATUS",
    "DIRSTACK",
    "EPOCHSECONDS",
    "EPOCHREALTIME",
    "SECONDS",
    "UID",
    "EUID",
    "OSTYPE",
    "HOSTTYPE",
    "MACHTYPE",
];

/// Words in words that are followed.
const MOST_DEPTH: usize = 20;

/// Checks all of a word but its braces.
pub(super) fn check(walk: &mut Walk<'_>, word: &Word, line: usize) {
    text(walk, &word.value, line, MOST_DEPTH);
}

/// Checks the text of a here document, in which quotes are text.
pub(super) fn here_document(walk: &mut Walk<'_>, document: &Word, line: usize) {
    if let Ok(found) = parse_heredoc(&document.value, &ParserOptions::default()) {
        // The line after that of the command.
        pieces(walk, &found, &document.value, line + 1, MOST_DEPTH);
    }
}

/// Checks whether braces in a word make several of it.
pub(super) fn braces(walk: &mut Walk<'_>, word: &Word, line: usize) {
    if !word.value.contains('{') {
        return;
    }
    let Ok(Some(parts)) = parse_brace_expansions(&word.value, &ParserOptions::default()) else { return };
    if parts.iter().any(|part| matches!(part, BraceExpressionOrText::Expr(_))) {
        walk.lacks(line, When::Run, &word.value);
    }
}

fn text(walk: &mut Walk<'_>, text: &str, line: usize, depth: usize) {
    let (Ok(found), Some(depth)) = (parse(text, &ParserOptions::default()), depth.checked_sub(1)) else { return };
    pieces(walk, &found, text, line, depth);
}

fn pieces(walk: &mut Walk<'_>, found: &[WordPieceWithSource], text: &str, line: usize, depth: usize) {
    for piece in found {
        let lines = text.get(..piece.start_index).unwrap_or_default().matches('\n').count();
        let written = text.get(piece.start_index..piece.end_index).unwrap_or_default();
        self::piece(walk, &piece.piece, (text, written), line + lines, depth);
    }
}

fn piece(walk: &mut Walk<'_>, piece: &WordPiece, (text, written): (&str, &str), line: usize, depth: usize) {
    match piece {
        WordPiece::AnsiCQuotedText(_) => walk.dash_lacks(line, When::Run, written),
        WordPiece::GettextDoubleQuotedSequence(inner) => {
            walk.lacks(line, When::Run, written);
            pieces(walk, inner, text, line, depth);
        }
        WordPiece::DoubleQuotedSequence(inner) => pieces(walk, inner, text, line, depth),
        WordPiece::ParameterExpansion(expression) => expansion(walk, expression, written, line, depth),
        WordPiece::CommandSubstitution(command) => walk.within(command, line),
        WordPiece::BackquotedCommandSubstitution(command) => {
            walk.within(&command.replace("\\`", "`").replace("\\$", "$").replace("\\\\", "\\"), line);
        }
        WordPiece::ArithmeticExpression(expression) => arithmetic(walk, &expression.value, written, line),
        WordPiece::Text(plain) => {
            if ["@(", "?(", "*(", "+(", "!("].iter().any(|group| plain.contains(group)) {
                walk.lacks(line, When::Read, written);
            }
        }
        WordPiece::SingleQuotedText(_) | WordPiece::TildeExpansion(_) | WordPiece::EscapeSequence(_) => {}
    }
}

fn arithmetic(walk: &mut Walk<'_>, expression: &str, written: &str, line: usize) {
    // `$[1 + 2]` is older than `$(( ))`, and bash alone still has it.
    if written.starts_with("$[") || ["**", "++", "--"].iter().any(|operator| expression.contains(operator)) {
        return walk.lacks(line, When::Run, written);
    }
    // `2#101`, and `1, 2`. In an expansion both mean something else.
    let bytes = expression.as_bytes();
    let has_base = bytes.windows(2).any(|pair| pair[0].is_ascii_digit() && pair[1] == b'#');
    if !expression.contains(['{', '(', '`']) && (has_base || expression.contains(',')) {
        walk.dash_lacks(line, When::Run, written);
    }
}

fn expansion(walk: &mut Walk<'_>, expression: &ParameterExpr, written: &str, line: usize, depth: usize) {
    use ParameterExpr as E;
    let (parameter, indirect) = match expression {
        E::Parameter { parameter, indirect }
        | E::UseDefaultValues { parameter, indirect, .. }
        | E::AssignDefaultValues { parameter, indirect, .. }
        | E::IndicateErrorIfNullOrUnset { parameter, indirect, .. }
        | E::UseAlternativeValue { parameter, indirect, .. }
        | E::ParameterLength { parameter, indirect }
        | E::RemoveSmallestSuffixPattern { parameter, indirect, .. }
        | E::RemoveLargestSuffixPattern { parameter, indirect, .. }
        | E::RemoveSmallestPrefixPattern { parameter, indirect, .. }
        | E::RemoveLargestPrefixPattern { parameter, indirect, .. } => (parameter, *indirect),
        E::Substring { .. } | E::ReplaceSubstring { .. } => return walk.dash_lacks(line, When::Run, written),
        // `${x@Q}`, `${x^^}`, `${!x*}` and the like.
        _ => return walk.lacks(line, When::Run, written),
    };
    let is_array = matches!(parameter, Parameter::NamedWithIndex { .. } | Parameter::NamedWithAllIndices { .. });
    if indirect || is_array {
        return walk.lacks(line, When::Run, written);
    }
    let has_default = matches!(
        expression,
        E::UseDefaultValues { test_type: ParameterTestType::UnsetOrNull | ParameterTestType::Unset, .. }
            | E::UseAlternativeValue { .. }
    );
    if let Parameter::Named(name) = parameter
        && !has_default
        && OF_BASH.contains(&name.as_str())
    {
        walk.lacks(line, When::Run, written);
    }
    if matches!(parameter, Parameter::Named(name) if name == "RANDOM") && !has_default {
        walk.dash_lacks(line, When::Run, written);
    }
    match expression {
        E::UseDefaultValues { default_value: Some(inner), .. }
        | E::AssignDefaultValues { default_value: Some(inner), .. }
        | E::UseAlternativeValue { alternative_value: Some(inner), .. }
        | E::RemoveSmallestSuffixPattern { pattern: Some(inner), .. }
        | E::RemoveLargestSuffixPattern { pattern: Some(inner), .. }
        | E::RemoveSmallestPrefixPattern { pattern: Some(inner), .. }
        | E::RemoveLargestPrefixPattern { pattern: Some(inner), .. } => text(walk, inner, line, depth),
        _ => {}
    }
}
