//! What a base lacks that images on it are used with: a C library, room for layers, and what CI systems start.

use std::sync::Arc;

use super::local::{failed, finding};
use crate::cli::args::{Global, RegistryArgs};
use crate::cli::world::{CachePlace, World};
use crate::image::{self, Base, Tree};
use crate::model::{BaseFacts, BaseRef, MAX_IMAGE_LAYERS, MIN_LAYERS, Platform};
use crate::registry::{Finding, State};
use crate::util::Result;
use crate::util::report::Silent;

/// Looks at a base for this machine's platform.
///
/// # Errors
/// A cache that cannot be used.
pub async fn examine(base: &BaseRef, registries: &RegistryArgs, global: &Global) -> Result<Vec<Finding>> {
    let world = World::open(&CachePlace::of(global)?, registries.options([]), Arc::new(Silent), false)?;
    let opened = image::open(base, &Platform::default(), &world.store, &world).await;
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(vec![failed("base", &error)]),
    };
    Ok(match image::probe_tree(&opened, &world.store, &world).await {
        Ok((facts, tree)) => vec![whole(base, &opened), libc(&facts), layers(&opened), github(&opened, &tree)],
        Err(error) => vec![failed("base", &error)],
    })
}

fn whole(reference: &BaseRef, base: &Base) -> Finding {
    let user = base.config.config().as_ref().and_then(|config| config.user().clone()).filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| "root".to_owned());
    finding("base", State::Ok, format!("{reference} ({}), user {user}", base.digest))
}

fn libc(facts: &BaseFacts) -> Finding {
    match &facts.glibc {
        Some(version) => finding("glibc", State::Ok, version.clone()),
        None => Finding {
            advice: Some(
                "conda packages need one: choose another base, or promise one with `--glibc VERSION`".to_owned(),
            ),
            ..finding("glibc", State::No, "the base has no GNU C library".to_owned())
        },
    }
}

fn layers(base: &Base) -> Finding {
    let have = base.layers.len();
    match MAX_IMAGE_LAYERS.saturating_sub(have) {
        left if left < MIN_LAYERS => Finding {
            advice: Some(format!("choose a base with at most {} layers", MAX_IMAGE_LAYERS - MIN_LAYERS)),
            ..finding("layers", State::No, format!("{have}, and Docker takes images of {MAX_IMAGE_LAYERS} at most"))
        },
        left => finding("layers", State::Ok, format!("{have}, which leaves {left}")),
    }
}

/// GitHub starts a `container:` job by `tail -f /dev/null` and runs its steps by `sh`.
fn github(base: &Base, tree: &Tree) -> Finding {
    let path = image::path(base, &[]);
    let has = |program: &str| path.split(':').any(|directory| tree.is_file(&format!("{directory}/{program}")));
    let missing: Vec<&str> = ["sh", "tail"].into_iter().filter(|program| !has(program)).collect();
    if missing.is_empty() {
        let detail = "`container:` jobs start; where steps must write to the workspace, add `options: --user root`";
        return finding("github-jobs", State::Ok, detail.to_owned());
    }
    let lacking = missing.iter().map(|program| format!("`{program}`")).collect::<Vec<_>>().join(" and ");
    let advice = "`container:` jobs need `tail` and `sh`: choose a base with them, or add `coreutils` and `bash` to the environment";
    Finding {
        advice: Some(advice.to_owned()),
        ..finding("github-jobs", State::No, format!("the base has no {lacking}"))
    }
}
