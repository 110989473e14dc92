//! `condaimg cache`: where the store is, what it holds, and what goes.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::packages::{Channel, Format, Package};
use crate::common::{Workspace, fail, run_output, succeed};

/// Makes everything in a folder look as if nobody had asked for it since some hours.
pub fn age(folder: &std::path::Path, hours: u64) {
    let time = SystemTime::now() - Duration::from_secs(hours * 3600);
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.expect("an entry");
        fs_err::File::open(entry.path()).and_then(|file| file.file().set_modified(time)).expect("sets its time");
    }
}

#[test]
fn what_was_built_is_listed_pruned_and_made_again() {
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("channel"));
    channel.add(&Package::new("lib", "1.0").file("share/lib", [7; 100_000]), Format::Conda);
    channel.index();
    workspace.file("environment.yml", "dependencies: [lib]\n");
    let build = || {
        let mut command = workspace.condaimg();
        command.args(["build", "--base", "scratch", "--glibc", "2.36", "--override-channels", "--channel"]);
        command.arg(&channel.folder);
        succeed(&mut command)
    };
    let cache = |arguments: &[&str]| {
        let mut command = workspace.condaimg();
        command.arg("cache").args(arguments);
        command
    };
    assert_eq!(succeed(&mut cache(&["dir"])).trim(), workspace.path("cache").to_str().expect("text"));
    let digest = build();

    let rows = |arguments: &[&str]| -> Vec<Value> {
        serde_json::from_str(&succeed(&mut cache(arguments))).expect("a list in JSON")
    };
    let kinds: Vec<String> = rows(&["ls", "--json"]).iter().map(|row| row["kind"].to_string()).collect();
    assert!(kinds.contains(&"\"archives\"".to_owned()) && kinds.contains(&"\"layers\"".to_owned()), "{kinds:?}");
    let all = rows(&["ls", "--all", "--json"]);
    assert!(all.iter().any(|row| row["path"].as_str().is_some_and(|path| path.ends_with(".conda"))), "{all:?}");
    assert!(succeed(&mut cache(&["ls"])).contains("in all"));

    assert!(fail(&mut cache(&["prune"]), 2).contains("--max-size"));
    // All of it was used just now.
    let told = String::from_utf8(run_output(&mut cache(&["prune", "--max-size", "1"])).stderr).expect("text");
    assert!(told.contains("within the last hour"), "{told}");
    age(&workspace.path("cache"), 48);
    succeed(&mut cache(&["prune", "--older-than", "3d"]));
    assert_eq!(rows(&["ls", "--all", "--json"]).len(), all.len(), "nothing is that old");
    succeed(&mut cache(&["prune", "--older-than", "1d"]));
    assert!(rows(&["ls", "--all", "--json"]).is_empty());
    assert_eq!(build(), digest);
}
