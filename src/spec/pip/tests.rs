use super::*;
use fs_err as fs;

fn section(lines: &[&str]) -> Result<Pip> {
    let lines = lines.iter().enumerate().map(|(index, line)| (format!("e.yml:{}", index + 1), (*line).to_owned()));
    read_section(Path::new("/project"), lines, &Choices::default())
}

fn direct(line: &str) -> PipDirect {
    let pip = section(&[line]).expect(line);
    match pip.requirements.into_iter().next().expect("one").what {
        PipWanted::Direct(direct) => *direct,
        PipWanted::Index(_) => panic!("{line} is of the index"),
    }
}

fn no_content(_: &Path) -> Result<Option<Digest>> {
    Ok(None)
}

#[test]
fn requirements_of_an_index_are_read() {
    let hash = format!("--hash=sha256:{}", "a".repeat(64));
    for (line, shown) in [
        ("requests", "requests"),
        ("Requests[socks,security]>=2.8.1,==2.8.* ; python_version > '3.8'", "requests[socks,security]==2.8.*,>=2.8.1"),
        ("requests==2.8.1 --hash sha256:HASH", "requests==2.8.1"),
        ("requests~=2.8 # why", "requests~=2.8"),
        ("requests.ext (>=2)", "requests-ext>=2"),
    ] {
        let line = line.replace("--hash sha256:HASH", &hash);
        let pip = section(&[&line]).expect(&line);
        let PipWanted::Index(requirement) = &pip.requirements[0].what else { panic!("{line}") };
        assert!(requirement.to_string().starts_with(shown), "{requirement}");
        assert_eq!(pip.requires_hashes(), line.contains("--hash"));
    }
}

#[test]
fn places_are_read() {
    let git = |url: &str, reference: Option<&str>, subdirectory: Option<&str>| {
        PipLocation::Git(PipGit {
            url: url.parse().expect("a URL"),
            reference: reference.map(str::to_owned),
            subdirectory: subdirectory.map(str::to_owned),
        })
    };
    let archive = |url: &str| PipLocation::Archive(url.parse().expect("a URL"));
    let path = |path: &str| PipLocation::Path(path.into());
    for (line, name, location) in [
        ("git+https://host/a/b.git@v1", None, git("https://host/a/b.git", Some("v1"), None)),
        ("git+https://u:p@host/a/b", None, git("https://u:p@host/a/b", None, None)),
        ("git+ssh://git@host/a/b@feature/x", None, git("ssh://git@host/a/b", Some("feature/x"), None)),
        (
            "git+https://host/a@v1#egg=Some_Name[x]&subdirectory=lib/py",
            Some("some-name"),
            git("https://host/a", Some("v1"), Some("lib/py")),
        ),
        (
            "Some.Name[x] @ git+file:///srv/a@main ; python_version > '3'",
            Some("some-name"),
            git("file:///srv/a", Some("main"), None),
        ),
        ("some-name@https://host/a.whl#sha256=1", Some("some-name"), archive("https://host/a.whl#sha256=1")),
        (
            "https://host/some_name-1-py3-none-any.whl",
            Some("some-name"),
            archive("https://host/some_name-1-py3-none-any.whl"),
        ),
        ("https://host/@scope/a.tar.gz", None, archive("https://host/@scope/a.tar.gz")),
        ("./lib", None, path("/project/lib")),
        (".", None, path("/project")),
        ("sub/../lib[x]", None, path("/project/lib")),
        ("dist/some_name-1-py3-none-any.whl", Some("some-name"), path("/project/dist/some_name-1-py3-none-any.whl")),
        ("file:///project/lib", None, path("/project/lib")),
        ("some-name @ file:///project/lib", Some("some-name"), path("/project/lib")),
        ("-e ./lib", None, path("/project/lib")),
        ("-e .[x] ; sys_platform == 'linux'", None, path("/project")),
    ] {
        let read = direct(line);
        assert_eq!(read.name.as_ref().map(ToString::to_string).as_deref(), name, "{line}");
        assert_eq!(read.location, location, "{line}");
        assert_eq!(read.extras.len(), usize::from(line.contains("[x]")), "{line}");
        assert_eq!(read.marker.is_true(), !line.contains(';'), "{line}");
    }
}

#[test]
fn mistakes_name_their_place() {
    for (line, expected) in [
        ("requests>>2", "e.yml:1: `requests>>2` is no requirement"),
        ("hg+https://host/a", "hg+https:// is not supported"),
        ("git+git@host:a/b", "is no requirement"),
        ("git+https://host/a#subdirectory=../b", "outside of the repository"),
        ("requests --hash=sha256:12", "is no hash"),
        ("requests --global-option=x", "`--global-option` is not supported"),
        ("--process-dependency-links", "`--process-dependency-links` is not supported"),
        ("-i host/simple", "is no index"),
        ("-r https://u:p@host/r.txt", "in the network are not read: `https://host/r.txt`"),
        ("-r none.txt", "e.yml:1: "),
        ("https://me:hush@host:x/a.whl", "is no requirement"),
    ] {
        let error = section(&[line]).expect_err(line).to_string();
        assert!(error.contains(expected) && !error.contains("hush"), "{line}: {error}");
    }
}

