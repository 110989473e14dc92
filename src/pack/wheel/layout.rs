//! What a wheel installs, and where: the paths of its zip turned into prefix paths, as pip does in a conda
//! environment (binary distribution format, "Installing a wheel").
//!
//! | in the wheel | in the prefix |
//! |---|---|
//! | anything, `*.data/purelib`, `*.data/platlib` | site-packages |
//! | `*.data/scripts` | `bin` |
//! | `*.data/data` | the prefix itself |
//! | `*.data/headers` | `include/pythonX.Y/NAME` |
//!
//! `RECORD`, `INSTALLER` and `direct_url.json` are written anew; `REQUESTED` would depend on who asked.

use std::collections::{BTreeMap, BTreeSet};

use rattler::install::PythonInfo;
use rattler_conda_types::package::EntryPoint;

use super::metadata::{self, WheelMetadata};
use super::record::{Expected, Record};
use super::{WheelFile, WheelZip, ZipEntry, normalise_name, same_version};
use crate::lock::LockedWheel;
use crate::model::pyc::{Stamp, module_of};
use crate::pack::layout::ancestors;
use crate::util::paths::check_target;
use crate::util::{Digest, Error, Result};

/// Who installed it; nothing of this machine, and no version.
const INSTALLER: &str = "condaimg\n";

/// Files of `.dist-info` that installers write, whatever the wheel has there.
const WRITTEN: [&str; 4] = ["RECORD", "INSTALLER", "REQUESTED", "direct_url.json"];

/// Files of `.dist-info` that RECORD cannot list.
const UNLISTED: [&str; 3] = ["RECORD", "RECORD.jws", "RECORD.p7s"];

/// What a wheel installs.
#[derive(Debug)]
pub struct WheelLayout {
    /// What it says of itself.
    pub metadata: WheelMetadata,
    /// Its files, by where they lie relative to the prefix.
    pub files: BTreeMap<String, LaidEntry>,
    /// Scripts that are made for it, by prefix path.
    pub entry_points: BTreeMap<String, EntryPoint>,
    /// Small files that are made for it, by prefix path.
    pub made: BTreeMap<String, String>,
    /// Where its RECORD lies in the prefix.
    pub record: String,
    /// When the wheel's own RECORD was written, in seconds since 1970; the time of what is made for it.
    pub mtime: u64,
}

/// One file of a wheel.
#[derive(Debug)]
pub struct LaidEntry {
    /// Its path in the wheel.
    pub source: String,
    /// The file.
    pub entry: ZipEntry,
    /// The hash that RECORD gives; none for signatures of RECORD.
    pub expected: Option<Expected>,
    /// Whether it is a script of the wheel: executable, its first line perhaps rewritten.
    pub is_script: bool,
    /// Of byte code: the time of its module, if another one is in it.
    pub restamp: Option<Stamp>,
}

impl WheelLayout {
    /// Reads it from a wheel; `python` is the environment's.
    ///
    /// # Errors
    /// Damaged and hostile wheels; one that is not what the lock says.
    pub fn read(zip: &mut WheelZip, locked: &LockedWheel, python: &PythonInfo) -> Result<Self> {
        let wheel = zip.wheel().clone();
        let (metadata, stem) = metadata::read(zip)?;
        if metadata.name != locked.name || !same_version(&metadata.version, &locked.version) {
            let said = format!("it says that it is `{} {}`", metadata.name, metadata.version);
            return Err(wheel.broken(said).hint(format!("the lock has it as `{} {}`", locked.name, locked.version)));
        }
        let record = listed(zip, &stem)?;
        let dist_info = format!("{}/{stem}.dist-info", python.site_packages_path.display());
        let mut made = BTreeMap::from([(format!("{dist_info}/INSTALLER"), INSTALLER.to_owned())]);
        if let Some(direct_url) = locked.direct_url()? {
            made.insert(format!("{dist_info}/direct_url.json"), direct_url);
        }
        let entry_points = metadata::entry_points(zip, &stem)?;
        let bin = python.bin_dir.display();
        let own_record = format!("{stem}.dist-info/RECORD");
        let mut layout = Self {
            entry_points: entry_points.into_values().map(|it| (format!("{bin}/{}", it.command), it)).collect(),
            mtime: zip.entries().get(&own_record).map_or(0, |entry| entry.mtime),
            record: format!("{dist_info}/RECORD"),
            files: BTreeMap::new(),
            made,
            metadata,
        };
        let placing = Placing { wheel: &wheel, stem: &stem, name: &layout.metadata.display_name.clone(), python };
        layout.add_files(zip, &record, &placing)?;
        layout.check_targets(&wheel)?;
        Ok(layout)
    }

