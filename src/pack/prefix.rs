//! Putting the environment's prefix into files in the place of the build prefix, as rattler does it, in bounded memory.
//!
//! rattler wants a file whole. A large one is cut into pieces here, where nothing that is replaced crosses the cut:
//! no occurrence of the build prefix in any encoding, and in binary files no string with one. Cuts are multiples of
//! four, since rattler prefers occurrences that are aligned to the units of their encoding. So the pieces become what
//! they would have become in the whole file.

use std::io::{BufWriter, Read, Seek as _, SeekFrom, Write};

use memchr::memmem;
use rattler::install::link::copy_and_replace_placeholders;
use rattler_conda_types::package::{FileMode, OffsetEncoding, PrefixPlaceholder};

use super::archive::Archive;
use super::layout::LaidFile;
use super::segment::Target;
use crate::util::{Error, Limit, Result};

/// Files up to this size are replaced in memory, in bytes.
const SMALL: u64 = 1 << 20;
/// Bytes that are read between two cuts.
const PIECE: usize = 2 << 20;
/// The shortest build prefix in bytes. One that is in every word would make files many times as large.
const SHORTEST: usize = 4;
/// What cuts are multiples of: the largest unit of an encoding.
const UNIT: usize = 4;

/// What is replaced, and what with.
pub(super) struct Replacer<'a> {
    archive: &'a Archive,
    file: &'a LaidFile,
    placeholder: &'a PrefixPlaceholder,
    target: &'a Target,
    /// The build prefix in each encoding, with the size of its units.
    encoded: Vec<(Vec<u8>, usize)>,
    piece: usize,
}

/// Replaces the build prefix in content that is in memory.
///
/// # Errors
/// When the target prefix is longer than the placeholder of a binary file, and the like.
pub fn replaced(
    archive: &Archive,
    file: &LaidFile,
    placeholder: &PrefixPlaceholder,
    source: &[u8],
    target: &Target,
) -> Result<Vec<u8>> {
    let mut patched = Vec::with_capacity(source.len());
    Replacer::new(archive, file, placeholder, target)?.copy(&mut &*source, &mut patched)?;
    Ok(patched)
}

/// A file whose build prefix is replaced.
pub(super) enum Patched<'r> {
    /// In memory.
    Small(Vec<u8>),
    /// As long as before: it is replaced as it is read.
    Same(Replacer<'r>),
    /// On the disk, with its size.
    Large(std::fs::File, u64),
}

impl<'a> Replacer<'a> {
    /// What replaces the build prefix of a file.
    ///
    /// # Errors
    /// A build prefix that is too short.
    pub(super) fn new(
        archive: &'a Archive,
        file: &'a LaidFile,
        placeholder: &'a PrefixPlaceholder,
        target: &'a Target,
    ) -> Result<Self> {
        let text = &placeholder.placeholder;
        if (1..SHORTEST).contains(&text.len()) {
            return Err(archive.unsupported(&format!(
                "invalid build prefix `{}` of `{}`: expected at least {SHORTEST} bytes",
                text.escape_debug(),
                file.target
            )));
        }
        let encodings = if text.is_empty() { &[][..] } else { &OffsetEncoding::DEFINED[..] };
        let encoded = encodings.iter().map(|encoding| (encoding.encode(text), encoding.code_unit_size())).collect();
        Ok(Self { archive, file, placeholder, target, encoded, piece: PIECE })
    }

