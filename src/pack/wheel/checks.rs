//! Whether a wheel fits the target of an image.

use rattler_conda_types::Subdir;

use super::WheelMetadata;
use crate::model::{TargetPython, check_fit};
use crate::util::Result;

/// Refuses a wheel that is for another Python, ABI, architecture or newer glibc than the target's.
///
/// # Errors
/// They name the wheel, its tags and the target.
pub fn check_tags(
    metadata: &WheelMetadata,
    python: impl Into<TargetPython>,
    glibc: Option<(u64, u64)>,
    subdir: Subdir,
) -> Result<()> {
    check_fit(&metadata.file_name, &metadata.tags, python, glibc, subdir)
}
