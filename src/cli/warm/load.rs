//! `warm --load`: prepared images into container engines.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::What;
use super::report::Loaded;
use crate::cli::args::{BuildArgs, EngineArg, WarmArgs};
use crate::cli::build;
use crate::image::Image;
use crate::model::BaseRef;
use crate::registry::{Reference, Registry};
use crate::ship::{Engine, Intake};
use crate::store::Store;
use crate::util::report::{Outcome, SharedReporter, Step};
use crate::util::{Error, Result, ResultExt as _};

impl From<EngineArg> for Engine {
    fn from(engine: EngineArg) -> Self {
        match engine {
            EngineArg::Podman => Self::Podman,
            EngineArg::Docker => Self::Docker,
            EngineArg::Containerd => Self::Containerd,
        }
    }
}

/// The engines that images are given to, each once; their programs are there.
///
/// # Errors
/// When a program is missing; when one name is for several images.
pub fn engines(args: &WarmArgs) -> Result<Vec<Engine>> {
    let mut engines: Vec<Engine> = args.load.iter().map(|engine| (*engine).into()).collect();
    engines.sort_unstable();
    engines.dedup();
    engines.iter().try_for_each(|engine| engine.find())?;
    if !engines.is_empty() && !args.build.tags.is_empty() && !args.more.is_empty() {
        return Err(Error::usage("`--tag` names one image, and `--load` is to load several")
            .hint("write the tags of environments into their condaimg.yaml (`image: {tags: [...]}`), or prepare one at a time"));
    }
    Ok(engines)
}

/// Refuses what engines could not be given, before anything is prepared.
///
/// # Errors
/// An item without a name, or that is not there; a name of two items.
pub fn check(items: &[(String, BuildArgs)]) -> Result<()> {
    let mut named: BTreeMap<String, &str> = BTreeMap::new();
    for (item, args) in items {
        let what = super::what(item)?;
        if let What::Image(image) = &what
            && let Some(path) = image.path().filter(|path| !path.exists())
        {
            return Err(Error::user(format!("failed to load `{item}`: there is no `{}`", path.display()))
                .hint("name a layout or an archive that is there"));
        }
        for name in names(&what, args).context(|| format!("failed to load `{item}`"))? {
            if let Some(other) = named.insert(name.clone(), item).filter(|other| other != item) {
                return Err(Error::usage(format!("failed to load `{item}`: `{other}` is also called `{name}`"))
                    .hint("give each image a name of its own (`image: {tags: [...]}` in condaimg.yaml)"));
            }
        }
    }
    Ok(())
}

/// What an item's image will be called in engines: as `--tag` says, else as the file of the environment says, else as
/// the image is called in its registry.
///
/// # Errors
/// When nothing says it; when there are several platforms, of which an engine would keep the last.
pub fn names(what: &What, args: &BuildArgs) -> Result<Vec<String>> {
    let args = match what {
        What::Environment => build::completed(args)?,
        What::Image(_) => args.clone(),
    };
    let count = args.environment.platforms.len();
    if count > 1 {
        return Err(Error::usage(format!("an engine holds an image for one platform under a name, not for {count}"))
            .hint("say which one with `--platform`, or leave out `--load`"));
    }
    let mut names = Vec::new();
    for tag in &args.tags {
        names.push(by_tag(&Registry::parse(tag)?).ok_or_else(|| Error::usage(format!("`--tag {tag}` has no tag")))?);
    }
    if let (true, What::Image(BaseRef::Registry(reference))) = (names.is_empty(), what) {
        names.extend(by_tag(&Registry::parse(reference)?));
    }
    match (names.is_empty(), what) {
        (false, _) => Ok(names),
        (true, What::Environment) => Err(Error::usage("`--load` needs a name for the image of the environment")
            .hint("give it with `--tag REGISTRY/REPOSITORY:TAG`, or in the condaimg.yaml (`image: {tags: [...]}`)")),
        (true, What::Image(image)) => {
            Err(Error::usage(format!("`--load` needs a name for `{image}`, which has no tag"))
                .hint("give it with `--tag REGISTRY/REPOSITORY:TAG`"))
        }
    }
}

/// `HOST/REPOSITORY:TAG`, without a digest: engines give those themselves.
fn by_tag(reference: &Reference) -> Option<String> {
    Some(format!("{}/{}:{}", reference.registry(), reference.repository(), reference.tag()?))
}

/// Gives the image to an engine.
///
/// # Errors
/// Those of the engine.
pub async fn load(
    engine: Engine,
    images: &[Image],
    names: &[String],
    store: &Store,
    reporter: &SharedReporter,
) -> Result<Loaded> {
    let [image] = images else { return Err(Error::bug("an engine was to load several platforms")) };
    let (image, names, store, reporter) = (image.clone(), names.to_vec(), store.clone(), Arc::clone(reporter));
    let loading = tokio::task::spawn_blocking(move || {
        let progress = reporter.begin(Step::Load, 0);
        let intake = engine.load(&image, &names, &store, progress.as_ref())?;
        let (state, present) = match intake {
            Intake::Present => ("present", true),
            Intake::Loaded => ("loaded", false),
        };
        progress.finish(&Outcome::Loaded { engine: engine.name(), names: names.clone(), present });
        Ok(Loaded { engine: engine.name(), names, state })
    });
    loading.await.map_err(|error| Error::bug("loading ended early").caused_by(error))?
}
