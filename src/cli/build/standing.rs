//! Whether what the image adds can stand on the base's own tree: no file may be where a directory must be.

use super::options::Options;
use super::project::Chosen;
use super::{config, layers};
use crate::cli::locking::Locked;
use crate::cli::locking::base::{refuse_environment, refuse_obstacle};
use crate::cli::world::World;
use crate::image::{self, Tree};
use crate::lock::Lock;
use crate::model::User;
use crate::pack::Target;
use crate::util::{Error, Result};

/// Compares what is added with the names of the base, as far as these are on this machine. A lock is for any prefix, so it
/// is compared by each build.
///
/// # Errors
/// A file of the base in the way; symlinks that lead nowhere.
pub async fn check(options: &Options, locked: &Locked, chosen: Option<&Chosen>, world: &World) -> Result<()> {
    let Locked { lock, base, made, .. } = locked;
    let target = layers::target(lock, &options.parameters)?;
    let user = config::user(options, lock, base, world);
    refuse_closed(lock, &target, user)?;
    let home = config::session(options, lock, base, user)?.account.home;
    // Layers are read only for what is new: the names that the store remembers cost nothing.
    let is_new = *made || chosen.is_some() || options.environment.prefix.is_some();
    let is_readable = match is_new {
        true => image::is_tree_at_hand(base, &world.store),
        false => image::is_tree_remembered(base, &world.store),
    };
    if !is_readable {
        return Ok(());
    }
    let (_, tree) = image::probe_tree(base, &world.store, world).await?;
    refuse_obstacle(&tree, &target.prefix, "the environment", "choose another `--prefix`, or another base")?;
    if !*made {
        refuse_environment(&options.environment, &tree, &target.prefix, world)?;
    }
    refuse_obstacle(&tree, &home, "the user's home", "choose another `--user`, or another base")?;
    chosen.map_or(Ok(()), |chosen| check_files(&tree, chosen))
}

/// The image's user must be able to reach the environment.
fn refuse_closed(lock: &Lock, target: &Target, user: User) -> Result<()> {
    let Some((folder, facts)) = lock.base.facts.closed_above(&format!("{}/", target.root), Some(user)) else {
        return Ok(());
    };
    let error = Error::user(format!(
        "failed to place the environment at `{}`: the image's user {user} cannot reach it, since `/{folder}` of the base is closed to it (`{}`)",
        target.prefix,
        String::from(facts)
    ));
    Err(match lock.extended() {
        Some(_) => error.hint("choose another `--user` (root: `--user 0`), or another base"),
        None => error.hint("choose another `--prefix` or `--user`, or another base"),
    })
}

/// Files of the project: directories above them, and none in their own places.
fn check_files(tree: &Tree, chosen: &Chosen) -> Result<()> {
    for (source, path) in chosen.destinations() {
        let what = format!("`{}`", source.display());
        let hint = "copy to another place, or leave the file out with `--exclude`";
        if let Some((above, _)) = path.rsplit_once('/') {
            refuse_obstacle(tree, above, &what, hint)?;
        }
        if tree.is_directory(path) {
            return Err(Error::user(format!("failed to copy {what} to `/{path}`: the base has a directory there"))
                .hint("with a slash at its end, a destination is a directory"));
        }
    }
    Ok(())
}
