//! git repositories as requirements and locks name them: what they say never becomes an option of git, their credentials
//! are in no arguments, and their directories stay in them.

use std::os::unix::fs::symlink;

use super::*;
use crate::common::packages::file_url;
use crate::common::token_server::basic;
use crate::common::watch::watched;

const SECRET: &str = "g1t/hush+pass";

#[test]
fn git_credentials_are_in_no_arguments() {
    let bench = Bench::new(&[]);
    let repository = bench.repository("tool");
    project(&repository.work, "tool", "1.5", &[], "first");
    repository.commit(Some("v1"));
    bench.index.server.require(&basic("me", SECRET));
    let encoded: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    let at = bench.index.server.url.replace("://", "://me:${GIT_PASSWORD}@");
    bench.environment(&[], &[&format!("git+{at}/tool.git@v1")]);
    let mut lock = bench.run(&["lock", "-vv"]);
    // The index wants it also, and git has no business with that.
    lock.arg("--allow-build").env("GIT_PASSWORD", &encoded);
    lock.env("PIP_INDEX_URL", bench.index.url_with(&format!("me:{encoded}")));
    let (output, seen) = watched(&mut lock);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    let asked = bench.index.server.seen("/tool.git/");
    assert!(asked.iter().any(|seen| seen.authorization.as_deref() == Some(&*basic("me", SECRET))), "is sent");
    let programs: Vec<&str> = seen.environments.iter().map(|(name, _)| name.as_str()).collect();
    assert!(programs.iter().any(|name| name.starts_with("git")), "{programs:?}");
    let holds = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        [SECRET, &encoded, &basic("me", SECRET)["Basic ".len()..]].iter().any(|form| text.contains(form))
    };
    for arguments in &seen.arguments {
        assert!(!holds(arguments), "{}", String::from_utf8_lossy(arguments));
    }
    for (name, environment) in seen.environments.iter().filter(|(name, _)| name.starts_with("git")) {
        assert!(!holds(environment), "{name}: {}", String::from_utf8_lossy(environment));
    }
    assert!(!holds(said.as_bytes()) && !holds(bench.lock().as_bytes()), "{said}");
}

/// A lock with a repository of this machine, without the cache in which its wheel is.
fn locked(bench: &Bench) -> String {
    let repository = bench.repository("tool");
    project(&repository.work, "tool", "1.5", &[], "first");
    let commit = repository.commit(None);
    bench.environment(&[], &[&format!("git+{}@main", file_url(&repository.bare))]);
    succeed(bench.run(&["lock"]).arg("--allow-build"));
    assert!(bench.lock().contains(&commit));
    bench.forget();
    commit
}

#[test]
fn lock_values_are_no_options_of_git() {
    let bench = Bench::new(&[]);
    let commit = locked(&bench);
    let (lock, marker) = (bench.lock(), bench.workspace.path("marker"));
    let script = bench.workspace.file("run", format!("#!/bin/sh\ntouch {}\n", marker.display()));
    succeed(program("chmod", "coreutils").arg("+x").arg(&script));
    for wrong in [
        format!("#--upload-pack={}", script.display()),
        format!("#{}", &commit[..39]),
        "#main".to_owned(),
        format!("?subdirectory=../..#{commit}"),
        format!("?subdirectory=/etc#{commit}"),
    ] {
        bench.workspace.file("condaimg.lock", lock.replace(&format!("#{commit}"), &wrong));
        for mode in ["--locked", "--frozen"] {
            let said = fail(bench.run(&["build"]).args([mode, "--allow-build"]), 1);
            assert!(said.contains("`tool`") && said.contains("condaimg.lock"), "{wrong}: {said}");
        }
    }
    bench.workspace.file("condaimg.lock", lock.replace("git+file://", "git+ext::sh%20-c%20true://"));
    fail(bench.run(&["build"]).arg("--frozen"), 1);
    assert!(!marker.exists());
}

#[test]
fn requirement_values_are_no_options_of_git() {
    let bench = Bench::new(&[]);
    for line in [
        "git+https://host.example/a.git@--upload-pack=x",
        "git+ssh://-oProxyCommand=x/a.git",
        "git+ext::sh -c true",
        "git+git://host.example/a.git",
        "git+https://host.example/a.git#subdirectory=../..",
    ] {
        bench.environment(&[], &[line]);
        let said = fail(bench.run(&["lock"]).arg("--allow-build"), 1);
        assert!(said.contains("environment.yml:") && !said.contains("cannot be cloned"), "{line}: {said}");
    }
}

#[test]
fn subdirectory_that_is_a_link_stays_in_checkout() {
    let bench = Bench::new(&[]);
    let repository = bench.repository("tool");
    project(&repository.work, "tool", "1.5", &[], "first");
    symlink("../../../..", repository.work.join("out")).expect("links");
    repository.commit(Some("v1"));
    bench.environment(&[], &[&format!("git+{}@v1#subdirectory=out", file_url(&repository.bare))]);
    let said = fail(bench.run(&["lock"]).arg("--allow-build"), 1);
    assert!(said.contains("`out` of") && said.contains("outside of the repository"), "{said}");
}
