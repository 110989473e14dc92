//! The modules of a wheel for which byte code is made: those in site-packages, by the same rule as of noarch conda
//! packages. Byte code that the wheel ships and that fits its module is kept, and the
//! module not compiled.

use std::collections::BTreeSet;

use rattler::install::PythonInfo;

use super::{WheelFile, WheelLayout, WheelZip};
use crate::lock::LockedWheel;
use crate::model::pyc::{self, Name, Verdict};
use crate::pack::bytecode::{Module, Source, grouped};
use crate::pack::shipped::{Shipped, head};
use crate::util::report::Silent;
use crate::util::{Error, Limit, Result};

/// The modules to compile, in the order of their byte code.
pub fn sources(layout: &WheelLayout, python: &PythonInfo) -> Vec<Source> {
    let site_packages = format!("{}/", python.site_packages_path.display());
    let owned: BTreeSet<&str> = layout.targets().collect();
    let modules = layout.files.iter().filter(|(target, _)| target.starts_with(&site_packages));
    let mut sources: Vec<Source> = modules
        .filter_map(|(target, file)| Source::new(&file.source, target, python))
        .filter(|source| !owned.contains(source.pyc.as_str()))
        .collect();
    sources.sort_by(|a, b| a.pyc.cmp(&b.pyc));
    sources
}

/// What becomes of the byte code that a wheel ships, by path in the prefix.
///
/// # Errors
/// Damaged wheels.
pub fn shipped(layout: &WheelLayout, zip: &mut WheelZip) -> Result<Shipped> {
    let mut shipped = Shipped::default();
    for (pyc, file) in &layout.files {
        let Some(name) = Name::parse(pyc) else { continue };
        let Some(module) = layout.files.get(&name.module) else { continue };
        let bytes = zip.stream(&file.source, &file.entry, &Silent, head)?;
        let (size, mtime) = (module.entry.size, module.entry.mtime);
        let verdict = match pyc::judge(&bytes, name.python, pyc::Module { size, mtime }) {
            (Verdict::AskHash(hash), Some(head)) => {
                let content = zip.read(&module.source)?.unwrap_or_default();
                if head.hash(&content) == hash { Verdict::Fits } else { Verdict::Unfit }
            }
            (verdict, _) => verdict,
        };
        shipped.judge(pyc, &name, verdict, mtime);
    }
    Ok(shipped)
}

/// Reads the modules of a wheel, in the order of their byte code, in groups of one process each.
///
/// # Errors
/// Damaged and hostile wheels.
pub fn modules(
    wheel: &WheelFile,
    locked: &LockedWheel,
    layout: &WheelLayout,
    python: &PythonInfo,
) -> Result<Vec<Vec<Module>>> {
    let mut zip = WheelZip::open(wheel)?;
    let wanted = sources(layout, python).into_iter().filter(|source| locked.facts.makes(&source.module, &source.pyc));
    let (mut modules, mut total) = (Vec::new(), 0);
    for source in wanted {
        let file = layout.files.get(&source.module).ok_or_else(|| Error::bug("a module that is not laid out"))?;
        let content = zip.read(&source.source)?.ok_or_else(|| Error::bug("a module that is not in its wheel"))?;
        total += content.len() as u64;
        if total > Limit::Modules.value() {
            return Err(wheel.over(Limit::Modules, "its modules are larger than"));
        }
        modules.push(Module::new(source, file.entry.mtime, content));
    }
    Ok(grouped(modules))
}
