//! PAX records (POSIX pax, "pax Extended Header"): what they say of an archive's entry in place of its header.
//!
//! | record | what becomes of it |
//! |---|---|
//! | `path`, `linkpath`, `size` | the `tar` crate takes them; a second one, or one that it did not take, is refused |
//! | `mtime` | taken, rounded down: Python's byte code holds the time so |
//! | `hdrcharset` | UTF-8 and `BINARY` change nothing, others are refused |
//! | `GNU.sparse.*`, `SCHILY.realsize`, `SUN.holesdata` | refused: the content is a map and pieces, not the file |
//! | `*.xattr.security.capability` | not kept, and told as setuid bits are |
//! | `uid`, `gid`, `uname`, `gname`, times of access, other attributes, comments | of no use: files are root's |
//!
//! In a global header `mtime` and what is of no use are taken; anything else would have to be known of every entry.
//! Entries of GNU's own sparse kind (`S`) are read by the `tar` crate.

use std::collections::BTreeSet;

use crate::util::tarball::LATEST_MTIME;

/// What the records of one header say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pax {
    /// Modification time in seconds since 1970, rounded down and within what a layer can hold.
    pub mtime: Option<u64>,
    /// Whether the file has capabilities (capabilities(7)).
    pub capabilities: bool,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// One record, or nothing for one that cannot be read.
type Record<'a> = Option<(&'a [u8], &'a [u8])>;

impl Pax {
    /// The records of an entry, or of a global header.
    ///
    /// # Errors
    /// Records that cannot be read or honoured, as a sentence.
    pub fn read(extensions: Option<tar::PaxExtensions<'_>>) -> Result<Self, String> {
        let records = extensions.into_iter().flatten();
        Self::of(records.map(|record| record.ok().map(|record| (record.key_bytes(), record.value_bytes()))))
    }

    fn of<'a>(records: impl Iterator<Item = Record<'a>>) -> Result<Self, String> {
        let mut pax = Self::default();
        let mut seen = BTreeSet::new();
        for record in records {
            let (key, value) = record.ok_or("a PAX record of it is malformed")?;
            let key = String::from_utf8_lossy(key);
            match key.as_ref() {
                "path" => pax.path = Some(value.to_vec()),
                "linkpath" => pax.link = Some(value.to_vec()),
                "size" => pax.size = Some(number(&key, value)?),
                "mtime" => pax.mtime = Some(seconds(value).ok_or_else(|| invalid(&key, value))?),
                "hdrcharset" if matches!(value, b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => {}
                "hdrcharset" => return Err(invalid(&key, value)),
                "SCHILY.realsize" | "SUN.holesdata" => return Err(sparse(&key)),
                "SCHILY.filetype" if value == b"sparse" => return Err(sparse(&key)),
                name if name.starts_with("GNU.sparse.") => return Err(sparse(&key)),
                name if name.ends_with(".xattr.security.capability") => pax.capabilities = true,
                _ => continue,
            }
            if !seen.insert(key.clone().into_owned()) {
                return Err(format!("its PAX record `{key}` is there twice"));
            }
        }
        Ok(pax)
    }

    /// As the records of a global header, which hold for all entries after it.
    ///
    /// # Errors
    /// When they say what only one entry can have, as a sentence.
    pub fn global(&self) -> Result<Option<u64>, String> {
        match *self {
            Self { mtime, capabilities: false, path: None, link: None, size: None } => Ok(mtime),
            _ => Err("a global PAX header gives all of its files one path, size or capability".to_owned()),
        }
    }

    /// Compares them with what was read of the entry: other readers would see another file.
    ///
    /// # Errors
    /// When something else was read, as a sentence.
    pub fn check(&self, path: &[u8], link: Option<&[u8]>, size: u64, is_sparse: bool) -> Result<(), String> {
        let same = self.path.as_deref().is_none_or(|said| said == path)
            && self.link.as_deref().is_none_or(|said| Some(said) == link)
            && self.size.is_none_or(|said| said == size || is_sparse);
        match same && self.path.as_deref() != Some(b"") && self.link.as_deref() != Some(b"") {
            true => Ok(()),
            false => Err("its PAX records contradict its other headers".to_owned()),
        }
    }
}

/// The time in a header's field: a negative one (base 256, whose sign the `tar` crate drops) is 1970.
pub fn header_seconds(field: u64) -> u64 {
    if i64::try_from(field).is_ok() { field.min(LATEST_MTIME) } else { 0 }
}

