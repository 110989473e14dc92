//! The CPython that makes byte code for a platform on which the environment's own cannot be run: of exactly the same
//! version, for the builder, from the same channels.

use rattler_conda_types::{MatchSpec, PackageRecord, ParseStrictness, RepoDataRecord, StringMatcher};

use super::{Resolution, ResolveOptions, resolve};
use crate::lock::{NO_CPYTHON, is_free_threaded};
use crate::spec::{Dependency, Spec};
use crate::util::{Error, Result, ResultExt as _};

/// Solves for a CPython of the version of `python`, and what it needs. `options` are those of the builder's platform.
///
/// # Errors
/// When the channels have none, or cannot be read.
pub async fn resolve_interpreter(
    spec: &Spec,
    python: &RepoDataRecord,
    options: &ResolveOptions<'_>,
) -> Result<Resolution> {
    let PackageRecord { version, subdir: target, .. } = &python.package_record;
    let builder = options.platform.subdir;
    resolve(&spec.only(wanted(spec, &python.package_record)?), options)
        .await
        .context(|| format!("no CPython {version} of {builder} was found to make the byte code of {target} with"))
        .map_err(|error| error.hint("`--bytecode off` makes an image without the byte code of noarch packages"))
}

/// `python ==VERSION`, from where the environment's own may come.
fn wanted(spec: &Spec, python: &PackageRecord) -> Result<Dependency> {
    let text = format!("python =={}", python.version);
    let bug = |reason: String| Error::bug(format!("`{text}` cannot be asked for: {reason}"));
    let mut wanted = MatchSpec::from_str(&text, ParseStrictness::Lenient).map_err(|error| bug(error.to_string()))?;
    let free_threaded = "_cp[0-9]+t$";
    let build = match is_free_threaded(python) {
        true => format!("^.*{free_threaded}"),
        false => format!("^(?!.*({}|{free_threaded})).*$", NO_CPYTHON.join("|")),
    };
    wanted.build = Some(build.parse::<StringMatcher>().map_err(|error| bug(error.to_string()))?);
    // `channel::python` in the environment.
    let own = spec.dependencies.iter().find(|own| own.spec.name.matches(&python.name));
    let written = match own.and_then(|own| super::channels::named_channel(&own.written)) {
        Some(channel) => format!("{channel}::{text}"),
        None => text.clone(),
    };
    Ok(Dependency { text, written, spec: wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(build: &str) -> PackageRecord {
        let name = "python".parse().expect("a name");
        let version: rattler_conda_types::Version = "3.13.1".parse().expect("a version");
        PackageRecord::new(name, version, build.parse().expect("a build"))
    }

    #[test]
    fn only_a_cpython_of_the_same_kind_will_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("environment.yml");
        fs_err::write(&file, "dependencies: ['https://me:secret@host/a::python']\n").expect("writes");
        let spec = crate::spec::read(&file).expect("a spec");
        for (own, build, fits) in [
            ("0_cpython", "5_cpython", true),
            ("0_test", "5_cpython", true),
            ("h9d7b3aa_100_cp313", "h9d7b3aa_101_cp313", true),
            ("h9d7b3aa_100_cp313", "h9d7b3aa_101_cp313t", false),
            ("h9d7b3aa_100_cp313t", "h9d7b3aa_101_cp313t", true),
            ("h9d7b3aa_100_cp313t", "h9d7b3aa_101_cp313", false),
            ("0_cpython", "0_73_pypy", false),
            ("0_cpython", "0_graalpy242_311_native", false),
        ] {
            let wanted = wanted(&spec, &python(own)).expect("a dependency");
            assert_eq!(wanted.spec.build.expect("is asked for").matches(build), fits, "{own}, {build}");
            assert_eq!(wanted.text, "python ==3.13.1");
            assert_eq!(wanted.written, "https://me:secret@host/a::python ==3.13.1");
        }
    }
}
