//! The variables of an image while activation goes on.

use std::collections::{BTreeMap, BTreeSet};

use super::expand;
use crate::lock::ActivationStep;

/// What the image adds to the variables of its base, and takes from them.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Variables beside the base's, or instead of them.
    pub variables: BTreeMap<String, String>,
    /// Variables of the base that the image lacks.
    pub removed: BTreeSet<String>,
    /// The names of the base's variables.
    pub of_base: BTreeSet<String>,
    /// `PATH`, unless `variables` has one.
    pub path: String,
}

impl State {
    /// Does a step; nothing when its value is too long for any program to start.
    pub fn apply(&mut self, step: &ActivationStep) -> Option<()> {
        let Some(template) = &step.value else {
            self.variables.remove(&step.name);
            self.removed.insert(step.name.clone());
            return Some(());
        };
        if step.if_set && !self.has(&step.name) {
            return Some(());
        }
        let value = expand(template, |name| match (self.variables.get(name), name) {
            (Some(value), _) => Some(value.as_str()),
            (None, "PATH") => Some(&self.path),
            (None, _) => None,
        });
        self.set(step.name.clone(), value?);
        Some(())
    }

    /// Sets a variable, whatever was before.
    pub fn set(&mut self, name: String, value: String) {
        self.removed.remove(&name);
        self.variables.insert(name, value);
    }

    fn has(&self, name: &str) -> bool {
        let is_of_base = self.of_base.contains(name) && !self.removed.contains(name);
        name == "PATH" || self.variables.contains_key(name) || is_of_base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, value: Option<&str>, if_set: bool) -> ActivationStep {
        ActivationStep { file: "x.sh".to_owned(), name: name.to_owned(), value: value.map(str::to_owned), if_set }
    }

    #[test]
    fn what_is_unset_is_no_longer_the_bases() {
        let mut state = State { of_base: ["A", "B"].map(str::to_owned).into(), ..State::default() };
        for step in [
            step("A", Some("1"), true),
            step("A", None, false),
            step("A", Some("2"), true),
            step("B", None, false),
            step("B", Some("3"), false),
            step("C", Some("4"), true),
        ] {
            state.apply(&step).expect("is short");
        }
        assert_eq!(state.removed.iter().collect::<Vec<_>>(), ["A"]);
        assert_eq!(state.variables, BTreeMap::from([("B".to_owned(), "3".to_owned())]));
    }
}
