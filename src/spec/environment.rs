//! `environment.yml`, as conda reads it: `name`, `channels`, `dependencies`, `variables`; `prefix` and unknown keys
//! are ignored with a notice. A condaimg.yaml holds the same, and more.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::forms::{Entry, Form, Pairs, Reading, Table, Text, take};
use super::seeds::{List, Optional, Present, next_key};
use super::yaml::Context;
use super::{Choices, Dependency, Spec, folder, foreign_yaml, package, pip, selectors};
use crate::model;
use crate::util::{Error, Limit, Result, near, redact};

/// What a file without keys should hold.
const TOP: &str = "`dependencies:` with a list of packages";
/// More ignored keys than this are only counted.
const MOST_NOTICES: usize = 20;

pub(super) const NAME: Entry =
    Entry { key: "name", about: "A name for the environment.", flag: None, form: Form::Text(Text::any("a name")) };

pub(super) const CHANNELS: Entry = Entry {
    key: "channels",
    about: "The channels that are searched, the most important first: names, URLs, or folders relative to the file.",
    flag: Some("--channel (before them), --override-channels"),
    form: Form::List(&Form::Text(Text::any("a channel"))),
};

pub(super) const DEPENDENCIES: Entry =
    Entry { key: "dependencies", about: "The packages, as in an environment.yml.", flag: None, form: Form::Packages };

/// The value of an environment variable.
pub(super) static VARIABLE: Form =
    Form::Text(Text { may_be_empty: true, ..Text::checked("a value", a_program_can_start_with) });

/// The shortest name has one letter.
fn a_program_can_start_with(value: &str) -> Result<()> {
    match model::variable_fits("x", value) {
        true => Ok(()),
        false => Err(Error::user(format!(
            "invalid value of {} bytes: Linux starts no program with a variable of more than {}",
            value.len(),
            model::longest_value("x")
        ))
        .hint("put the value into a file of the image, and its path into the variable")),
    }
}

pub(super) const VARIABLES: Entry = Entry {
    key: "variables",
    about: "Environment variables of the environment.",
    flag: None,
    form: Form::Pairs(Pairs { what: "the variable", name: variable_name, value: &VARIABLE }),
};

static ENVIRONMENT: Table = Table {
    name: "environment files",
    keys: &[NAME, CHANNELS, DEPENDENCIES, VARIABLES],
    others: Some(refuse_misspelt),
    groups: &[],
};

/// What people and other tools call the list of packages.
const CALLED_DEPENDENCIES: [&str; 9] =
    ["dependency", "deps", "depends", "packages", "package", "requirements", "requires", "specs", "conda"];

/// What people and other tools call a list of packages for pip.
const CALLED_PIP: [&str; 8] = [
    "pip-dependencies",
    "pip-packages",
    "pip-requirements",
    "pip-deps",
    "pypi",
    "pypi-dependencies",
    "pypi-packages",
    "pypi-requirements",
];

/// Keys that are ignored, but for those that somebody wrote for one that is known.
///
/// # Errors
/// When ignoring a key would leave out what was asked for.
fn refuse_misspelt(key: &str) -> Result<()> {
    if key == "pip" {
        return Err(super::forms::misplaced_pip());
    }
    let plain = key.to_lowercase().replace('_', "-");
    if CALLED_PIP.contains(&plain.as_str()) {
        let shown: String = key.chars().take(100).collect();
        return Err(Error::user(format!("`{shown}:` is no key of environment files: it installs nothing"))
            .hint("put its list among the dependencies: an item `- pip:` of `dependencies:`"));
    }
    // A name that is misspelt changes nothing.
    let known = [&CHANNELS, &DEPENDENCIES, &VARIABLES].map(|entry| entry.key);
    match near::names(&key.to_lowercase(), known.into_iter()).first() {
        Some(near) => {
            let shown: String = key.chars().take(100).collect();
            Err(Error::user(format!("`{shown}:` is no key of environment files"))
                .hint(format!("did you mean `{near}:`?")))
        }
        None => Ok(()),
    }
}