    /// All paths that the wheel puts into the prefix.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        let made = self.entry_points.keys().chain(self.made.keys()).chain([&self.record]);
        self.files.keys().chain(made).map(String::as_str)
    }

    /// Gives shipped byte code the times of its modules; leaves out what does not fit its module, and what is of a
    /// module that is left out itself. The paths that are left out for not fitting.
    ///
    /// # Errors
    /// Damaged wheels.
    pub fn settle_bytecode(&mut self, zip: &mut WheelZip, leaves_out: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let shipped = super::bytecode::shipped(self, zip)?;
        for (pyc, stamp) in shipped.restamped {
            if let Some(file) = self.files.get_mut(&pyc) {
                file.restamp = Some(stamp);
            }
        }
        shipped.unfit.keys().for_each(|pyc| drop(self.files.remove(pyc)));
        let is_orphan = |pyc: &str| {
            let module = module_of(pyc).filter(|module| self.files.contains_key(module));
            module.is_some_and(|module| leaves_out(&module))
        };
        let orphans: Vec<String> = self.files.keys().filter(|path| is_orphan(path)).cloned().collect();
        orphans.iter().for_each(|path| drop(self.files.remove(path)));
        Ok(shipped.unfit.into_keys().collect())
    }

    /// The digest and size of what is at a path in the image, if that can be told without unpacking it: not of
    /// scripts, whose first line may be rewritten, nor of byte code, whose time may be, nor where RECORD uses another
    /// hash.
    pub fn known_content(&self, path: &str) -> Option<(Digest, u64)> {
        if let Some(text) = self.made.get(path) {
            return Some((Digest::of(text), text.len() as u64));
        }
        let file = self.files.get(path).filter(|file| !file.is_script && module_of(path).is_none())?;
        match file.expected {
            Some(Expected::Sha256(digest)) => Some((digest, file.entry.size)),
            _ => None,
        }
    }

    fn add_files(&mut self, zip: &WheelZip, record: &Record, placing: &Placing<'_>) -> Result<()> {
        let wheel = placing.wheel;
        for (source, entry) in zip.entries() {
            let in_dist_info = source.split_once('/').filter(|(folder, _)| folder.strip_suffix(".dist-info").is_some());
            let is_one_of = |names: &[&str]| in_dist_info.is_some_and(|(_, name)| names.contains(&name));
            let expected = match is_one_of(&UNLISTED) {
                true => None,
                false => Some(record.expected(wheel, source, entry.size)?),
            };
            if is_one_of(&WRITTEN) {
                continue;
            }
            let (target, is_script) = placing.target(source)?;
            // Installers write entry points after the files, so a file of the same name is overwritten.
            if self.entry_points.contains_key(&target) {
                continue;
            }
            let laid = LaidEntry { source: source.clone(), entry: entry.clone(), expected, is_script, restamp: None };
            if let Some(other) = self.files.insert(target.clone(), laid) {
                let what = format!("`{}` and `{source}` are both installed as `{target}`", other.source);
                return Err(wheel.hostile(&what));
            }
        }
        Ok(())
    }

    /// What no honest wheel brings, and no layer can hold.
    fn check_targets(&self, wheel: &WheelFile) -> Result<()> {
        let mut targets = BTreeSet::new();
        for target in self.targets() {
            check_target(target).map_err(|what| wheel.hostile(&what))?;
            if !targets.insert(target) {
                return Err(wheel.hostile(&format!("two of its files are installed as `{target}`")));
            }
            if target == "conda-meta" || target.starts_with("conda-meta/") {
                return Err(wheel.hostile(&format!("it brings `{target}`, among conda's own records")));
            }
        }
        for target in &targets {
            if let Some(file) = ancestors(target).find(|ancestor| targets.contains(ancestor)) {
                return Err(wheel.hostile(&format!("`{target}` lies below `{file}`, which is no folder")));
            }
        }
        Ok(())
    }
}

