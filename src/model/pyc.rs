//! The form of a `.pyc` (importlib's `_bootstrap_external`, PEP 552, PEP 3147) and whether Python uses one: its magic
//! number must be that of the Python in its name, then it holds the time and size of its module, or a hash of it.

use siphasher::sip::{SipHasher13, SipHasher24};

/// Bytes of a `.pyc` before the code itself.
pub const HEAD: usize = 16;

/// The magic numbers of CPython's releases; a released minor version keeps its number.
const MAGIC: [((u64, u64), u16); 8] = [
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
    /// The CPython that it is for.
    pub version: (u64, u64),
    /// Whether it is what Python uses without `-O`.
    pub plain: bool,
}

impl Name {
    /// Of `folder/__pycache__/stem.cpython-XY[.opt-N].pyc`; nothing for other names, and for other Pythons. What lies
    /// outside of `__pycache__` is not used as long as there is a module.
    pub fn parse(path: &str) -> Option<Self> {
        let (folder, stem, tag, optimised) = parts(path)?;
        let (major, minor) = tag.strip_prefix("cpython-")?.split_at_checked(1)?;
        let version = (major.parse().ok()?, minor.parse().ok()?);
        Some(Self { module: format!("{folder}{stem}.py"), version, plain: !optimised })
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
        size: u32,
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

impl Head {
    /// Of the first bytes; nothing when they are of no `.pyc`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let magic = word(0)?.to_le_bytes();
        let check = match word(4)? {
            0 => Check::Stamp { mtime: word(8)?, size: word(12)? },
            1 => Check::Nothing,
            3 => Check::Hash(u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?)),
            _ => return None,
        };
        (magic[2..] == *b"\r\n").then(|| Self { magic: u16::from_le_bytes([magic[0], magic[1]]), check })
    }

    /// What Python `version` makes of it beside `module`.
    pub fn verdict(&self, version: (u64, u64), module: Module) -> Verdict {
        let magic = MAGIC.iter().find(|(known, _)| *known == version).map(|(_, magic)| *magic);
        if magic.is_some_and(|magic| magic != self.magic) {
            return Verdict::Unfit;
        }
        match self.check {
            Check::Nothing => Verdict::Fits,
            Check::Hash(hash) => Verdict::AskHash(hash),
            // Python compares the lower 32 bits.
            Check::Stamp { size, .. } if size != module.size as u32 => Verdict::Unfit,
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

/// Puts the time of its module into a `.pyc` of [`Verdict::OtherTime`].
pub fn restamp(bytes: &mut [u8], mtime: u64) {
    if let Some(field) = bytes.get_mut(8..12) {
        field.copy_from_slice(&(mtime as u32).to_le_bytes());
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

    fn verdict(bytes: &[u8], version: (u64, u64)) -> Option<Verdict> {
        Head::parse(bytes).map(|head| head.verdict(version, MODULE))
    }

    #[test]
    fn names_tell_module_and_python() {
        let parsed = |path: &str| Name::parse(path).map(|name| (name.module, name.version, name.plain));
        assert_eq!(parsed("a/__pycache__/m.cpython-311.pyc"), Some(("a/m.py".to_owned(), (3, 11), true)));
        assert_eq!(parsed("__pycache__/m.cpython-39.opt-2.pyc"), Some(("m.py".to_owned(), (3, 9), false)));
        assert_eq!(parsed("a/__pycache__/b.c.cpython-312.pyc"), Some(("a/b.c.py".to_owned(), (3, 12), true)));
        for other in ["a/m.pyc", "a/__pycache__/m.pyc", "a/__pycache__/m.pypy39.pyc", "a/__pycache__/m.py", "m.pyc"] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[test]
    fn pyc_is_judged_as_python_does() {
        let known = (3, 11);
        for (bytes, expected) in [
            (stamped(3495, 1_700_000_000, 12), Some(Verdict::Fits)),
            (stamped(3495, 1_700_000_001, 12), Some(Verdict::OtherTime)),
            (stamped(3495, 1_700_000_000, 13), Some(Verdict::Unfit)),
            (stamped(3494, 1_700_000_000, 12), Some(Verdict::Unfit)),
            (hashed(1, 7), Some(Verdict::Fits)),
            (hashed(3, 7), Some(Verdict::AskHash(7))),
            (hashed(2, 7), None),
            (hashed(5, 7), None),
            (b"too short".to_vec(), None),
            (stamped(3495, 0, 0)[..15].to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(verdict(&bytes, known), expected, "{bytes:?}");
        }
        // Of a Python that is newer than this list, any magic number may be right.
        assert_eq!(verdict(&stamped(4000, 1_700_000_000, 12), (3, 40)), Some(Verdict::Fits));
    }

    #[test]
    fn times_are_put_in() {
        let mut bytes = stamped(3495, 1, 12);
        restamp(&mut bytes, MODULE.mtime);
        assert_eq!(verdict(&bytes, (3, 11)), Some(Verdict::Fits));
        assert_eq!(bytes, stamped(3495, 1_700_000_000, 12));
        // After 2106 the field begins again.
        let late = Module { mtime: (1 << 32) + 5, ..MODULE };
        restamp(&mut bytes, late.mtime);
        assert_eq!(Head::parse(&bytes).expect("a head").verdict((3, 11), late), Verdict::Fits);
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