/// conda exports them in a shell, which takes no others.
pub(super) fn variable_name(text: &str) -> Result<()> {
    match model::is_shell_name(text) {
        true => Ok(()),
        false => {
            let error = Error::user(format!(
                "invalid environment variable `{text}`: expected letters, digits and `_`, not beginning with a digit"
            ));
            Err(match model::is_variable_name(text) {
                true => error.hint(format!("conda cannot export it; `--env {text}=VALUE` sets it in the image")),
                false => error,
            })
        }
    }
}

/// Reads the text of `file`.
pub(super) fn parse(file: PathBuf, source: String, choices: &Choices) -> Result<Spec> {
    let mut document = read(&file, &source, &ENVIRONMENT)?;
    if document.dependencies.is_none() {
        return Err(without_dependencies(&file, &source, &document));
    }
    let mut notices = Vec::new();
    notices.extend(document.ignored.iter().take(MOST_NOTICES).map(|key| ignored_key(&file, key)));
    if let Some(more) = document.ignored.len().checked_sub(MOST_NOTICES + 1) {
        notices.push(format!(
            "{}: {} ignored",
            file.display(),
            match more + 1 {
                1 => "1 more key is".to_owned(),
                more => format!("{more} more keys are"),
            }
        ));
    }
    document.spec(file, source, choices, notices)
}

/// A file that says of no package that it is wanted: an image without any is never what was meant.
fn without_dependencies(file: &Path, source: &str, document: &Document) -> Error {
    let shown = file.display();
    let known = document.values.keys().chain(&document.ignored).cloned().collect::<Vec<_>>();
    if let Some(foreign) = foreign_yaml::whose(&known) {
        return Error::user(format!("`{shown}` is {}, which lists no packages for an environment", foreign.what))
            .hint(foreign.hint);
    }
    let called = document.ignored.iter().find(|key| CALLED_DEPENDENCIES.contains(&key.to_lowercase().as_str()));
    let line = called.and_then(|key| {
        let is_key = |line: &str| {
            line.trim_start_matches('"')
                .strip_prefix(key.as_str())
                .is_some_and(|it| it.trim_start_matches('"').starts_with(':'))
        };
        source.lines().position(is_key)
    });
    let place = line.map(|index| format!("{shown}:{}", index + 1)).unwrap_or(shown.to_string());
    let error = Error::user(format!("{place}: there is no `dependencies:`"));
    let error = match called {
        Some(key) => error.hint(format!("did you mean `dependencies:` by `{key}:`?")),
        None => error,
    };
    error.hint("add `dependencies:` with a list of packages; `dependencies: []` makes an empty environment on purpose")
}

/// Reads a document that may hold the keys of a table.
pub(super) fn read(file: &Path, source: &str, table: &'static Table) -> Result<Document> {
    let context = Context::new();
    let reader = Reader { context: &context, table };
    reader
        .deserialize(serde_yaml::Deserializer::from_str(source))
        .map_err(|error| context.explain(file, source, &error))
}

fn ignored_key(file: &Path, key: &str) -> String {
    let file = file.display();
    match key {
        "prefix" => format!("{file}: `prefix:` is ignored; `--prefix` says where the environment lies in the image"),
        "platforms" => format!("{file}: `platforms:` is ignored; say `--platform`"),
        _ => format!("{file}: `{key}:` is no key of environment files and is ignored"),
    }
}

/// The line of a dependency.
pub(super) fn line_of(source: &str, dependency: usize) -> Option<usize> {
    Some(place_of(source, &package_path(dependency), &ENVIRONMENT)?.0)
}

/// How places of packages are called: by their number among the packages, whatever `pip:` sections are between them.
fn package_path(number: usize) -> String {
    format!("package {number}")
}

/// Line and column, from 1, of a value (`image.tags.0`). The parser tells places only in errors, so the reader is
/// made to fail there.
pub(super) fn place_of(source: &str, path: &str, table: &'static Table) -> Option<(usize, usize)> {
    let context = Context::stopping_at(path);
    let reader = Reader { context: &context, table };
    let error = reader.deserialize(serde_yaml::Deserializer::from_str(source)).err()?;
    error.location().map(|place| (place.line(), place.column()))
}

