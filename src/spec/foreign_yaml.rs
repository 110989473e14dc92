//! YAML files of other tools, which have no `dependencies:`: told by the keys that they do have.

/// A file of another tool.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    /// What it is, with an article.
    pub(super) what: &'static str,
    /// What to do instead.
    pub(super) hint: &'static str,
}

const NAME_ONE: &str = "name the environment.yml of what is to be in the image";
const RECIPE: &str = "build the recipe, put the package into a channel, and name it in an environment.yml";
const LOCK: &str = "make the file again with the tool that wrote it";

/// Keys that are all there, and what that tells. The first that fits counts.
const KNOWN: [(&[&str], Foreign); 18] = [
    (&["package", "metadata"], Foreign { what: "a conda-lock.yml", hint: LOCK }),
    (&["package", "version"], Foreign { what: "a conda-lock.yml without `metadata:`", hint: LOCK }),
    (&["packages", "version"], Foreign { what: "a pixi.lock without `environments:`", hint: LOCK }),
    (&["package", "requirements"], Foreign { what: "a recipe of a conda package", hint: RECIPE }),
    (&["package", "build"], Foreign { what: "a recipe of a conda package", hint: RECIPE }),
    (&["package", "source"], Foreign { what: "a recipe of a conda package", hint: RECIPE }),
    (&["recipe", "outputs"], Foreign { what: "a recipe of conda packages", hint: RECIPE }),
    (&["services"], Foreign { what: "a Compose file", hint: NAME_ONE }),
    (&["apiVersion", "kind"], Foreign { what: "a Kubernetes manifest", hint: NAME_ONE }),
    (&["jobs"], Foreign { what: "a workflow of a CI system", hint: NAME_ONE }),
    (&["stages"], Foreign { what: "a pipeline of a CI system", hint: NAME_ONE }),
    (&["repos"], Foreign { what: "a configuration of pre-commit", hint: NAME_ONE }),
    (&["env_specs"], Foreign { what: "an anaconda-project.yml", hint: NAME_ONE }),
    (&["own-layer", "tiers"], Foreign { what: "a layer policy", hint: "name it with `--layers FILE`" }),
    (&["channel_alias"], CONDARC),
    (&["channel_priority"], CONDARC),
    (&["default_channels"], CONDARC),
    (&["custom_channels"], CONDARC),
];

const CONDARC: Foreign = Foreign { what: "a configuration of conda", hint: NAME_ONE };

/// What a file is that has these keys at its top.
pub(super) fn whose(keys: &[String]) -> Option<&'static Foreign> {
    let has = |key: &&str| keys.iter().any(|known| known == key);
    KNOWN.iter().find(|(needed, _)| needed.iter().all(has)).map(|(_, foreign)| foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_tools_are_told_by_keys() {
        let whose = |keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            whose(&keys).map(|foreign| foreign.what)
        };
        assert_eq!(whose(&["version", "package"]), Some("a conda-lock.yml without `metadata:`"));
        assert_eq!(whose(&["package", "build", "requirements", "about"]), Some("a recipe of a conda package"));
        assert_eq!(whose(&["version", "services", "volumes"]), Some("a Compose file"));
        assert_eq!(whose(&["channels", "channel_priority"]), Some("a configuration of conda"));
        assert_eq!(whose(&["packages", "colour"]), None);
    }
}
