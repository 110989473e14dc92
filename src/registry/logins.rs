//! Which credential files there are and for whom, for people who wonder; never what is in them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fs_err as fs;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::auth_file::standard_files;
use crate::util::redact;

/// A credential file that is searched.
#[derive(Debug, Clone)]
pub struct CredentialFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is for; none when there is no file; or why it cannot be read.
    pub holds: Result<Option<Logins>, String>,
}

/// Whom a credential file has something for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logins {
    /// Registries (and paths in them) that have an entry.
    pub registries: Vec<String>,
    /// Registries that a helper program is asked about, each with the helper.
    pub helpers: Vec<(String, String)>,
    /// The helper program that is asked about all others.
    pub store: Option<String>,
}

/// The standard credential files in the order in which they are searched.
pub fn credential_files() -> Vec<CredentialFile> {
    standard_files().into_iter().map(|path| CredentialFile { holds: read(&path), path }).collect()
}

fn read(path: &std::path::Path) -> Result<Option<Logins>, String> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(None),
        Err(error) => return Err(error.kind().to_string()),
    };
    logins(&bytes).map(Some)
}

fn logins(bytes: &[u8]) -> Result<Logins, String> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct File {
        auths: Option<BTreeMap<String, Option<BTreeMap<String, IgnoredAny>>>>,
        cred_helpers: Option<BTreeMap<String, String>>,
        creds_store: Option<String>,
    }
    // Docker leaves an empty file when it is interrupted.
    if bytes.trim_ascii().is_empty() {
        return Ok(Logins::default());
    }
    // The parser's message may quote the file: not shown.
    let file: File = serde_json::from_slice(bytes).map_err(|error| format!("not valid (line {})", error.line()))?;
    // With a helper, docker leaves empty entries as markers.
    let filled = |entry: &Option<BTreeMap<_, _>>| entry.as_ref().is_some_and(|fields| !fields.is_empty());
    let auths = file.auths.unwrap_or_default().into_iter().filter(|(_, entry)| filled(entry));
    Ok(Logins {
        registries: auths.map(|(key, _)| redact::text(&key)).collect(),
        helpers: file.cred_helpers.unwrap_or_default().into_iter().collect(),
        store: file.creds_store.filter(|helper| !helper.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_and_values_are_not() {
        let text = r#"{"auths": {"a.example": {"auth": "c2VjcmV0"}, "https://u:secret@b.example/x": {"auth": "x"},
            "marker.example": {}, "null.example": null},
            "credHelpers": {"c.example": "ecr-login"}, "credsStore": "pass", "other": 1}"#;
        let found = logins(text.as_bytes()).expect("reads");
        assert_eq!(found.registries, ["a.example", "https://b.example/x"]);
        assert_eq!(found.helpers, [("c.example".to_owned(), "ecr-login".to_owned())]);
        assert_eq!(found.store.as_deref(), Some("pass"));
        assert_eq!(logins(b" \n"), Ok(Logins::default()));
        assert_eq!(logins(b"{\n\"secret"), Err("not valid (line 2)".to_owned()));
    }
}
