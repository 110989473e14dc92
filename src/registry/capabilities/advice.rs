//! What follows for condaimg when something does not work, and what to do.

use super::State;

/// One sentence about a finding, when there is something to say.
pub(super) fn advice(name: &str, state: State) -> Option<&'static str> {
    if state == State::Ok {
        return None;
    }
    Some(match name {
        "pull" => "log in, or ask for the right to read this repository",
        "push" => "name a repository that you may write to (`condaimg doctor HOST/REPOSITORY`), or ask for that right",
        "chunked-upload" => "condaimg sends blobs in one piece: this matters only where a proxy limits their size",
        "upload-cancel" => "uploads that were broken off stay until the registry cleans up",
        "mount" => "layers that another repository of this registry has are sent again",
        "tag-digest" => "condaimg reads the whole manifest instead",
        "zstd-layers" => "leave `--compression` at gzip",
        "oci-index" => "push each platform alone, under a tag of its own",
        "artifacts" => "locks and SBOMs cannot be attached to images; the images themselves are not affected",
        "oci-subject" | "referrers-api" if state == State::No => {
            "condaimg keeps the fallback tag `sha256-...` instead: nothing to do"
        }
        "delete-manifest" | "delete-blob" => "what is not wanted any more stays until the registry cleans up",
        _ => return None,
    })
}
