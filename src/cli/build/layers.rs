//! From lock to layer blobs in the store: what is known already stays as it is, the rest is packed, and each layer
//! is handed on the moment it is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Prepared;
use super::known::{self, KnownLayer};
use super::noting::Ready;
use super::options::Options;
use super::packing::Work;
use crate::cli::locking::base_files::{self, BaseFiles};
use crate::cli::locking::facts::wheel_file;
use crate::cli::locking::{self, from, interpreter};
use crate::cli::world::World;
use crate::image::Base;
use crate::lock::{self, Lock, LockedPackage, LockedWheel, Member};
use crate::model::{Compression, LAYOUT_VERSION, LayerBlob, Parameters, Platform, is_engines_own};
use crate::pack::environment::Session;
use crate::pack::project::{InPrefix, ProjectLayer};
use crate::pack::{
    Archive, ForeignInterpreter, KnownSegment, ModePolicy, Target, WheelFile, codec_id, environment, removals,
};
use crate::plan::{KeyInputs, LayerPlan, MIN_LAYERS, PlannedLayer, Segment, SegmentKind, plan, python_of};
use crate::spec::Spec;
use crate::store::Store;
use crate::util::{Digest, Error, Result};

/// A layer of the image and where it came from.
#[derive(Debug, Clone)]
pub struct MadeLayer {
    /// The blob, as the image wants it.
    pub layer: LayerBlob,
    /// The packages whose files are in it.
    pub packages: Vec<String>,
    /// The number of project files in it.
    pub files: Option<usize>,
    /// Whether its bytes were made by this build.
    pub new: bool,
}

/// What the layers of an image are made of.
pub struct Parts<'a> {
    /// The environment.
    pub lock: &'a Arc<Lock>,
    /// Whether it was made just now, of what the archives say.
    pub made: bool,
    /// What it is for.
    pub platform: &'a Platform,
    /// What the layers are added to.
    pub base: &'a Base,
    /// Where its files go.
    pub target: Target,
    /// Whom processes run as, and with what.
    pub session: Session,
    /// The most layers that are added.
    pub max_layers: usize,
    /// The project files.
    pub project: Option<ProjectLayer>,
}

/// Where files go, for a lock and parameters.
pub fn target(lock: &Lock, parameters: &Parameters) -> Result<Target> {
    let facts = &lock.base.facts;
    let root = facts.resolve(&parameters.prefix)?;
    if let Some(own) = root.split('/').next().filter(|_| is_engines_own(&root)) {
        return Err(Error::user(format!(
            "failed to place the environment: `{}` leads to `/{root}` in the base, and container engines put something else over `/{own}`",
            parameters.prefix
        ))
        .hint("choose another `--prefix`, or another base"));
    }
    Ok(Target {
        prefix: parameters.prefix.clone(),
        folders: facts.folders_along(&root, lock.extended().is_some()),
        root,
        subdir: lock.platform.subdir,
        python: python_of(lock)?.map(|(python, _)| python),
        modes: ModePolicy { group_write: parameters.group_write },
        keep_setuid: parameters.keep_setuid,
    })
}

/// Plans the layers of a lock's packages, with room for those of other things.
pub fn planned(parts: &Parts<'_>, options: &Options) -> Result<LayerPlan> {
    let Parts { lock, target, project, .. } = parts;
    lock::check_wheels(lock)?;
    let parameters = &options.parameters;
    let python = python_of(lock)?;
    let inputs = KeyInputs {
        prefix: target.prefix.clone(),
        root: target.root.clone(),
        folders: target.folders.clone(),
        codec: codec_id(parameters.compression),
        group_write: parameters.group_write,
        keep_setuid: parameters.keep_setuid,
        bytecode: parameters.bytecode,
        python_archive: python.as_ref().map(|(_, archive)| *archive),
        python: python.map(|(info, _)| info),
    };
    let beside = usize::from(project.is_some()) + usize::from(lock.removed().is_some());
    let max_layers = parts.max_layers.saturating_sub(beside);
    if max_layers < MIN_LAYERS {
        let what = if project.is_some() { "project files" } else { "what `--allow-clobber` removes of the base" };
        return Err(Error::usage(format!("`--max-layers {}` leaves no layer for {what}", parts.max_layers))
            .hint(format!("with that, {} is the least", MIN_LAYERS + beside)));
    }
    plan(lock, &options.policy, max_layers, &inputs)
}

