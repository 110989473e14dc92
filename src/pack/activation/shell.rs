//! Which shell sources the activation scripts that need one, and what it will not understand of them.

use super::bashisms::{Dialect, Fault, faults};
use super::order::order;
use crate::lock::{Lock, LockedPackage};

/// Constructs of one script that a warning names.
const MOST_SHOWN: usize = 4;

/// The shell of the entry script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    /// Its path in the image.
    pub path: String,
    /// The program that it is: `bash`, `dash`, `busybox`, or what else the base calls it.
    pub program: String,
}

impl Shell {
    /// The shell that an image of a lock has for its activation scripts: bash of the environment, else of the base,
    /// else `/bin/sh`. Nothing when there is none.
    pub fn of(lock: &Lock, prefix: &str) -> Option<Self> {
        if lock.package("bash").is_some() {
            return Some(Self { path: format!("{prefix}/bin/bash"), program: "bash".to_owned() });
        }
        let facts = &lock.base.facts;
        let named = |(path, program): (&String, &String)| Self { path: format!("/{path}"), program: program.clone() };
        if let Some(bash) = facts.shells.iter().find(|(_, program)| *program == "bash") {
            return Some(named(bash));
        }
        match facts.shells.get_key_value("bin/sh") {
            Some(sh) => Some(named(sh)),
            // Older locks do not say which it is.
            None => facts.shell.then(|| Self { path: "/bin/sh".to_owned(), program: "sh".to_owned() }),
        }
    }

    /// Whether it is bash, which conda's users have.
    pub fn is_bash(&self) -> bool {
        self.program == "bash"
    }

    fn dialect(&self) -> Dialect {
        match self.program.as_str() {
            "busybox" | "busybox.static" | "ash" => Dialect::Busybox,
            _ => Dialect::Posix,
        }
    }
}

/// The warnings about activation scripts that need a shell: where they hold, and which of them will fail.
pub fn warnings(lock: &Lock) -> Vec<String> {
    // Only the path depends on the prefix, and bash of an environment is bash anywhere.
    let shell = Shell::of(lock, "");
    let order = order(lock, shell.is_some());
    let of_package = |package| {
        let late = order.late.get(LockedPackage::name(package)).into_iter().flatten();
        of_package(package, shell.as_ref()).into_iter().chain(late.map(|script| late_script(script, package)))
    };
    lock.packages.iter().flat_map(of_package).collect()
}

fn of_package(package: &LockedPackage, shell: Option<&Shell>) -> Vec<String> {
    let name = package.name();
    let activation = &package.facts.activation;
    let mut warnings = Vec::new();
    for script in &activation.dynamic {
        let Some(shell) = shell else {
            warnings.push(format!(
                "the activation script `{script}` of `{name}` needs a shell, and the base has none: add `bash` to the dependencies, choose a base with a shell, or leave the script out with `--no-activation`"
            ));
            continue;
        };
        warnings.push(format!(
            "the activation script `{script}` of `{name}` needs a shell: the entrypoint sources it with {}, so `docker exec` does not see what it sets",
            shell.program
        ));
        let text = activation.scripts.get(script);
        warnings.extend(text.and_then(|text| misunderstood(script, name, text, shell)));
    }
    warnings
}

fn late_script(script: &str, package: &LockedPackage) -> String {
    format!(
        "the activation script `{script}` of `{}` comes after one that needs a shell: the entrypoint sources it, too, so `docker exec` does not see what it sets",
        package.name()
    )
}

/// What a shell will not understand of a script, as a sentence.
fn misunderstood(script: &str, package: &str, text: &str, shell: &Shell) -> Option<String> {
    let what = format!("the activation script `{script}` of `{package}`");
    let program = &shell.program;
    if shell.is_bash() {
        return None;
    }
    match faults(text, shell.dialect()) {
        Ok(found) if found.is_empty() => None,
        Ok(found) => Some(format!(
            "{what} is written for bash, and will fail: {} of the base is {program}, which lacks {}; add `bash` to the dependencies, or choose a base with bash",
            shell.path,
            listed(&found)
        )),
        Err(why) => Some(format!("failed to check {what} against {program}: {}", why.0)),
    }
}

fn listed(found: &[Fault]) -> String {
    let shown = found.iter().take(MOST_SHOWN).map(|fault| format!("`{}` (line {})", fault.what, fault.line));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match found.len().saturating_sub(MOST_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::sample::{lock, package};

    fn with(shells: &[(&str, &str)], packages: &[&str]) -> Lock {
        let mut lock = lock(packages.iter().map(|name| package(name, "1", 1)).collect());
        lock.base.facts.shells = shells.iter().map(|(path, name)| ((*path).to_owned(), (*name).to_owned())).collect();
        lock.base.facts.shell = lock.base.facts.shells.contains_key("bin/sh");
        lock
    }

    #[test]
    fn bash_is_taken_where_there_is_one() {
        let shell =
            |shells, packages| Shell::of(&with(shells, packages), "/p").map(|shell| (shell.path, shell.program));
        let expected = |path: &str, program: &str| Some((path.to_owned(), program.to_owned()));
        let dash: &[(&str, &str)] = &[("bin/sh", "dash")];
        let both: &[(&str, &str)] = &[("bin/bash", "bash"), ("bin/sh", "dash")];
        assert_eq!(shell(dash, &[]), expected("/bin/sh", "dash"));
        assert_eq!(shell(both, &[]), expected("/bin/bash", "bash"));
        assert_eq!(shell(&[("bin/sh", "bash")], &[]), expected("/bin/sh", "bash"));
        assert_eq!(shell(dash, &["bash"]), expected("/p/bin/bash", "bash"));
        assert_eq!(shell(&[], &["bash"]), expected("/p/bin/bash", "bash"));
        assert_eq!(shell(&[], &[]), None);
        let mut older = with(&[], &[]);
        older.base.facts.shell = true;
        assert_eq!(Shell::of(&older, "/p").map(|shell| shell.path).as_deref(), Some("/bin/sh"));
    }

    #[test]
    fn warnings_name_script_package_and_construct() {
        let mut lock = with(&[("bin/sh", "dash")], &["gdal"]);
        let activation = &mut lock.packages[0].facts.activation;
        activation.dynamic.insert("etc/conda/activate.d/g.sh".to_owned());
        activation.scripts.insert("etc/conda/activate.d/g.sh".to_owned(), "\n[[ a ]]\n".to_owned());
        let told = warnings(&lock).join("\n");
        for part in ["`etc/conda/activate.d/g.sh`", "`gdal`", "dash", "`[[` (line 2)", "`bash`"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        lock.base.facts.shells.insert("bin/bash".to_owned(), "bash".to_owned());
        assert!(!warnings(&lock).join("\n").contains("will fail"));
    }
}