/// RECORD; every file that it lists must be there.
fn listed(zip: &mut WheelZip, stem: &str) -> Result<Record> {
    let path = format!("{stem}.dist-info/RECORD");
    let content = zip.read(&path)?.ok_or_else(|| zip.wheel().broken(format!("it holds no `{path}`")))?;
    let record = Record::parse(zip.wheel(), &content)?;
    match record.missing(|path| zip.entries().contains_key(path)) {
        Some(missing) => {
            Err(zip.wheel().broken(format!("RECORD lists `{}`, which is not there", missing.escape_debug())))
        }
        None => Ok(record),
    }
}

/// Where the files of one wheel go.
struct Placing<'a> {
    wheel: &'a WheelFile,
    /// `NAME-VERSION` of its folders.
    stem: &'a str,
    /// As METADATA has it.
    name: &'a str,
    python: &'a PythonInfo,
}

impl Placing<'_> {
    /// The place in the prefix of a path in the wheel, and whether it is a script.
    fn target(&self, source: &str) -> Result<(String, bool)> {
        let site_packages = self.python.site_packages_path.display();
        let Some((folder, rest)) = source.split_once('/') else {
            return Ok((format!("{site_packages}/{source}"), false));
        };
        let Some(data) = folder.strip_suffix(".data") else {
            return Ok((format!("{site_packages}/{source}"), false));
        };
        if !self.is_own(data) {
            return Err(self.wheel.broken(format!("its folder `{folder}` has another name than its metadata")));
        }
        match rest.split_once('/') {
            Some(("purelib" | "platlib", path)) => Ok((format!("{site_packages}/{path}"), false)),
            Some(("scripts", path)) => Ok((format!("{}/{path}", self.python.bin_dir.display()), true)),
            Some(("data", path)) => Ok((path.to_owned(), false)),
            Some(("headers", path)) => Ok((format!("{}/{}/{path}", include(self.python), self.name), false)),
            _ => Err(self.wheel.broken(format!("it is not known where `{source}` belongs"))),
        }
    }

    fn is_own(&self, data: &str) -> bool {
        let (own, other) = (self.stem.rsplit_once('-'), data.rsplit_once('-'));
        own.zip(other).is_some_and(|((name, version), (other_name, other_version))| {
            normalise_name(name) == normalise_name(other_name) && same_version(version, other_version)
        })
    }
}

/// Python's folder of headers: `include/python3.13t` beside `lib/python3.13t/site-packages`.
fn include(python: &PythonInfo) -> String {
    let library = python.site_packages_path.parent().and_then(|parent| parent.file_name()).and_then(|it| it.to_str());
    let (major, minor) = python.short_version;
    match library.filter(|name| name.starts_with("python")) {
        Some(name) => format!("include/{name}"),
        None => format!("include/python{major}.{minor}"),
    }
}

/// The Python of an environment that has wheels.
///
/// # Errors
/// When it has none.
pub fn need_python<'a>(python: Option<&'a PythonInfo>, name: &str) -> Result<&'a PythonInfo> {
    python.ok_or_else(|| {
        Error::user(format!("`{name}` needs Python, which the environment does not have"))
            .hint("add `python` to the dependencies")
    })
}
