//! From lock to layer blobs in the store: what is known already stays as it is, the rest is packed, and each layer
//! is handed on the moment it is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::mpsc::UnboundedSender;

use super::known::{self, KnownLayer};
use super::options::Options;
use crate::cli::locking::base_files::{self, BaseFiles};
use crate::cli::locking::facts::wheel_file;
use crate::cli::locking::{self, from, interpreter};
use crate::cli::world::World;
use crate::image::Base;
use crate::lock::{self, Lock, LockedPackage, LockedWheel, Member};
use crate::model::{Blob, BlobSource, Compression, LAYER_KEY, LAYOUT_VERSION, LayerBlob, Parameters, Platform, User};
use crate::pack::compress::LayerWriter;
use crate::pack::project::{InPrefix, ProjectLayer};
use crate::pack::{
    Archive, Compressors, ForeignInterpreter, KnownSegment, LayerDigests, ModePolicy, Packer, PackerOptions, Target,
    WheelFile, codec_id, environment,
};
use crate::plan::{KeyInputs, LayerPlan, MIN_LAYERS, PlannedLayer, Segment, SegmentKind, plan, python_of};
use crate::spec::Spec;
use crate::store::{RecordKind, Store};
use crate::util::report::Step;
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
    /// What it is for.
    pub platform: &'a Platform,
    /// What the layers are added to.
    pub base: &'a Base,
    /// Where its files go.
    pub target: Target,
    /// Whom processes run as.
    pub user: User,
    /// The project files.
    pub project: Option<ProjectLayer>,
}

