//! Searches everything below a folder for texts, in every form that a program may have put them in: archives and
//! compressed streams are opened, to any depth.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// Texts to look for, by what they are called.
#[derive(Default)]
pub struct Needles {
    forms: Vec<(String, Vec<u8>)>,
    /// Finds all of them at once; made when the first text is searched.
    finder: OnceLock<AhoCorasick>,
}

/// Where something was found: the file, and what was found there.
pub type Found = BTreeMap<PathBuf, Vec<String>>;

impl Needles {
    /// Looks for this text as it is, URL-encoded, and in base64 by itself and as somebody's password.
    pub fn add(&mut self, name: &str, text: &str, user: &str) {
        let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let by_json = serde_json::to_string(text).expect("JSON");
        let mut forms =
            vec![text.to_owned(), encoded.clone(), encoded.to_lowercase(), by_json.trim_matches('"').into()];
        for text in [text.to_owned(), format!("{user}:{text}"), format!("{user}:{encoded}")] {
            forms
                .extend([STANDARD.encode(&text), URL_SAFE.encode(&text)].map(|it| it.trim_end_matches('=').to_owned()));
        }
        forms.sort();
        forms.dedup();
        self.forms.extend(forms.into_iter().map(|form| (name.to_owned(), form.into_bytes())));
        self.finder = OnceLock::new();
    }

    /// The names of what is in these bytes, or in what is packed in them.
    pub fn within(&self, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        self.search(bytes, &mut found, 0);
        found.sort();
        found.dedup();
        found
    }

    /// What is in the files below a folder, or in their names; those that are `known` are passed over.
    pub fn below(&self, folder: &Path, known: &[PathBuf]) -> Found {
        let mut found = Found::new();
        for entry in walkdir::WalkDir::new(folder).into_iter().map(|entry| entry.expect("walks")) {
            let path = entry.path();
            if known.iter().any(|known| path.starts_with(known)) {
                continue;
            }
            let mut here = self.within(path.strip_prefix(folder).expect("below").as_os_str().as_encoded_bytes());
            if entry.file_type().is_file() {
                here.extend(self.within(&fs_err::read(path).expect("reads")));
            }
            if !here.is_empty() {
                found.insert(path.to_owned(), here);
            }
        }
        found
    }

    fn search(&self, bytes: &[u8], found: &mut Vec<String>, depth: usize) {
        assert!(depth < 8, "packed too often");
        let new = || AhoCorasick::new(self.forms.iter().map(|(_, form)| form)).expect("finds texts");
        let finder = self.finder.get_or_init(new);
        let names = finder.find_overlapping_iter(bytes).map(|hit| &self.forms[hit.pattern().as_usize()].0);
        let names: BTreeSet<&String> = names.collect();
        found.extend(names.into_iter().cloned());
        for inner in unpacked(bytes) {
            self.search(&inner, found, depth + 1);
        }
    }
}

/// What is in these bytes, if they are an archive or compressed. A tar's files are in its bytes as they are, unless
/// they are packed themselves.
fn unpacked(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut inner = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        inner.push(Vec::new());
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut inner[0]).expect("gzip");
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        inner.push(zstd::decode_all(bytes).expect("zstd"));
    } else if bytes.starts_with(b"BZh") {
        inner.push(Vec::new());
        bzip2::read::MultiBzDecoder::new(bytes).read_to_end(&mut inner[0]).expect("bzip2");
    } else if bytes.starts_with(b"PK\x03\x04") {
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).expect("zip");
        for index in 0..zip.len() {
            let mut entry = Vec::new();
            zip.by_index(index).expect("an entry").read_to_end(&mut entry).expect("reads");
            inner.push(entry);
        }
    } else if bytes.get(257..262) == Some(b"ustar") {
        let mut tar = tar::Archive::new(bytes);
        for entry in tar.entries().expect("a tar") {
            let mut content = Vec::new();
            entry.expect("an entry").read_to_end(&mut content).expect("reads");
            // What is not packed was searched with the tar.
            if !unpacked(&content).is_empty() {
                inner.push(content);
            }
        }
    }
    inner
}
