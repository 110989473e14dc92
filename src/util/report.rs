//! How the library tells what it does: it never prints; `cli` draws.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::{human, plural};

/// The long steps of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Opening and reading the base image.
    Base,
    /// Reading channel indexes and solving.
    Solve,
    /// Resolving and building pip packages.
    Resolve,
    /// Fetching archives into the store.
    Download,
    /// Reading archives and wheels.
    Read,
    /// Asking registries for finished layers, and noting layers there.
    Cache,
    /// Making layers.
    Pack,
    /// Fetching layers from a registry.
    Fetch,
    /// Writing layouts and archives.
    Write,
    /// Sending blobs and manifests to a registry.
    Push,
    /// Giving images to container engines.
    Load,
}

impl Step {
    /// The name shown to users and written in JSON lines.
    pub fn name(self) -> &'static str {
        match self {
            Step::Base => "base",
            Step::Solve => "solve",
            Step::Resolve => "resolve",
            Step::Download => "download",
            Step::Read => "read",
            Step::Cache => "cache",
            Step::Pack => "pack",
            Step::Fetch => "fetch",
            Step::Write => "write",
            Step::Push => "push",
            Step::Load => "load",
        }
    }
}

/// What a step did: typed fields for machines, one line for people ([`fmt::Display`]). Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged, rename_all_fields = "kebab-case")]
pub enum Outcome {
    /// Nothing that people want to read.
    Quiet {},
    /// Packages were solved for.
    Solved {
        /// Packages of the solution.
        packages: usize,
        /// Channels that were searched.
        channels: usize,
    },
    /// Pinned packages were looked up in the indexes of their channels.
    LookedUp {
        /// Packages that were found.
        packages: usize,
        /// Packages that were looked for.
        pinned: usize,
        /// Channels that were read.
        channels: usize,
    },
    /// Archives were fetched.
    Downloaded {
        /// Archives that were fetched.
        packages: usize,
        /// Their sizes.
        bytes: u64,
        /// Archives that the store had.
        cached: usize,
    },
    /// Layers were made.
    Packed {
        /// How many.
        layers: usize,
        /// The size of their tars.
        uncompressed_bytes: u64,
    },
    /// The layer of project files was made.
    PackedFiles {
        /// How many files it holds.
        files: usize,
        /// Their sizes.
        uncompressed_bytes: u64,
    },
    /// An image was written to a layout or an archive.
    Written {
        /// Where to, as the user names it.
        output: String,
        /// What was written.
        bytes: u64,
        /// Referrers that went with it.
        referrers: usize,
    },
    /// An image was sent to registries.
    Pushed {
        /// Blobs of the image, counted once a repository.
        blobs: usize,
        /// What was sent.
        bytes: u64,
        /// Blobs that a registry took from another of its repositories.
        mounted: u64,
        /// Referrers that went with it.
        referrers: usize,
        /// Whether a manifest or a tag was new to a registry.
        moved: bool,
    },
    /// A container engine was given an image.
    Loaded {
        /// The engine.
        engine: &'static str,
        /// The image's names there.
        names: Vec<String>,
        /// Whether it had the image already.
        present: bool,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quiet {} => Ok(()),
            Self::Solved { packages, channels } => {
                write!(f, "{} from {}", plural(*packages, "package"), plural(*channels, "channel"))
            }
            Self::LookedUp { packages, pinned, channels } => {
                let channels = plural(*channels, "channel");
                write!(f, "{packages} of {} are in the index of {channels}", plural(*pinned, "pinned package"))
            }
            Self::Downloaded { packages, bytes, cached } => {
                write!(f, "{}, {}; {cached} were in the cache", plural(*packages, "package"), human(*bytes))
            }
            Self::Packed { layers, uncompressed_bytes } => {
                write!(f, "{}, {} uncompressed", plural(*layers, "layer"), human(*uncompressed_bytes))
            }
            Self::PackedFiles { files, uncompressed_bytes } => {
                write!(f, "{}, {} uncompressed", plural(*files, "project file"), human(*uncompressed_bytes))
            }
            Self::Written { output, bytes, referrers } => {
                write!(f, "{output}, {} written", human(*bytes))?;
                counted(f, *referrers, "referrer")
            }
            Self::Pushed { blobs, bytes, mounted, referrers, moved } => {
                write!(f, "{}, {} sent", plural(*blobs, "blob"), human(*bytes))?;
                if *mounted > 0 {
                    write!(f, ", {mounted} mounted")?;
                }
                f.write_str(if *moved { ", manifest sent" } else { ", nothing to do" })?;
                counted(f, *referrers, "referrer")
            }
            Self::Loaded { engine, names, present } => {
                let has = if *present { "has" } else { "has now" };
                write!(f, "{engine} {has} {}", names.join(", "))
            }
        }
    }
}

fn counted(f: &mut fmt::Formatter<'_>, count: usize, noun: &str) -> fmt::Result {
    match count {
        0 => Ok(()),
        count => write!(f, ", {}", plural(count, noun)),
    }
}

/// Something that happened beside the steps: typed fields for machines, text for people.
#[derive(Debug, Clone)]
pub struct Event {
    /// The name, in kebab case.
    pub name: &'static str,
    /// A JSON object.
    pub fields: serde_json::Value,
    /// The same for people; empty when there is nothing for them.
    pub text: String,
}

impl Event {
    /// An event with the fields of `fields`, which is a struct.
    pub fn new(name: &'static str, fields: &impl Serialize, text: impl Into<String>) -> Self {
        Self { name, fields: serde_json::to_value(fields).unwrap_or_default(), text: text.into() }
    }
}

/// Takes what the library has to say.
pub trait Reporter: Send + Sync {
    /// A step begins. `total` is in bytes; 0 when it is not known yet.
    fn begin(&self, step: Step, total: u64) -> Box<dyn Progress>;
    /// Something the user should know and may want to change.
    fn warn(&self, message: &str);
    /// Something the user may want to know.
    fn notice(&self, message: &str);
    /// Something the user may want to know and machines want in fields.
    fn event(&self, event: &Event) {
        if !event.text.is_empty() {
            self.notice(&event.text);
        }
    }
}

/// One running step.
pub trait Progress: Send + Sync {
    /// The total grew by so many bytes.
    fn grow(&self, bytes: u64);
    /// So many bytes are done.
    fn advance(&self, bytes: u64);
    /// The step works on this now (a package, a layer, a blob).
    fn item(&self, name: &str);
    /// The step is over.
    fn finish(&self, outcome: &Outcome);
}

/// The reporter as it is passed around.
pub type SharedReporter = Arc<dyn Reporter>;

/// Reports nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Reporter for Silent {
    fn begin(&self, _step: Step, _total: u64) -> Box<dyn Progress> {
        Box::new(Silent)
    }
    fn warn(&self, _message: &str) {}
    fn notice(&self, _message: &str) {}
}

impl Progress for Silent {
    fn grow(&self, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn item(&self, _name: &str) {}
    fn finish(&self, _outcome: &Outcome) {}
}
