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

impl FromStr for User {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
        match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => Ok(Self { uid, gid }),
            _ => Err(Error::usage(format!("`{text}` is no numeric user")).hint("write UID or UID:GID, as in `1000:0`")),
        }
    }
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
