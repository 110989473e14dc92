//! The form of a `.pyc` (importlib's `_bootstrap_external`, PEP 552, PEP 3147) and whether Python uses one: its magic
//! number must be that of the Python in its name, then it holds the time and size of its module, or a hash of it.

use serde::{Deserialize, Serialize};
use siphasher::sip::{SipHasher13, SipHasher24};

/// Bytes of a `.pyc` before the code itself; Python before 3.7 has fewer.
pub const HEAD: usize = 16;

/// The first Python whose `.pyc` has flags (PEP 552).
const FIRST_FLAGS: (u64, u64) = (3, 7);

/// The first Python whose `.pyc` has the size of its module.
const FIRST_SIZE: (u64, u64) = (3, 3);

/// The magic numbers of CPython's releases; a released minor version keeps its number, but for 3.5, which is not here.
const MAGIC: [((u64, u64), u16); 12] = [
    ((2, 7), 62211),
    ((3, 3), 3230),
    ((3, 4), 3310),
    ((3, 6), 3379),
    ((3, 7), 3394),
    ((3, 8), 3413),
    ((3, 9), 3425),
    ((3, 10), 3439),
    ((3, 11), 3495),
    ((3, 12), 3531),
    ((3, 13), 3571),
    ((3, 14), 3627),
];

/// The first magic number of Python 3.11, which hashes modules by SipHash-1-3 instead of SipHash-2-4.
const FIRST_SIP13: u16 = 3450;

/// What the name of a `.pyc` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The path of its module.
    pub module: String,
    /// The Python that it is for.
    pub python: Python,
    /// Whether it is what CPython 3 uses without `-O`.
    pub plain: bool,
}

/// What reads a `.pyc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Python {
    /// This version of CPython.
    CPython((u64, u64)),
    /// This version of PyPy, whose magic numbers are its own.
    PyPy((u64, u64)),
    /// Python 2, if anything does: Python 3 does not use what lies beside a module.
    Two,
}

impl Name {
    /// Of `folder/__pycache__/stem.TAG[.opt-N].pyc`, where TAG is `cpython-XY` or `pypyXY`, and of `folder/stem.pyc`;
    /// nothing for other names, and for other Pythons.
    pub fn parse(path: &str) -> Option<Self> {
        let Some((folder, stem, tag, optimised)) = parts(path) else {
            let module = path.strip_suffix('c').filter(|module| module.ends_with(".py"))?;
            let is_cached = module.split('/').any(|part| part == "__pycache__");
            return (!is_cached).then(|| Self { module: module.to_owned(), python: Python::Two, plain: false });
        };
        let version = |digits: &str| {
            let (major, minor) = digits.split_at_checked(1)?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        let python = match (tag.strip_prefix("cpython-"), tag.strip_prefix("pypy")) {
            (Some(digits), _) => Python::CPython(version(digits)?),
            (_, Some(digits)) => Python::PyPy(version(digits)?),
            (None, None) => return None,
        };
        let plain = !optimised && matches!(python, Python::CPython(_));
        Some(Self { module: format!("{folder}{stem}.py"), python, plain })
    }
}

impl Python {
    /// The version that says how the head of its `.pyc` is laid out.
    fn version(self) -> (u64, u64) {
        match self {
            Self::CPython(version) | Self::PyPy(version) => version,
            Self::Two => (2, 7),
        }
    }

    /// The place of the time in a `.pyc`.
    fn place_of_time(self) -> usize {
        if self.version() < FIRST_FLAGS { 4 } else { 8 }
    }

    /// The magic number of its `.pyc`, if there is a single one that is known.
    fn magic(self) -> Option<u16> {
        let known = MAGIC.iter().find(|(known, _)| *known == self.version());
        known.filter(|_| !matches!(self, Self::PyPy(_))).map(|(_, magic)| *magic)
    }
}

/// The path of the module that a path is the byte code of, whatever Python it is for; nothing for other paths.
pub fn module_of(path: &str) -> Option<String> {
    let (folder, stem, ..) = parts(path)?;
    Some(format!("{folder}{stem}.py"))
}

/// Folder of the module with its slash, stem, tag, and whether it is optimised (PEP 488).
fn parts(path: &str) -> Option<(&str, &str, &str, bool)> {
    let (folder, name) = path.strip_suffix(".pyc")?.rsplit_once('/')?;
    let folder = folder.strip_suffix("__pycache__").filter(|folder| folder.is_empty() || folder.ends_with('/'))?;
    let (tagged, optimised) = name.split_once(".opt-").map_or((name, false), |(tagged, _)| (tagged, true));
    let (stem, tag) = tagged.rsplit_once('.')?;
    Some((folder, stem, tag, optimised))
}

/// A module as it is in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Number of its bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u64,
}

