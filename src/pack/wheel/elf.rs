//! What the machine code of a wheel needs of the system that it runs on.
//!
//! The tag of a `manylinux` wheel promises a glibc (PEP 600). `linux_x86_64` promises nothing: it is what a wheel is
//! called that was compiled on some machine, and it loads only where the glibc is as new as that machine's. So its
//! files are asked: each names the versions of the symbols that it uses ("Linux Standard Base", symbol versioning).

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use object::elf::{self, Machine};
use object::read::elf::{FileHeader, SectionHeader as _};
use object::{FileKind, ReadCache, ReadRef};
use rattler_conda_types::Subdir;

use super::{WheelFile, WheelZip};
use crate::model::WheelName;
use crate::util::report::Silent;
use crate::util::{Error, Result};

/// Bytes of a file that are kept in memory; what is larger goes through the disk.
const IN_MEMORY: usize = 4 << 20;
/// The largest table of needed versions that is believed in: of real files, each has some hundred bytes.
const LARGEST_TABLE: u64 = 1 << 20;
const MAGIC: &[u8] = b"\x7fELF";
/// Properties of files that only glibcs know from a certain version on, and that have names instead of versions.
const NAMED: [(&str, (u64, u64)); 2] = [("ABI_DT_RELR", (2, 36)), ("ABI_GNU2_TLS", (2, 42))];

/// What a file of machine code is for.
#[derive(Debug, PartialEq, Eq)]
struct Needs {
    machine: Machine,
    /// The newest version that it needs, if it needs a glibc.
    glibc: Option<(u64, u64)>,
}

/// Refuses a wheel without a promise in its name whose files need a newer glibc than `glibc`, or are all for another
/// architecture than the one of `subdir`. `scratch` takes what is too large for the memory.
///
/// # Errors
/// They name the wheel, the file, what it needs and what the target has. Damaged wheels.
pub fn check_machine_code(
    wheel: &WheelFile,
    name: &WheelName,
    glibc: Option<(u64, u64)>,
    subdir: Subdir,
    scratch: &Path,
) -> Result<()> {
    let promises = |platform: &String| !platform.starts_with("linux_");
    let Some(machine) = machine(subdir).filter(|_| !name.platforms.iter().all(promises)) else { return Ok(()) };
    let mut zip = WheelZip::open(wheel)?;
    let entries = zip.entries().clone();
    let (mut foreign, mut has_own) = (None, false);
    for (path, entry) in &entries {
        let needs = zip.stream(path, entry, &Silent, |content| needs(content, scratch))?;
        match needs {
            Some(needs) if needs.machine == machine => {
                has_own = true;
                check_glibc(wheel, path, needs.glibc, glibc)?;
            }
            Some(_) => foreign = foreign.or(Some(path)),
            None => {}
        }
    }
    // Some packages bring a helper for each architecture that there is, and load the right one.
    match foreign.filter(|_| !has_own) {
        Some(path) => Err(Error::user(format!(
            "the wheel `{}` does not fit: its `{path}` was compiled for another architecture than {subdir}",
            wheel.name
        ))
        .hint("it was named for another machine than its compiler made code for: look at the project's build settings (`CC`, `CFLAGS`)")),
        None => Ok(()),
    }
}

fn check_glibc(wheel: &WheelFile, path: &str, needed: Option<(u64, u64)>, target: Option<(u64, u64)>) -> Result<()> {
    match (needed, target) {
        (Some(needed), Some(target)) if needed > target => Err(Error::user(format!(
            "the wheel `{}` does not fit: its `{path}` needs glibc {}.{}, the target has {}.{}",
            wheel.name, needed.0, needed.1, target.0, target.1
        ))
        .hint("it was compiled on a system that is newer than the image: choose a newer base (`--base`), or build on an older system")
        .hint("`--glibc` says which one the target has, if that is not what runs it")),
        _ => Ok(()),
    }
}

fn machine(subdir: Subdir) -> Option<Machine> {
    match subdir {
        Subdir::Linux64 => Some(elf::EM_X86_64),
        Subdir::LinuxAarch64 => Some(elf::EM_AARCH64),
        Subdir::LinuxPpc64le => Some(elf::EM_PPC64),
        Subdir::LinuxS390X => Some(elf::EM_S390),
        Subdir::LinuxRiscv64 => Some(elf::EM_RISCV),
        _ => None,
    }
}