#[test]
fn files_name_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("writes");
    fs::create_dir(folder.path().join("sub")).expect("a folder");
    write("requirements.txt", "-r sub/more.txt\n-c limits.txt\n-i https://me:hush@host/simple\nrequests\n");
    write("sub/more.txt", "./lib\n-f wheels\n");
    write("limits.txt", "requests<3\n");
    let pip = read_requirements(&folder.path().join("requirements.txt"), &Choices::default()).expect("reads");
    assert_eq!(pip.requirements[0].path(), Some(folder.path().join("sub/lib").as_path()));
    assert!(pip.requirements[1].place.ends_with("requirements.txt:4"), "{:?}", pip.requirements);
    assert_eq!(pip.constraints[0].text, "requests<3");
    assert_eq!(pip.options.find_links, [folder.path().join("sub/wheels").to_string_lossy()]);
    let lines = pip.lines(no_content).expect("lines");
    assert_eq!(lines[0], "--index-url https://host/simple");
    assert_eq!(lines[2..], ["constraint requests<3", "./lib", "requests"]);
    assert!(!format!("{pip:?}").contains("hush"));

    write("sub/more.txt", "a\n-r ../requirements.txt\n");
    let error = read_requirements(&folder.path().join("requirements.txt"), &Choices::default())
        .expect_err("is endless")
        .to_string();
    assert!(error.contains("more.txt:2: ") && error.contains("names itself"), "{error}");
    write("sub/more.txt", "a\nb==\n");
    let error = read_requirements(&folder.path().join("requirements.txt"), &Choices::default())
        .expect_err("is wrong")
        .to_string();
    assert!(error.contains("sub/more.txt:2: `b==`") && !error.contains("requirements.txt"), "{error}");
}

#[test]
fn what_changes_a_lock_is_in_its_lines() {
    let hashed = format!("requests==1 --hash=sha256:{}", "b".repeat(64));
    let pip = section(&[&hashed, "./lib", "git+https://${UNSET_IN_TESTS}@host/a", "--pre"]).expect("reads");
    let lines = pip.lines(|_| Ok(Some(Digest::of("content")))).expect("lines");
    assert_eq!(lines[0], "--pre");
    assert!(lines[1].starts_with("requests==1 (hashes "), "{lines:?}");
    assert!(lines[2].starts_with("./lib (content "), "{lines:?}");
    assert_eq!(lines[3], "git+https://host/a");
}

#[test]
fn folders_of_conda_builds_are_told_all_at_once() {
    let lines = [
        "certifi @ file:///croot/certifi_1707229174982/work/certifi",
        "numpy @ file:///home/conda/feedstock_root/build_artifacts/numpy_1707225359967/work/dist/numpy-1.26.4-cp311-cp311-linux_x86_64.whl#sha256=d0",
        "requests",
        "attrs @ file:///tmp/build/80754af9/attrs_1620827162558/work ; python_version > '3'",
    ];
    let error = section(&lines).expect_err("is refused");
    let message = error.to_string();
    assert!(message.contains("e.yml:1: `certifi @ ") && message.contains("e.yml:4: `attrs @ "), "{message}");
    assert!(!message.contains("numpy"), "its version is known: {message}");
    assert!(error.hints().join("\n").contains("--drop-conda-build-paths"), "{:?}", error.hints());

    let choices = Choices { drop_conda_build_paths: true, ..Choices::default() };
    let places = lines.iter().enumerate().map(|(index, line)| (format!("e.yml:{}", index + 1), (*line).to_owned()));
    let pip = read_section(Path::new("/project"), places, &choices).expect("reads");
    let texts: Vec<&str> = pip.requirements.iter().map(|requirement| requirement.text.as_str()).collect();
    assert_eq!(texts, ["certifi", "numpy==1.26.4", "requests", "attrs ; python_full_version >= '3.1'"]);
    assert!(pip.notices[0].contains("`numpy==1.26.4` (e.yml:2)"), "{:?}", pip.notices);
}

#[test]
fn users_of_ssh_are_in_messages_and_not_in_locks() {
    let pip = section(&["tool @ git+ssh://git@host.example/team/tool.git@v1"]).expect("reads");
    assert_eq!(pip.requirements[0].text, "tool @ git+ssh://git@host.example/team/tool.git@v1");
    assert_eq!(pip.lines(no_content).expect("lines"), ["tool @ git+ssh://host.example/team/tool.git@v1"]);
    for line in ["git+ssh://git@host.example:team/tool.git@v1", "git+git@host.example:team/tool.git@v1"] {
        let error = section(&[line]).expect_err(line);
        assert!(error.to_string().contains(&format!("`{line}`")), "{error}");
        let hints = error.hints().join("\n");
        assert!(hints.contains("`git+ssh://git@host.example/team/tool.git@v1`"), "{hints}");
    }
}