/// Decimal seconds, rounded down and to what a layer can hold. Python writes `1700000000.1234567`, and `1e-05`.
fn seconds(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !whole.is_empty() && digits(whole) && digits(fraction) {
        // What no u64 holds is late enough.
        return Some(whole.parse().unwrap_or(u64::MAX).min(LATEST_MTIME));
    }
    // A float that is negative becomes 0, one that is too large the largest number.
    let float: f64 = text.parse().ok().filter(|float: &f64| float.is_finite())?;
    Some((float.floor() as u64).min(LATEST_MTIME))
}

fn number(key: &str, value: &[u8]) -> Result<u64, String> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(|| invalid(key, value))
}

fn invalid(key: &str, value: &[u8]) -> String {
    format!("its PAX record `{key}` is `{}`", value.escape_ascii())
}

fn sparse(key: &str) -> String {
    format!("it is a sparse file in a form that is not supported (`{key}`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(records: &[(&str, &str)]) -> Result<Pax, String> {
        Pax::of(records.iter().map(|(key, value)| Some((key.as_bytes(), value.as_bytes()))))
    }

    #[test]
    fn times_are_floored_and_bounded() {
        for (text, expected) in [
            ("1700000000.9999999", 1_700_000_000),
            ("1700000000", 1_700_000_000),
            ("0.5", 0),
            ("-0.5", 0),
            ("-1700000000.25", 0),
            ("1e-05", 0),
            ("1e300", LATEST_MTIME),
            ("99999999999999999999999999", LATEST_MTIME),
            ("9007199254740993", LATEST_MTIME),
        ] {
            assert_eq!(read(&[("mtime", text)]).expect(text).mtime, Some(expected), "{text}");
        }
        for wrong in ["", "x", "nan", "inf", "1.2.3", "1700000000 "] {
            assert!(read(&[("mtime", wrong)]).expect_err(wrong).contains("`mtime`"), "{wrong}");
        }
    }

    #[test]
    fn negative_header_times_are_1970() {
        assert_eq!(header_seconds(u64::MAX), 0);
        assert_eq!(header_seconds(i64::MAX as u64), LATEST_MTIME);
        assert_eq!(header_seconds(7), 7);
    }

    #[test]
    fn records_are_honoured_or_refused() {
        let harmless = [("uid", "1000"), ("uname", "me"), ("atime", "1.5"), ("comment", "x"), ("ctime", "1")];
        assert_eq!(read(&harmless).expect("are harmless"), Pax::default());
        read(&[("hdrcharset", "BINARY"), ("SCHILY.xattr.user.x", "y")]).expect("change nothing");
        assert!(read(&[("SCHILY.xattr.security.capability", "x")]).expect("is told").capabilities);
        for (key, value) in [
            ("hdrcharset", "ISO-IR 8859 1 1998"),
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.map", "0,1"),
            ("SCHILY.realsize", "7"),
            ("SUN.holesdata", " 0 1"),
            ("size", "-1"),
        ] {
            assert!(read(&[(key, value)]).expect_err(key).contains(key), "{key}");
        }
        for key in ["path", "linkpath", "size", "mtime"] {
            assert!(read(&[(key, "1"), (key, "1")]).expect_err(key).contains("twice"), "{key}");
        }
        assert!(Pax::of([None].into_iter()).expect_err("is malformed").contains("malformed"));
    }

    #[test]
    fn records_must_be_what_was_read() {
        let pax = read(&[("path", "a"), ("linkpath", "b"), ("size", "3")]).expect("reads");
        pax.check(b"a", Some(b"b"), 3, false).expect("are the same");
        pax.check(b"a", Some(b"b"), 4, true).expect("the size of a sparse file is another one");
        pax.check(b"x", Some(b"b"), 3, false).expect_err("is another path");
        pax.check(b"a", None, 3, false).expect_err("is another target");
        pax.check(b"a", Some(b"b"), 4, false).expect_err("is another size");
        read(&[("path", "")]).expect("reads").check(b"", None, 0, false).expect_err("is no path");
    }

    #[test]
    fn global_headers_may_give_a_time_alone() {
        assert_eq!(read(&[("mtime", "7.5"), ("comment", "x")]).expect("reads").global(), Ok(Some(7)));
        for (key, value) in [("path", "a"), ("linkpath", "a"), ("size", "1"), ("x.xattr.security.capability", "1")] {
            read(&[(key, value)]).expect("reads").global().expect_err(key);
        }
    }
}
