//! `environment.yml`, as conda reads it: `name`, `channels`, `dependencies`, `variables`; `prefix` and unknown keys
//! are ignored with a notice. A condaimg.yaml holds the same, and more.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use rattler_conda_types::{MatchSpec, ParseStrictness, StringMatcher};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::forms::{Entry, Form, Pairs, Reading, Table, Text, take};
use super::seeds::{List, Optional, next_key};
use super::yaml::Context;
use super::{Dependency, Spec, folder, pip};
use crate::util::{Error, Result, redact};

/// More ignored keys than this are only counted.
const MOST_NOTICES: usize = 20;

/// Sections of pip among the dependencies; with more of them, lines are not told.
const MOST_SECTIONS: usize = 16;

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

pub(super) const VARIABLES: Entry = Entry {
    key: "variables",
    about: "Environment variables of the environment.",
    flag: None,
    form: Form::Pairs(Pairs {
        what: "the variable",
        name: variable_name,
        value: &Form::Text(Text { may_be_empty: true, ..Text::any("a value") }),
    }),
};

static ENVIRONMENT: Table = Table {
    name: "environment files",
    keys: &[NAME, CHANNELS, DEPENDENCIES, VARIABLES],
    others_are_ignored: true,
    groups: &[],
};

/// execve(2) cannot carry others.
pub(super) fn variable_name(text: &str) -> Result<()> {
    match text.is_empty() || text.contains(['=', '\0']) {
        true => Err(Error::user(format!("`{text}` cannot be the name of an environment variable"))),
        false => Ok(()),
    }
}