/// Reads a file to its end; nothing when it is no machine code, or cannot be understood.
fn needs(content: &mut dyn Read, scratch: &Path) -> Result<Option<Needs>> {
    let mut start = Vec::with_capacity(MAGIC.len());
    content.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    if start != MAGIC {
        std::io::copy(content, &mut std::io::sink())?;
        return Ok(None);
    }
    // What is needed stands at its end.
    let mut file = tempfile::spooled_tempfile_in(IN_MEMORY, scratch);
    std::io::copy(&mut start.as_slice().chain(content), &mut file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(needs_of(&ReadCache::new(file)))
}

fn needs_of<'data, R: ReadRef<'data>>(data: R) -> Option<Needs> {
    match FileKind::parse(data).ok()? {
        FileKind::Elf32 => needs_of_elf::<elf::FileHeader32<object::Endianness>, R>(data),
        FileKind::Elf64 => needs_of_elf::<elf::FileHeader64<object::Endianness>, R>(data),
        _ => None,
    }
}

fn needs_of_elf<'data, Elf: FileHeader, R: ReadRef<'data>>(data: R) -> Option<Needs> {
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let needs = |glibc| Needs { machine: header.e_machine(endian), glibc };
    let sections = header.section_headers(endian, data).ok()?;
    let table = sections.iter().find(|section| section.sh_type(endian) == elf::SHT_GNU_VERNEED);
    let Some(table) = table.filter(|table| table.sh_size(endian).into() <= LARGEST_TABLE) else {
        return Some(needs(None));
    };
    let strings = header.sections(endian, data).ok()?.strings(endian, data, table.link(endian)).ok()?;
    let (mut files, _) = table.gnu_verneed(endian, data).ok()??;
    let mut newest = None;
    while let Some((_, mut versions)) = files.next().ok()? {
        while let Some(version) = versions.next().ok()? {
            let name = version.name(endian, strings).ok()?;
            newest = newest.max(glibc_of(std::str::from_utf8(name).unwrap_or_default()));
        }
    }
    Some(needs(newest))
}

/// The version in `GLIBC_2.17` or `GLIBC_2.2.5`; none in those of other libraries.
fn glibc_of(symbol_version: &str) -> Option<(u64, u64)> {
    let version = symbol_version.strip_prefix("GLIBC_")?;
    if let Some((_, since)) = NAMED.iter().find(|(name, _)| *name == version) {
        return Some(*since);
    }
    let mut numbers = version.split('.').map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This program: it needs a glibc, and has more bytes than stay in memory.
    #[test]
    fn the_needs_of_a_program_are_read() {
        let path = std::env::current_exe().expect("a program");
        let mut file = fs_err::File::open(&path).expect("opens");
        assert!(file.metadata().expect("metadata").len() > IN_MEMORY as u64);
        let scratch = tempfile::tempdir().expect("a folder");
        let needs = needs(&mut file, scratch.path()).expect("reads").expect("machine code");
        let machine = if cfg!(target_arch = "x86_64") { elf::EM_X86_64 } else { elf::EM_AARCH64 };
        assert_eq!(needs.machine, machine);
        let glibc = needs.glibc.expect("a glibc");
        assert!(((2, 17)..(2, 100)).contains(&glibc), "{glibc:?}");
    }

    #[test]
    fn what_is_no_machine_code_needs_nothing() {
        let needs = |bytes: &[u8]| needs(&mut &bytes[..], Path::new("/nonexistent")).expect("reads");
        assert_eq!(needs(b""), None);
        assert_eq!(needs(b"\x7fEL"), None);
        assert_eq!(needs(b"import os\n"), None);
        assert_eq!(needs(b"\x7fELF and no more"), None);
    }

    #[test]
    fn versions_are_read_from_their_names() {
        assert_eq!(glibc_of("GLIBC_2.2.5"), Some((2, 2)));
        assert_eq!(glibc_of("GLIBC_2.38"), Some((2, 38)));
        assert_eq!(glibc_of("GLIBC_ABI_DT_RELR"), Some((2, 36)));
        assert_eq!(glibc_of("GLIBC_PRIVATE"), None);
        assert_eq!(glibc_of("GLIBCXX_3.4.30"), None);
    }
}
