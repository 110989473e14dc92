//! Layer policies: the rules of `layers/*.yaml`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::is_noarch;
use super::reason::TierRule;
use super::shipped::{ALIASES, SHIPPED};
use crate::lock::{Lock, Member};
use crate::model::{MAX_LAYERS, MIN_LAYERS};
use crate::util::{Error, Result, ResultExt as _, near, yaml as documents};

/// How packages are put into layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Policy {
    /// Lowest first. The last one takes what no other takes.
    pub tiers: Vec<Tier>,
    /// Packages with an archive of at least so many bytes get a layer of their own. No package, when nothing is said.
    #[serde(default = "never")]
    pub own_layer: u64,
    /// What decides on layers within a tier.
    #[serde(default, skip_serializing_if = "Cutting::is_default")]
    pub strategy: Cutting,
    /// The most layers to add to the base, where no flag says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_layers: Option<usize>,
}

/// What decides which packages of a tier share a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cutting {
    /// The size of each package alone: `own-layer`.
    #[default]
    Tiers,
    /// What an update is expected to cost: sizes, classes of stability and the limit. `own-layer` does not count.
    Cost,
    /// As `cost`, and layers that other images have, too: what tiers with `closure-of` take is cut alone.
    Shared,
}

impl Cutting {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn never() -> u64 {
    u64::MAX
}

/// A group of packages with one place in the stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Tier {
    /// The name, which is also its shared layer's.
    pub name: String,
    /// Packages that belong here together with all that they depend on.
    pub closure_of: Vec<String>,
    /// Globs (`*`, `?`, `[...]`) of package names.
    pub packages: Vec<String>,
    /// Packages that are built for a platform (not noarch) and have an archive of at least so many bytes.
    pub larger_than: Option<u64>,
    /// All of the tier in one layer, byte code and large packages too.
    pub together: bool,
}

impl Policy {
    /// A shipped policy.
    ///
    /// # Errors
    /// A name that is not shipped.
    pub fn named(name: &str) -> Result<Self> {
        let known = || SHIPPED.map(|(name, _)| name).join(", ");
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| *name);
        let (_, yaml) = SHIPPED.iter().find(|(shipped, _)| *shipped == name).ok_or_else(|| {
            let near = near::names(name, SHIPPED.iter().map(|(name, _)| *name));
            let error = Error::usage(format!("there is no layer policy `{name}`"));
            let error = near.iter().fold(error, |error, near| error.hint(format!("did you mean `{near}`?")));
            error.hint(format!("use one of {}, or the path of a file", known()))
        })?;
        Self::parse(yaml, name)
    }

    /// Reads a policy; `origin` names it in errors.
    ///
    /// # Errors
    /// What is wrong with it, with line and column.
    pub fn parse(yaml: &str, origin: &str) -> Result<Self> {
        let wrong = |what: String| {
            Error::user(format!("the layer policy `{origin}` {what}"))
                .hint("docs/policies.md says how one is written, and `layers/*.yaml` in condaimg's sources shows it")
        };
        documents::check(yaml).context(|| format!("failed to read the layer policy `{origin}`"))?;
        let policy: Self = serde_yaml::from_str(yaml).map_err(|error| {
            let error = error.to_string();
            let near = nearest_key(&error);
            let wrong = wrong(format!("is wrong: {error}"));
            near.into_iter().fold(wrong, |wrong, key| wrong.hint(format!("did you mean `{key}`?")))
        })?;
        if policy.tiers.is_empty() {
            return Err(wrong("has no tiers".to_owned()));
        }
        policy.check_tiers().map_err(wrong)?;
        for pattern in policy.tiers.iter().flat_map(|tier| &tier.packages) {
            glob::Pattern::new(pattern)
                .map_err(|error| wrong(format!("has a wrong pattern `{pattern}`")).caused_by(error))?;
        }
        Ok(policy)
    }

    /// The canonical text, which is recorded in the parameters.
    ///
    /// # Errors
    /// Never for a policy that was parsed.
    pub fn canonical(&self) -> Result<String> {
        let json = crate::util::json::canonical(self)?;
        String::from_utf8(json).map_err(|error| Error::bug("canonical JSON is not UTF-8").caused_by(error))
    }

    /// What the reader of the file does not see.
    fn check_tiers(&self) -> std::result::Result<(), String> {
        if let Some(number) = self.max_layers.filter(|number| !(MIN_LAYERS..=MAX_LAYERS).contains(number)) {
            return Err(format!("has `max-layers: {number}`, which is outside of {MIN_LAYERS} to {MAX_LAYERS}"));
        }
        for (index, tier) in self.tiers.iter().enumerate() {
            if tier.name.trim().is_empty() {
                return Err(format!("has no name for its tier {}", index + 1));
            }
            if self.tiers[..index].iter().any(|other| other.name == tier.name) {
                return Err(format!("has two tiers with the name `{}`", tier.name));
            }
        }
        Ok(())
    }

    /// The tier of each member of the lock, in the order of [`Lock::members`].
    pub(super) fn tiers_of(&self, lock: &Lock) -> Vec<usize> {
        self.rules_of(lock).into_iter().map(|(tier, _)| tier).collect()
    }

    /// The tier of each member of the lock, in the order of [`Lock::members`], and the rule that takes it there.
    pub(super) fn rules_of(&self, lock: &Lock) -> Vec<(usize, TierRule)> {
        let last = self.tiers.len().saturating_sub(1);
        let closures: Vec<Vec<_>> = self.tiers.iter().map(|tier| tier.closures(lock)).collect();
        let rule = |member| {
            let taken = (0..last).find_map(|tier| Some((tier, self.tiers[tier].takes(lock, member, &closures[tier])?)));
            taken.unwrap_or((last, TierRule::Rest))
        };
        lock.members().map(rule).collect()
    }
}

