//! Which credential files there are and for whom, for people who wonder; never what is in them.

use super::auth_file::{Place, standard_places};

/// A credential file that is searched.
#[derive(Debug, Clone)]
pub struct CredentialFile {
    /// What messages call it: its path, or the variable that holds its text.
    pub name: String,
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
    let read = |place: &Place| place.read().map(|file| file.map(|file| file.logins()));
    let told = |place: Place| CredentialFile {
        holds: read(&place).map_err(|error| error.chain().join(": ")),
        name: place.to_string().trim_matches('`').to_owned(),
    };
    standard_places().into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use crate::registry::auth_file::AuthFile;

    #[test]
    fn keys_are_told_and_values_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("auth.json");
        let logins = |text: &str| {
            fs_err::write(&path, text).expect("writes");
            AuthFile::read(&path).map(|file| file.map(|file| file.logins()))
        };
        let text = r#"{"auths": {"a.example": {"auth": "c2VjcmV0"}, "https://u:secret@b.example/x": {"auth": "x"},
            "marker.example": {}, "null.example": null},
            "credHelpers": {"c.example": "ecr-login"}, "credsStore": "pass", "other": 1}"#;
        let found = logins(text).expect("reads").expect("is there");
        assert_eq!(found.registries, ["a.example", "https://b.example/x"]);
        assert_eq!(found.helpers, [("c.example".to_owned(), "ecr-login".to_owned())]);
        assert_eq!(found.store.as_deref(), Some("pass"));
        assert_eq!(logins(" \n").expect("reads"), None);
        let broken = logins("{\n\"secret").expect_err("is broken").to_string();
        assert!(broken.contains("not valid (line 2)") && !broken.contains("secret"), "{broken}");
    }
}
