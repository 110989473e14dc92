//! `condaimg.yaml`: an environment, or the name of a file that holds one, and what its image is to be.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::forms::typed;
use super::keys::PROJECT_FILE;
use super::kinds::{no_choice, no_python};
use super::{Choices, Pip, ProjectEntry, Settings, Spec, environment, folder, pip, read_environment, yaml};
use crate::util::{Error, Result, ResultExt as _};

/// Whether a file is one, by its name: `condaimg.yaml`, or `NAME.condaimg.yaml` where a folder holds several.
pub(super) fn is_one(file: &Path) -> bool {
    let name = file.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml"));
    stem.is_some_and(|stem| stem == "condaimg" || stem.ends_with(".condaimg"))
}

/// Reads one, and the environment that it names.
pub(super) fn read(file: PathBuf, choices: &Choices) -> Result<Spec> {
    let source = yaml::load(&file)?;
    let mut document = environment::read(&file, &source, &PROJECT_FILE)?;
    let holds_packages = document.dependencies.is_some();
    let mut spec = document.spec(file.clone(), source.clone(), choices, Vec::new())?;
    let settings: Settings = typed(Value::Object(document.values))?;
    let mut settings = settings.with_origin(file, source);
    let own_python = settings.python.is_some() && choices.python.is_none();
    let python = choices.python.clone().or_else(|| settings.python.clone());
    let choices = &Choices { python, ..choices.clone() };
    match &settings.environment.clone() {
        Some(named) => {
            let name = spec.name.take();
            spec = settings.at("environment", named_environment(&settings, named, choices))?;
            spec.name = name.or(spec.name);
            if own_python && spec.origin.is_some() {
                spec.origin = settings.place("python");
            }
            if spec.is_lock {
                settings.base = settings.base.take().or(spec.settings.base.take());
                if settings.platforms.is_empty() {
                    settings.platforms = std::mem::take(&mut spec.settings.platforms);
                }
            }
        }
        None if holds_packages => {
            no_choice(&spec.file, choices.environment.as_deref())?;
            no_python(&spec.file, choices)?;
        }
        None => {
            return Err(Error::user(format!("{}: there are no packages", spec.file.display()))
                .hint("add `environment: environment.yml`, or `dependencies:` with a list of packages"));
        }
    }
    let installed = installed(&settings)?;
    spec.notices.extend(installed.notices);
    spec.pip.requirements.extend(installed.requirements);
    Ok(Spec { settings, ..spec })
}

/// `install:` of the entries of `project:`: Python projects in folders, which pip packages are, too.
fn installed(settings: &Settings) -> Result<Pip> {
    let place = settings.file().unwrap_or(Path::new("")).display();
    let mut lines = Vec::new();
    for (index, entry) in settings.project.iter().enumerate() {
        if let ProjectEntry::Install { install } = entry {
            if !settings.at(&format!("project.{index}.install"), settings.path_inside(install))?.is_dir() {
                let error = Error::user(format!("`{install}` is no folder of a Python project"));
                return settings.at(&format!("project.{index}.install"), Err(error));
            }
            let path = match Path::new(install).is_absolute() {
                true => install.clone(),
                false => format!("./{}", install.strip_prefix("./").unwrap_or(install)),
            };
            lines.push((place.to_string(), path));
        }
    }
    pip::read_section(folder(settings.file().unwrap_or(Path::new(""))), lines, &Choices::default())
}