    /// Makes a file of `size` bytes ready to be written. One that may change its size goes to the disk first, since its
    /// size is told before its content.
    ///
    /// # Errors
    /// Those of the reader, of the replacement, and of the disk.
    pub(super) fn prepare(self, size: u64, reader: &mut dyn Read) -> Result<Patched<'a>> {
        if size <= SMALL {
            let mut patched = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
            self.copy(reader, &mut patched)?;
            return Ok(Patched::Small(patched));
        }
        if self.placeholder.file_mode == FileMode::Binary {
            return Ok(Patched::Same(self));
        }
        let folder = self.archive.path.parent().filter(|folder| folder.is_dir());
        let file = folder.map_or_else(tempfile::tempfile, tempfile::tempfile_in)?;
        let mut writer = BufWriter::with_capacity(256 * 1024, Limited { file, left: Limit::PrefixText.value() });
        self.copy(reader, &mut writer)?;
        let mut file = writer.into_inner().map_err(|error| Error::from(error.into_error()))?.file;
        let size = file.stream_position()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Patched::Large(file, size))
    }

    /// Replaces the build prefix while a file is read.
    ///
    /// # Errors
    /// Those of the reader, of the writer, and of the replacement.
    pub(super) fn copy(&self, reader: &mut dyn Read, writer: &mut dyn Write) -> Result<()> {
        let mut window = Vec::new();
        let mut is_first = true;
        loop {
            let wanted = self.piece as u64;
            let is_last = (&mut *reader).take(wanted).read_to_end(&mut window)? < self.piece;
            if is_last {
                return self.piece(&window, writer);
            }
            let cut = self.cut(&window, is_first);
            if cut == 0 {
                if window.len() as u64 > Limit::PrefixString.value() {
                    let what = format!("a string with the build prefix in `{}` is longer than", self.file.target);
                    return Err(self.archive.over(Limit::PrefixString, &what));
                }
                continue;
            }
            self.piece(&window[..cut], &mut *writer)?;
            window.drain(..cut);
            is_first = false;
        }
    }

    fn piece(&self, piece: &[u8], writer: &mut dyn Write) -> Result<()> {
        let (placeholder, target) = (self.placeholder, self.target);
        copy_and_replace_placeholders(
            piece,
            writer,
            &placeholder.placeholder,
            &target.prefix,
            &target.subdir,
            placeholder.file_mode,
        )
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => Error::user(format!(
                "cannot put the prefix `{}` into `{}` of `{}`",
                target.prefix, self.file.target, self.archive.package
            ))
            .hint("a shorter `--prefix` may fit: binary files have room for the build prefix only")
            .caused_by(error),
            _ => error.into(),
        })
    }

    /// The largest cut that nothing crosses; 0 if there is none.
    fn cut(&self, window: &[u8], is_first: bool) -> usize {
        let longest = self.encoded.iter().map(|(bytes, _)| bytes.len()).max().unwrap_or(0);
        let is_text = self.placeholder.file_mode == FileMode::Text;
        // The first line of a script is handled by rules of its own.
        let line = match is_first && is_text && window.starts_with(b"#!") {
            true => memchr::memchr(b'\n', window).map(|end| end + 1),
            false => Some(0),
        };
        let Some(least) = line else { return 0 };
        let spans = self.spans(window, is_text);
        let mut cut = window.len().saturating_sub(longest) / UNIT * UNIT;
        while cut > least {
            // A later piece must not look like the beginning of a script.
            let is_script = is_text && window[cut..].starts_with(b"#!");
            match spans.iter().filter(|(begin, end)| *begin < cut && cut < *end).map(|(begin, _)| *begin).min() {
                Some(begin) => cut = begin / UNIT * UNIT,
                None if is_script => cut -= UNIT,
                None => return cut,
            }
        }
        0
    }

    /// What no cut may cross: occurrences of the build prefix, in binary files with the strings that they are in.
    fn spans(&self, window: &[u8], is_text: bool) -> Vec<(usize, usize)> {
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for (placeholder, unit) in &self.encoded {
            let mut from = 0;
            // By alignment, where the last string ends: all in it share its end.
            let mut ends = vec![0; *unit];
            let finder = memmem::Finder::new(placeholder);
            while let Some(found) = finder.find(&window[from..]) {
                let begin = from + found;
                // They may overlap each other.
                from = begin + 1;
                let after = begin + placeholder.len();
                let known = &mut ends[begin % unit];
                if !is_text && after >= *known {
                    *known = string_end(window, after, *unit);
                }
                let end = if is_text { after } else { *known };
                match spans.last_mut() {
                    Some(last) if last.0 <= begin && begin < last.1 => last.1 = last.1.max(end),
                    _ => spans.push((begin, end)),
                }
                if end >= window.len() {
                    break;
                }
            }
        }
        spans
    }
}

