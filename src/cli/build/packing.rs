//! The packing threads: from what layers are made of to blobs in the store, each handed on the moment it is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::known::KnownLayer;
use super::layers::{MadeLayer, Materials};
use super::noting::Ready;
use crate::lock::{Lock, Member};
use crate::model::{
    Blob, BlobSource, Compression, LAYER_KEY, LAYER_NAME, LAYER_PACKAGES, LAYER_ROLE, LAYER_TIER, LayerBlob, LayerRole,
};
use crate::pack::compress::LayerWriter;
use crate::pack::project::ProjectLayer;
use crate::pack::{Compressors, Findings, LayerDigests, Losses, Packer, PackerOptions, Target};
use crate::plan::{LayerPlan, PlannedLayer, SegmentKind};
use crate::store::{RecordKind, Store};
use crate::util::report::{Outcome, Step};
use crate::util::{Digest, Error, Result};

/// What the packing threads work on.
pub(super) struct Work {
    pub(super) lock: Arc<Lock>,
    pub(super) plan: LayerPlan,
    pub(super) known: Vec<Option<KnownLayer>>,
    /// The same by their keys, with those of no package.
    pub(super) beside: BTreeMap<Digest, KnownLayer>,
    pub(super) materials: Materials,
    pub(super) target: Target,
    /// The layer of project files, with its key.
    pub(super) project: Option<(Digest, ProjectLayer)>,
    /// The tar of the layer that takes something of the base away, with its key.
    pub(super) removals: Option<(Digest, Vec<u8>)>,
    /// The tar of the environment layer, with its key.
    pub(super) environment: (Digest, Vec<u8>),
    pub(super) store: Store,
    pub(super) compression: Compression,
    pub(super) jobs: usize,
    pub(super) ready: Ready,
}

/// What the annotations of a layer say; what is empty is left out.
struct About<'a> {
    name: &'a str,
    role: LayerRole,
    tier: &'a str,
    key: &'a Digest,
    packages: &'a str,
}

impl Work {
    pub(super) fn run(mut self, reporter: &dyn crate::util::report::Reporter) -> Result<Vec<MadeLayer>> {
        let compressors = Compressors::start(self.compression, self.jobs)?;
        for (planned, known) in self.plan.layers.iter().zip(&self.known) {
            if let Some(known) = known {
                self.ready.layer(&self.layer_blob(planned, known, false), false)?;
            }
        }
        let materials = std::mem::take(&mut self.materials);
        let packed = self.pack_unknown(materials, &compressors, reporter)?;
        self.tell_losses(reporter);
        let mut made = Vec::with_capacity(self.plan.layers.len() + 3);
        if let Some(removals) = &self.removals {
            made.push(self.of_tar(LayerRole::Removals, removals, &compressors)?);
        }
        for ((planned, known), packed) in self.plan.layers.iter().zip(&self.known).zip(packed) {
            let layer = known.clone().or(packed.map(KnownLayer::from));
            let layer = layer.ok_or_else(|| Error::bug("a planned layer was not made"))?;
            made.push(MadeLayer {
                layer: self.layer_blob(planned, &layer, known.is_none()),
                packages: planned.members().map(|member| self.lock.member_full_name(member)).collect(),
                files: None,
                new: known.is_none(),
            });
        }
        if let Some((key, project)) = &self.project {
            made.push(self.project(key, project, &compressors, reporter)?);
        }
        made.push(self.of_tar(LayerRole::Environment, &self.environment, &compressors)?);
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
        progress.finish(&Outcome::Packed { layers: count, uncompressed_bytes: bytes });
        Ok(packed)
    }

    /// Tells what files lose in the image, also in layers that were packed before.
    fn tell_losses(&self, reporter: &dyn crate::util::report::Reporter) {
        let segments = |kind| {
            let all = self.plan.layers.iter().flat_map(|layer| &layer.segments);
            all.filter(move |segment| segment.kind == kind)
        };
        let compiled: BTreeSet<Member> = segments(SegmentKind::Bytecode).map(|segment| segment.member).collect();
        let mut findings = Findings::default();
        for segment in segments(SegmentKind::Files) {
            if let Some(losses) = self.store.record::<Losses>(RecordKind::Losses, &segment.key) {
                let name = self.lock.member_full_name(segment.member);
                findings.add(&name, losses, compiled.contains(&segment.member));
            }
        }
        findings.warnings().iter().for_each(|warning| reporter.warn(warning));
        findings.notices().iter().for_each(|notice| reporter.notice(notice));
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
        self.ready.layer(&self.layer_blob(planned, &digests.into(), true), true)?;
        Ok(digests)
    }

    fn layer_blob(&self, planned: &PlannedLayer, layer: &KnownLayer, new: bool) -> LayerBlob {
        let packages: Vec<String> = planned.members().map(|member| self.lock.member_full_name(member)).collect();
        let about = About {
            name: &planned.name,
            role: planned.role(),
            tier: &planned.tier,
            key: &planned.key,
            packages: &packages.join(" "),
        };
        self.blob(about, layer, new)
    }

    fn blob(&self, about: About<'_>, layer: &KnownLayer, new: bool) -> LayerBlob {
        let About { name, role, tier, key, packages } = about;
        let annotations = [
            (LAYER_NAME, name.to_owned()),
            (LAYER_ROLE, role.name().to_owned()),
            (LAYER_TIER, tier.to_owned()),
            (LAYER_KEY, key.to_string()),
            (LAYER_PACKAGES, packages.to_owned()),
        ];
        LayerBlob {
            blob: Blob {
                media_type: self.compression.media_type().to_owned(),
                digest: layer.digest,
                size: layer.size,
                source: match &layer.at {
                    Some(reference) => BlobSource::Registry(reference.clone()),
                    None if new => BlobSource::Packed(self.store.blob(&layer.digest)),
                    None => BlobSource::File(self.store.blob(&layer.digest)),
                },
            },
            diff_id: layer.diff_id,
            name: name.to_owned(),
            annotations: annotations
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            created_by: format!("condaimg: {name}"),
        }
    }

    /// A layer that is small enough to be made in memory each time; its key is its content.
    fn of_tar(&self, role: LayerRole, (key, tar): &(Digest, Vec<u8>), compressors: &Compressors) -> Result<MadeLayer> {
        self.beside_packages(role, key, compressors, |writer| Ok(writer.write_all(tar)?))
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
            progress.finish(&Outcome::PackedFiles { files: project.files(), uncompressed_bytes: project.size() });
            Ok(())
        };
        let made = self.beside_packages(LayerRole::ProjectFiles, key, compressors, write)?;
        Ok(MadeLayer { files: Some(project.files()), ..made })
    }

    /// A layer of no package: as it is known, else as `write` makes it.
    fn beside_packages(
        &self,
        role: LayerRole,
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
        let layer = self.blob(About { name: role.name(), role, tier: "", key, packages: "" }, &layer, known.is_none());
        self.ready.layer(&layer, known.is_none())?;
        Ok(MadeLayer { layer, packages: Vec::new(), files: None, new: known.is_none() })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
