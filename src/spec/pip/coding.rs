//! The encoding of requirements files, as pip finds it: a byte order mark, else a comment (`# -*- coding: latin-1 -*-`)
//! in the first two lines, else UTF-8.

use std::path::Path;

use crate::util::{Error, Result, text};

/// The text of a file, without byte order mark.
///
/// # Errors
/// Bytes that are not of the file's encoding; an encoding that nobody knows.
pub(in crate::spec) fn decode(file: &Path, bytes: Vec<u8>) -> Result<String> {
    let shown = file.display();
    match declared(&bytes) {
        Some((line, name)) => {
            let encoding = text::encoding(&name).ok_or_else(|| {
                Error::user(format!("{shown}:{line}: unknown coding `{name}`")).hint("save the file as UTF-8")
            })?;
            text::decode_as(encoding, &bytes).ok_or_else(|| {
                Error::user(format!("{shown}:{line}: the file is not `{name}`, which it declares"))
                    .hint("save it as UTF-8, and remove the comment")
            })
        }
        None => text::decode(bytes).map_err(|line| {
            Error::user(format!("{shown}:{line}: the file is not UTF-8"))
                .hint("save it as UTF-8, or declare what it is in its first line: `# -*- coding: latin-1 -*-`")
        }),
    }
}

/// The encoding that a comment names, and its line.
fn declared(bytes: &[u8]) -> Option<(usize, String)> {
    let lines = bytes.split(|byte| *byte == b'\n').take(2).enumerate();
    lines.filter(|(_, line)| line.first() == Some(&b'#')).find_map(|(index, line)| {
        let line = String::from_utf8_lossy(line);
        // As Python has it: `coding[:=]\s*([-\w.]+)`.
        let (_, behind) = line.split_once("coding:").or_else(|| line.split_once("coding="))?;
        let is_part = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
        let name: String = behind.trim_start().chars().take_while(|char| is_part(*char)).collect();
        (!name.is_empty()).then_some((index + 1, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_those_that_files_declare() {
        let read = |bytes: &[u8]| decode(Path::new("r.txt"), bytes.to_vec());
        let text = read(b"#!x\n# -*- coding: latin-1 -*-\n# caf\xe9\na\n").expect("reads");
        assert!(text.contains("caf\u{e9}"), "{text}");
        assert!(read(b"# vim: set fileencoding=utf-8 :\na # \xc3\xa9\n").expect("reads").contains('\u{e9}'));
        for (bytes, expected) in [
            (&b"# caf\xe9\n"[..], "r.txt:1: the file is not UTF-8"),
            (b"a\nb\n# coding: latin-1\n\xe9", "r.txt:4: the file is not UTF-8"),
            (b"# coding: klingon\n", "r.txt:1: unknown coding `klingon`"),
            (b"# coding: ascii-8\n\xe9", "r.txt:1: unknown coding"),
            (b"# coding: shift_jis\n\xff", "r.txt:1: the file is not `shift_jis`"),
        ] {
            let error = read(bytes).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
