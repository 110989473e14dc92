//! Modes and times of what a layer holds: not the builder's, and few.

/// Directories get one fixed time: a shared directory must not change with the package that brings it. One
/// second after 1970, because some tools take 0 for "unknown".
pub const DIRECTORY_MTIME: u64 = 1;

/// The setuid and setgid bits of a mode.
pub const SETUID: u32 = 0o6000;

/// Who may do what: the only modes that a layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModePolicy {
    /// Whether the group gets the owner's permissions.
    pub group_write: bool,
}

impl ModePolicy {
    /// The mode of a file: executable or not, never setuid, setgid or sticky.
    pub fn file(self, executable: bool) -> u32 {
        match (executable, self.group_write) {
            (true, false) => 0o755,
            (true, true) => 0o775,
            (false, false) => 0o644,
            (false, true) => 0o664,
        }
    }

    /// The mode of a directory.
    pub fn directory(self) -> u32 {
        self.file(true)
    }
}
