//! Everything beside the lock that decides an image's bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Compression;
use crate::util::Error;

/// The parameters of a build: one canonical value, recorded in the lock that goes with the image, so that a
/// rebuild needs nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Parameters {
    /// Where the environment lies in the image; absolute, without a trailing slash.
    pub prefix: String,
    /// Codec and level of the layers.
    pub compression: Compression,
    /// Whether `.pyc` files are made for what ships none.
    pub bytecode: bool,
    /// Whether the group gets the owner's permissions (for arbitrary users in group 0).
    pub group_write: bool,
    /// Whether files of packages keep their setuid and setgid bits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_setuid: bool,
    /// The layer policy: its canonical text, so that a policy file is recorded too.
    pub layers: String,
    /// The most layers that may be added to the base.
    pub max_layers: usize,
    /// Sets the config's `created` and the history's times, seconds since 1970; never a layer byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_date_epoch: Option<i64>,
    /// Whether the image's entrypoint leaves out the activation scripts that need a shell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_activation: bool,
    /// What the image config says.
    pub image: ImageOptions,
}

/// The flags that end up in the image config and the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ImageOptions {
    /// `--user UID[:GID]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// `--keep-home-mode`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_home_mode: bool,
    /// `--entrypoint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `--cmd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// `--env NAME=VALUE`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// `--workdir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// `--label NAME=VALUE`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `--annotation NAME=VALUE`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The numeric user that the image's processes run as. Numeric, because Kubernetes' `runAsNonRoot` accepts
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The largest user and group id that container engines take (2³¹ - 1, as in runc and Kubernetes).
pub const MAX_ID: u32 = i32::MAX as u32;

impl FromStr for User {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
        let wrong = |why: &str| Error::usage(format!("invalid user `{text}`: {why}"));
        let is_number = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(uid) || !is_number(gid) {
            return Err(wrong("expected UID or UID:GID in digits")
                .hint("write numbers, as in `1000:0`: Kubernetes takes no names"));
        }
        let id = |id: &str| id.parse().ok().filter(|id| *id <= MAX_ID);
        match (id(uid), id(gid)) {
            (Some(uid), Some(gid)) => Ok(Self { uid, gid }),
            (uid, _) => {
                let culprit = if uid.is_none() { "uid" } else { "gid" };
                Err(wrong(&format!(
                    "expected a {culprit} of at most {MAX_ID}, which is all that container engines take"
                ))
                .hint("choose a smaller one, as in `1000:0`"))
            }
        }
    }
}

/// The longest variable with which Linux starts a program, `NAME=VALUE` and its end (MAX_ARG_STRLEN, execve(2)).
pub const LONGEST_VARIABLE: usize = 128 << 10;

/// Whether a program can be started with a variable.
pub fn variable_fits(name: &str, value: &str) -> bool {
    value.len() <= longest_value(name)
}

/// The longest value of a variable with which a program can be started.
pub fn longest_value(name: &str) -> usize {
    // Beside it, there are a `=` and a byte at the end.
    LONGEST_VARIABLE.saturating_sub(name.len() + 2)
}

/// Whether a text can be the name of a variable in an image's config: without `=`, white space and control characters.
pub fn is_variable_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|char: char| char == '=' || char.is_whitespace() || char.is_control())
}

/// Whether a text is a name that shells can export (POSIX, "Name").
pub fn is_shell_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with(|first: char| first.is_ascii_digit())
}

/// A working directory of an image: an absolute path.
///
/// # Errors
/// What it should be.
pub fn workdir(text: &str) -> Result<String, Error> {
    let wrong =
        |why: &str, hint: String| Err(Error::usage(format!("invalid working directory `{text}`: {why}")).hint(hint));
    if !text.starts_with('/') {
        return wrong("expected an absolute path", format!("write `/{}`", text.trim_start_matches("./")));
    }
    if text.contains(char::is_control) {
        return wrong("expected no control characters", "name another directory".to_owned());
    }
    Ok(text.to_owned())
}

impl TryFrom<String> for User {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<User> for String {
    fn from(user: User) -> Self {
        user.to_string()
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_that_engines_take() {
        let user = |text: &str| text.parse::<User>().map(|user| (user.uid, user.gid));
        for (text, expected) in [("0", (0, 0)), ("1000:0", (1000, 0)), ("2147483647:2147483647", (MAX_ID, MAX_ID))] {
            assert_eq!(user(text).expect(text), expected);
        }
        for (text, part) in [
            ("4294967295", "uid"),
            ("1000:4294967295", "gid"),
            ("2147483648", "2147483647"),
            ("99999999999999999999", "2147483647"),
            ("node", "digits"),
            ("+5", "digits"),
            ("-1", "digits"),
            ("1000:", "digits"),
            (":0", "digits"),
            ("", "digits"),
            ("1:2:3", "digits"),
        ] {
            let message = user(text).expect_err(text).to_string();
            assert!(message.contains(part) && message.contains(&format!("`{text}`")), "{message}");
        }
    }

    #[test]
    fn working_directories_are_absolute() {
        assert_eq!(workdir("/app").expect("is absolute"), "/app");
        for text in ["rel", "./rel", "", "~/x", "a/b", "/a\nb".replace("\\n", "\n").as_str()] {
            assert!(workdir(text).is_err(), "{text}");
        }
        assert!(workdir("rel").expect_err("is relative").hints()[0].contains("`/rel`"));
    }

    #[test]
    fn parameters_without_later_keys_are_read_and_stay() {
        let text = r#"{"prefix":"/e","compression":"gzip:6","bytecode":true,"group-write":false,"layers":"{}","max-layers":8,"image":{}}"#;
        let mut parameters: Parameters = serde_json::from_str(text).expect("reads");
        assert!(!parameters.keep_setuid);
        let written = |parameters: &Parameters| serde_json::to_value(parameters).expect("writes");
        assert_eq!(written(&parameters), serde_json::from_str::<serde_json::Value>(text).expect("reads"));
        parameters.keep_setuid = true;
        assert_eq!(written(&parameters)["keep-setuid"], true);
    }
}