fn named_environment(settings: &Settings, named: &str, choices: &Choices) -> Result<Spec> {
    let file = settings.path_inside(named)?;
    if is_one(&file) {
        return Err(Error::user(format!("`{named}` is a condaimg.yaml, which cannot be the environment of another"))
            .hint("name an environment.yml"));
    }
    if file.is_dir() {
        return Err(Error::user(format!("`{named}` is a folder")).hint("name the file in it"));
    }
    read_environment(file, choices).context(|| format!("the environment `{named}` cannot be used"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ProjectEntry;

    fn read_text(text: &str) -> Result<Spec> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("condaimg.yaml");
        fs_err::write(&file, text).expect("writes");
        fs_err::write(folder.path().join("environment.yml"), "name: lib\ndependencies: [lib]\n").expect("writes");
        fs_err::write(folder.path().join("broken.yml"), "dependencies: [lib\n").expect("writes");
        read(file, &Choices::default())
    }

    #[test]
    fn project_files_are_told_by_their_names() {
        for (name, expected) in [
            ("condaimg.yaml", true),
            ("a/condaimg.yml", true),
            ("gpu.condaimg.yaml", true),
            ("environment.yml", false),
            ("mycondaimg.yaml", false),
            ("condaimg.lock", false),
        ] {
            assert_eq!(is_one(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn scalars_are_the_text_of_the_file() {
        let spec = read_text(concat!(
            "environment: environment.yml\n",
            "target: {cuda: 12.10, virtual-packages: {__archspec: 1=x86_64_v3, __linux: }}\n",
            "bytecode: off\ngroup-write: true\nmax-layers: 5\n",
            "project:\n- {from: src, to: /app}\n- install: .\n",
            "image:\n  user: 1000\n  entrypoint: python -m 'my app'\n  cmd: [run, '']\n  env: {A: 1.0, B: yes, C: }\n",
            "  labels:\n",
        ))
        .expect("reads");
        let Settings { target, image, project, .. } = &spec.settings;
        assert_eq!(spec.name.as_deref(), Some("lib"));
        assert_eq!(target.cuda.as_deref(), Some("12.10"));
        assert_eq!(target.virtual_packages["__archspec"], "1=x86_64_v3");
        assert_eq!(target.virtual_packages["__linux"], "");
        assert_eq!((spec.settings.bytecode, spec.settings.group_write), (Some(false), Some(true)));
        assert_eq!(spec.settings.max_layers, Some(5));
        assert_eq!(project[0], ProjectEntry::Copy { from: "src".into(), to: "/app".into() });
        assert_eq!(project[1], ProjectEntry::Install { install: ".".into() });
        assert_eq!(image.user.as_deref(), Some("1000"));
        assert_eq!(image.entrypoint.as_deref().expect("one"), ["python", "-m", "my app"]);
        assert_eq!(image.cmd.as_deref().expect("one"), ["run", ""]);
        assert_eq!([&image.env["A"], &image.env["B"], &image.env["C"]], ["1.0", "yes", ""]);
    }

    #[test]
    fn every_value_is_checked_where_it_stands() {
        for (text, expected, hint) in [
            ("enviroment: a.yml\n", ":1:1: `enviroment:` is no key of condaimg.yaml", "did you mean `environment:`?"),
            ("max_layers: 5\n", ":1:1: `max_layers:` is no key", "did you mean `max-layers:`?"),
            ("dependencies: []\nuser: 5\n", ":2:1: `user:` is no key of condaimg.yaml", "it belongs below `image:`"),
            ("image:\n  tag: [a]\n", ":2:3: `tag:` is no key of `image:`", "did you mean `tags:`?"),
            ("target: {gpu: 1}\n", ":1:10: `gpu:` is no key of `target:`", "its keys are `cuda`, `glibc`"),
            ("base: a\nname: b\nbase: c\n", ":3:1: `base:` stands here a second time", "keep one of them"),
            ("image: {env: {A: 1, A: 2}}\n", ":1:21: the variable `A` is set a second time", "keep one of them"),
            ("image: {env: {A: [1]}}\n", ":1:18: image.env.A: invalid type: sequence, expected a value", ""),
            ("image:\n  user: me\n", ":2:9: invalid user `me`", "1000:0"),
            ("image: {labels: {'': 1}}\n", ":1:18: a name is missing here", ""),
            ("image:\n  workdir: app\n", ":2:12: invalid working directory `app`", "`/app`"),
            (
                "dependencies: [a]\nvariables: {A-B: 1}\n",
                ":2:13: invalid environment variable `A-B`",
                "--env A-B=VALUE",
            ),
            ("image: {env: {A B: 1}}\n", ":1:15: invalid environment variable `A B`", ""),
            ("activation: never\n", ":1:13: `never` is neither `on` nor `off`", ""),
            ("image: [a]\n", ":1:8: image: invalid type: sequence, expected `image:` with keys", ""),
            ("platforms: linux/amd64\n", ":1:12: platforms: invalid type: string \"linux/amd64\", expected a list", ""),
            ("platforms: [linux/amd64, windows/amd64]\n", ":1:26: `windows/amd64` is no platform", "linux/arm64"),
            (
                "channel-priority: loose\n",
                ":1:19: `loose` is not a channel priority",
                "`strict`, `flexible`, `disabled`",
            ),
            ("exclude-newer: soon\n", ":1:16: `soon` is no date", "2026-01-31"),
            ("compression: gzip:12\n", ":1:14: `gzip:12`: the level of gzip goes from 1 to 9", "zstd"),
            ("prefix: opt\n", ":1:9: `opt` is not absolute", "/opt/conda"),
            ("max-layers: 1\n", ":1:13: `1` is not a whole number from 2 to 64", ""),
            ("bytecode: maybe\n", ":1:11: `maybe` is neither `on` nor `off`", ""),
            ("target: {glibc: a b}\n", ":1:17: `a b` is no version", ""),
            ("target: {virtual-packages: {cuda: 1}}\n", ":1:29: `cuda` is no virtual package", "two underscores"),
            ("image: {entrypoint: 'a \"b'}\n", ":1:21: `a \"b` has an open quote", "a list of words"),
            ("image: {cmd: {a: b}}\n", ":1:14: image.cmd: invalid type: map, expected a command", ""),
            ("project: [{from: a}]\n", ":1:11: an entry of `project:` needs `from:` and `to:`, or `install:`", ""),
            ("project: [{from: a, install: b}]\n", ":1:21: `install:` cannot stand beside `from:`", ""),
            ("dependencies: [a]\nenvironment: b\n", ":2:1: `environment:` cannot stand beside `dependencies:`", ""),
            ("environment: b\nchannels: [a]\n", ":2:1: `channels:` cannot stand beside `environment:`", ""),
            ("environment: none.yml\n", ":1:14: the environment `none.yml` cannot be used", "is the path right?"),
            ("environment: broken.yml\n", ":1:14: the environment `broken.yml` cannot be used", ""),
            ("environment: condaimg.yaml\n", ":1:14: `condaimg.yaml` is a condaimg.yaml", ""),
            ("dependencies: ['a==b==c']\n", ":1:16: `a==b==c` is no package", ""),
            ("base: a\n", "condaimg.yaml: there are no packages", "environment: environment.yml"),
            ("image:\n\tuser: 1\n", "condaimg.yaml:2:1:", "tabs"),
            ("image: *nothing\n", ":1:8: unknown anchor", ""),
            ("base: {}\n<<: {}\n", ":1:7: base: invalid type: map", ""),
            ("<<: {}\n", ":1:1: merge keys", ""),
        ] {
            let error = read_text(text).expect_err(text);
            let message = error.to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
            let hints = error.hints().join("\n").to_lowercase();
            assert!(hints.contains(&hint.to_lowercase()), "{text:?}: {message}\n{hints}");
        }
    }

    #[test]
    fn aliases_cannot_explode_and_secrets_are_not_shown() {
        let long = "x".repeat(1_900);
        let text = format!("exclude:\n- &a {long}\n{}", "- *a\n".repeat(20_000));
        let message = read_text(&text).expect_err("refused").to_string();
        assert!(message.contains("beyond all measure"), "{message}");
        let message = read_text("channels: https://me:hush@host.example/x\n").expect_err("refused").to_string();
        assert!(message.contains(":1:11: ") && !message.contains("hush"), "{message}");
    }

    #[test]
    fn later_errors_have_the_place_too() {
        let text = "dependencies: [lib]\nbase: a\nimage:\n  tags: [one, two]\n";
        let settings = read_text(text).expect("reads").settings;
        for (path, place) in [("base", "condaimg.yaml:2:7: wrong"), ("image.tags.1", "condaimg.yaml:4:15: wrong")] {
            let error = settings.at::<()>(path, Err(Error::usage("wrong").hint("way out"))).expect_err("an error");
            assert!(error.to_string().ends_with(place), "{error}");
            assert_eq!((error.kind(), error.hints()), (crate::util::ErrorKind::User, vec!["way out"]));
        }
    }
}