/// Reads the text of `file`.
pub(super) fn parse(file: PathBuf, source: String) -> Result<Spec> {
    let mut document = read(&file, &source, &ENVIRONMENT)?;
    let mut notices = Vec::new();
    notices.extend(document.ignored.iter().take(MOST_NOTICES).map(|key| ignored_key(&file, key)));
    if let Some(more) = document.ignored.len().checked_sub(MOST_NOTICES + 1) {
        notices.push(format!("{}: {} more keys are ignored", file.display(), more + 1));
    }
    document.spec(file, source, notices)
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

/// The line of a dependency. Sections of pip, which are items of the list too, do not count.
pub(super) fn line_of(source: &str, dependency: usize) -> Option<usize> {
    let items = 0..=dependency + MOST_SECTIONS;
    let mut packages = items.filter_map(|item| place_of(source, &format!("dependencies.{item}"), &ENVIRONMENT));
    packages.nth(dependency).map(|(line, _)| line)
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
    let mut rest = source.lines().enumerate().skip_while(|(_, line)| !line.contains("pip:"));
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
}

impl Document {
    /// The environment that stands in the document.
    pub(super) fn spec(&mut self, file: PathBuf, source: String, mut notices: Vec<String>) -> Result<Spec> {
        let dependencies = self.dependencies.take().unwrap_or_default();
        let pip = pip::read_section(folder(&file), with_places(&file, &source, std::mem::take(&mut self.pip)))?;
        notices.extend(pip.notices.iter().cloned());
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

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let Self { context, table } = self;
        let mut document = Document::default();
        let mut seen = BTreeSet::new();
        while let Some(key) = next_key(&mut map, context, &mut seen, |key, seen| table.allow(key, seen))? {
            match table.find(&key) {
                Some(Entry { form: Form::Packages, .. }) => {
                    let items = List { of: |index| Item { context, index } };
                    let mut dependencies = Vec::new();
                    for item in map.next_value_seed(Optional(items))?.unwrap_or_default() {
                        match item {
                            Said::Package(dependency) => dependencies.push(*dependency),
                            Said::Pip(lines) => document.pip.extend(lines),
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
        let context = self.context;
        context.spend(text)?;
        context.arrive(&format!("dependencies.{}", self.index))?;
        let dependency = dependency(text).map_err(|reason| {
            let shown: String = redact::within(text).chars().take(100).collect();
            context.fail(format!("`{shown}` is no package specification: {reason}"), Some(EXAMPLES))
        })?;
        Ok(Said::Package(Box::new(dependency)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        static LINE: Form = Form::Text(Text::any("a pip package"));
        let context = self.context;
        let mut lines = Vec::new();
        while let Some(key) = next_key(&mut map, context, &mut BTreeSet::new(), |_, _| Ok(()))? {
            if key != "pip" {
                return Err(context.fail(
                    format!("`{key}:` is neither a package nor a section that condaimg knows"),
                    Some("a version is written `name=1.2` or `name>=1.2`, without a colon"),
                ));
            }
            let path = format!("dependencies.{}.pip", self.index);
            let section = List { of: |line| Reading { context, form: &LINE, path: format!("{path}.{line}") } };
            let section = map.next_value_seed(Optional(section))?.unwrap_or_default();
            lines.extend(section.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        Ok(Said::Pip(lines))
    }
}

const EXAMPLES: &str = "write for example `numpy`, `numpy=1.21`, `numpy>=1.21,<2`, `conda-forge::numpy=1.21=py39*`";

/// A line of `dependencies:`, or what is wrong with it.
pub(super) fn dependency(text: &str) -> Result<Dependency, String> {
    let spec = package(text).map_err(|reason| redact::within(&reason))?;
    Ok(Dependency { text: redact::within(text), written: text.to_owned(), spec })
}

/// Reads a package as conda does in environment files.
fn package(text: &str) -> Result<MatchSpec, String> {
    // No real specification is longer; the parser's time grows faster than the text.
    if text.len() > 2_000 {
        return Err("it is too long".to_owned());
    }
    let spec = MatchSpec::from_str(text, ParseStrictness::Lenient).map_err(|error| error.to_string())?;
    if spec.name.as_exact().is_none() {
        return Err("the name must be exact".to_owned());
    }
    // Read leniently, `a==1==2` asks for the build `=2`, which nothing can have.
    if let Some(StringMatcher::Exact(build)) = &spec.build
        && build.contains(['=', '<', '>', ' '])
    {
        return Err(format!("`{build}` is no build string"));
    }
    if spec.url.is_some() {
        return Err("packages by URL are not supported yet".to_owned());
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Spec> {
        parse(PathBuf::from("environment.yml"), text.to_owned())
    }

    fn message(text: &str) -> String {
        read(text).expect_err("refused").to_string()
    }

    fn matches(spec: &str, version: &str, build: &str) -> bool {
        use rattler_conda_types::{Matches as _, PackageName, PackageRecord};
        let record = PackageRecord::new(
            PackageName::new_unchecked("numpy"),
            version.parse::<rattler_conda_types::Version>().expect("a version"),
            build.parse::<rattler_conda_types::package::BuildString>().expect("a build"),
        );
        package(spec).expect("parses").matches(&record)
    }

    #[test]
    fn a_full_file_is_read() {
        let spec = read(concat!(
            "name: analysis\n",
            "channels:\n  - conda-forge\n  - nodefaults\n",
            "dependencies:\n  - python=3.11  # [linux]\n  - pip\n  - pip:\n    - a>=1\n    - ./b\n  - pytorch::pytorch=1.12.0\n",
            "variables:\n  A: 1.10\n  B: yes\n  C: \"quoted\"\n  D:\n",
            "prefix: /home/me/env\n",
            "colour: blue\n",
        ))
        .expect("reads");
        assert_eq!(spec.name.as_deref(), Some("analysis"));
        assert_eq!(spec.channels, ["conda-forge", "nodefaults"]);
        let texts: Vec<_> = spec.dependencies.iter().map(|dependency| dependency.text.as_str()).collect();
        assert_eq!(texts, ["python=3.11", "pip", "pytorch::pytorch=1.12.0"]);
        assert_eq!(spec.place_of(0), "environment.yml:6");
        assert_eq!(spec.place_of(2), "environment.yml:11", "behind a section of pip");
        let pip: Vec<_> = spec.pip.requirements.iter().map(|it| (it.place.as_str(), it.text.as_str())).collect();
        assert_eq!(pip, [("environment.yml:9", "a>=1"), ("environment.yml:10", "./b")]);
        let variables: Vec<_> = spec.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(variables, [("A", "1.10"), ("B", "yes"), ("C", "quoted"), ("D", "")]);
        assert_eq!(spec.notices.len(), 2);
        assert!(spec.notices[0].contains("`prefix:` is ignored"));
        assert!(spec.notices[1].contains("`colour:`"));
    }

    #[test]
    fn packages_mean_what_conda_means() {
        for (spec, version, build, expected) in [
            ("numpy=1.21", "1.21.6", "0", true),
            ("numpy=1.2", "1.21.6", "0", false),
            ("numpy=1.21.6", "1.21.6", "0", true),
            ("numpy=1.21.6", "1.21.6.1", "0", true),
            ("numpy==1.21", "1.21.6", "0", false),
            ("numpy 1.21", "1.21.6", "0", false),
            ("numpy 1.21.*", "1.21.6", "0", true),
            ("numpy=1.21.*", "1.21.6", "0", true),
            ("numpy=1.21.*", "1.22.0", "0", false),
            ("numpy>=1.21,<1.22", "1.21.6", "0", true),
            ("numpy >=1.21, <1.22", "1.21.6", "0", true),
            ("numpy >= 1.21, < 1.22", "1.22", "0", false),
            ("numpy>=1.21,<1.22", "1.22", "0", false),
            ("numpy=1.21.0=py39h6214cd0_0", "1.21.0", "py39h6214cd0_0", true),
            ("numpy=1.21.0=py39h6214cd0_0", "1.21.0", "py310h6214cd0_0", false),
            ("numpy=1.21.0=py39h6214cd0_0", "1.21.0.1", "py39h6214cd0_0", false),
            ("numpy=1.21.0=py39*", "1.21.0", "py39h6214cd0_0", true),
            ("numpy[version='>=1',build='py39*']", "1.21.0", "py39h6214cd0_0", true),
            ("numpy[version='>=2']", "1.21.0", "0", false),
            ("numpy~=1.21", "1.22", "0", true),
            ("numpy!=1.21.0", "1.21.0", "0", false),
            ("numpy=1.20|=1.21", "1.21", "0", true),
            ("conda-forge::numpy", "1.21.0", "0", true),
            ("conda-forge/linux-64::numpy", "1.21.0", "0", true),
            ("NumPy", "1.21.0", "0", true),
        ] {
            assert_eq!(matches(spec, version, build), expected, "{spec} against {version} {build}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, expected) in [
            ("dependencies:\n  - python\n - numpy\n", "environment.yml:3:2: "),
            ("dependencies:\n  - python\n  - [a]\n", "environment.yml:3:5: dependencies[1]: invalid type: sequence"),
            ("dependencies:\n  - 3.11\n", "environment.yml:2:5: dependencies[0]: invalid type: floating point"),
            ("dependencies:\n  -\n", "environment.yml:2:4: dependencies[0]: invalid type: unit value"),
            (
                "dependencies: python\n",
                "environment.yml:1:15: dependencies: invalid type: string \"python\", expected a list",
            ),
            ("dependencies:\n  - numpy==1.2==3\n", "environment.yml:2:5: `numpy==1.2==3` is no package specification"),
            ("dependencies:\n  - num*\n", "is no package specification"),
            ("dependencies:\n  - https://host/linux-64/a-1-0.conda\n", "by URL are not supported"),
            ("dependencies:\n  - python: 3.11\n", "environment.yml:2:5: `python:` is neither"),
            (
                "dependencies:\n  - pip\n  - pip:\n    - requests\n    - requests==\n",
                "environment.yml:5: `requests==` is no requirement",
            ),
            ("dependencies:\n  - pip:\n    - [a]\n", "environment.yml:3:7: dependencies[0].pip[0]: invalid type"),
            ("dependencies:\n  - pip:\n    -\n", "environment.yml:3:6: "),
            ("name: a\nname: b\n", "environment.yml:2:1: `name:` stands here a second time"),
            ("variables:\n  A: 1\n  A: 2\n", "environment.yml:3:3: the variable `A` is set a second time"),
            ("variables:\n  A: [1]\n", "environment.yml:2:6: variables.A: invalid type: sequence"),
            ("channels:\n  - \n", "environment.yml:2:4: a channel is missing here"),
            ("a: 1\n---\nb: 1\n", "more than one YAML document"),
            ("- python\n", "expected an environment"),
            ("python\n", "expected an environment"),
            ("dependencies: *nothing\n", "environment.yml:1:15: unknown anchor"),
            ("dependencies: [\n", "environment.yml:2:1: "),
        ] {
            let message = message(text);
            assert!(message.contains(expected), "{text:?}: {message}");
        }
    }

    #[test]
    fn tabs_get_a_hint() {
        let error = read("dependencies:\n\t- python\n").expect_err("refused");
        assert!(error.hints().iter().any(|hint| hint.contains("tabs")), "{error} {:?}", error.hints());
    }

    #[test]
    fn aliases_cannot_explode() {
        let mut text = String::from("dependencies:\n- &a [x,x,x,x,x,x,x,x,x]\n");
        text = text.replace("dependencies:", "other:");
        for (name, of) in ('b'..='z').zip('a'..='y') {
            text.push_str(&format!("- &{name} [*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of}]\n"));
        }
        assert!(read(&text).is_ok(), "ignored keys are not expanded");

        let long = "x".repeat(1_900);
        let text = format!("dependencies:\n- &a {long}\n{}", "- *a\n".repeat(20_000));
        assert!(message(&text).contains("beyond all measure"));
    }
}