impl Tier {
    /// What each of `closure-of` needs, itself included.
    fn closures<'a>(&'a self, lock: &'a Lock) -> Vec<(&'a str, BTreeSet<&'a str>)> {
        self.closure_of.iter().map(|root| (root.as_str(), lock.closure([root.as_str()]))).collect()
    }

    /// The first rule of the tier that takes a member.
    fn takes(&self, lock: &Lock, member: Member, closures: &[(&str, BTreeSet<&str>)]) -> Option<TierRule> {
        let name = lock.member_name(member);
        let (is_package, noarch) = match member {
            Member::Package(index) => (true, is_noarch(&lock.packages[index].record.package_record.subdir)),
            Member::Wheel(index) => (false, lock.wheels[index].is_pure()),
        };
        let closure = closures.iter().find(|(_, closure)| is_package && closure.contains(name));
        let named = || self.packages.iter().find(|glob| matches(glob, name));
        let large = || self.larger_than.filter(|size| lock.member_size(member) >= *size && !noarch);
        let closure = closure.map(|(root, _)| TierRule::ClosureOf((*root).to_owned()));
        closure
            .or_else(|| named().map(|glob| TierRule::Named(glob.clone())))
            .or_else(|| large().map(TierRule::LargerThan))
    }
}

/// The known key that an error of the reader's about an unknown key is nearest to.
fn nearest_key(error: &str) -> Option<&str> {
    let (_, fields) = error.split_once("unknown field ")?;
    let mut fields = fields.split('`').skip(1).step_by(2);
    let unknown = fields.next()?;
    near::names(unknown, fields).first().copied()
}

fn matches(pattern: &str, name: &str) -> bool {
    glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(yaml: &str) -> String {
        let error = Policy::parse(yaml, "mine.yaml").expect_err(yaml);
        [error.to_string(), error.hints().join("; ")].join("; ")
    }

    #[test]
    fn shipped_policies_are_whole() {
        for (name, _) in SHIPPED {
            let policy = Policy::named(name).expect(name);
            assert_eq!(policy.tiers.last().map(|tier| tier.packages.len()), Some(0), "{name}: the last takes the rest");
            let recorded = policy.canonical().expect("a text");
            assert_eq!(Policy::parse(&recorded, "recorded").expect("a policy"), policy);
        }
        assert_eq!(Policy::named("cuda").expect("a policy"), Policy::named("gpu").expect("a policy"));
        let error = Policy::named("gpus").expect_err("is not shipped");
        assert!(error.hints().join(" ").contains("did you mean `gpu`?"), "{error}");
    }

    #[test]
    fn the_page_about_policies_is_right() {
        let page = include_str!("../../docs/policies.md");
        let example = page.split("```yaml\n").nth(1).and_then(|text| text.split("```").next()).expect("an example");
        let policy = Policy::parse(example, "the example").expect("a policy");
        let keys = serde_json::to_value(&policy).expect("JSON");
        let of_tiers = serde_json::to_value(&policy.tiers[0]).expect("JSON");
        for key in [keys, of_tiers].iter().flat_map(|value| value.as_object().expect("keys").keys()) {
            assert!(page.contains(&format!("\n| `{key}` | ")), "the page has no `{key}`");
        }
        for (name, _) in SHIPPED {
            assert!(page.contains(&format!("\n| `{name}`")), "the page has no `{name}`");
        }
        let wrong = example.replace("packages:", "package:");
        let error = Policy::parse(&wrong, "mine.yaml").expect_err("a wrong key");
        assert!(page.contains(&format!("error: {error}\n")), "{error}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_what_was_meant() {
        for (yaml, expected) in [
            ("tiers: [{name: a}]\nown_layer: 1\n", "did you mean `own-layer`?"),
            ("tiers: [{name: a}]\nmax-layer: 1\n", "did you mean `max-layers`?"),
            ("tiers:\n  - name: a\n    package: [b]\n", "line 3 column 5"),
            ("tiers:\n  - name: a\n    package: [b]\n", "did you mean `packages`?"),
            ("tiers:\n  - name: a\n    colour: red\n", "unknown field `colour`"),
            ("tiers: []\n", "no tiers"),
            ("own-layer: 1\n", "missing field `tiers`"),
            ("tiers: [{packages: [a]}]\n", "no name for its tier 1"),
            ("tiers: [{name: a}, {name: a}]\n", "two tiers with the name `a`"),
            ("tiers: [{name: a, packages: ['[']}]\n", "wrong pattern `[`"),
            ("tiers: [{name: a}]\nmax-layers: 65\n", "outside of 2 to 64"),
            ("tiers: [{name: a}]\nown-layer: big\n", "own-layer"),
        ] {
            let message = refused(yaml);
            assert!(message.contains(expected) && message.contains("mine.yaml"), "{expected}: {message}");
        }
    }
}
