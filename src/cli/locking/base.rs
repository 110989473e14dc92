//! The base of a build: that of the lock when nobody names another, pinned by the lock; one in a registry is asked for
//! as little as possible.

use std::io::Write as _;
use std::path::Path;

use fs_err as fs;
use serde::Deserialize;

use super::from;
use super::options::{BaseOrigin, EnvironmentOptions, LockMode, Upgrade, base_ref};
use crate::cli::world::World;
use crate::image::{self, Base, Obstacle, Tree};
use crate::lock::{self, BaseDocuments, Lock, local};
use crate::model::{BaseFacts, BaseRef, DEFAULT_PREFIX, Platform};
use crate::spec::Spec;
use crate::store::Store;
use crate::util::error::ResultExt as _;
use crate::util::report::{Outcome, Step};
use crate::util::{Digest, Error, Result};

/// Takes the base that the lock has, if no flag, variable or file names one; also whether it is extended.
///
/// # Errors
/// A lock that cannot be read, or whose platforms have different bases, or that does not tell where its base lies.
pub fn adopt(options: &mut EnvironmentOptions, spec: &Spec) -> Result<()> {
    if options.base_origin == BaseOrigin::Given {
        return Ok(());
    }
    let path = super::path(options, spec);
    let locks = lock::read(&path)?.unwrap_or_default();
    let mut asked: Vec<&Lock> = options.platforms.iter().filter_map(|platform| locks.get(platform)).collect();
    if asked.is_empty() {
        asked = locks.iter().collect();
    }
    let Some((first, others)) = asked.split_first() else { return Ok(()) };
    let named = |lock: &Lock| (lock.extended().is_some(), lock.base.reference.clone());
    if let Some(other) = others.iter().find(|other| named(other) != named(first)) {
        let (path, flag) = (path.display(), super::errors::flag(&first.base));
        return Err(Error::user(format!(
            "the lock `{path}` has the base `{}` for {} and `{}` for {}",
            first.base.reference, first.platform, other.base.reference, other.platform
        ))
        .hint(format!("build each platform on its own, or choose one base with `{flag} {}`", first.base.reference)));
    }
    if first.base.reference == first.base.digest.to_string() {
        let error = format!("the lock `{}` does not tell where its base {} lies", path.display(), first.base.digest);
        return Err(Error::user(error).hint("name the base with `--base`, e.g. `--base oci:DIR`"));
    }
    let named = base_ref(&first.base.reference, super::errors::flag(&first.base))?;
    options.base = local::older_base(named, &std::path::absolute(super::folder(&path))?);
    options.extends = first.extended().is_some();
    options.base_origin = BaseOrigin::Lock(path);
    Ok(())
}

/// Opens the base; one in a registry by the digest that the lock pins, if it names the same reference. When everything
/// is upgraded, what the reference stands for now.
pub async fn open(
    options: &EnvironmentOptions,
    platform: &Platform,
    old: Option<&Lock>,
    world: &World,
) -> Result<Base> {
    let locked = old.map(|lock| &lock.base).filter(|base| base.reference == options.base.to_string());
    let locked = locked.filter(|_| options.mode != LockMode::Make(Upgrade::All));
    let base = match (&options.base, locked) {
        (BaseRef::Registry(reference), Some(locked)) => {
            if let Some(documents) = &locked.documents {
                keep(documents, locked.digest, &world.store)?;
            }
            BaseRef::Registry(pin(reference, locked.digest))
        }
        (base, _) => base.clone(),
    };
    let progress = world.reporter.begin(Step::Base, 0);
    progress.item(&options.base.to_string());
    let opened = image::open(&base, platform, &world.store, world).await;
    let opened = match (&options.base, options.args.named_base()) {
        (BaseRef::Registry(_), Some((flag, text))) => hinting_at_path(flag, text, opened),
        _ => opened,
    };
    let opened = options.about_base(opened.context(|| format!("the base `{}` cannot be used", options.base)))?;
    progress.finish(&Outcome::Quiet {});
    Ok(opened)
}

