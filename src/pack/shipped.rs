//! What becomes of the byte code that an archive ships, where Python would not use it as it is: written with the time
//! of its module, or left out. A pure function of the archive and of where Python has its packages, so the store keeps
//! it by these; in a lock or a key it never is.
//!
//! The time of a module may come after its byte code in the archive, and packing reads an archive once, as a stream.
//! So an archive that ships byte code is read once before, headers and the beginnings of `.pyc` only, up to the last
//! of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::ops::ControlFlow;

use rattler::install::PythonInfo;
use serde::{Deserialize, Serialize};

use super::archive::{Archive, Entry, Kind};
use super::bytecode;
use super::facts::python_key;
use super::layout::PackageLayout;
use super::pairs::{Pair, is_cache, pairs};
use crate::model::LAYOUT_VERSION;
use crate::model::pyc::{self, HEAD, Head, Module, Name, Python, Stamp, Verdict};
use crate::util::{Digest, Limit, Result};

/// Raised whenever something else would be said of the same archive. 3: links are followed.
const VERSION: u32 = 3;

/// By path in the archive (of wheels: in the prefix).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipped {
    /// Byte code that gets the time of its module, and that time.
    pub restamped: BTreeMap<String, Stamp>,
    /// Byte code, or a link to it, that does not fit its module, or no module that it could fit; with the module of
    /// which it can be made anew.
    pub unfit: BTreeMap<String, Option<String>>,
    /// What was found through links, with all that it depends on: it goes when any of that is left out.
    pub linked: BTreeMap<String, BTreeSet<String>>,
}

impl Shipped {
    /// The key under which the store keeps it. Where the files of a noarch package go depends on Python, and so does
    /// where their links lead.
    ///
    /// # Errors
    /// Never.
    pub fn key(archive: &Digest, layout: &PackageLayout, python: Option<&PythonInfo>) -> Result<Digest> {
        let python = python_key(python.filter(|_| layout.index.noarch.is_python()));
        let inputs = ("shipped byte code", VERSION, LAYOUT_VERSION, archive, python);
        crate::util::json::canonical(&inputs).map(Digest::of)
    }

    /// Reads it from an archive.
    ///
    /// # Errors
    /// Damaged and hostile archives.
    pub fn read(archive: &Archive, layout: &PackageLayout) -> Result<Self> {
        let awaited = awaited(layout);
        if awaited.is_empty() {
            return Ok(Self::default());
        }
        let found = Found::read(archive, layout, awaited)?;
        let mut judged = Vec::new();
        let mut hashed = Vec::new();
        for pair in pairs(layout, &found.links) {
            // What is listed and not there is complained of when it is packed.
            let Some((verdict, head)) = found.judge(&pair, layout) else { continue };
            if let (Verdict::AskHash(hash), Some(head)) = (verdict, head) {
                hashed.push((judged.len(), head, hash));
            }
            judged.push((pair, verdict));
        }
        if !hashed.is_empty() {
            compare_hashes(archive, &mut judged, &hashed)?;
        }
        let mut shipped = Self::settled(&judged, &found);
        // What a lock leaves out already.
        let stale = bytecode::stale(layout);
        shipped.unfit.retain(|pyc, _| layout.files.get(pyc).is_none_or(|file| !stale.contains(&file.target)));
        Ok(shipped)
    }

    /// Takes note of what Python makes of byte code that is no link.
    pub fn judge(&mut self, pyc: &str, name: &Name, verdict: Verdict, mtime: u64) {
        match verdict {
            Verdict::Fits | Verdict::AskHash(_) => {}
            Verdict::OtherTime => drop(self.restamped.insert(pyc.to_owned(), Stamp::new(name.python, mtime))),
            Verdict::Unfit => drop(self.unfit.insert(pyc.to_owned(), None)),
        }
    }

