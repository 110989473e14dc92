//! What is to be downloaded, who says what it is, and what is wrong when it is not that.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rattler_conda_types::RepoDataRecord;
use rattler_conda_types::package::DistArchiveType;
use reqwest::StatusCode;
use url::Url;

use super::Stored;
use crate::store::{Part, Store};
use crate::util::{Digest, Error, Result, redact};

/// Who says what a file should be; errors name who it is that must change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidBy {
    /// The index of a channel, or of Python packages.
    Index,
    /// A lock of condaimg, which `--upgrade` changes.
    Lock,
    /// A file of another tool, or a lock that was made of one: only that tool changes it.
    Pins,
}

/// An archive that is wanted, and what is known of it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its file name, which people recognise.
    pub(super) name: String,
    /// Where it is, without credentials.
    pub(super) url: Url,
    /// Who says what it should be.
    origin: SaidBy,
    /// Whether it is a file of PyPI.
    is_pip: bool,
    /// Of its file in the store.
    pub(super) extension: String,
    pub(super) sha256: Option<Digest>,
    pub(super) md5: Option<[u8; 16]>,
    pub(super) size: Option<u64>,
}

impl Wanted {
    pub(super) fn of_record(record: &RepoDataRecord, origin: SaidBy) -> Result<Self> {
        let DistArchiveType::Conda(kind) = record.identifier.archive_type else {
            return Err(Error::user(format!("`{}` is no conda package", record.identifier)));
        };
        let package = &record.package_record;
        Ok(Self {
            name: record.identifier.to_string(),
            url: record.url.clone(),
            origin,
            is_pip: false,
            extension: kind.extension().trim_start_matches('.').to_owned(),
            sha256: package.sha256.map(|hash| Digest::from_bytes(hash.into())),
            md5: package.md5.map(Into::into),
            size: package.size,
        })
    }

    /// A file of PyPI: a wheel (`whl`), or what one is built from (`sdist`). Its bytes are what `origin`
    /// says.
    pub fn of_pypi(name: &str, url: &Url, sha256: Option<Digest>, size: Option<u64>, origin: SaidBy) -> Self {
        let extension = if name.ends_with(".whl") { "whl" } else { "sdist" };
        Self {
            name: name.to_owned(),
            url: url.clone(),
            origin,
            is_pip: true,
            extension: extension.to_owned(),
            sha256,
            md5: None,
            size: size.filter(|size| *size > 0),
        }
    }

    /// Where it will be; known when its sha256 is.
    pub(super) fn path(&self, store: &Store) -> Option<PathBuf> {
        self.sha256.map(|sha256| store.archive(&sha256, &self.extension))
    }

    /// The archive's size, if it is in the store, of the right size. Its bytes were verified when it came. It counts as
    /// used then.
    pub(super) fn present(&self, store: &Store) -> Option<u64> {
        let size = store.claim(&self.path(store)?).filter(|metadata| metadata.is_file())?.len();
        (size > 0 && self.size.is_none_or(|expected| expected == size)).then_some(size)
    }

    pub(super) fn stored(&self, store: &Store) -> Result<Stored> {
        match (self.path(store), self.sha256, self.present(store)) {
            (Some(path), Some(sha256), Some(size)) => Ok(Stored { path, sha256, size }),
            _ => Err(Error::user(format!("the archive of {self} vanished from the cache")).hint("try again")),
        }
    }

    pub(super) fn part(&self, store: &Store) -> PathBuf {
        // Two archives without sha256 must not meet in one file.
        let key = self.sha256.unwrap_or_else(|| Digest::of(self.url.as_str()));
        store.partial(&key)
    }

    /// Compares what came with what is known; the sha256.
    pub(super) fn verify(&self, part: &Part) -> Result<Digest, Mismatch> {
        let sha256 = part.sha256();
        if let Some(expected) = self.sha256 {
            if expected != sha256 {
                return Err(Mismatch { what: "sha256", expected: expected.hex(), got: sha256.hex() });
            }
        } else if let (Some(expected), Some(md5)) = (self.md5, part.md5())
            && expected != md5
        {
            return Err(Mismatch { what: "md5", expected: hex::encode(expected), got: hex::encode(md5) });
        }
        Ok(sha256)
    }

