//! RECORD: the hashes of a wheel's files, and the new list of what is in the image (recording installed projects,
//! PEP 376).

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::WheelFile;
use crate::util::{Digest, Error, Result};

/// A hash that RECORD gives. MD5 and SHA-1 are none (binary distribution format, "RECORD").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// SHA-256, which nearly all wheels have.
    Sha256(Digest),
    /// SHA-384.
    Sha384(Vec<u8>),
    /// SHA-512.
    Sha512(Vec<u8>),
}

/// What RECORD says of the wheel's files, by path.
#[derive(Debug, Default)]
pub struct Record(HashMap<String, Line>);

#[derive(Debug, PartialEq, Eq)]
struct Line {
    hash: String,
    size: String,
}

impl Record {
    /// Reads it.
    ///
    /// # Errors
    /// What is no such list, or says two things of one file.
    pub fn parse(wheel: &WheelFile, content: &[u8]) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(content);
        let mut lines = HashMap::new();
        for row in reader.records() {
            let row = row.map_err(|error| wheel.broken(error))?;
            let field = |index: usize| row.get(index).unwrap_or_default().to_owned();
            let line = Line { hash: field(1), size: field(2) };
            if let Some(other) = lines.get(&field(0)).filter(|other| **other != line) {
                return Err(wheel.hostile(&format!("RECORD says two things of `{}`: {line:?}, {other:?}", field(0))));
            }
            lines.insert(field(0), line);
        }
        Ok(Self(lines))
    }

    /// The hash of a file; its size is checked against that of the zip.
    ///
    /// # Errors
    /// When there is none, none that can be relied on, or another size.
    pub fn expected(&self, wheel: &WheelFile, path: &str, size: u64) -> Result<Expected> {
        let broken = |what: &str| wheel.broken(format!("RECORD {what} `{path}`"));
        let line = self.0.get(path).ok_or_else(|| broken("does not list"))?;
        if !line.size.is_empty() && line.size.parse() != Ok(size) {
            return Err(broken("gives another size for"));
        }
        let (algorithm, hash) = line.hash.split_once('=').ok_or_else(|| broken("gives no hash for"))?;
        let hash = URL_SAFE_NO_PAD.decode(hash.trim_end_matches('=')).map_err(|_| broken("gives no hash for"))?;
        match (algorithm, hash.len()) {
            ("sha256", 32) => {
                let bytes = hash.try_into().map_err(|_| broken("gives no hash for"))?;
                Ok(Expected::Sha256(Digest::from_bytes(bytes)))
            }
            ("sha384", 48) => Ok(Expected::Sha384(hash)),
            ("sha512", 64) => Ok(Expected::Sha512(hash)),
            _ => Err(broken(&format!("gives no hash that can be relied on (`{algorithm}`) for"))),
        }
    }

    /// A file that is listed and not there, if there is one. Folders may be listed.
    pub fn missing(&self, is_there: impl Fn(&str) -> bool) -> Option<&str> {
        let mut missing: Vec<&str> =
            self.0.keys().map(String::as_str).filter(|path| !path.ends_with('/') && !is_there(path)).collect();
        missing.sort_unstable();
        missing.first().copied()
    }
}

/// Hashes a file on its way: always by SHA-256, for the new RECORD, and by what the wheel's RECORD uses.
pub struct Verifier<'a> {
    expected: Option<&'a Expected>,
    sha256: Sha256,
    other: Other,
    size: u64,
}

enum Other {
    None,
    Sha384(Sha384),
    Sha512(Sha512),
}

impl<'a> Verifier<'a> {
    /// A verifier of one file; of none that is listed, any content is right.
    pub fn new(expected: Option<&'a Expected>) -> Self {
        let other = match expected {
            None | Some(Expected::Sha256(_)) => Other::None,
            Some(Expected::Sha384(_)) => Other::Sha384(Sha384::new()),
            Some(Expected::Sha512(_)) => Other::Sha512(Sha512::new()),
        };
        Self { expected, sha256: Sha256::new(), other, size: 0 }
    }