/// The lines of `pip:` sections, each with `FILE:LINE`: they are looked for in the order of the file.
fn with_places(file: &Path, source: &str, lines: Vec<String>) -> Vec<(String, String)> {
    // JSON has a quote there.
    let mut rest = source.lines().enumerate().skip_while(|(_, line)| !line.replace('"', "").contains("pip:"));
    let place = |text: &str| {
        let first = text.lines().next().unwrap_or_default().trim();
        match rest.clone().find(|(_, line)| line.contains(first)) {
            Some((index, _)) => {
                rest.by_ref().find(|(at, _)| *at == index);
                format!("{}:{}", file.display(), index + 1)
            }
            None => file.display().to_string(),
        }
    };
    lines.iter().map(|text| text.as_str()).map(place).zip(lines.iter().cloned()).collect()
}

/// What a document holds.
#[derive(Default)]
pub(super) struct Document {
    /// Nothing when the key is not there.
    pub(super) dependencies: Option<Vec<Dependency>>,
    /// The lines of all `pip:` sections.
    pip: Vec<String>,
    /// What the other keys say, in their forms.
    pub(super) values: Map<String, Value>,
    ignored: Vec<String>,
    /// Packages that selectors (`sel(win):`) leave out.
    left_out: Vec<String>,
}

impl Document {
    /// The environment that stands in the document.
    pub(super) fn spec(
        &mut self,
        file: PathBuf,
        source: String,
        choices: &Choices,
        mut notices: Vec<String>,
    ) -> Result<Spec> {
        let dependencies = self.dependencies.take().unwrap_or_default();
        let lines = with_places(&file, &source, std::mem::take(&mut self.pip));
        let pip = pip::read_section(folder(&file), lines, choices)?;
        notices.extend(pip.notices.iter().cloned());
        notices.extend(selectors::notice(&file, &source));
        if !self.left_out.is_empty() {
            let left_out = self.left_out.join("`, `");
            notices
                .push(format!("{}: images are for Linux, and their selectors leave out `{left_out}`", file.display()));
        }
        if dependencies.is_empty() && pip.is_empty() && !self.left_out.is_empty() {
            let left_out = self.left_out.join("`, `");
            return Err(Error::user(format!(
                "{}: no dependency is for Linux: their selectors leave out `{left_out}`",
                file.display()
            ))
            .hint("add packages for Linux, or write `dependencies: []` for an empty environment"));
        }
        if dependencies.is_empty() && pip.is_empty() {
            notices.push(format!("{}: no dependencies, the environment will be empty", file.display()));
        }
        Ok(Spec {
            file,
            name: take(&mut self.values, "name")?,
            channels: take(&mut self.values, "channels")?,
            dependencies,
            pip,
            variables: take(&mut self.values, "variables")?,
            notices,
            source,
            ..Spec::default()
        })
    }
}