/// Makes all layers that are added to the base. Each is sent to `ready` as soon as it is in the store. No registry is
/// believed to have what is `gone`.
pub async fn make(
    parts: Parts<'_>,
    Prepared { options, spec, world, .. }: &Prepared,
    gone: &BTreeSet<Digest>,
    ready: Ready,
) -> Result<Vec<MadeLayer>> {
    let plan = planned(&parts, options)?;
    check_collisions(&parts, options, spec, world).await?;
    let Parts { lock, made, platform, target, session, project, .. } = parts;
    let compression = options.parameters.compression;
    let project = project.map(|files| Ok::<_, Error>((project_key(&files, compression)?, files))).transpose()?;
    let environment = environment_tar(lock, &target, &session, compression)?;
    let removals = removals_tar(lock, &target, compression)?;
    let beside = project.as_ref().map(|it| it.0).into_iter().chain(removals.as_ref().map(|it| it.0));
    let keys = plan.layers.iter().map(|layer| layer.key).chain(beside).chain([environment.0]);
    let found = known::anywhere(keys.collect(), gone, platform, options, world).await;
    let known: Vec<Option<KnownLayer>> = plan.layers.iter().map(|layer| found.get(&layer.key).cloned()).collect();
    for (layer, known) in plan.layers.iter().zip(&known) {
        let packages: Vec<&str> = layer.members().map(|member| lock.member_name(member)).collect();
        tracing::debug!(layer = layer.name, tier = layer.tier, key = %layer.key, known = known.is_some(), ?packages, "planned");
    }
    let materials = materials(lock, &plan, &known, options, spec, world).await?;
    if !made && materials.has_any() {
        locking::verified::check(&options.environment, spec, lock, world).await?;
    }
    let work = Work {
        lock: Arc::clone(lock),
        plan,
        known,
        beside: found,
        materials,
        target,
        project,
        removals,
        environment,
        store: world.store.clone(),
        compression,
        jobs: options.environment.jobs,
        ready,
    };
    let reporter = world.reporter.clone();
    tokio::task::spawn_blocking(move || work.run(reporter.as_ref()))
        .await
        .map_err(|error| Error::bug("packing ended early").caused_by(error))?
}

/// What the layers to be packed are made of.
#[derive(Default)]
pub(super) struct Materials {
    /// In the lock's order.
    pub(super) archives: Vec<Option<Archive>>,
    /// Likewise.
    pub(super) wheels: Vec<Option<WheelFile>>,
    /// What makes byte code, if it is not the environment's own Python.
    pub(super) interpreter: Option<ForeignInterpreter>,
    /// Segments, by key, that lie in other layers already.
    pub(super) segments: BTreeMap<Digest, KnownSegment>,
}

impl Materials {
    fn has_any(&self) -> bool {
        self.archives.iter().any(Option::is_some) || self.wheels.iter().any(Option::is_some)
    }
}

async fn materials(
    lock: &Lock,
    plan: &LayerPlan,
    known: &[Option<KnownLayer>],
    options: &Options,
    spec: &Spec,
    world: &World,
) -> Result<Materials> {
    let to_pack: Vec<&PlannedLayer> =
        plan.layers.iter().zip(known).filter(|(_, known)| known.is_none()).map(|(layer, _)| layer).collect();
    let find = |segment: &Segment| KnownSegment::find(&world.store, &segment.key).map(|known| (segment.key, known));
    let all = to_pack.iter().flat_map(|layer| &layer.segments);
    let known: BTreeMap<Digest, KnownSegment> = match options.args.no_cache {
        true => BTreeMap::new(),
        false => all.clone().filter_map(find).collect(),
    };
    let segments = || all.clone().filter(|segment| !known.contains_key(&segment.key));
    let mut needed = BTreeSet::new();
    let mut wheels = BTreeSet::new();
    for segment in segments() {
        match segment.member {
            Member::Package(index) => needed.insert(index),
            Member::Wheel(index) => wheels.insert(index),
        };
    }
    locking::pip::fetch(&options.environment, spec, lock, wheels.iter().copied(), world).await?;
    let mut materials = Materials {
        archives: vec![None; lock.packages.len()],
        wheels: wheel_files(lock, &wheels, &world.store)?,
        interpreter: None,
        segments: BTreeMap::new(),
    };
    if segments().any(|segment| segment.kind == SegmentKind::Bytecode) {
        locking::confined::settle(&options.environment, &world.reporter)?;
        materials.interpreter = interpreter::obtain(&options.environment, spec, lock, world).await?;
        if materials.interpreter.is_none() {
            let python = lock.closure(["python"]);
            needed.extend((0..lock.packages.len()).filter(|&index| python.contains(lock.packages[index].name())));
        }
    }
    materials.segments = known;
    if needed.is_empty() {
        return Ok(materials);
    }
    let fetched = fetch(lock, &needed, options, spec, world).await.map_err(|error| {
        match needed.iter().any(|&index| lock.is_of_base(lock.packages[index].name())) {
            true => error.hint(
                "byte code is made by the base's Python, whose packages are fetched for that from where the base had them; `--bytecode off` does without",
            ),
            false => error,
        }
    })?;
    for (index, archive) in needed.into_iter().zip(fetched) {
        materials.archives[index] = Some(archive);
    }
    Ok(materials)
}