    /// Takes more of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
        match &mut self.other {
            Other::None => {}
            Other::Sha384(hasher) => hasher.update(bytes),
            Other::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The SHA-256 and size of the content, if it is what RECORD says.
    ///
    /// # Errors
    /// When it is not.
    pub fn finish(self, wheel: &WheelFile, path: &str) -> Result<(Digest, u64)> {
        let sha256 = Digest::from_bytes(self.sha256.finalize().into());
        let same = match (self.expected, self.other) {
            (None, _) => true,
            (Some(Expected::Sha256(expected)), Other::None) => sha256 == *expected,
            (Some(Expected::Sha384(expected)), Other::Sha384(hasher)) => hasher.finalize()[..] == expected[..],
            (Some(Expected::Sha512(expected)), Other::Sha512(hasher)) => hasher.finalize()[..] == expected[..],
            _ => false,
        };
        match same {
            true => Ok((sha256, self.size)),
            false => Err(wheel.broken(format!("`{path}` has another hash than RECORD gives"))),
        }
    }
}

/// The RECORD of what was installed: sorted, hashes and sizes of what is there.
#[derive(Debug, Default)]
pub struct NewRecord(Vec<(String, Digest, u64)>);

impl NewRecord {
    /// A file of the image, by its path relative to site-packages.
    pub fn add(&mut self, path: String, sha256: Digest, size: u64) {
        self.0.push((path, sha256, size));
    }

    /// The file; `own` is its own path in it, which has neither hash nor size.
    ///
    /// # Errors
    /// A defect: it is written to memory.
    pub fn finish(self, own: String) -> Result<Vec<u8>> {
        let known = self.0.into_iter().map(|(path, sha256, size)| {
            [path, format!("sha256={}", URL_SAFE_NO_PAD.encode(sha256.as_bytes())), size.to_string()]
        });
        let mut rows: Vec<[String; 3]> = known.chain([[own, String::new(), String::new()]]).collect();
        rows.sort();
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        let bug = |error: csv::Error| Error::bug("RECORD cannot be written").caused_by(error);
        for row in rows {
            writer.write_record(row).map_err(bug)?;
        }
        writer.into_inner().map_err(|error| Error::bug("RECORD cannot be written").caused_by(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheel() -> WheelFile {
        WheelFile { path: "foo.whl".into(), name: "foo-1-py3-none-any.whl".to_owned() }
    }

    fn record(text: &str) -> Result<Record> {
        Record::parse(&wheel(), text.as_bytes())
    }

    fn verified(expected: &Expected, content: &[u8]) -> Result<(Digest, u64)> {
        let mut verifier = Verifier::new(Some(expected));
        verifier.update(content);
        verifier.finish(&wheel(), "foo.py")
    }

    #[test]
    fn every_strong_hash_is_checked() {
        let hashes = [
            ("sha256", URL_SAFE_NO_PAD.encode(Sha256::digest("x"))),
            ("sha384", URL_SAFE_NO_PAD.encode(Sha384::digest("x"))),
            ("sha512", URL_SAFE_NO_PAD.encode(Sha512::digest("x")) + "=="),
        ];
        for (algorithm, hash) in hashes {
            let record = record(&format!("\"foo,.py\",{algorithm}={hash},1\r\n")).expect("reads");
            let expected = record.expected(&wheel(), "foo,.py", 1).expect("has a hash");
            assert_eq!(verified(&expected, b"x").expect("is right"), (Digest::of("x"), 1));
            assert!(verified(&expected, b"y").expect_err("is wrong").to_string().contains("damaged"));
            assert!(record.expected(&wheel(), "foo,.py", 2).is_err());
            assert!(record.expected(&wheel(), "other", 1).is_err());
        }
        for weak in
            ["foo.py,,", "foo.py,md5=AAAAAAAAAAAAAAAAAAAAAA,", "foo.py,sha256=AAAA,", "foo.py,sha256=!,", "foo.py"]
        {
            assert!(record(weak).expect("reads").expected(&wheel(), "foo.py", 1).is_err(), "{weak}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        record("a,sha256=x,1\na,sha256=x,1\n").expect("says the same twice");
        assert!(record("a,sha256=x,1\na,sha256=y,1\n").is_err());
        let record = record("a,,\nfolder/,,\nb,,\n").expect("reads");
        assert_eq!(record.missing(|path| path == "a"), Some("b"));
        assert_eq!(record.missing(|path| path == "a" || path == "b"), None);
    }

    #[test]
    fn the_new_list_is_sorted_and_quoted() {
        let mut new = NewRecord::default();
        new.add("foo/b,\"c\".py".to_owned(), Digest::of("x"), 1);
        new.add("../../../bin/foo".to_owned(), Digest::of(""), 0);
        let text = String::from_utf8(new.finish("foo-1.dist-info/RECORD".to_owned()).expect("writes")).expect("UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "../../../bin/foo,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0");
        assert_eq!(lines[1], "foo-1.dist-info/RECORD,,");
        assert!(lines[2].starts_with("\"foo/b,\"\"c\"\".py\",sha256=") && lines[2].ends_with(",1"), "{text}");
    }
}
