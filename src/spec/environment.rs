//! `environment.yml`, as conda reads it: `name`, `channels`, `dependencies`, `variables`; `prefix` and unknown keys
//! are ignored with a notice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use rattler_conda_types::{MatchSpec, ParseStrictness, StringMatcher};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::yaml::Context;
use super::{Dependency, Spec, folder, pip};
use crate::util::{Result, redact};

/// More ignored keys than this are only counted.
const MOST_NOTICES: usize = 20;

/// Reads the text of `file`.
pub(super) fn parse(file: PathBuf, source: String) -> Result<Spec> {
    let context = Context::new();
    let reader = Reader { context: &context, stop_at: None };
    let document = reader
        .deserialize(serde_yaml::Deserializer::from_str(&source))
        .map_err(|error| context.explain(&file, &source, &error))?;
    let mut notices = Vec::new();
    notices.extend(document.ignored.iter().take(MOST_NOTICES).map(|key| ignored_key(&file, key)));
    if let Some(more) = document.ignored.len().checked_sub(MOST_NOTICES + 1) {
        notices.push(format!("{}: {} more keys are ignored", file.display(), more + 1));
    }
    let pip = pip::read_section(folder(&file), with_places(&file, &source, document.pip))?;
    notices.extend(pip.notices.iter().cloned());
    if document.dependencies.is_empty() {
        notices.push(format!("{}: no dependencies, the environment will be empty", file.display()));
    }
    Ok(Spec {
        file,
        name: document.name,
        channels: document.channels,
        dependencies: document.dependencies,
        pip,
        variables: document.variables,
        pins: None,
        notices,
        source,
    })
}

fn ignored_key(file: &std::path::Path, key: &str) -> String {
    let file = file.display();
    match key {
        "prefix" => format!("{file}: `prefix:` is ignored; `--prefix` says where the environment lies in the image"),
        "platforms" => format!("{file}: `platforms:` is ignored; say `--platform`"),
        _ => format!("{file}: `{key}:` is no key of environment files and is ignored"),
    }
}

/// The line of a dependency. The parser tells places only in errors, so it is asked to fail there.
pub(super) fn line_of(source: &str, dependency: usize) -> Option<usize> {
    let context = Context::new();
    let reader = Reader { context: &context, stop_at: Some(dependency) };
    let error = reader.deserialize(serde_yaml::Deserializer::from_str(source)).err()?;
    Some(error.location()?.line())
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

#[derive(Default)]
struct Document {
    name: Option<String>,
    channels: Vec<String>,
    dependencies: Vec<Dependency>,
    /// The lines of all `pip:` sections.
    pip: Vec<String>,
    variables: BTreeMap<String, String>,
    ignored: Vec<String>,
}

/// Reads a whole document.
#[derive(Clone, Copy)]
struct Reader<'a> {
    context: &'a Context,
    /// Fail at this dependency, to learn its place.
    stop_at: Option<usize>,
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
        let context = self.context;
        let mut document = Document::default();
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key_seed(Key { context, seen: &seen })? {
            match key.as_str() {
                "name" => document.name = map.next_value_seed(Optional(Text { context, what: "a name" }))?,
                "channels" => {
                    document.channels = map
                        .next_value_seed(Optional(List { of: |_| Text { context, what: "a channel" } }))?
                        .unwrap_or_default();
                }
                "dependencies" => {
                    let items = List { of: |index| Item { reader: self, index } };
                    for entry in map.next_value_seed(Optional(items))?.unwrap_or_default() {
                        match entry {
                            Entry::Package(dependency) => document.dependencies.push(*dependency),
                            Entry::Pip(lines) => document.pip.extend(lines),
                        }
                    }
                }
                "variables" => {
                    document.variables = map.next_value_seed(Optional(Variables { context }))?.unwrap_or_default();
                }
                "<<" => return Err(context.fail("merge keys (`<<:`) are not supported", None)),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    document.ignored.push(key.clone());
                }
            }
            seen.insert(key);
        }
        Ok(document)
    }
}

