//! Every key of a condaimg.yaml: what it says, what it may be, which flag overrides it. The reader and the JSON schema
//! go by it.

use super::environment::{CHANNELS, DEPENDENCIES, NAME, VARIABLE, VARIABLES};
use super::forms::{Entry, Form, Pairs, Table, Text};
use super::pip::INDEX_STRATEGIES;
use super::requirements_file::is_version;
use crate::model::{self, BaseRef, Compression, Cutoff, MAX_LAYERS, MIN_LAYERS, Platform, User};
use crate::util::{Error, Result};

const fn entry(key: &'static str, flag: &'static str, about: &'static str, form: Form) -> Entry {
    Entry { key, about, flag: Some(flag), form }
}

const fn unflagged(key: &'static str, about: &'static str, form: Form) -> Entry {
    Entry { key, about, flag: None, form }
}

const fn text(what: &'static str) -> Form {
    Form::Text(Text::any(what))
}

const fn checked(what: &'static str, check: fn(&str) -> Result<()>) -> Form {
    Form::Text(Text::checked(what, check))
}

static ANY_VALUE: Form = Form::Text(Text { may_be_empty: true, ..Text::any("a value") });
static VIRTUAL_PACKAGE: Form = Form::Text(Text {
    may_be_empty: true,
    ..Text::checked("a version", |text| version(text.split_once('=').map_or(text, |(version, _)| version)))
});

/// Everything that a condaimg.yaml may hold.
pub(super) static PROJECT_FILE: Table = Table {
    name: "condaimg.yaml",
    keys: &[
        unflagged(
            "environment",
            "The file that holds the environment, relative to this one: an environment.yml, a requirements.txt, or a lock. Instead of `dependencies:` here.",
            text("the path of an environment file"),
        ),
        entry(
            "python",
            "--python",
            "The version of Python for a requirements.txt as the environment, 3.11 or 3.11.4.",
            checked("a version of Python", python_version),
        ),
        NAME,
        CHANNELS,
        DEPENDENCIES,
        VARIABLES,
        entry(
            "base",
            "--base",
            "What the image stands on: an image reference, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, rootfs:TAR_OR_DIR or scratch. Paths are relative to this file.",
            checked("a base image", |text| text.parse::<BaseRef>().map(drop)),
        ),
        entry(
            "from",
            "--from",
            "An organisation's base image to extend: only what is new becomes new layers.",
            text("an image reference"),
        ),
        entry(
            "platforms",
            "--platform (replaces them)",
            "The image's platforms; several make an image index.",
            Form::List(&PLATFORM),
        ),
        unflagged("target", "What the image will run on.", Form::Table(&TARGET)),
        entry(
            "channel-priority",
            "--channel-priority",
            "Whether earlier channels hide later ones.",
            Form::Text(Text { one_of: &["strict", "flexible", "disabled"], ..Text::any("a channel priority") }),
        ),
        entry(
            "exclude-newer",
            "--exclude-newer",
            "Leave out packages that appeared after this date (2026-01-31, or with a time as RFC 3339 has it).",
            checked("a date", |text| text.parse::<Cutoff>().map(drop)),
        ),
        entry(
            "index-strategy",
            "--index-strategy",
            "Of which indexes pip packages are taken, where several have them.",
            Form::Text(Text { one_of: &INDEX_STRATEGIES, ..Text::any("an index strategy") }),
        ),
        entry("allow-build", "--allow-build", "Whether sdists and git sources may be built.", Form::Switch),
        entry(
            "build",
            "--no-build",
            "Whether wheels may be built at all: `never` forbids it, also where the lock says that they are.",
            Form::Text(Text { one_of: &["never"], ..Text::any("when to build wheels") }),
        ),
        entry(
            "allow-clobber",
            "--allow-clobber (adds to them)",
            "Globs of paths in the environment that pip packages may take from conda packages.",
            Form::List(&CLOBBER),
        ),
        entry(
            "layers",
            "--layers",
            "The layer policy: a name, or a file relative to this one.",
            text("a layer policy"),
        ),
        entry(
            "max-layers",
            "--max-layers",
            "The most layers to add to the base.",
            Form::Number(MIN_LAYERS..=MAX_LAYERS),
        ),
        entry(
            "compression",
            "--compression",
            "gzip[:1-9] or zstd[:1-19].",
            checked("a compression", |text| text.parse::<Compression>().map(drop)),
        ),
        entry(
            "cache-registry",
            "--cache-registry",
            "A repository that layers are looked up in, and noted in, by what their bytes depend on.",
            text("a repository in a registry"),
        ),
        entry(
            "activation",
            "--no-activation",
            "Whether the entrypoint sources the activation scripts that need a shell, before it runs the command.",
            Form::Switch,
        ),
        entry("bytecode", "--bytecode", "Whether byte code is made for what ships none.", Form::Switch),
        entry("prefix", "--prefix", "Where the environment lies in the image.", checked("an absolute folder", prefix)),
        entry(
            "group-write",
            "--group-write",
            "Whether the group gets the owner's permissions, for arbitrary users in group 0.",
            Form::Switch,
        ),
        entry(
            "keep-setuid",
            "--keep-setuid",
            "Whether files of packages keep their setuid and setgid bits.",
            Form::Switch,
        ),
        entry("project", "--copy (adds to them)", "The project's own files.", Form::List(&Form::Table(&PROJECT_ENTRY))),
        entry(
            "exclude",
            "--exclude (adds to them)",
            "Globs of project files that are left out.",
            Form::List(&Form::Text(Text::any("a glob"))),
        ),
        unflagged("image", "The image's config, and what it is called.", Form::Table(&IMAGE)),
    ],
    others: None,
    groups: &[&["environment", "python"], &["dependencies", "channels", "variables"]],
};