/// What a `.pyc` begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    magic: u16,
    check: Check,
}

/// How a `.pyc` knows its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Stamp {
        mtime: u32,
        /// Not before Python 3.3.
        size: Option<u32>,
    },
    Hash(u64),
    /// Python does not look at the module.
    Nothing,
}

/// What Python makes of a `.pyc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It uses it.
    Fits,
    /// It would, if the time in it were that of the module.
    OtherTime,
    /// It does not, and compiles the module at each start.
    Unfit,
    /// That depends on the hash of the module.
    AskHash(u64),
}

/// What `python` makes of a `.pyc` with these first bytes beside `module`; the head is for [`Verdict::AskHash`].
pub fn judge(bytes: &[u8], python: Python, module: Module) -> (Verdict, Option<Head>) {
    let head = Head::parse(bytes, python);
    let is_known = python.magic().is_some() || python.version() < FIRST_FLAGS;
    let verdict = match (&head, python) {
        (Some(head), _) => head.verdict(python, module),
        // A form of later days, of another Python, or of what Python 3 does not look at.
        (None, Python::PyPy(_) | Python::Two) => Verdict::Fits,
        (None, Python::CPython(_)) if is_known => Verdict::Unfit,
        (None, Python::CPython(_)) => Verdict::Fits,
    };
    (verdict, head)
}

impl Head {
    /// Of the first bytes; nothing when they are of no `.pyc` of this Python.
    fn parse(bytes: &[u8], python: Python) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let magic = word(0)?.to_le_bytes();
        let check = match python.version() {
            version if version < FIRST_SIZE => Check::Stamp { mtime: word(4)?, size: None },
            version if version < FIRST_FLAGS => Check::Stamp { mtime: word(4)?, size: Some(word(8)?) },
            _ => match word(4)? {
                0 => Check::Stamp { mtime: word(8)?, size: Some(word(12)?) },
                1 => Check::Nothing,
                3 => Check::Hash(u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?)),
                _ => return None,
            },
        };
        (magic[2..] == *b"\r\n").then(|| Self { magic: u16::from_le_bytes([magic[0], magic[1]]), check })
    }

    fn verdict(&self, python: Python, module: Module) -> Verdict {
        if python.magic().is_some_and(|magic| magic != self.magic) {
            // Beside a module, other byte code than that of Python 2 is not used.
            return if python == Python::Two { Verdict::Fits } else { Verdict::Unfit };
        }
        match self.check {
            Check::Nothing => Verdict::Fits,
            // How PyPy hashes is not known here.
            Check::Hash(_) if matches!(python, Python::PyPy(_)) => Verdict::Fits,
            Check::Hash(hash) => Verdict::AskHash(hash),
            // Python compares the lower 32 bits.
            Check::Stamp { size: Some(size), .. } if size != module.size as u32 => Verdict::Unfit,
            Check::Stamp { mtime, .. } if mtime != module.mtime as u32 => Verdict::OtherTime,
            Check::Stamp { .. } => Verdict::Fits,
        }
    }

    /// The hash of a module's content, as this Python makes it.
    pub fn hash(&self, content: &[u8]) -> u64 {
        // `_RAW_MAGIC_NUMBER`: with the line end behind it.
        let key = u64::from(self.magic) | (0x0a0d << 16);
        match self.magic >= FIRST_SIP13 {
            true => SipHasher13::new_with_keys(key, 0).hash(content),
            false => SipHasher24::new_with_keys(key, 0).hash(content),
        }
    }
}

/// Whether bytes are a `.pyc` that condaimg's own program made of a module: unchecked, with the hash of its content.
pub fn is_made_of(bytes: &[u8], version: (u64, u64), content: &[u8]) -> bool {
    let head = Head::parse(bytes, Python::CPython(version)).filter(|head| head.check == Check::Nothing);
    let hash = bytes.get(8..HEAD).and_then(|hash| hash.try_into().ok()).map(u64::from_le_bytes);
    head.zip(hash).is_some_and(|(head, hash)| head.hash(content) == hash) && bytes.len() > HEAD
}

