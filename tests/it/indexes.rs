//! Indexes of channels that are not as they should be: files that are forbidden, pages instead of files, what does not
//! decode, odd records; and servers that say when to come back.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::file_server::FaultKind;
use crate::common::packages::zstd_of;
use crate::common::{fail, run_output, succeed};
use crate::condarc::Bench;

const SHARDS: &str = "repodata_shards.msgpack.zst";
const ZSTD: &str = "repodata.json.zst";

/// What a command that succeeds says to people.
fn told(command: &mut std::process::Command) -> String {
    String::from_utf8(run_output(command).stderr).expect("UTF-8")
}

/// A served channel with `lib`, and an environment that wants it.
fn bench() -> Bench {
    let bench = Bench::new("team");
    bench.environment(&[&format!("{}/team", bench.server.url)], &["lib"]);
    bench
}

fn change_index(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("repodata.json");
    let mut index: Value = serde_json::from_slice(&fs_err::read(&path).expect("reads")).expect("JSON");
    change(&mut index);
    fs_err::write(&path, index.to_string()).expect("writes");
}

#[test]
fn forbidden_files_count_as_missing() {
    // S3 says so to whoever may not list a bucket.
    let bench = bench();
    bench.server.say_of_missing(403);
    let said = told(&mut bench.lock());
    assert!(!said.contains("403"), "{said}");
    assert!(bench.text().contains("lib-1.0"));

    // A channel without the platform.
    let package = crate::common::packages::Package::new("everywhere", "1.0").noarch_generic();
    let mut channel = crate::common::packages::Channel::new(bench.served("noarch-only"));
    channel.add(&package, crate::common::packages::Format::Conda);
    channel.index();
    fs_err::remove_dir_all(bench.served("noarch-only/linux-64")).expect("removes");
    bench.environment(&[&format!("{}/noarch-only", bench.server.url)], &["everywhere"]);
    bench.forget();
    let said = told(&mut bench.lock());
    assert!(said.contains("noarch-only/linux-64/repodata.json") && said.contains("403"), "{said}");
    assert!(bench.text().contains("everywhere-1.0"));

    // Where everything is forbidden, it is not missing.
    bench.environment(&[&format!("{}/nowhere", bench.server.url)], &["lib"]);
    bench.forget();
    let said = fail(&mut bench.lock(), 1);
    for part in ["nowhere", "refuses access (403", SHARDS] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn forms_that_do_not_decode_are_passed_over() {
    let bench = bench();
    for subdir in ["noarch", "linux-64"] {
        for file in [SHARDS, ZSTD] {
            fs_err::write(bench.served(&format!("team/{subdir}/{file}")), "no such thing").expect("writes");
        }
    }
    succeed(&mut bench.lock());
    assert!(bench.text().contains("lib-1.0"));
    assert!(!bench.server.seen(&format!("linux-64/{SHARDS}")).is_empty());
    assert!(!bench.server.seen("linux-64/repodata.json").is_empty());
    // The next time as well.
    let _ = fs_err::remove_file(bench.workspace.path("condaimg.lock"));
    succeed(&mut bench.lock());
    // One that begins well and ends early.
    let whole = fs_err::read(bench.served("team/linux-64/repodata.json")).expect("reads");
    let half = zstd_of(&whole);
    fs_err::write(bench.served(&format!("team/linux-64/{ZSTD}")), &half[..half.len() / 2]).expect("writes");
    bench.forget();
    succeed(&mut bench.lock());
}

#[test]
fn login_pages_are_not_indexes() {
    let bench = bench();
    for file in [SHARDS, ZSTD] {
        bench.server.fault(file, usize::MAX, FaultKind::Page);
    }
    succeed(&mut bench.lock());
    assert!(bench.text().contains("lib-1.0"));
    bench.server.fault("repodata.json", usize::MAX, FaultKind::Page);
    bench.forget();
    let said = fail(&mut bench.lock(), 1);
    for part in ["/team/", "web page", "wants a login", SHARDS] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn odd_records_do_not_stop_a_channel() {
    let bench = bench();
    let odd = |index: &mut Value| {
        let records = index["packages.conda"].as_object_mut().expect("records");
        let good = records.values().next().cloned().unwrap_or_else(
            || json!({"name": "x", "version": "1", "build": "0", "build_number": 0, "depends": [], "subdir": "noarch"}),
        );
        let mut add = |name: &str, member: &str, value: Value| {
            let mut record = good.clone();
            (record["name"], record["version"]) = (json!(name), json!("0.9"));
            match value {
                Value::String(text) if text == "gone" => drop(record.as_object_mut().expect("one").remove(member)),
                value => record[member] = value,
            }
            records.insert(format!("{name}-0.9-0.conda"), record);
        };
        add("unnumbered", "build_number", json!("gone"));
        add("nothing", "depends", Value::Null);
        add("wordy", "build_number", json!("zero"));
        // Another version of what is asked for.
        add("lib", "size", json!("many"));
        records.insert("odd.conda".to_owned(), good.clone());
    };
    change_index(&bench.served("team/linux-64"), odd);
    for channel in [format!("{}/team", bench.server.url), bench.served("team").display().to_string()] {
        bench.environment(&[&channel], &["lib"]);
        bench.forget();
        let said = told(&mut bench.lock());
        assert!(said.contains("skipped 5 records of `") && said.contains("/team/`") && said.contains("-v"), "{said}");
        assert!(!said.contains("unnumbered"), "{said}");
        bench.forget();
        let said = told(bench.lock().arg("-v"));
        for part in ["linux-64/unnumbered-0.9-0.conda", "nothing-0.9", "wordy-0.9", "lib-0.9-0.conda", "odd.conda"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        // All that there is of a package, and a version that is asked for.
        for (wanted, record) in [("unnumbered", "unnumbered-0.9-0.conda: "), ("lib=0.9", "lib-0.9-0.conda: ")] {
            bench.environment(&[&channel], &[wanted]);
            bench.forget();
            let said = fail(bench.lock().arg("-q"), 1);
            let name = wanted.split('=').next().unwrap_or_default();
            assert!(said.contains(&format!("skipped 1 record of `{name}`")) && said.contains(record), "{said}");
        }
    }
}

#[test]
fn other_json_is_not_an_index() {
    let bench = Bench::new("team");
    let channels = [format!("{}/team", bench.server.url), bench.served("team").display().to_string()];
    for subdir in ["linux-64", "noarch"] {
        let path = bench.served(&format!("team/{subdir}/repodata.json"));
        let whole = fs_err::read(&path).expect("reads");
        for file in [SHARDS, ZSTD, "repodata.json.bz2"] {
            let _ = fs_err::remove_file(bench.served(&format!("team/{subdir}/{file}")));
        }
        fs_err::write(&path, r#"{"error": "not found"}"#).expect("writes");
        for channel in &channels {
            bench.environment(&[channel], &["lib"]);
            bench.forget();
            let said = fail(&mut bench.lock(), 1);
            assert!(said.contains("/team/` cannot be read") && said.contains("not an index"), "{said}");
        }
        fs_err::write(&path, whole).expect("writes");
    }
    for channel in &channels {
        bench.environment(&[channel], &["lib"]);
        bench.forget();
        succeed(&mut bench.lock());
    }
}

#[test]
fn failing_forms_are_told_without_tokens() {
    let bench = Bench::new("t/tk-hush-token/team");
    bench.environment(&[&format!("{}/t/tk-hush-token/team", bench.server.url)], &["lib"]);
    for style in [&["-v"][..], &["-vv"], &["-v", "--progress", "json"]] {
        bench.server.fault(SHARDS, usize::MAX, FaultKind::Status(500));
        bench.forget();
        let said = told(bench.lock().args(style));
        assert!(said.contains("another form") && said.contains(SHARDS), "{said}");
        assert!(!said.contains("hush"), "{said}");
    }
}

#[test]
fn server_date_to_come_back_is_kept() {
    let bench = bench();
    bench.server.fault("linux-64/repodata.json", 2, FaultKind::ComeBackIn(4));
    let began = Instant::now();
    succeed(&mut bench.lock());
    assert!(began.elapsed() >= Duration::from_millis(2_900), "{:?}", began.elapsed());
}