/// The end of a string with its zero unit; beyond the window, if it has none there.
fn string_end(window: &[u8], from: usize, unit: usize) -> usize {
    if unit == 1 {
        let rest = window.get(from..).unwrap_or_default();
        return memchr::memchr(0, rest).map_or(usize::MAX, |at| from + at + 1);
    }
    let units = window.get(from..).unwrap_or_default().chunks_exact(unit);
    let zero = units.into_iter().position(|unit| unit.iter().all(|byte| *byte == 0));
    zero.map_or(usize::MAX, |index| from + (index + 1) * unit)
}

/// A file that takes so many bytes.
struct Limited {
    file: std::fs::File,
    left: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(Limit::PrefixText.exceeded("with its prefix, a text file becomes larger than").into());
        }
        let count = self.file.write(bytes)?;
        self.left -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rattler_conda_types::Subdir;
    use rattler_conda_types::package::{PathType, PathsEntry};

    use super::super::archive::Format;
    use super::super::metadata::ModePolicy;
    use super::*;
    use crate::model::Folders;

    const BUILD: &str = "/build/pfx";

    fn target(prefix: &str) -> Target {
        Target {
            prefix: prefix.to_owned(),
            root: String::new(),
            subdir: Subdir::Linux64,
            python: None,
            modes: ModePolicy { group_write: false },
            folders: Folders::default(),
            keep_setuid: false,
        }
    }

    fn file() -> LaidFile {
        let entry = PathsEntry {
            relative_path: "lib/a".into(),
            no_link: false,
            path_type: PathType::HardLink,
            prefix_placeholder: None,
            sha256: None,
            size_in_bytes: None,
        };
        LaidFile { target: "lib/a".to_owned(), entry, restamp: None }
    }

    /// What comes of content in pieces, and what rattler makes of the whole.
    fn both(content: &[u8], mode: FileMode, piece: usize) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let archive = Archive { path: "a".into(), package: "a-1-0".to_owned(), format: Format::Conda, held: None };
        let placeholder =
            PrefixPlaceholder { file_mode: mode, placeholder: BUILD.to_owned(), experimental_offsets: None };
        let (file, target) = (file(), target("/opt/e"));
        let mut replacer = Replacer::new(&archive, &file, &placeholder, &target).expect("long enough");
        replacer.piece = piece;
        let (mut pieces, mut whole) = (Vec::new(), Vec::new());
        let in_pieces = replacer.copy(&mut &*content, &mut pieces);
        let at_once = replacer.piece(content, &mut whole);
        (in_pieces.ok().map(|()| pieces), at_once.ok().map(|()| whole))
    }

    /// Parts of files: the build prefix in all encodings, pieces of it, zeros, line ends, scripts.
    fn parts() -> impl Strategy<Value = Vec<u8>> {
        let wide = |encoding: OffsetEncoding| encoding.encode(BUILD);
        let mut fixed: Vec<Vec<u8>> = OffsetEncoding::DEFINED.into_iter().map(wide).collect();
        fixed.extend([BUILD.into(), b"/build".to_vec(), vec![0], vec![0; 4], b"\n".to_vec(), b"#!".to_vec()]);
        let part = prop_oneof![
            4 => proptest::sample::select(fixed),
            2 => proptest::collection::vec(any::<u8>(), 0..9),
        ];
        proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn pieces_become_what_the_whole_becomes(content in parts(), piece in 8_usize..64) {
            for mode in [FileMode::Text, FileMode::Binary] {
                let (pieces, whole) = both(&content, mode, piece);
                prop_assert_eq!(pieces, whole, "{:?}", mode);
            }
        }
    }

    #[test]
    fn a_short_build_prefix_is_refused() {
        let archive = Archive { path: "a".into(), package: "a-1-0".to_owned(), format: Format::Conda, held: None };
        let placeholder =
            PrefixPlaceholder { file_mode: FileMode::Text, placeholder: "/".to_owned(), experimental_offsets: None };
        let error = replaced(&archive, &file(), &placeholder, b"a/b", &target("/opt/e")).expect_err("is refused");
        assert!(error.to_string().contains("invalid build prefix `/` of `lib/a`"), "{error}");
    }
}
