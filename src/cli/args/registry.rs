//! Arguments of commands that speak to registries.

use std::path::PathBuf;

use clap::Args;

use crate::registry::{ClientCertificate, Reference, RegistryOptions, RetryPolicy};

/// What `push` and `copy` have in common.
#[derive(Debug, Clone, Args)]
pub struct TransferArgs {
    /// Only the image for this platform, instead of the whole index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "CONDAIMG_PLATFORM")]
    pub platform: Option<String>,
    /// Leave what refers to the image (lock, SBOM, signatures) behind
    #[arg(long, env = "CONDAIMG_NO_REFERRERS")]
    pub no_referrers: bool,
    /// Put the image into the index that has the tag, in the place of that of the same platform
    #[arg(long, env = "CONDAIMG_MERGE_INDEX")]
    pub merge_index: bool,
    /// Write the digest of what the destination holds now
    #[arg(long, value_name = "FILE", env = "CONDAIMG_DIGEST_FILE")]
    pub digest_file: Option<PathBuf>,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Flags of `push`.
#[derive(Debug, Clone, Args)]
pub struct PushArgs {
    /// A layout (DIR[:TAG] or oci:DIR[:TAG]), or an archive (FILE, oci-archive:FILE or docker-archive:FILE)
    #[arg(value_name = "LAYOUT")]
    pub layout: String,
    /// Image references
    #[arg(value_name = "REF", required = true)]
    pub targets: Vec<String>,
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// Flags of `copy`.
#[derive(Debug, Clone, Args)]
pub struct CopyArgs {
    /// An image reference, oci:DIR[:TAG], oci-archive:FILE or docker-archive:FILE
    #[arg(value_name = "SRC")]
    pub source: String,
    /// An image reference, oci:DIR[:TAG] or oci-archive:FILE
    #[arg(value_name = "DST")]
    pub destination: String,
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// How registries are spoken to: the same for every command that does.
#[derive(Debug, Clone, Default, Args)]
pub struct RegistryArgs {
    /// Talk to this registry host over plain http (loopback needs no consent)
    #[arg(
        long,
        value_name = "HOST",
        env = "CONDAIMG_INSECURE_REGISTRY",
        value_delimiter = ',',
        help_heading = "Registries"
    )]
    pub insecure_registry: Vec<String>,
    /// Trust the certificate authorities in this PEM file when talking to registries
    #[arg(long, value_name = "FILE", env = "CONDAIMG_REGISTRY_CA", help_heading = "Registries")]
    pub registry_ca: Vec<PathBuf>,
    /// Send blobs that are larger in chunks of this size, as 64M, through a proxy that limits requests without saying so
    #[arg(
        long,
        value_name = "SIZE",
        env = "CONDAIMG_UPLOAD_CHUNK_SIZE",
        value_parser = size,
        help_heading = "Registries"
    )]
    pub upload_chunk_size: Option<u64>,
    /// How often a request that fails for a passing reason is repeated [default: 11, which outlives a restart]
    #[arg(long, value_name = "N", env = "CONDAIMG_REGISTRY_RETRIES", help_heading = "Registries")]
    pub registry_retries: Option<u32>,
    /// Show this certificate (PEM file) to registries that want one
    #[arg(
        long,
        value_name = "FILE",
        env = "CONDAIMG_REGISTRY_CERT",
        requires = "registry_key",
        help_heading = "Registries"
    )]
    pub registry_cert: Option<PathBuf>,
    /// The key of that certificate (PEM file)
    #[arg(
        long,
        value_name = "FILE",
        env = "CONDAIMG_REGISTRY_KEY",
        requires = "registry_cert",
        help_heading = "Registries"
    )]
    pub registry_key: Option<PathBuf>,
}

/// A number of bytes: `67108864`, `65536K`, `64M`, `1G`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.trim_end_matches(['b', 'B', 'i']) {
        text if text.ends_with(['k', 'K']) => (&text[..text.len() - 1], 1 << 10),
        text if text.ends_with(['m', 'M']) => (&text[..text.len() - 1], 1 << 20),
        text if text.ends_with(['g', 'G']) => (&text[..text.len() - 1], 1 << 30),
        text => (text, 1),
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|size| *size > 0);
    size.ok_or_else(|| "write a number of bytes, or one with K, M or G behind it".to_owned())
}

impl RegistryArgs {
    /// The client's options. `targets` are the references that are written to: the password of the environment is for
    /// their registries.
    pub fn options<'a>(&self, targets: impl IntoIterator<Item = &'a Reference>) -> RegistryOptions {
        let pair = self.registry_cert.clone().zip(self.registry_key.clone());
        let own = pair.map(|(certificate, key)| ClientCertificate { host: None, certificate, key });
        RegistryOptions {
            client_certificates: own.into_iter().collect(),
            login_hosts: targets.into_iter().map(|target| target.registry().to_owned()).collect(),
            insecure: self.insecure_registry.clone(),
            ca_files: self.registry_ca.clone(),
            chunk_size: self.upload_chunk_size,
            retry: self.registry_retries.map_or_else(RetryPolicy::default, |retries| RetryPolicy {
                attempts: retries.saturating_add(1),
                ..RetryPolicy::default()
            }),
            ..RegistryOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [("7", 7), ("64M", 64 << 20), ("2GiB", 2 << 30), ("16kb", 16 << 10)] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for wrong in ["", "M", "0", "-1", "1.5M", "99999999999G", "64X"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