/// The wheels of a lock, in its order; nothing for those that are not needed.
fn wheel_files(lock: &Lock, needed: &BTreeSet<usize>, store: &Store) -> Result<Vec<Option<WheelFile>>> {
    (0..lock.wheels.len())
        .map(|index| needed.contains(&index).then(|| wheel_file(&lock.wheels[index], store)).transpose())
        .collect()
}

/// The archives of packages of a lock, in their order.
async fn fetch(
    lock: &Lock,
    packages: &BTreeSet<usize>,
    options: &Options,
    spec: &Spec,
    world: &World,
) -> Result<Vec<Archive>> {
    // With a lock, only the credentials of the channels are needed.
    let channels = locking::resolving(&options.environment, &lock.platform, spec, world)?.channels_of(spec)?;
    let records = packages.iter().map(|&index| match &lock.packages[index] {
        package if lock.is_of_base(package.name()) => from::located(&package.record, &channels),
        package => package.record.clone(),
    });
    let records: Vec<_> = records.collect();
    let origin = locking::locked_origin(spec);
    locking::fetch_locked(&records, origin, &channels.credentials, &options.environment, world).await
}

/// Project files in the prefix must not be where packages and wheels have theirs. Only the archives know where that
/// is: they are asked when there are such files, and for nothing else. Nothing is fetched for what the base has.
async fn check_collisions(parts: &Parts<'_>, options: &Options, spec: &Spec, world: &World) -> Result<()> {
    let Some(project) = &parts.project else { return Ok(()) };
    let inside = project.files_in(&parts.target.root);
    if inside.is_empty() {
        return Ok(());
    }
    let (lock, python, jobs) = (Arc::clone(parts.lock), parts.target.python.clone(), options.environment.jobs);
    let of_base = match lock.extended() {
        Some(_) => {
            let root = &parts.target.root;
            let packages: Vec<_> = lock.packages.iter().filter(|it| lock.is_of_base(it.name())).collect();
            let wheels: Vec<_> = lock.wheels.iter().filter(|it| lock.is_wheel_of_base(&it.name)).collect();
            BaseFiles::known(parts.base, root, (&packages, &wheels), python.as_ref(), world).await?
        }
        None => BaseFiles::default(),
    };
    let (mut packages, mut wheels) = (BTreeSet::new(), BTreeSet::new());
    for member in lock.members() {
        match member {
            Member::Package(index) => packages.insert(index),
            Member::Wheel(index) => wheels.insert(index),
        };
    }
    locking::pip::fetch(&options.environment, spec, &lock, wheels, world).await?;
    let archives = fetch(&lock, &packages, options, spec, world).await?;
    let store = world.store.clone();
    let refuse = move || {
        let inside = InPrefix::new(&inside);
        of_base.owners().try_for_each(|(path, name)| inside.refuse(&format!("`{name}` of the base"), path))?;
        let packages = packages.iter().map(|&index| &lock.packages[index]);
        let packages: Vec<(&LockedPackage, Archive)> = packages.zip(archives).collect();
        inside.refuse_packaged(&packages, python.as_ref(), jobs)?;
        let is_new = |wheel: &LockedWheel| !lock.is_wheel_of_base(&wheel.name);
        for (wheel, files) in base_files::wheels(&lock, is_new, python.as_ref(), jobs, &store)? {
            let owner = format!("the pip package `{}`", wheel.full_name());
            files.iter().try_for_each(|(path, _)| inside.refuse(&owner, path))?;
        }
        Ok(())
    };
    tokio::task::spawn_blocking(refuse)
        .await
        .map_err(|error| Error::bug("reading the archives ended early").caused_by(error))?
}

/// The key of the layer of project files.
pub fn project_key(project: &ProjectLayer, compression: Compression) -> Result<Digest> {
    project.key(&codec_id(compression))
}

/// The content of the environment layer, and its key.
pub fn environment_tar(
    lock: &Lock,
    target: &Target,
    session: &Session,
    compression: Compression,
) -> Result<(Digest, Vec<u8>)> {
    let tar = environment::tar(lock, target, session)?;
    let inputs = ("environment", LAYOUT_VERSION, codec_id(compression), Digest::of(&tar));
    Ok((Digest::of(crate::util::json::canonical(&inputs)?), tar))
}

/// The content of the layer that takes something of the base away, and its key; nothing when there is none.
///
/// # Errors
/// Never for a real lock.
pub fn removals_tar(lock: &Lock, target: &Target, compression: Compression) -> Result<Option<(Digest, Vec<u8>)>> {
    let Some(removed) = lock.removed() else { return Ok(None) };
    let tar = removals::tar(removed, target)?;
    let inputs = ("removals", LAYOUT_VERSION, codec_id(compression), Digest::of(&tar));
    Ok(Some((Digest::of(crate::util::json::canonical(&inputs)?), tar)))
}