    pub(super) fn is_local(&self) -> bool {
        self.url.scheme() == "file"
    }

    /// An error about an archive that is not what it should be, after a second try.
    pub(super) fn mismatched(&self, Mismatch { what, expected, got }: &Mismatch) -> Error {
        let (fault, says, hint) = match (self.origin, self.is_pip) {
            (SaidBy::Index, false) => (
                "is damaged",
                "the channel's index",
                "tell the channel's maintainers; an index or a mirror that is out of date does this too",
            ),
            (SaidBy::Index, true) => {
                ("is damaged", "the index", "try again; if it stays so, the index serves another file than it lists")
            }
            (SaidBy::Lock, false) => (
                "is not the archive that was locked",
                "the lock",
                "somebody replaced it in the channel, or edited the lock; `condaimg lock --upgrade PACKAGE` takes what the channel has now",
            ),
            (SaidBy::Lock, true) => (
                "is not the file that was locked",
                "the lock",
                "somebody replaced it on the server, or edited the lock; `condaimg lock --upgrade PACKAGE` takes what the server has now",
            ),
            (SaidBy::Pins, false) => (
                "is not the archive that was pinned",
                "the pin",
                "somebody replaced it in the channel, or edited the file that pins it; pin what the channel has now with the tool that wrote that file",
            ),
            (SaidBy::Pins, true) => (
                "is not the file that was pinned",
                "the pin",
                "somebody replaced it on the server, or edited the file that pins it; pin what the server has now with the tool that wrote that file",
            ),
        };
        Error::user(format!("{self} {fault}: its {what} is {got}, and {says} says {expected}"))
            .hint(format!("it came from {}", self.shown_url()))
            .hint(hint)
    }

    /// An error about a file on this machine that cannot be opened.
    pub(super) fn not_opened(&self, source: &Path, error: io::Error) -> Error {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let what = match (missing, self.is_pip) {
            (true, true) => "is gone",
            (true, false) => "is not in its channel",
            (false, _) => "cannot be read",
        };
        let failed = Error::user(format!("{self} {what}: `{}`", source.display())).caused_by(error);
        match (missing, self.origin) {
            (true, SaidBy::Pins) => failed.hint("correct its path in the file that pins it, or bring the file back"),
            (true, SaidBy::Lock) => {
                failed.hint("bring the file back, or take another one with `condaimg lock --upgrade`")
            }
            (true, SaidBy::Index) if !self.is_pip => {
                failed.hint("the channel's index names it: index the channel again")
            }
            _ => failed,
        }
    }

    /// An error about what a server says to whoever asks for the file; `asked` is where that was.
    pub(super) fn refused(&self, status: StatusCode, asked: &Url) -> Error {
        // A mirror, or whoever a server redirected to.
        let other = Some(redact::url(asked)).filter(|asked| *asked != self.shown_url());
        let asked = other.map(|asked| format!(", asked at {asked}")).unwrap_or_default();
        let error = Error::user(format!(
            "{self} cannot be downloaded: the server says {status} to {}{asked}",
            self.shown_url()
        ));
        error.hint(match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => match (self.origin, self.is_pip) {
                (SaidBy::Pins, _) => {
                    "the file is gone from the server; pin another one with the tool that wrote the file that pins it"
                }
                (_, true) => "the file is gone from the server; `condaimg lock --upgrade PACKAGE` takes another one",
                (SaidBy::Lock, false) => {
                    "the channel has it no more; solve again with `condaimg lock --upgrade PACKAGE`"
                }
                (SaidBy::Index, false) => {
                    "the channel's index names a file that is gone: index the channel again, or try again later"
                }
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.is_pip => {
                "give credentials in `~/.netrc`, or in the index's URL (`https://${USER}:${PASSWORD}@host/simple`)"
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "give credentials in `~/.netrc`, in rattler's store, or in the channel's URL"
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                "it is the proxy that refuses us: write user and password into its URL"
            }
            _ => "try again later",
        })
    }

    pub(super) fn shown_url(&self) -> String {
        redact::url(&self.url)
    }
}

/// The file name, which people recognise.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.name)
    }
}

/// How an archive differs from what the index says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) what: &'static str,
    pub(super) expected: String,
    pub(super) got: String,
}
