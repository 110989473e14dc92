//! What becomes of the byte code that an archive ships, where Python would not use it as it is: written with the time
//! of its module, or left out. A pure function of the archive, so the store keeps it by the archive's hash; in a lock
//! or a key it never is.
//!
//! The time of a module may come after its byte code in the archive, and packing reads an archive once, as a stream.
//! So an archive that ships byte code is read once before, headers and the beginnings of `.pyc` only, up to the last
//! of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::ops::ControlFlow;

use rattler_conda_types::package::PathType;
use serde::{Deserialize, Serialize};

use super::archive::{Archive, Entry, Kind};
use super::layout::PackageLayout;
use crate::model::LAYOUT_VERSION;
use crate::model::pyc::{self, HEAD, Head, Module, Name, Verdict};
use crate::util::{Digest, Limit, Result};

/// Raised whenever something else would be said of the same archive.
const VERSION: u32 = 2;

/// By path in the archive (of wheels: in the prefix).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipped {
    /// Byte code that gets the time of its module, and that time.
    pub restamped: BTreeMap<String, u64>,
    /// Byte code that does not fit its module, or no module that it could fit.
    pub unfit: BTreeSet<String>,
}

/// Byte code and its module, both shipped.
#[derive(Debug)]
struct Pair<'a> {
    pyc: &'a str,
    name: Name,
}

impl Shipped {
    /// The key under which the store keeps it.
    ///
    /// # Errors
    /// Never.
    pub fn key(archive: &Digest) -> Result<Digest> {
        crate::util::json::canonical(&("shipped byte code", VERSION, LAYOUT_VERSION, archive)).map(Digest::of)
    }

    /// Reads it from an archive.
    ///
    /// # Errors
    /// Damaged and hostile archives.
    pub fn read(archive: &Archive, layout: &PackageLayout) -> Result<Self> {
        let pairs = pairs(layout);
        let mut shipped = Self::default();
        if pairs.is_empty() {
            return Ok(shipped);
        }
        let found = Found::read(archive, &pairs)?;
        let mut hashed = Vec::new();
        for pair in pairs {
            // What is listed and not there is complained of when it is packed.
            let (Some(module), Some(head)) = (found.modules.get(&pair.name.module), found.heads.get(pair.pyc)) else {
                continue;
            };
            match pyc::judge(head, pair.name.python, *module) {
                (Verdict::AskHash(hash), Some(head)) => hashed.push((pair, head, hash)),
                (verdict, _) => shipped.judge(pair.pyc, verdict, module.mtime),
            }
        }
        if !hashed.is_empty() {
            shipped.compare_hashes(archive, hashed)?;
        }
        Ok(shipped)
    }

    /// Takes note of what Python makes of byte code.
    pub fn judge(&mut self, pyc: &str, verdict: Verdict, mtime: u64) {
        match verdict {
            Verdict::Fits | Verdict::AskHash(_) => {}
            Verdict::OtherTime => drop(self.restamped.insert(pyc.to_owned(), mtime)),
            Verdict::Unfit => drop(self.unfit.insert(pyc.to_owned())),
        }
    }

    /// Byte code that holds a hash of its module: the archive is read once more for the modules.
    fn compare_hashes(&mut self, archive: &Archive, hashed: Vec<(Pair<'_>, Head, u64)>) -> Result<()> {
        let mut wanted: HashMap<&str, Vec<(&str, Head, u64)>> = HashMap::new();
        for (pair, head, hash) in &hashed {
            wanted.entry(&pair.name.module).or_default().push((pair.pyc, *head, *hash));
        }
        archive.visit_content(|entry, reader| {
            let of_it = wanted.get(entry.path.as_str()).filter(|_| entry.has_content());
            if let Some(of_it) = of_it {
                let content = archive.content(entry, reader, Limit::Module)?;
                let unfit = of_it.iter().filter(|(_, head, hash)| head.hash(&content) != *hash);
                self.unfit.extend(unfit.map(|(pyc, ..)| (*pyc).to_owned()));
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// The byte code of a package whose module it ships, too, and that prefix replacement leaves alone. In byte code it
/// changes no head.
fn pairs(layout: &PackageLayout) -> Vec<Pair<'_>> {
    let file = |path: &str| layout.files.get(path).filter(|file| file.entry.path_type == PathType::HardLink);
    let is_same = |path: &str| file(path).is_some_and(|file| file.entry.prefix_placeholder.is_none());
    let named = layout.files.keys().filter_map(|path| Some(Pair { pyc: path, name: Name::parse(path)? }));
    named.filter(|pair| file(pair.pyc).is_some() && is_same(&pair.name.module)).collect()
}

/// What a pass over an archive finds.
#[derive(Default)]
struct Found {
    /// All files so far: hard links may lead to any.
    modules: HashMap<String, Module>,
    /// The first bytes of byte code.
    heads: HashMap<String, Vec<u8>>,
}

impl Found {
    fn read(archive: &Archive, pairs: &[Pair<'_>]) -> Result<Self> {
        let mut awaited: BTreeSet<&str> = pairs.iter().flat_map(|pair| [pair.pyc, pair.name.module.as_str()]).collect();
        let byte_code: BTreeSet<&str> = pairs.iter().map(|pair| pair.pyc).collect();
        let mut found = Self::default();
        archive.visit_content(|entry, reader| {
            if entry.has_content() {
                found.entry(archive, entry, reader, byte_code.contains(entry.path.as_str()))?;
                awaited.remove(entry.path.as_str());
            }
            Ok(if awaited.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }

    fn entry(&mut self, archive: &Archive, entry: &Entry, reader: &mut dyn Read, is_byte_code: bool) -> Result<()> {
        let own = Module { size: entry.size, mtime: entry.mtime };
        let linked = match &entry.kind {
            Kind::Hardlink(source) => self.modules.get(source).copied(),
            _ => None,
        };
        self.modules.insert(entry.path.clone(), linked.unwrap_or(own));
        if is_byte_code {
            let head = match &entry.kind {
                Kind::Hardlink(source) => match self.heads.get(source) {
                    Some(known) => known.clone(),
                    None => {
                        let mut bytes = Vec::new();
                        archive.with_content(entry, reader, &mut |_, reader| {
                            bytes = head(reader)?;
                            Ok(())
                        })?;
                        bytes
                    }
                },
                _ => head(reader)?,
            };
            self.heads.insert(entry.path.clone(), head);
        }
        Ok(())
    }
}

/// The first bytes of byte code, or all of a shorter file.
pub fn head(reader: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEAD);
    reader.take(HEAD as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