    /// One file may be the byte code of several modules, by links to it. It gets the time that its own name asks for,
    /// else the first that a link asks for, and what asks for another one is left out.
    fn settled(judged: &[(Pair<'_>, Verdict)], found: &Found) -> Self {
        let mtime = |pair: &Pair<'_>| Some(found.modules.get(pair.module?)?.mtime);
        let mut of_file: BTreeMap<&str, Vec<&(Pair<'_>, Verdict)>> = BTreeMap::new();
        for one in judged {
            of_file.entry(one.0.code.unwrap_or(one.0.pyc)).or_default().push(one);
        }
        let mut shipped = Self::default();
        for (code, mut pairs) in of_file {
            pairs.sort_by_key(|(pair, _)| pair.pyc != code);
            let own = pairs.iter().filter(|(pair, _)| pair.pyc == code).count();
            let asking = pairs.iter().take(if own > 0 { own } else { pairs.len() });
            let stamp = asking.copied().find(|(_, verdict)| *verdict == Verdict::OtherTime);
            let stamp = stamp.and_then(|(pair, _)| Some(Stamp::new(pair.name.python, mtime(pair)?)));
            let fits = |(pair, verdict): &(Pair<'_>, Verdict)| match verdict {
                Verdict::OtherTime => stamp.is_some_and(|stamp| mtime(pair) == Some(stamp.mtime)),
                Verdict::Fits => stamp.is_none_or(|stamp| mtime(pair) == Some(stamp.mtime)),
                Verdict::Unfit | Verdict::AskHash(_) => false,
            };
            let is_lost = pairs.iter().any(|one| one.0.pyc == code && !fits(one));
            for (pair, _) in pairs.iter().filter(|one| is_lost || !fits(one)) {
                let module = pair.module.filter(|_| pair.is_direct && pair.name.plain);
                shipped.unfit.insert(pair.pyc.to_owned(), module.map(str::to_owned));
            }
            if let Some(stamp) = stamp.filter(|_| !is_lost) {
                shipped.restamped.insert(code.to_owned(), stamp);
            }
            for (pair, _) in pairs.iter().filter(|(pair, _)| !pair.through.is_empty()) {
                let through = pair.through.iter().map(|path| (*path).to_owned());
                shipped.linked.entry(pair.pyc.to_owned()).or_default().extend(through);
            }
        }
        shipped
    }
}

/// Byte code that holds a hash of its module: the archive is read once more for the modules.
fn compare_hashes(archive: &Archive, judged: &mut [(Pair<'_>, Verdict)], hashed: &[(usize, Head, u64)]) -> Result<()> {
    let mut wanted: HashMap<&str, Vec<&(usize, Head, u64)>> = HashMap::new();
    for one in hashed {
        wanted.entry(judged[one.0].0.module.unwrap_or_default()).or_default().push(one);
    }
    let mut verdicts = Vec::new();
    archive.visit_content(|entry, reader| {
        let of_it = wanted.get(entry.path.as_str()).filter(|_| entry.has_content());
        if let Some(of_it) = of_it {
            let content = archive.content(entry, reader, Limit::Module)?;
            let verdict = |fits| if fits { Verdict::Fits } else { Verdict::Unfit };
            verdicts.extend(of_it.iter().map(|(index, head, hash)| (*index, verdict(head.hash(&content) == *hash))));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for (index, verdict) in verdicts {
        judged[index].1 = verdict;
    }
    Ok(())
}

/// The entries of an archive, by path, that have to be seen before byte code can be judged; none when a package ships
/// none. After them nothing is of interest, unless one of them is a link.
fn awaited(layout: &PackageLayout) -> BTreeSet<&str> {
    let by_target: HashMap<&str, &str> =
        layout.files.iter().map(|(source, file)| (file.target.as_str(), source.as_str())).collect();
    let mut awaited = BTreeSet::new();
    for (source, file) in &layout.files {
        let module = Name::parse(&file.target).and_then(|name| by_target.get(name.module.as_str()));
        awaited.extend(module.into_iter().flat_map(|module| [source.as_str(), module]));
        if is_cache(&file.target) {
            awaited.insert(source);
        }
    }
    let has_code = layout.files.values().any(|file| file.target.ends_with(".pyc"));
    if has_code { awaited } else { BTreeSet::new() }
}

/// What a pass over an archive finds.
#[derive(Default)]
struct Found {
    /// All files so far: hard links may lead to any.
    modules: HashMap<String, Module>,
    /// The first bytes of byte code.
    heads: HashMap<String, Vec<u8>>,
    /// Symbolic links, by path in the prefix.
    links: HashMap<String, String>,
}

impl Found {
    fn read(archive: &Archive, layout: &PackageLayout, mut awaited: BTreeSet<&str>) -> Result<Self> {
        let mut found = Self::default();
        let mut is_linked = false;
        archive.visit_content(|entry, reader| {
            let is_awaited = awaited.remove(entry.path.as_str());
            let Some(file) = layout.files.get(&entry.path).filter(|_| !entry.has_content()) else {
                if entry.has_content() {
                    found.entry(archive, entry, reader)?;
                }
                return Ok(flow(awaited.is_empty() && !is_linked));
            };
            if let Kind::Symlink(target) = &entry.kind {
                is_linked |= is_awaited;
                found.links.insert(file.target.clone(), target.clone());
            }
            Ok(flow(awaited.is_empty() && !is_linked))
        })?;
        Ok(found)
    }

    fn entry(&mut self, archive: &Archive, entry: &Entry, reader: &mut dyn Read) -> Result<()> {
        let own = Module { size: entry.size, mtime: entry.mtime };
        let linked = match &entry.kind {
            Kind::Hardlink(source) => self.modules.get(source).copied(),
            _ => None,
        };
        self.modules.insert(entry.path.clone(), linked.unwrap_or(own));
        if entry.path.ends_with(".pyc") {
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

    /// What Python makes of byte code, as far as its head tells; nothing when the archive lacks what it lists.
    fn judge(&self, pair: &Pair<'_>, layout: &PackageLayout) -> Option<(Verdict, Option<Head>)> {
        // Links that leave the package lead to what others may change.
        let (Some(code), Some(source)) = (pair.code, pair.module) else { return Some((Verdict::Unfit, None)) };
        let module = *self.modules.get(source)?;
        self.modules.get(code)?;
        let Some(head) = self.heads.get(code) else { return Some((Verdict::Unfit, None)) };
        let (verdict, head) = pyc::judge(head, pair.name.python, module);
        let is_replaced = layout.files.get(source).is_some_and(|file| file.entry.prefix_placeholder.is_some());
        // Python 3 does not look at the one, nor Python 2 at the other.
        let is_unused = pair.name.python == Python::Two && verdict == Verdict::Fits;
        match is_replaced && !is_unused {
            true => Some((Verdict::Unfit, None)),
            false => Some((verdict, head)),
        }
    }
}

fn flow(is_done: bool) -> ControlFlow<()> {
    if is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The first bytes of byte code, or all of a shorter file.
pub fn head(reader: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEAD);
    reader.take(HEAD as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