/// A time to be put into a `.pyc` of [`Verdict::OtherTime`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// That of the module, in seconds since 1970.
    pub mtime: u64,
    /// Its place in the `.pyc`.
    place: usize,
}

impl Stamp {
    /// For what `python` reads.
    pub fn new(python: Python, mtime: u64) -> Self {
        Self { mtime, place: python.place_of_time() }
    }

    /// Puts it in.
    pub fn put(self, bytes: &mut [u8]) {
        if let Some(field) = bytes.get_mut(self.place..).and_then(|rest| rest.get_mut(..4)) {
            field.copy_from_slice(&(self.mtime as u32).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: Module = Module { size: 12, mtime: 1_700_000_000 };

    fn stamped(magic: u16, mtime: u32, size: u32) -> Vec<u8> {
        [&magic.to_le_bytes()[..], b"\r\n", &[0; 4], &mtime.to_le_bytes(), &size.to_le_bytes(), b"code"].concat()
    }

    fn hashed(flags: u32, hash: u64) -> Vec<u8> {
        [&3495_u16.to_le_bytes()[..], b"\r\n", &flags.to_le_bytes(), &hash.to_le_bytes()].concat()
    }

    fn old(magic: u16, words: &[u32]) -> Vec<u8> {
        let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        [&magic.to_le_bytes()[..], b"\r\n", &words, b"code"].concat()
    }

    fn verdict(bytes: &[u8], version: (u64, u64)) -> Verdict {
        judge(bytes, Python::CPython(version), MODULE).0
    }

    #[test]
    fn pyc_of_another_module_is_told_apart() {
        let (content, version) = (b"VALUE = 1\n", (3, 11));
        let head = Head::parse(&hashed(1, 0), Python::CPython(version)).expect("a head");
        let made = [&hashed(1, head.hash(content))[..], b"code"].concat();
        assert!(is_made_of(&made, version, content));
        assert!(!is_made_of(&made, version, b"VALUE = 2\n"));
        assert!(!is_made_of(&made[..HEAD], version, content));
        for other in
            [stamped(3495, 0, 10), [&hashed(3, head.hash(content))[..], b"code"].concat(), b"#!/bin/sh".to_vec()]
        {
            assert!(!is_made_of(&other, version, content));
        }
    }

    #[test]
    fn names_tell_module_and_python() {
        let parsed = |path: &str| Name::parse(path).map(|name| (name.module, name.python, name.plain));
        let named = |module: &str, python: Python, plain: bool| Some((module.to_owned(), python, plain));
        let cpython = |major, minor| Python::CPython((major, minor));
        assert_eq!(parsed("a/__pycache__/m.cpython-311.pyc"), named("a/m.py", cpython(3, 11), true));
        assert_eq!(parsed("__pycache__/m.cpython-39.opt-2.pyc"), named("m.py", cpython(3, 9), false));
        assert_eq!(parsed("a/__pycache__/b.c.cpython-312.pyc"), named("a/b.c.py", cpython(3, 12), true));
        assert_eq!(parsed("a/__pycache__/m.pypy39.pyc"), named("a/m.py", Python::PyPy((3, 9)), false));
        assert_eq!(parsed("a/m.pyc"), named("a/m.py", Python::Two, false));
        for other in ["a/__pycache__/m.pyc", "a/__pycache__/m.other-39.pyc", "a/__pycache__/m.py", "m.pyo", "apyc"] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[test]
    fn pyc_is_judged_as_python_does() {
        let known = (3, 11);
        for (bytes, expected) in [
            (stamped(3495, 1_700_000_000, 12), Verdict::Fits),
            (stamped(3495, 1_700_000_001, 12), Verdict::OtherTime),
            (stamped(3495, 1_700_000_000, 13), Verdict::Unfit),
            (stamped(3494, 1_700_000_000, 12), Verdict::Unfit),
            (hashed(1, 7), Verdict::Fits),
            (hashed(3, 7), Verdict::AskHash(7)),
            (hashed(2, 7), Verdict::Unfit),
            (hashed(5, 7), Verdict::Unfit),
            (b"too short".to_vec(), Verdict::Unfit),
            (stamped(3495, 0, 0)[..15].to_vec(), Verdict::Unfit),
            (Vec::new(), Verdict::Unfit),
        ] {
            assert_eq!(verdict(&bytes, known), expected, "{bytes:?}");
        }
        // Of a Python that is newer than this list, any magic number may be right.
        assert_eq!(verdict(&stamped(4000, 1_700_000_000, 12), (3, 40)), Verdict::Fits);
        assert_eq!(verdict(b"another form", (3, 40)), Verdict::Fits);
    }

    #[test]
    fn old_heads_are_judged_and_restamped() {
        let time = MODULE.mtime as u32;
        for (python, path, magic, size) in [
            (Python::CPython((3, 6)), "__pycache__/m.cpython-36.pyc", 3379, Some(12)),
            (Python::CPython((3, 5)), "__pycache__/m.cpython-35.opt-1.pyc", 3351, Some(12)),
            (Python::CPython((3, 2)), "__pycache__/m.cpython-32.pyc", 3180, None),
            (Python::Two, "m.pyc", 62211, None),
        ] {
            assert_eq!(Name::parse(path).map(|name| name.python), Some(python), "{path}");
            let made = |mtime: u32, size: Option<u32>| old(magic, &[&[mtime][..], size.as_slice()].concat());
            let judged = |bytes: &[u8]| judge(bytes, python, MODULE).0;
            assert_eq!(judged(&made(time, size)), Verdict::Fits, "{path}");
            let mut other = made(time + 5, size);
            assert_eq!(judged(&other), Verdict::OtherTime, "{path}");
            Stamp::new(python, MODULE.mtime).put(&mut other);
            assert_eq!(other, made(time, size), "{path}");
            if size.is_some() {
                assert_eq!(judged(&made(time, Some(13))), Verdict::Unfit, "{path}");
                assert_eq!(judged(&made(time, size)[..11]), Verdict::Unfit, "{path}");
            }
        }
        assert_eq!(judge(&old(3378, &[time, 12]), Python::CPython((3, 6)), MODULE).0, Verdict::Unfit);
        // Python 3 does not look at what lies beside a module.
        assert_eq!(judge(&old(3379, &[time + 5, 12]), Python::Two, MODULE).0, Verdict::Fits);
    }

    #[test]
    fn bytecode_of_pypy_is_judged_by_time_and_size() {
        let judged = |bytes: &[u8]| judge(bytes, Python::PyPy((3, 9)), MODULE).0;
        assert_eq!(judged(&stamped(336, 1_700_000_000, 12)), Verdict::Fits);
        assert_eq!(judged(&stamped(336, 1_700_000_005, 12)), Verdict::OtherTime);
        assert_eq!(judged(&stamped(336, 1_700_000_000, 13)), Verdict::Unfit);
        assert_eq!(judged(&hashed(3, 7)), Verdict::Fits);
        assert_eq!(judged(b"another form"), Verdict::Fits);
    }

    #[test]
    fn times_are_put_in() {
        let mut bytes = stamped(3495, 1, 12);
        Stamp::new(Python::CPython((3, 11)), MODULE.mtime).put(&mut bytes);
        assert_eq!(verdict(&bytes, (3, 11)), Verdict::Fits);
        assert_eq!(bytes, stamped(3495, 1_700_000_000, 12));
        // After 2106 the field begins again.
        let late = Module { mtime: (1 << 32) + 5, ..MODULE };
        Stamp::new(Python::CPython((3, 11)), late.mtime).put(&mut bytes);
        assert_eq!(judge(&bytes, Python::CPython((3, 11)), late).0, Verdict::Fits);
    }

    /// What `importlib.util.source_hash(b"VALUE = 1\n")` of CPython 3.11 gives.
    const HASH_3_11: [u8; 8] = [227, 64, 17, 253, 240, 182, 254, 215];

    #[test]
    fn hashes_are_pythons() {
        let head = |magic: u16| Head { magic, check: Check::Nothing };
        assert_ne!(head(3495).hash(b"VALUE = 1\n"), head(3425).hash(b"VALUE = 1\n"));
        assert_eq!(head(3495).hash(b"VALUE = 1\n").to_le_bytes(), HASH_3_11);
    }
}