static PLATFORM: Form = checked("a platform", |text| text.parse::<Platform>().map(drop));

static CLOBBER: Form = checked("a glob", |text| {
    glob::Pattern::new(text).map(drop).map_err(|error| {
        Error::user(format!("`{text}` is no pattern")).caused_by(error).hint("as in `bin/tool`, `lib/*/foo/*`")
    })
});

static TARGET: Table = Table {
    name: "`target:`",
    keys: &[
        entry("cuda", "--cuda", "CUDA version of the driver.", checked("a version", version)),
        entry("glibc", "--glibc", "glibc version; the base's by default.", checked("a version", version)),
        entry(
            "virtual-packages",
            "--virtual-package (by name)",
            "Other virtual packages, `__NAME: VERSION`; an empty version takes one away.",
            Form::Pairs(Pairs { what: "the virtual package", name: virtual_package, value: &VIRTUAL_PACKAGE }),
        ),
    ],
    others: None,
    groups: &[],
};

static PROJECT_ENTRY: Table = Table {
    name: "an entry of `project:`",
    keys: &[
        unflagged("from", "A file or folder, relative to this file.", text("a path")),
        unflagged("to", "Where it lies in the image.", text("a path in the image")),
        unflagged("install", "The folder of a Python project that is built and installed.", text("a path")),
    ],
    others: None,
    groups: &[&["from", "to"], &["install"]],
};

static IMAGE: Table = Table {
    name: "`image:`",
    keys: &[
        entry(
            "tags",
            "--tag (replaces them)",
            "Image references; `--push` pushes all of them.",
            Form::List(&Form::Text(Text::any("an image reference"))),
        ),
        entry(
            "user",
            "--user",
            "User of the image's processes, UID[:GID].",
            checked("a numeric user", |text| text.parse::<User>().map(drop)),
        ),
        entry(
            "keep-home-mode",
            "--keep-home-mode",
            "Whether the home of the base's user keeps its mode, so that other users have none.",
            Form::Switch,
        ),
        entry(
            "workdir",
            "--workdir",
            "Working directory of the image's processes.",
            checked("an absolute path", |text| model::workdir(text).map(drop)),
        ),
        entry("entrypoint", "--entrypoint", "Entrypoint.", Form::Command),
        entry("cmd", "--cmd", "Default command.", Form::Command),
        entry(
            "env",
            "--env (by name)",
            "Environment variables.",
            Form::Pairs(Pairs { what: "the variable", name: any_variable_name, value: &VARIABLE }),
        ),
        entry(
            "labels",
            "--label (by name)",
            "Labels of the image config.",
            Form::Pairs(Pairs { what: "the label", name: any_name, value: &ANY_VALUE }),
        ),
        entry(
            "annotations",
            "--annotation (by name)",
            "Annotations of the manifest.",
            Form::Pairs(Pairs { what: "the annotation", name: any_name, value: &ANY_VALUE }),
        ),
    ],
    others: None,
    groups: &[],
};

fn version(text: &str) -> Result<()> {
    match text.parse::<rattler_conda_types::Version>() {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::user(format!("`{text}` is no version: {error}"))),
    }
}

fn python_version(text: &str) -> Result<()> {
    match is_version(text) {
        true => Ok(()),
        false => Err(Error::user(format!("`{text}` is no version of Python")).hint("write it as `3.11`")),
    }
}

fn prefix(text: &str) -> Result<()> {
    model::prefix(text).map(drop).map_err(|why| {
        Error::user(format!("`{text}` {why}")).hint(format!("an absolute path, as in `{}`", model::DEFAULT_PREFIX))
    })
}

fn virtual_package(name: &str) -> Result<()> {
    match name.strip_prefix("__") {
        Some(rest) if !rest.is_empty() => Ok(()),
        _ => Err(Error::user(format!("`{name}` is no virtual package"))
            .hint("their names begin with two underscores, as in `__cuda: \"12.4\"`")),
    }
}

fn any_variable_name(name: &str) -> Result<()> {
    match model::is_variable_name(name) {
        true => Ok(()),
        false => Err(Error::user(format!(
            "invalid environment variable `{name}`: expected a name without `=`, white space and control characters"
        ))),
    }
}

fn any_name(name: &str) -> Result<()> {
    match name.is_empty() {
        true => Err(Error::user("a name is missing here")),
        false => Ok(()),
    }
}