/// Reads a whole document.
#[derive(Clone, Copy)]
struct Reader<'a> {
    context: &'a Context,
    table: &'static Table,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Document;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Document, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an environment: `dependencies:` with a list of packages")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Document, E> {
        Err(self.context.fail(format!("the file holds nothing but `null`: expected {TOP}"), None))
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Document, E> {
        Err(self.context.fail(format!("the file holds a text: expected {TOP}"), None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Document, A::Error> {
        let hint = Some("put the list below `dependencies:`");
        Err(self.context.fail(format!("the file holds a list: expected {TOP}"), hint))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let Self { context, table } = self;
        let mut document = Document::default();
        let mut seen = BTreeSet::new();
        while let Some(key) = next_key(&mut map, context, &mut seen, |key, seen| table.allow(key, seen))? {
            match table.find(&key) {
                Some(Entry { form: Form::Packages, .. }) => {
                    let items = List { of: |index| Item { context, index } };
                    let mut dependencies = Vec::new();
                    for item in map.next_value_seed(Present { context, key: "dependencies", list: items })? {
                        match item {
                            Said::Package(dependency) => dependencies.push(*dependency),
                            Said::Pip(lines) => document.pip.extend(lines),
                            Said::LeftOut(text) => document.left_out.push(text),
                        }
                    }
                    document.dependencies = Some(dependencies);
                }
                Some(Entry { form, .. }) => {
                    let value = map.next_value_seed(Optional(Reading { context, form, path: key.clone() }))?;
                    document.values.extend(value.map(|value| (key, value)));
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                    document.ignored.push(key);
                }
            }
        }
        Ok(document)
    }
}

/// What an item of `dependencies:` says.
enum Said {
    Package(Box<Dependency>),
    /// The lines of a `pip:` section.
    Pip(Vec<String>),
    /// What is for another system than Linux.
    LeftOut(String),
}

/// One item of `dependencies:`.
#[derive(Clone, Copy)]
struct Item<'a> {
    context: &'a Context,
    index: usize,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = Said;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = Said;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a package (`numpy`, `python=3.11`)")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        self.context.spend(text)?;
        self.package(text)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Err(self.context.fail("nothing stands behind this `-`", Some("name a package there, or remove the line")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let context = self.context;
        let mut said = None;
        while let Some(key) = next_key(&mut map, context, &mut BTreeSet::new(), |key, _| allow_section(key))? {
            if said.is_some() {
                let hint = Some("give each of them a `- ` of its own");
                return Err(context.fail(format!("`{key}:` stands in one item with another key"), hint));
            }
            said = Some(match selectors::is_for_linux(&key) {
                Some(is_ours) => self.selected(is_ours == Ok(true), &mut map)?,
                None => Said::Pip(self.pip_section(&mut map)?),
            });
        }
        said.ok_or_else(|| context.fail("this item is empty", Some("name a package there, or remove the line")))
    }
}

impl Item<'_> {
    fn package<E: de::Error>(&self, text: &str) -> Result<Said, E> {
        let context = self.context;
        let number = context.count();
        if number >= Limit::Dependencies.count() {
            return Err(context.refuse(&Limit::Dependencies.exceeded("the number of packages is larger than")));
        }
        context.arrive(&package_path(number))?;
        let dependency = package::dependency(text).map_err(|refused| {
            let shown: String = redact::within(text).chars().take(100).collect();
            context.fail(format!("`{shown}` is no package specification: {}", refused.reason), Some(&refused.hint))
        })?;
        Ok(Said::Package(Box::new(dependency)))
    }

    /// What stands behind a selector (`sel(linux): PACKAGE`), as micromamba has it.
    fn selected<'de, A: MapAccess<'de>>(&self, is_ours: bool, map: &mut A) -> Result<Said, A::Error> {
        static PACKAGE: Form = Form::Text(Text::any("a package"));
        let path = format!("dependencies.{}.sel", self.index);
        let text = map.next_value_seed(Reading { context: self.context, form: &PACKAGE, path })?;
        let text = text.as_str().unwrap_or_default();
        match is_ours {
            true => self.package(text),
            false => Ok(Said::LeftOut(redact::within(text))),
        }
    }

    fn pip_section<'de, A: MapAccess<'de>>(&self, map: &mut A) -> Result<Vec<String>, A::Error> {
        static LINE: Form = Form::Text(Text::any("a pip package"));
        let (context, path) = (self.context, format!("dependencies.{}.pip", self.index));
        let list = List { of: |line| Reading { context, form: &LINE, path: format!("{path}.{line}") } };
        let section = map.next_value_seed(Present { context, key: "pip", list })?;
        Ok(section.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

/// The keys that items of `dependencies:` may have.
fn allow_section(key: &str) -> Result<()> {
    match selectors::is_for_linux(key) {
        _ if key == "pip" => Ok(()),
        Some(Ok(_)) => Ok(()),
        Some(Err(unknown)) => {
            Err(Error::user(format!("`{key}:` selects by `{unknown}`, which condaimg does not know"))
                .hint("the selectors are `sel(linux)`, `sel(unix)`, `sel(osx)` and `sel(win)`"))
        }
        None => Err(Error::user(format!("`{key}:` is neither a package nor a section that condaimg knows"))
            .hint("a version is written `name=1.2` or `name>=1.2`, without a colon")),
    }
}

#[cfg(test)]
mod tests;