/// A key that must not have been there before.
struct Key<'a> {
    context: &'a Context,
    seen: &'a BTreeSet<String>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        self.context.spend(text)?;
        if self.seen.contains(text) {
            return Err(self.context.fail(format!("`{text}:` stands here a second time"), Some("keep one of them")));
        }
        Ok(text.to_owned())
    }
}

/// A value that may be left out (`channels:` with nothing behind it).
struct Optional<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

/// Any scalar as the text that the file has: `1.10` stays `1.10`, `yes` stays `yes`.
struct Text<'a> {
    context: &'a Context,
    what: &'static str,
}

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        self.context.spend(text)?;
        if text.is_empty() && self.what != "a value" {
            return Err(self.context.fail(format!("{} is missing here", self.what), None));
        }
        Ok(text.to_owned())
    }
}

/// A list whose items are read by what `of` makes for their index.
struct List<F> {
    of: F,
}

impl<'de, F: Fn(usize) -> S, S: DeserializeSeed<'de>> DeserializeSeed<'de> for List<F> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: Fn(usize) -> S, S: DeserializeSeed<'de>> Visitor<'de> for List<F> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list (lines that begin with `- `)")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed((self.of)(items.len()))? {
            items.push(item);
        }
        Ok(items)
    }
}

/// `variables:`.
struct Variables<'a> {
    context: &'a Context,
}

impl<'de> DeserializeSeed<'de> for Variables<'_> {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Variables<'_> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("environment variables (`NAME: value`)")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let context = self.context;
        let mut variables = BTreeMap::new();
        while let Some(name) = map.next_key_seed(VariableName { context, seen: &variables })? {
            let value = map.next_value_seed(Optional(Text { context, what: "a value" }))?;
            variables.insert(name, value.unwrap_or_default());
        }
        Ok(variables)
    }
}

/// The name of an environment variable, which must be new.
struct VariableName<'a> {
    context: &'a Context,
    seen: &'a BTreeMap<String, String>,
}

impl<'de> DeserializeSeed<'de> for VariableName<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for VariableName<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an environment variable")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        self.context.spend(text)?;
        // execve(2) cannot carry such names.
        if text.is_empty() || text.contains(['=', '\0']) {
            return Err(self.context.fail(format!("`{text}` cannot be the name of an environment variable"), None));
        }
        if self.seen.contains_key(text) {
            let message = format!("the variable `{text}` is set a second time");
            return Err(self.context.fail(message, Some("keep one of them")));
        }
        Ok(text.to_owned())
    }
}

/// What an item of `dependencies:` says.
enum Entry {
    Package(Box<Dependency>),
    /// The lines of a `pip:` section.
    Pip(Vec<String>),
}

/// One item of `dependencies:`.
#[derive(Clone, Copy)]
struct Item<'a> {
    reader: Reader<'a>,
    index: usize,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a package (`numpy`, `python=3.11`)")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let context = self.reader.context;
        context.spend(text)?;
        if self.reader.stop_at == Some(self.index) {
            return Err(context.fail("here", None));
        }
        let spec = package(text).map_err(|reason| {
            let shown: String = redact::within(text).chars().take(100).collect();
            let reason = redact::within(&reason);
            context.fail(format!("`{shown}` is no package specification: {reason}"), Some(EXAMPLES))
        })?;
        let dependency = Dependency { text: redact::within(text), written: text.to_owned(), spec };
        Ok(Entry::Package(Box::new(dependency)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let context = self.reader.context;
        let mut lines = Vec::new();
        while let Some(key) = map.next_key_seed(Key { context, seen: &BTreeSet::new() })? {
            if key != "pip" {
                return Err(context.fail(
                    format!("`{key}:` is neither a package nor a section that condaimg knows"),
                    Some("a version is written `name=1.2` or `name>=1.2`, without a colon"),
                ));
            }
            let section = List { of: |_| Text { context, what: "a pip package" } };
            lines.extend(map.next_value_seed(Optional(section))?.unwrap_or_default());
        }
        Ok(Entry::Pip(lines))
    }
}

const EXAMPLES: &str = "write for example `numpy`, `numpy=1.21`, `numpy>=1.21,<2`, `conda-forge::numpy=1.21=py39*`";

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
