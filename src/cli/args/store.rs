//! Flags of the commands that are about the store of this machine: `cache` and `warm`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::BuildArgs;
use super::registry::size;
use crate::model::BaseRef;

/// Flags of `cache`.
#[derive(Debug, Clone, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    pub command: CacheCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub enum CacheCommand {
    /// Print the folder
    Dir,
    /// List what is there: how much of which kind, and when it was used
    Ls(CacheListArgs),
    /// Remove what was not used for the longest time
    Prune(CachePruneArgs),
}

/// Flags of `cache ls`.
#[derive(Debug, Clone, Args)]
pub struct CacheListArgs {
    /// Every single thing
    #[arg(long, env = "CONDAIMG_ALL")]
    pub all: bool,
    /// For machines
    #[arg(long, env = "CONDAIMG_JSON")]
    pub json: bool,
}

/// Flags of `cache prune`.
#[derive(Debug, Clone, Args)]
pub struct CachePruneArgs {
    /// Keep no more than this, as 20G
    #[arg(long, value_name = "SIZE", env = "CONDAIMG_MAX_SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Remove what was not used for this long, as 30d
    #[arg(long, value_name = "TIME", env = "CONDAIMG_OLDER_THAN", value_parser = crate::cli::cache::span)]
    pub older_than: Option<std::time::Duration>,
    /// Remove from this OCI layout what nothing in it refers to; the store stays as it is
    #[arg(long, value_name = "DIR", env = "CONDAIMG_LAYOUT", value_parser = layout, conflicts_with = "max_size")]
    pub layout: Option<PathBuf>,
}

/// The folder of a layout, `DIR` or `oci:DIR`.
fn layout(text: &str) -> Result<PathBuf, String> {
    match text.parse().map_err(|_| "expected a directory".to_owned())? {
        _ if Path::new(text).exists() => Ok(text.into()),
        BaseRef::Layout(folder, None) => Ok(folder),
        BaseRef::Layout(folder, Some(tag)) => Err(format!(
            "expected a directory: blobs belong to the whole layout `{}`, not to the tag `{tag}`",
            folder.display()
        )),
        _ => Ok(text.into()),
    }
}

/// Container engines that images are given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineArg {
    /// By `podman pull` of a layout
    Podman,
    /// By `docker load`
    Docker,
    /// By `ctr images import`, into the namespace in CONTAINERD_NAMESPACE, else k8s.io
    Containerd,
}

/// Flags of `warm`: all of `build`, because what is kept depends on them. Those that are about where an image goes do
/// nothing, and are not shown.
#[derive(Debug, Clone, Args)]
#[command(
    mut_arg("path", |arg| arg.index(1).value_name("WHAT").help(WARM_WHAT)),
    mut_arg("tags", |arg| arg.help(WARM_TAG)),
    mut_arg("push", |arg| arg.hide(true)),
    mut_arg("outputs", |arg| arg.hide(true)),
    mut_arg("metadata_file", |arg| arg.hide(true)),
    mut_arg("digest_file", |arg| arg.hide(true)),
    mut_arg("no_referrers", |arg| arg.hide(true)),
    mut_arg("all_layers", |arg| arg.hide(true))
)]
pub struct WarmArgs {
    #[command(flatten)]
    pub build: BuildArgs,
    /// More of them
    #[arg(value_name = "WHAT", index = 2, conflicts_with = "file")]
    pub more: Vec<String>,
    /// Remove afterwards what was not used for the longest time, until the store holds no more than this, as 20G
    #[arg(long, value_name = "SIZE", env = "CONDAIMG_MAX_SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Give the images to this container engine (repeat for several)
    #[arg(
        long,
        value_name = "ENGINE",
        env = "CONDAIMG_LOAD",
        value_enum,
        value_delimiter = ',',
        help_heading = "Output"
    )]
    pub load: Vec<EngineArg>,
    /// For machines (docs/warm.md)
    #[arg(long, env = "CONDAIMG_JSON")]
    pub json: bool,
}

const WARM_TAG: &str = "What --load calls the image [default: the tags in condaimg.yaml, an image's own reference]";

const WARM_WHAT: &str = "A file or folder as `build` takes it, a lock, an image reference, oci:DIR[:TAG], \
    oci-archive:FILE or docker-archive:FILE [default: the current folder]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_named_as_outputs_are() {
        for (text, folder) in [("o", "o"), ("oci:o", "o"), ("oci:a/b", "a/b"), ("/srv/x:1", "/srv/x:1")] {
            assert_eq!(layout(text), Ok(folder.into()), "{text}");
        }
        assert!(layout("oci:o:1").is_err_and(|error| error.contains("`1`")));
        assert!(layout("").is_err());
    }
}