/// Where files go, for a lock and parameters.
pub fn target(lock: &Lock, parameters: &Parameters) -> Result<Target> {
    Ok(Target {
        prefix: parameters.prefix.clone(),
        root: lock.base.facts.resolve(&parameters.prefix),
        subdir: lock.platform.subdir,
        python: python_of(lock)?.map(|(python, _)| python),
        modes: ModePolicy { group_write: parameters.group_write },
        folders: lock.base.facts.folders_along(&lock.base.facts.resolve(&parameters.prefix)),
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
        codec: codec_id(parameters.compression),
        group_write: parameters.group_write,
        bytecode: parameters.bytecode,
        python_archive: python.as_ref().map(|(_, archive)| *archive),
        python: python.map(|(info, _)| info),
    };
    let max_layers = parameters.max_layers - usize::from(project.is_some());
    if max_layers < MIN_LAYERS {
        return Err(Error::usage(format!(
            "`--max-layers {}` leaves no layer for project files",
            parameters.max_layers
        ))
        .hint(format!("with them, {} is the least", MIN_LAYERS + 1)));
    }
    plan(lock, &options.policy, max_layers, &inputs)
}

/// Makes all layers that are added to the base. Each is sent to `ready` as soon as it is in the store.
pub async fn make(
    parts: Parts<'_>,
    options: &Options,
    spec: &Spec,
    world: &World,
    ready: UnboundedSender<Blob>,
) -> Result<Vec<MadeLayer>> {
    let plan = planned(&parts, options)?;
    check_collisions(&parts, options, spec, world).await?;
    let Parts { lock, platform, target, user, project, .. } = parts;
    let compression = options.parameters.compression;
    let project = project.map(|files| Ok::<_, Error>((project_key(&files, compression)?, files))).transpose()?;
    let environment = environment_tar(lock, &target, user, compression)?;
    let keys = plan.layers.iter().map(|layer| layer.key).chain(project.as_ref().map(|it| it.0)).chain([environment.0]);
    let found = known::anywhere(keys.collect(), platform, options, world).await;
    let known: Vec<Option<KnownLayer>> = plan.layers.iter().map(|layer| found.get(&layer.key).cloned()).collect();
    for (layer, known) in plan.layers.iter().zip(&known) {
        let packages: Vec<&str> = layer.members().map(|member| lock.member_name(member)).collect();
        tracing::debug!(layer = layer.name, tier = layer.tier, key = %layer.key, known = known.is_some(), ?packages, "planned");
    }
    let materials = materials(lock, &plan, &known, options, spec, world).await?;
    let work = Work {
        lock: Arc::clone(lock),
        plan,
        known,
        beside: found,
        materials,
        target,
        project,
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
struct Materials {
    /// In the lock's order.
    archives: Vec<Option<Archive>>,
    /// Likewise.
    wheels: Vec<Option<WheelFile>>,
    /// What makes byte code, if it is not the environment's own Python.
    interpreter: Option<ForeignInterpreter>,
    /// Segments, by key, that lie in other layers already.
    segments: BTreeMap<Digest, KnownSegment>,
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
    locking::fetch_locked(&records, &channels.credentials, &options.environment, world).await
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
    user: User,
    compression: Compression,
) -> Result<(Digest, Vec<u8>)> {
    let tar = environment::tar(lock, target, user)?;
    let inputs = ("environment", LAYOUT_VERSION, codec_id(compression), Digest::of(&tar));
    Ok((Digest::of(crate::util::json::canonical(&inputs)?), tar))
}

/// What the packing threads work on.
struct Work {
    lock: Arc<Lock>,
    plan: LayerPlan,
    known: Vec<Option<KnownLayer>>,
    /// The same by their keys, with those of no package.
    beside: BTreeMap<Digest, KnownLayer>,
    materials: Materials,
    target: Target,
    /// The layer of project files, with its key.
    project: Option<(Digest, ProjectLayer)>,
    /// The tar of the environment layer, with its key.
    environment: (Digest, Vec<u8>),
    store: Store,
    compression: Compression,
    jobs: usize,
    ready: UnboundedSender<Blob>,
}

impl Work {
    fn run(mut self, reporter: &dyn crate::util::report::Reporter) -> Result<Vec<MadeLayer>> {
        let compressors = Compressors::start(self.compression, self.jobs)?;
        for (planned, known) in self.plan.layers.iter().zip(&self.known) {
            if let Some(known) = known {
                self.hand_on(&self.layer_blob(planned, known));
            }
        }
        let materials = std::mem::take(&mut self.materials);
        let packed = self.pack_unknown(materials, &compressors, reporter)?;
        let mut made = Vec::with_capacity(self.plan.layers.len() + 2);
        for ((planned, known), packed) in self.plan.layers.iter().zip(&self.known).zip(packed) {
            let layer = known.clone().or(packed.map(KnownLayer::from));
            let layer = layer.ok_or_else(|| Error::bug("a planned layer was not made"))?;
            made.push(MadeLayer {
                layer: self.layer_blob(planned, &layer),
                packages: planned.members().map(|member| self.lock.member_full_name(member)).collect(),
                files: None,
                new: known.is_none(),
            });
        }
        if let Some((key, project)) = &self.project {
            made.push(self.project(key, project, &compressors, reporter)?);
        }
        made.push(self.environment(&compressors)?);
        Ok(made)
    }

    /// Packs what is not known, on all cores; results in the plan's order.
    fn pack_unknown(
        &self,
        materials: Materials,
        compressors: &Compressors,
        reporter: &dyn crate::util::report::Reporter,
    ) -> Result<Vec<Option<LayerDigests>>> {
        let mut queue: Vec<usize> = (0..self.plan.layers.len()).filter(|&index| self.known[index].is_none()).collect();
        let mut packed = vec![None; self.plan.layers.len()];
        if queue.is_empty() {
            return Ok(packed);
        }
        // Taken from the end: byte code first, because it takes longest for its size, then the largest layers.
        queue.sort_by_key(|&index| {
            let layer = &self.plan.layers[index];
            let compiles = layer.segments.iter().any(|segment| segment.kind == SegmentKind::Bytecode);
            (compiles, layer.archive_size)
        });
        let sizes = queue.iter().map(|&index| self.plan.layers[index].archive_size);
        let total = sizes.fold(0, u64::saturating_add);
        let progress = reporter.begin(Step::Pack, total);
        let count = queue.len();
        let packer = Packer::new(PackerOptions {
            lock: &self.lock,
            archives: materials.archives,
            wheels: materials.wheels,
            interpreter: materials.interpreter,
            known: &materials.segments,
            target: &self.target,
            store: &self.store,
            jobs: self.jobs,
        });
        let queue = Mutex::new(queue);
        let results = Mutex::new(&mut packed);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        // A function of its own: in a `while let` the lock would be held for the whole of its body.
        let next = || lock(&queue).pop();
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(count) {
                scope.spawn(|| {
                    while let Some(index) = next() {
                        match self.pack_one(index, &packer, compressors, progress.as_ref()) {
                            Ok(digests) => lock(&results)[index] = Some(digests),
                            Err(error) => {
                                // The first failure ends the build; the others' work is not begun.
                                lock(&queue).clear();
                                lock(&failure).get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let bytes: u64 = packed.iter().flatten().map(|layer| layer.diff_size).sum();
        let layers = if count == 1 { "layer" } else { "layers" };
        progress.finish(&format!("{count} {layers}, {} uncompressed", crate::cli::progress::human(bytes)));
        Ok(packed)
    }

    fn pack_one(
        &self,
        index: usize,
        packer: &Packer<'_>,
        compressors: &Compressors,
        progress: &dyn crate::util::report::Progress,
    ) -> Result<LayerDigests> {
        let planned = &self.plan.layers[index];
        let digests = packer.pack(planned, compressors, progress)?;
        self.store.remember(RecordKind::Layer, &planned.key, &digests)?;
        self.hand_on(&self.layer_blob(planned, &digests.into()));
        Ok(digests)
    }

    fn hand_on(&self, layer: &LayerBlob) {
        // Nobody listens when the build has failed meanwhile, or does not push.
        let _ = self.ready.send(layer.blob.clone());
    }

    fn layer_blob(&self, planned: &PlannedLayer, layer: &KnownLayer) -> LayerBlob {
        let packages: Vec<String> = planned.members().map(|member| self.lock.member_full_name(member)).collect();
        self.blob(&planned.name, &planned.key, &packages.join(" "), layer)
    }

    fn blob(&self, name: &str, key: &Digest, packages: &str, known: &KnownLayer) -> LayerBlob {
        let annotations = [
            ("dev.condaimg.layer.name", name.to_owned()),
            (LAYER_KEY, key.to_string()),
            ("dev.condaimg.layer.packages", packages.to_owned()),
        ];
        LayerBlob {
            blob: Blob {
                media_type: self.compression.media_type().to_owned(),
                digest: known.digest,
                size: known.size,
                source: match &known.at {
                    Some(reference) => BlobSource::Registry(reference.clone()),
                    None => BlobSource::File(self.store.blob(&known.digest)),
                },
            },
            diff_id: known.diff_id,
            name: name.to_owned(),
            annotations: annotations
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            created_by: format!("condaimg: {name}"),
        }
    }

    /// The environment layer: small enough to be made in memory each time; its key is its content.
    fn environment(&self, compressors: &Compressors) -> Result<MadeLayer> {
        let (key, tar) = &self.environment;
        let write = |writer: &mut LayerWriter<'_>| Ok(writer.write_all(tar)?);
        self.beside_packages("environment", key, compressors, write)
    }

    /// The layer of project files.
    fn project(
        &self,
        key: &Digest,
        project: &ProjectLayer,
        compressors: &Compressors,
        reporter: &dyn crate::util::report::Reporter,
    ) -> Result<MadeLayer> {
        let write = |writer: &mut LayerWriter<'_>| {
            let progress = reporter.begin(Step::Pack, project.size());
            progress.item("project files");
            project.write(writer, progress.as_ref())?;
            progress.finish(&format!("project files, {} uncompressed", crate::cli::progress::human(project.size())));
            Ok(())
        };
        let made = self.beside_packages("project-files", key, compressors, write)?;
        Ok(MadeLayer { files: Some(project.files()), ..made })
    }

    /// A layer of no package: as it is known, else as `write` makes it.
    fn beside_packages(
        &self,
        name: &str,
        key: &Digest,
        compressors: &Compressors,
        write: impl FnOnce(&mut LayerWriter<'_>) -> Result<()>,
    ) -> Result<MadeLayer> {
        let known = self.beside.get(key);
        let layer = match known {
            Some(known) => known.clone(),
            None => {
                let mut writer = compressors.layer(self.store.new_blob()?);
                write(&mut writer)?;
                let digests = writer.finish()?;
                self.store.remember(RecordKind::Layer, key, &digests)?;
                digests.into()
            }
        };
        let layer = self.blob(name, key, "", &layer);
        self.hand_on(&layer);
        Ok(MadeLayer { layer, packages: Vec::new(), files: None, new: known.is_none() })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
