//! What kind of content a layer has.

/// The kind of a layer's content: the annotation `dev.condaimg.layer.role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerRole {
    /// Files of packages, perhaps with their bytecode.
    Packages,
    /// Bytecode of packages whose files are in other layers.
    Bytecode,
    /// What is taken away of the base.
    Removals,
    /// The user's own files.
    ProjectFiles,
    /// What belongs to the environment as a whole: history, user, home, entrypoint.
    Environment,
}

impl LayerRole {
    /// The name in annotations and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packages => "packages",
            Self::Bytecode => "bytecode",
            Self::Removals => "removals",
            Self::ProjectFiles => "project-files",
            Self::Environment => "environment",
        }
    }
}
