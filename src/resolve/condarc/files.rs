//! Where conda's configuration lies.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::util::Result;

/// conda's search path on Linux, least important first (`SEARCH_PATH` of its `conda/base/constants.py`).
const SEARCH_PATH: [&str; 22] = [
    "/etc/conda/.condarc",
    "/etc/conda/condarc",
    "/etc/conda/condarc.d",
    "/var/lib/conda/.condarc",
    "/var/lib/conda/condarc",
    "/var/lib/conda/condarc.d",
    "$CONDA_ROOT/.condarc",
    "$CONDA_ROOT/condarc",
    "$CONDA_ROOT/condarc.d",
    "$XDG_CONFIG_HOME/conda/.condarc",
    "$XDG_CONFIG_HOME/conda/condarc",
    "$XDG_CONFIG_HOME/conda/condarc.d",
    "~/.config/conda/.condarc",
    "~/.config/conda/condarc",
    "~/.config/conda/condarc.d",
    "~/.conda/.condarc",
    "~/.conda/condarc",
    "~/.conda/condarc.d",
    "~/.condarc",
    "$CONDA_PREFIX/.condarc",
    "$CONDA_PREFIX/condarc",
    "$CONDA_PREFIX/condarc.d",
];

/// The variables of the environment that the search looks at.
pub(super) type Variable<'a> = &'a dyn Fn(&str) -> Option<PathBuf>;

/// The files that are there, least important first, each once; and what `CONDARC` names when it is not there (which
/// conda passes over without a word).
///
/// # Errors
/// When a folder of them cannot be read.
pub(super) fn find(variable: Variable<'_>) -> Result<(Vec<PathBuf>, Option<PathBuf>)> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut keep = |file: PathBuf| {
        if !found.contains(&file) {
            found.push(file);
        }
    };
    let own = variable("CONDARC");
    for path in SEARCH_PATH.iter().filter_map(|path| place(path, variable)).chain(own.clone()) {
        if path.is_dir() {
            of_folder(&path)?.into_iter().for_each(&mut keep);
        } else if path.is_file() {
            keep(path);
        }
    }
    Ok((found, own.filter(|path| !path.exists())))
}

/// A path with its variable or `~` replaced; nothing when there is none.
fn place(path: &str, variable: Variable<'_>) -> Option<PathBuf> {
    let (start, rest) = path.split_once('/')?;
    let folder = match start {
        "" => return Some(PathBuf::from(path)),
        "~" => variable("HOME"),
        "$CONDA_ROOT" => root(variable),
        name => variable(name.trim_start_matches('$')),
    };
    Some(folder?.join(rest))
}

/// The folder that conda is installed in. conda knows its own; its activation scripts leave where its program is.
fn root(variable: Variable<'_>) -> Option<PathBuf> {
    let of_program = || Some(variable("CONDA_EXE")?.parent()?.parent()?.to_owned());
    variable("CONDA_ROOT").or_else(of_program).or_else(|| variable("MAMBA_ROOT_PREFIX"))
}

/// The YAML files of a `condarc.d`, by name.
fn of_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs_err::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let is_yaml = |file: &PathBuf| matches!(file.extension().and_then(OsStr::to_str), Some("yml" | "yaml"));
    let mut files: Vec<PathBuf> = entries.into_iter().filter(|file| is_yaml(file) && file.is_file()).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_the_order_of_conda() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in [
            "root/.condarc",
            "home/.condarc",
            "home/.config/conda/condarc",
            "home/.conda/condarc.d/b.yml",
            "home/.conda/condarc.d/a.yaml",
            "home/.conda/condarc.d/notes.txt",
            "env/.condarc",
            "own.yml",
        ] {
            fs_err::create_dir_all(path(name).parent().expect("a parent")).expect("a folder");
            fs_err::write(path(name), "").expect("writes");
        }
        let variable = |name: &str| match name {
            "HOME" => Some(path("home")),
            "CONDA_EXE" => Some(path("root/bin/conda")),
            "XDG_CONFIG_HOME" => Some(path("home/.config")),
            "CONDA_PREFIX" => Some(path("env")),
            "CONDARC" => Some(path("own.yml")),
            _ => None,
        };
        let (found, missing) = find(&variable).expect("finds");
        assert_eq!(missing, None);
        let expected = [
            "root/.condarc",
            "home/.config/conda/condarc",
            "home/.conda/condarc.d/a.yaml",
            "home/.conda/condarc.d/b.yml",
            "home/.condarc",
            "env/.condarc",
            "own.yml",
        ];
        // A machine may have its own in /etc.
        let ours: Vec<PathBuf> = found.into_iter().filter(|file| file.starts_with(folder.path())).collect();
        assert_eq!(ours, expected.map(path));

        let nowhere = |name: &str| (name == "CONDARC").then(|| path("nowhere"));
        assert_eq!(find(&nowhere).expect("finds").1, Some(path("nowhere")));
    }
}
