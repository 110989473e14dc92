//! The history of an image: one entry for each layer.

use oci_spec::image::{History, HistoryBuilder};

use crate::model::{LAYER_PACKAGES, LayerBlob};
use crate::util::{Error, Result};

/// The base's history, then an entry for each of our layers.
///
/// Some tools (buildah, umoci) refuse a config whose history has not exactly one entry with content for each
/// layer. So a base with fewer entries is filled up; one with more cannot be right and is replaced.
pub(super) fn history(
    base: Option<&[History]>,
    base_layers: usize,
    ours: &[LayerBlob],
    created: &str,
) -> Result<Vec<History>> {
    let base = base.unwrap_or_default();
    let layers = base.iter().filter(|entry| entry.empty_layer() != Some(true)).count();
    let mut history = if layers > base_layers { Vec::new() } else { base.to_vec() };
    let known = if layers > base_layers { 0 } else { layers };
    for _ in known..base_layers {
        history.push(entry(created, "layer of the base image", None)?);
    }
    for layer in ours {
        history.push(entry(created, &layer.created_by, layer.annotations.get(LAYER_PACKAGES).map(String::as_str))?);
    }
    Ok(history)
}

fn entry(created: &str, created_by: &str, comment: Option<&str>) -> Result<History> {
    let mut builder = HistoryBuilder::default().created(created).created_by(created_by);
    if let Some(comment) = comment {
        builder = builder.comment(comment);
    }
    builder.build().map_err(|error| Error::bug("a history entry cannot be made").caused_by(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(base: &[History], layers: usize) -> usize {
        let history = history(Some(base), layers, &[], "1970-01-01T00:00:00Z").expect("a history");
        history.iter().filter(|entry| entry.empty_layer() != Some(true)).count()
    }

    #[test]
    fn there_are_as_many_entries_with_content_as_layers() {
        let content = entry("1970-01-01T00:00:00Z", "ADD", None).expect("an entry");
        let empty = HistoryBuilder::default().empty_layer(true).build().expect("an entry");
        assert_eq!(count(&[], 2), 2);
        assert_eq!(count(&[content.clone(), empty.clone()], 1), 1);
        assert_eq!(count(&[content.clone(), empty.clone()], 3), 3);
        assert_eq!(count(&[content.clone(), content, empty], 1), 1);
    }
}
