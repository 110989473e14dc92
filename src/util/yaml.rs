//! What is looked at in the text of a YAML document before it is parsed. The parser reads a document whole into
//! events, and needs time that grows with the square of the number of brackets that are open.

use super::error::{Error, Result};
use super::limits::Limit;

/// Directives (`%TAG`) that a document may have: each is compared with all before it.
const DIRECTIVES: usize = 100;

/// Refuses a document that the parser needs much memory or time for.
///
/// # Errors
/// What there is too much of, with the line.
pub fn check(text: &str) -> Result<()> {
    let (mut nodes, mut open, mut directives) = (0_usize, 0_usize, 0_usize);
    let (most_nodes, most_open) = (Limit::YamlNodes.count(), Limit::YamlBrackets.count());
    for (index, line) in text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).enumerate() {
        let number = index + 1;
        nodes += 1 + values(line);
        if nodes > most_nodes {
            return Err(Limit::YamlNodes.exceeded(&format!("line {number}: the document has more values than")));
        }
        open += unclosed(line);
        if open > most_open {
            return Err(
                Limit::YamlBrackets.exceeded(&format!("line {number}: the document has more open brackets than"))
            );
        }
        directives += usize::from(line.starts_with('%'));
        if directives > DIRECTIVES {
            return Err(Error::user(format!(
                "line {number}: the document has more than {DIRECTIVES} directives (`%`)"
            )));
        }
    }
    Ok(())
}

/// At least the number of values in a line beside one: each stands after an indicator.
fn values(line: &str) -> usize {
    let bytes = line.as_bytes();
    let is_value = |(index, byte): (usize, &u8)| match byte {
        b',' | b'[' | b'{' | b'&' | b'*' | b'!' => true,
        b':' | b'-' | b'?' => bytes.get(index + 1).is_none_or(|next| !next.is_ascii_alphanumeric()),
        _ => false,
    };
    bytes.iter().enumerate().filter(|found| is_value(*found)).count()
}

/// The brackets of a line that may stay open after it. A pair is left out of account if nothing between its brackets
/// can make one of them a part of a text or comment and the other not: no quote, `#`, or other mark.
fn unclosed(line: &str) -> usize {
    let (mut open, mut certain) = (0, 0_usize);
    for byte in line.bytes() {
        match byte {
            b'[' | b'{' => certain += 1,
            b']' | b'}' => certain = certain.saturating_sub(1),
            b'\'' | b'"' | b'#' | b'!' | b'&' | b'*' | b'|' | b'>' | b'%' | b'@' | b'`' => {
                open += certain;
                certain = 0;
            }
            _ => {}
        }
    }
    open + certain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_in_one_line_do_not_count() {
        for (line, expected) in [
            ("purls: []", 0),
            ("a: {b: [c, d], e: {}}", 0),
            ("- numpy[version='>=1']", 1),
            ("- foo[bar]>=1 ; extra == 'x'", 0),
            ("[[[", 3),
            ("[ # ]", 1),
            ("['a'", 1),
            ("]]] [", 1),
        ] {
            assert_eq!(unclosed(line), expected, "{line}");
        }
    }

    #[test]
    fn what_takes_the_parser_long_is_refused() {
        for text in [
            "[".repeat(20_000),
            "[\n".repeat(20_000),
            "a: [ # ]\n".repeat(20_000),
            "[' ]', ".repeat(20_000),
            "{a: ".repeat(20_000),
            "%TAG !a! tag:\n".repeat(200),
            "[".to_owned() + &"a,".repeat(2_000_000),
            "- a\n".repeat(1_000_000),
        ] {
            let begin = std::time::Instant::now();
            assert!(check(&text).is_err(), "{}", &text[..20]);
            assert!(begin.elapsed().as_secs() < 5);
        }
        check(&"- name: a\n  purls: []\n  depends: [a, b]\n".repeat(20_000)).expect("is a large lock");
    }
}
