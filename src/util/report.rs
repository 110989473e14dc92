//! How the library tells what it does: it never prints; `cli` draws.

use std::sync::Arc;

/// The long steps of a build, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Reading channel indexes and solving.
    Solve,
    /// Fetching archives into the store.
    Download,
    /// Making layers.
    Pack,
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
            Step::Solve => "solve",
            Step::Download => "download",
            Step::Pack => "pack",
            Step::Write => "write",
            Step::Push => "push",
            Step::Load => "load",
        }
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
}

/// One running step.
pub trait Progress: Send + Sync {
    /// The total grew by so many bytes.
    fn grow(&self, bytes: u64);
    /// So many bytes are done.
    fn advance(&self, bytes: u64);
    /// The step works on this now (a package, a layer, a blob).
    fn item(&self, name: &str);
    /// The step is over, with one line that says what it did.
    fn finish(&self, summary: &str);
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
    fn finish(&self, _summary: &str) {}
}
