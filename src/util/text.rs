//! The text of files that people and their tools write: UTF-8, or what a byte order mark says. (PowerShell's `>` writes
//! UTF-16.)

use encoding_rs::{Encoding, UTF_8};

/// The text of a file, without byte order mark.
///
/// # Errors
/// The line, from 1, of the first bytes that are no text.
pub fn decode(mut bytes: Vec<u8>) -> Result<String, usize> {
    if let Some((encoding, mark)) = Encoding::for_bom(&bytes) {
        if encoding != UTF_8 {
            return decode_as(encoding, &bytes[mark..]).ok_or(1);
        }
        bytes.drain(..mark);
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        1 + valid.iter().filter(|byte| **byte == b'\n').count()
    })
}

/// The words of a command line, as a POSIX shell splits them; nothing when a quote is open.
pub fn words(line: &str) -> Option<Vec<String>> {
    shlex::split(&joined(line))
}

/// The text without backslashes that continue a line, outside single quotes.
fn joined(text: &str) -> String {
    let (mut joined, mut quote) = (String::with_capacity(text.len()), None);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('\\', None | Some('"')) => {
                let escaped = chars.next();
                if escaped != Some('\n') {
                    joined.push(char);
                    joined.extend(escaped);
                }
                continue;
            }
            ('\'' | '"', None) => quote = Some(char),
            _ if quote == Some(char) => quote = None,
            _ => {}
        }
        joined.push(char);
    }
    joined
}

/// The text of bytes in an encoding; nothing if there are bytes that it does not have.
pub fn decode_as(encoding: &'static Encoding, bytes: &[u8]) -> Option<String> {
    encoding.decode_without_bom_handling_and_without_replacement(bytes).map(std::borrow::Cow::into_owned)
}

/// The encoding that Python knows by a name (`latin-1`, `cp1252`, `utf_8`).
pub fn encoding(name: &str) -> Option<&'static Encoding> {
    let dashed = name.to_lowercase().replace('_', "-");
    let windows = dashed.strip_prefix("cp").map(|page| format!("windows-{page}"));
    let names = [dashed.clone(), dashed.replace('-', ""), windows.unwrap_or_default()];
    names.iter().find_map(|name| Encoding::for_label(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_byte_order_mark_is_decoded() {
        let utf16 = |big: bool| -> Vec<u8> {
            let units = "\u{feff}numpy\né\n".encode_utf16();
            units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        for bytes in [utf16(false), utf16(true), "\u{feff}numpy\né\n".into(), "numpy\né\n".into()] {
            assert_eq!(decode(bytes).as_deref(), Ok("numpy\né\n"));
        }
        assert_eq!(decode(b"a\nb\n\xe9".to_vec()), Err(3));
        assert_eq!(decode(b"\xff\xfea\0\0\xd8".to_vec()), Err(1), "half a surrogate");
    }

    #[test]
    fn continued_lines_are_one() {
        let split = words("a \\\n  --b 'c\\\nd' \"e\\\nf\" \"it's\" \\\n \\' \\\\ g").expect("splits");
        assert_eq!(split, ["a", "--b", "c\\\nd", "ef", "it's", "'", "\\", "g"]);
        assert_eq!(words("a 'b"), None, "a quote is open");
    }

    #[test]
    fn encodings_have_the_names_of_python() {
        for (name, expected) in [
            ("latin-1", "windows-1252"),
            ("Latin_1", "windows-1252"),
            ("iso-8859-15", "ISO-8859-15"),
            ("cp1252", "windows-1252"),
            ("cp1251", "windows-1251"),
            ("utf8", "UTF-8"),
            ("shift_jis", "Shift_JIS"),
        ] {
            assert_eq!(encoding(name).map(Encoding::name), Some(expected), "{name}");
        }
        assert_eq!(encoding("klingon"), None);
    }
}