/// Adds to an error about a base how it is written if it is a file or directory of this machine. `flag` names the base.
///
/// # Errors
/// The error.
pub fn hinting_at_path<T>(flag: &str, text: &str, result: Result<T>) -> Result<T> {
    let path = Path::new(text);
    let is_path = text.starts_with(['/', '.', '~']) || path.exists();
    let is_file = path.is_file() || (!path.exists() && is_archive(text));
    result.map_err(|error| match (is_path, is_file) {
        (false, _) => error,
        (true, true) => error.hint(format!(
            "for a file of this machine, give `{flag} oci-archive:{text}` (or `docker-archive:`, `rootfs:`)"
        )),
        (true, false) => {
            error.hint(format!("for a directory of this machine, give `{flag} oci:{text}` (or `rootfs:{text}`)"))
        }
    })
}

/// Whether a path is called as tars are.
fn is_archive(text: &str) -> bool {
    let name = text.to_ascii_lowercase();
    let endings = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"];
    endings.iter().any(|ending| name.ends_with(ending))
}

/// Finds the facts of a base, and whether the environment can lie where it is to lie.
///
/// # Errors
/// Layers that cannot be fetched or read; a file or a loop of symlinks in the way.
pub async fn facts(options: &EnvironmentOptions, base: &Base, world: &World) -> Result<BaseFacts> {
    let progress = world.reporter.begin(Step::Base, 0);
    progress.item(&options.base.to_string());
    let probed = image::probe_tree(base, &world.store, world).await;
    let probed = probed.context(|| format!("failed to read the base `{}`", options.base));
    let (facts, tree) = options.about_base(probed)?;
    progress.finish(&Outcome::Quiet {});
    let prefix = options.prefix.as_deref().unwrap_or(DEFAULT_PREFIX);
    refuse_obstacle(&tree, prefix, "the environment", "choose another `--prefix`, or another base")?;
    refuse_environment(options, &tree, prefix, world)?;
    Ok(facts)
}

/// Refuses a prefix where the base has an environment, which two would share; warns of other files there.
///
/// # Errors
/// The environment, named.
pub fn refuse_environment(options: &EnvironmentOptions, tree: &Tree, prefix: &str, world: &World) -> Result<()> {
    if options.extends {
        return Ok(());
    }
    let base = &options.base;
    if let Some(record) = tree.environment_at(prefix) {
        return Err(Error::user(format!(
            "failed to place the environment at `{prefix}`: the base `{base}` has one there (`/{record}`)"
        ))
        .hint(format!("to add to it, give `--from {base}` instead of a base"))
        .hint("for an environment of its own, choose another `--prefix`"));
    }
    if let Some(file) = tree.any_file_in(prefix) {
        world.reporter.warn(&format!(
            "the base has files in `{prefix}` (`/{file}`): those of packages take their places; `--prefix` chooses another folder"
        ));
    }
    Ok(())
}

/// Refuses a directory where the base has a file, or symlinks that lead nowhere.
///
/// # Errors
/// The obstacle, named.
pub fn refuse_obstacle(tree: &Tree, path: &str, what: &str, hint: &str) -> Result<()> {
    let why = match tree.obstacle(path) {
        None => return Ok(()),
        Some(Obstacle::File(file)) => format!("the base has a file at `/{file}`"),
        Some(Obstacle::Loop(link)) => format!("`/{link}` of the base is in a loop of symlinks"),
    };
    let path = path.trim_start_matches('/');
    Err(Error::user(format!("failed to place {what} at `/{path}`: {why}")).hint(hint))
}

