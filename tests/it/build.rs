//! The main job from the outside: what `condaimg build` prints and writes.

use crate::common::{Workspace, succeed};

#[test]
fn an_unchanged_build_changes_nothing() {
    let workspace = Workspace::new();
    let first = succeed(&mut workspace.build(&["python=3.11", "click"]));
    let second = succeed(workspace.build_here().args(["--metadata-file", "metadata.json", "--locked"]));
    assert_eq!(first, second);
    let metadata = fs_err::read_to_string(workspace.path("metadata.json")).expect("metadata");
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
    assert_eq!(format!("{}\n", metadata["digest"].as_str().expect("a digest")), first);
    let layers = metadata["layers"].as_array().expect("layers");
    assert!(layers.len() > 3 && layers.iter().all(|layer| layer["new"] == false), "{metadata}");
}
