//! The key of `--cache-key`: what is derived and kept carries a MAC of it, and what has none is made again.

use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::util::{Error, Result};

/// Fewer bytes can be guessed.
const SHORTEST: usize = 16;
/// More bytes are no key.
const LONGEST: u64 = 64 << 10;

/// A secret that is shared by all who may choose what is derived: HMAC-SHA256 (RFC 2104).
#[derive(Clone)]
pub struct CacheKey(Arc<Hmac<Sha256>>);

/// Shows nothing of it.
impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheKey")
    }
}

impl CacheKey {
    /// Reads it from a file, without the white space at its ends.
    ///
    /// # Errors
    /// A file that cannot be read, or is too short or too long to be a key.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::user(format!("failed to read the cache key `{}`", path.display()))
                .hint("give `--cache-key` a file that this user can read")
                .caused_by(error)
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
        let key = bytes.trim_ascii();
        if key.len() < SHORTEST || bytes.len() as u64 > LONGEST {
            return Err(Error::user(format!(
                "invalid `--cache-key {}`: expected {SHORTEST} bytes to 64 KiB",
                path.display()
            ))
            .hint(format!("make one with `openssl rand -hex 32 > {}`", path.display())));
        }
        let keyed = Hmac::new_from_slice(key);
        let keyed = keyed.map_err(|error| Error::bug("a key for HMAC has a wrong length").caused_by(error))?;
        Ok(Self(Arc::new(keyed)))
    }

    /// The MAC of some parts, as hexadecimal digits.
    pub fn mac(&self, parts: &[&[u8]]) -> String {
        hex::encode(self.hmac(parts).finalize().into_bytes())
    }

    /// Whether the MAC is that of the parts; in a time that does not depend on where they differ.
    pub fn verifies(&self, parts: &[&[u8]], mac: Option<&str>) -> bool {
        let mac = mac.and_then(|mac| hex::decode(mac).ok());
        mac.is_some_and(|mac| self.hmac(parts).verify_slice(&mac).is_ok())
    }

    fn hmac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut hmac = Hmac::clone(&self.0);
        for part in parts {
            // Their lengths, so that no two rows of parts are the same bytes.
            hmac.update(&(part.len() as u64).to_be_bytes());
            hmac.update(part);
        }
        hmac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<CacheKey> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs_err::write(file.path(), text).expect("writes");
        CacheKey::read(file.path())
    }

    #[test]
    fn mac_fits_its_key_and_parts_only() {
        let (one, other) = (key("0123456789abcdef\n").expect("a key"), key("0123456789abcdeg").expect("a key"));
        let mac = one.mac(&[b"layer", b"ab", b"c"]);
        assert!(one.verifies(&[b"layer", b"ab", b"c"], Some(&mac)));
        assert!(!one.verifies(&[b"layer", b"a", b"bc"], Some(&mac)), "parts have their ends");
        assert!(!other.verifies(&[b"layer", b"ab", b"c"], Some(&mac)));
        for mac in [None, Some(""), Some("xy"), Some(&mac[2..])] {
            assert!(!one.verifies(&[b"layer", b"ab", b"c"], mac), "{mac:?}");
        }
    }

    #[test]
    fn short_key_is_refused_and_not_shown() {
        let error = key("secret\n").expect_err("is too short");
        assert!(error.to_string().contains("--cache-key") && !error.to_string().contains("secret"), "{error}");
        assert_eq!(format!("{:?}", key("0123456789abcdef").expect("a key")), "CacheKey");
        assert!(CacheKey::read(Path::new("/nonexistent/key")).is_err());
    }
}
