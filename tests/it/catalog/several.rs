//! Several builders at once, and several platforms in one build.

use super::*;

#[test]
fn two_builders_at_once_note_the_same() {
    let (bench, registry) = (Bench::new(), LocalRegistry::start(Mode::Plain));
    let cache = format!("{}/cache", registry.host());
    let flags = |tag: &str| ["--locked", "--cache-registry", &cache, "--push", "--tag", tag].map(str::to_owned);
    let tags_of = ["a", "b"].map(|name| format!("{}/{name}:1", registry.host()));
    let mut builders: Vec<_> = ["a", "b"]
        .iter()
        .zip(&tags_of)
        .map(|(machine, tag)| bench.build(machine, &strs(&flags(tag))).spawn().expect("starts"))
        .collect();
    assert!(builders.iter_mut().all(|builder| builder.wait().expect("ends").success()));
    assert_eq!(bench.outcome("a").0, bench.outcome("b").0);
    assert_eq!(tags(&registry, "cache").len(), LAYERS);
    // Two that have nothing, to one tag that is new.
    let tag = format!("{}/c:1", registry.host());
    let (asked, digest) = (bench.server.seen("").len(), bench.outcome("a").0);
    let mut bare: Vec<_> =
        ["c", "d"].iter().map(|machine| bench.build(machine, &strs(&flags(&tag))).spawn().expect("starts")).collect();
    assert!(bare.iter_mut().all(|builder| builder.wait().expect("ends").success()));
    assert_eq!(["c", "d"].map(|machine| bench.outcome(machine)), [(digest.clone(), 0), (digest, 0)]);
    assert_eq!(bench.server.seen("").len(), asked);
}

#[test]
fn each_platform_has_its_layers_from_the_cache() {
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let workspace = Workspace::new();
    let mut channel = Channel::new(workspace.path("channel"));
    channel.add(&Package::new("shared", "1.0").noarch_generic().file("share/shared", "shared"), Format::Conda);
    for subdir in ["linux-64", "linux-aarch64"] {
        channel.add(&Package::new("own", "1.0").subdir(subdir).file("share/own", subdir), Format::Conda);
    }
    channel.index();
    let server = FileServer::start(workspace.path("channel"));
    workspace.file("environment.yml", "dependencies: [own, shared]\n");
    workspace.file("src/main.py", "print('hello')\n");
    let bench = Bench { workspace, server, base: "scratch".to_owned() };
    succeed(bench.on("first", "lock").args(["--base", "scratch", "--glibc", "2.36"]).args(platforms));

    let registry = LocalRegistry::start(Mode::Plain);
    let cache = format!("{}/cache", registry.host());
    let tag = |repository: &str| format!("{}/{repository}:1", registry.host());
    let build = |machine: &str, flags: &[&str], repository: &str| {
        let pushed = ["--locked", "--no-referrers", "--cache-registry", &cache, "--push", "--tag", &tag(repository)];
        let asked = bench.server.seen("").len();
        succeed(bench.build(machine, flags).args(platforms).args(pushed));
        let metadata = bench.metadata(machine);
        let made = metadata["platforms"].as_array().expect("platforms").iter();
        let made: Vec<Vec<bool>> = made
            .map(|it| it["layers"].as_array().expect("layers").iter().map(|layer| layer["new"] == true).collect())
            .collect();
        (metadata["digest"].clone(), made, bench.server.seen("").len() - asked)
    };
    let (digest, made, _) = build("first", &[], "env");
    assert_eq!(made.len(), 2);
    let total: usize = made.iter().map(Vec::len).sum();
    // From the cache, and from the index at the tag.
    for repository in ["other", "env"] {
        let sent = registry.uploads().len();
        let (again, made, asked) = build(&format!("bare-{repository}"), &[], repository);
        assert_eq!((again, asked), (digest.clone(), 0));
        assert!(made.iter().flatten().all(|new| !new), "{made:?}");
        // The configs of the two, where they are new.
        assert_eq!(registry.uploads().len() - sent, if repository == "other" { 2 } else { 0 });
    }
    let (again, made, _) = build("alone", &["--no-cache"], "third");
    assert_eq!((again, made.iter().flatten().filter(|new| **new).count()), (digest, total));
}