/// A lock whose facts of the base are those of its whole tree; older ones knew the upper levels only.
///
/// # Errors
/// Layers that cannot be fetched or read.
pub async fn with_whole_facts(
    options: &EnvironmentOptions,
    mut lock: Lock,
    base: &Base,
    world: &World,
) -> Result<Lock> {
    if lock.base.facts.whole {
        return Ok(lock);
    }
    if !options.mode.writes() {
        world.reporter.notice(&format!(
            "the lock knows little of the base `{}`, which is read again; `condaimg lock` notes what it finds",
            options.base
        ));
    }
    lock.base.facts = match options.extends {
        true => from::read(options, &lock.platform, base, world).await?.facts,
        false => facts(options, base, world).await?,
    };
    Ok(lock)
}

fn pin(reference: &str, digest: Digest) -> String {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    format!("{name}@{digest}")
}

/// What matters of a manifest here.
#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
}

/// The config that a manifest names.
fn config_of(manifest: &str) -> Option<Digest> {
    serde_json::from_str::<Manifest>(manifest).ok().map(|manifest| manifest.config.digest)
}

/// Puts what the lock keeps of the base into the store, where it is looked for first. Documents that are not what the
/// lock's digest says are left out: the registry is asked then.
fn keep(documents: &BaseDocuments, digest: Digest, store: &Store) -> Result<()> {
    let BaseDocuments { manifest, config } = documents;
    if Digest::of(manifest) != digest || config_of(manifest) != Some(Digest::of(config)) {
        return Ok(());
    }
    for (document, digest) in [(manifest, digest), (config, Digest::of(config))] {
        if !store.has_whole_blob(&digest, document.len() as u64) {
            let mut blob = store.new_blob()?;
            blob.write_all(document.as_bytes())?;
            blob.finish(Some(&digest))?;
        }
    }
    Ok(())
}

/// The documents of a base in a registry, which opening it brought into the store.
pub fn documents(base: &BaseRef, digest: Digest, store: &Store) -> Option<BaseDocuments> {
    let BaseRef::Registry(_) = base else { return None };
    let read = |digest: Digest| {
        let path = store.blob(&digest);
        let text = store.is_whole(&path, &digest).then(|| fs::read_to_string(path).ok()).flatten()?;
        (Digest::of(&text) == digest).then_some(text)
    };
    let manifest = read(digest)?;
    let config = read(config_of(&manifest)?)?;
    Some(BaseDocuments { manifest, config })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_get_the_flag_and_kind_they_need() {
        for (flag, text, expected) in [
            ("--from", "../d.tar", "`--from oci-archive:../d.tar`"),
            ("--base", "./x.TAR.gz", "`--base oci-archive:./x.TAR.gz`"),
            ("--from", "../layout", "`--from oci:../layout`"),
            ("--base", "src", "`--base oci:src`"),
            ("--from", "Cargo.toml", "`--from oci-archive:Cargo.toml`"),
        ] {
            let error = hinting_at_path::<()>(flag, text, Err(Error::user("x"))).expect_err("stays");
            assert!(error.hints().concat().contains(expected), "{:?}", error.hints());
        }
        let error = hinting_at_path::<()>("--from", "host/team/base.tar", Err(Error::user("x"))).expect_err("stays");
        assert!(error.hints().is_empty(), "{:?}", error.hints());
    }

    #[test]
    fn only_the_pinned_documents_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let config = "{\"os\": \"linux\"}\n".to_owned();
        let manifest = format!("{{\"config\": {{\"digest\": \"{}\"}}}}", Digest::of(&config));
        let documents = BaseDocuments { manifest: manifest.clone(), config };
        let digest = Digest::of(&manifest);
        keep(&documents, Digest::of("other"), &store).expect("does nothing");
        assert_eq!(super::documents(&BaseRef::Registry("a".to_owned()), digest, &store), None);
        let changed = BaseDocuments { config: "{}".to_owned(), ..documents.clone() };
        keep(&changed, digest, &store).expect("does nothing");
        assert!(!store.has_blob(&digest, manifest.len() as u64));
        keep(&documents, digest, &store).expect("keeps");
        assert_eq!(super::documents(&BaseRef::Registry("a".to_owned()), digest, &store), Some(documents));
        assert_eq!(super::documents(&BaseRef::Scratch, digest, &store), None);
    }
}
