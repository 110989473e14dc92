//! Writing tars whose bytes depend on nothing but what is put into them, as an image layer wants them (image-spec,
//! layer.md): ustar headers, PAX records only where ustar cannot say it, owner 0:0 without names, whole seconds.

use std::io::{self, Seek, SeekFrom, Write};

use super::{Error, Result};

/// The largest number that eleven octal digits of a ustar header hold.
const USTAR_MAX: u64 = 0o777_7777_7777;
/// The latest time that entries have, in seconds since 1970 (year 2242); later ones become it.
pub const LATEST_MTIME: u64 = USTAR_MAX;
/// The same for the seven digits of a user or group.
const USTAR_ID_MAX: u64 = 0o777_7777;

/// What kind of entry to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarKind<'a> {
    /// A regular file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// A hard link to this path of the same layer.
    Hardlink(&'a [u8]),
}

/// Writes the header of an entry (with PAX records before it where needed). A file's content and
/// [`padding`] follow. `path` is relative to the root, without a trailing slash.
///
/// # Errors
/// Those of the writer.
pub fn header(
    out: &mut impl Write,
    path: impl AsRef<[u8]>,
    kind: TarKind<'_>,
    mode: u32,
    mtime: u64,
) -> io::Result<()> {
    owned_header(out, path, kind, (mode, (0, 0)), mtime)
}

/// As [`header`], of an entry that need not be root's: with its mode, its user and its group.
///
/// # Errors
/// Those of the writer.
pub fn owned_header(
    out: &mut impl Write,
    path: impl AsRef<[u8]>,
    kind: TarKind<'_>,
    (mode, (user, group)): (u32, (u64, u64)),
    mtime: u64,
) -> io::Result<()> {
    let (entry_type, size, link) = match kind {
        TarKind::File(size) => (tar::EntryType::Regular, size, &b""[..]),
        TarKind::Directory => (tar::EntryType::Directory, 0, &b""[..]),
        TarKind::Symlink(target) => (tar::EntryType::Symlink, 0, target),
        TarKind::Hardlink(target) => (tar::EntryType::Link, 0, target),
    };
    let mut name = path.as_ref().to_vec();
    if entry_type == tar::EntryType::Directory {
        name.push(b'/');
    }
    let mode = if entry_type == tar::EntryType::Symlink { 0o777 } else { mode };

    // In the order of their keys.
    let mut records = Vec::new();
    let mut header = tar::Header::new_ustar();
    if group > USTAR_ID_MAX {
        record(&mut records, "gid", group.to_string().as_bytes());
    }
    if link.len() > 100 || !link.is_ascii() {
        record(&mut records, "linkpath", link);
    }
    if !put_name(&mut header, &name) {
        record(&mut records, "path", &name);
    }
    if size > USTAR_MAX {
        record(&mut records, "size", size.to_string().as_bytes());
    }
    if user > USTAR_ID_MAX {
        record(&mut records, "uid", user.to_string().as_bytes());
    }
    let mtime = mtime.min(LATEST_MTIME);
    if !records.is_empty() {
        extended(out, &records, mtime)?;
    }
    put(&mut header.as_old_mut().linkname, link);
    finish(&mut header, entry_type, (mode, (user, group)), mtime, size);
    out.write_all(header.as_bytes())
}

/// Writes the zeros that fill a file's last block.
///
/// # Errors
/// Those of the writer.
pub fn padding(out: &mut impl Write, size: u64) -> io::Result<()> {
    const ZEROS: [u8; 512] = [0; 512];
    let rest = (size % 512) as usize;
    if rest == 0 { Ok(()) } else { out.write_all(&ZEROS[rest..]) }
}

/// A whole file with its content in memory.
///
/// # Errors
/// Those of the writer.
pub fn file(out: &mut impl Write, path: impl AsRef<[u8]>, content: &[u8], mode: u32, mtime: u64) -> io::Result<()> {
    header(out, path, TarKind::File(content.len() as u64), mode, mtime)?;
    out.write_all(content)?;
    padding(out, content.len() as u64)
}

/// A file of a known size whose content `write` produces.
///
/// # Errors
/// When `write` produces another number of bytes; those of `write` and of the writer.
pub fn file_from(
    out: &mut impl Write,
    path: impl AsRef<[u8]>,
    size: u64,
    mode: u32,
    mtime: u64,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    header(out, path, TarKind::File(size), mode, mtime)?;
    let mut counting = Counting { out, count: 0 };
    write(&mut counting)?;
    let count = counting.count;
    if count != size {
        let path = String::from_utf8_lossy(path);
        return Err(Error::bug(format!("`{path}` has {count} bytes and not {size}")));
    }
    Ok(padding(out, size)?)
}

/// A file whose size is known only when `write` has produced its content.
///
/// # Errors
/// Those of `write` and of the writer.
pub fn file_of_any_size(
    out: &mut (impl Write + Seek),
    path: impl AsRef<[u8]>,
    mode: u32,
    mtime: u64,
    mut write: impl FnMut(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let start = out.stream_position()?;
    header(out, path, TarKind::File(0), mode, mtime)?;
    let mut counting = Counting { out, count: 0 };
    write(&mut counting)?;
    let size = counting.count;
    if size > USTAR_MAX {
        // Its header is longer than what was left for it: once more, with the size known.
        out.seek(SeekFrom::Start(start))?;
        return file_from(out, path, size, mode, mtime, write);
    }
    padding(out, size)?;
    let end = out.stream_position()?;
    out.seek(SeekFrom::Start(start))?;
    header(out, path, TarKind::File(size), mode, mtime)?;
    out.seek(SeekFrom::Start(end))?;
    Ok(())
}

/// Writes the end-of-archive marker: two zero blocks, exactly.
///
/// # Errors
/// Those of the writer.
pub fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 1024])
}

fn finish(
    header: &mut tar::Header,
    entry_type: tar::EntryType,
    (mode, (user, group)): (u32, (u64, u64)),
    mtime: u64,
    size: u64,
) {
    header.set_entry_type(entry_type);
    header.set_mode(mode);
    // Above them a PAX record says them.
    header.set_uid(user.min(USTAR_ID_MAX));
    header.set_gid(group.min(USTAR_ID_MAX));
    header.set_mtime(mtime);
    // Above it a PAX record says the size; the field alone would become GNU's base-256.
    header.set_size(size.min(USTAR_MAX));
    header.set_cksum();
}

/// Puts a path into the name and prefix fields; false when it does not fit and PAX must say it.
fn put_name(header: &mut tar::Header, name: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    // Only ASCII: what other bytes mean in these fields is not defined.
    if name.is_ascii() {
        if name.len() <= 100 {
            put(&mut ustar.name, name);
            return true;
        }
        // The prefix field takes up to 155 bytes before a slash, the name field up to 100 after it.
        let last = name.len() - 1;
        let split =
            (name.len().saturating_sub(101)..=155.min(last)).find(|&at| name[at] == b'/' && at > 0 && at < last);
        if let Some(at) = split {
            put(&mut ustar.prefix, &name[..at]);
            put(&mut ustar.name, &name[at + 1..]);
            return true;
        }
    }
    put(&mut ustar.name, ascii_tail(name).as_bytes());
    false
}

/// What a reader without PAX gets to see.
fn ascii_tail(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut tail: String = name.chars().map(|char| if char.is_ascii() { char } else { '_' }).collect();
    tail.split_off(tail.len().saturating_sub(100))
}

fn put(field: &mut [u8], bytes: &[u8]) {
    field.fill(0);
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// A PAX record: its own length in decimal, a space, `key=value`, a newline (POSIX pax, "pax Extended Header").
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn extended(out: &mut impl Write, records: &[u8], mtime: u64) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    put_name(&mut header, b"PaxHeaders.0/extended");
    finish(&mut header, tar::EntryType::XHeader, (0o644, (0, 0)), mtime, records.len() as u64);
    out.write_all(header.as_bytes())?;
    out.write_all(records)?;
    padding(out, records.len() as u64)
}

struct Counting<'a, W> {
    out: &'a mut W,
    count: u64,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _};

    use proptest::prelude::*;

    use super::*;
    use crate::util::Digest;

    /// Layers that are known by their key must not change: raise the layout version before changing this.
    #[test]
    fn bytes_stay_as_they_are() {
        let long = "a/".repeat(60) + "file";
        let unsplittable = "b".repeat(130);
        let mut bytes = Vec::new();
        for (path, kind) in [
            ("dir", TarKind::Directory),
            ("link", TarKind::Symlink(b"dir")),
            (&long, TarKind::Symlink(long.as_bytes())),
            (&unsplittable, TarKind::Hardlink(long.as_bytes())),
            ("ünïcode/ß", TarKind::Symlink("ü".as_bytes())),
            ("large", TarKind::File(0o777_7777_7777 + 1)),
        ] {
            header(&mut bytes, path, kind, 0o755, u64::MAX).expect("writes");
        }
        file(&mut bytes, format!("{unsplittable}/ü"), b"content", 0o644, 7).expect("writes");
        file(&mut bytes, &long, &[7; 1024], 0o664, 7).expect("writes");
        end(&mut bytes).expect("writes");
        assert_eq!(Digest::of(&bytes).hex(), "f3bec289f40e88e3f12006d3c7051a73ece303768d2c38099d0e501093e584ab");
    }

    #[test]
    fn bytes_that_are_no_text_come_back() {
        let mut bytes = Vec::new();
        header(&mut bytes, b"\xff/\xfe", TarKind::Symlink(b"\xfd"), 0, 7).expect("writes");
        end(&mut bytes).expect("writes");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive.entries().expect("reads").next().expect("an entry").expect("reads");
        assert_eq!(entry.path_bytes().as_ref(), b"\xff/\xfe");
        assert_eq!(entry.link_name_bytes().expect("a target").as_ref(), b"\xfd");
    }

    #[test]
    fn sizes_may_be_learned_late() {
        let mut late = Cursor::new(Vec::new());
        file_of_any_size(&mut late, "late", 0o644, 7, |output| Ok(output.write_all(b"content")?)).expect("writes");
        let mut known = Vec::new();
        file_from(&mut known, "late", 7, 0o644, 7, |output| Ok(output.write_all(b"content")?)).expect("writes");
        assert_eq!(late.position(), known.len() as u64);
        assert_eq!(late.into_inner(), known);
        assert!(file_from(&mut known, "x", 6, 0o644, 7, |output| Ok(output.write_all(b"content")?)).is_err());
    }

    /// Keeps the first bytes of what is written.
    struct Head {
        kept: Vec<u8>,
        position: u64,
    }

    impl Write for Head {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let start = (self.position as usize).min(self.kept.len());
            let count = bytes.len().min(self.kept.len() - start);
            self.kept[start..start + count].copy_from_slice(&bytes[..count]);
            self.position += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Head {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            if let SeekFrom::Start(position) = to {
                self.position = position;
            }
            Ok(self.position)
        }
    }

    #[test]
    fn a_late_size_may_be_larger_than_a_header_holds() {
        let mut out = Head { kept: vec![0; 4096], position: 0 };
        let chunk = vec![0xaa; 1 << 20];
        file_of_any_size(&mut out, "large", 0o644, 7, |output| {
            (0..9 << 10).try_for_each(|_| Ok(output.write_all(&chunk)?))
        })
        .expect("writes");
        assert_eq!(out.position, 3 * 512 + (9 << 30));
        let mut archive = tar::Archive::new(out.kept.as_slice());
        let entry = archive.entries().expect("reads").next().expect("an entry").expect("reads");
        assert_eq!((entry.path_bytes().as_ref(), entry.size()), (&b"large"[..], 9 << 30));
    }

    proptest! {
        #[test]
        fn any_path_is_read_back(path in "([a-zé-ü0-9._-]{1,120}/){0,4}[a-z0-9é._-]{1,120}", link in ".{1,180}") {
            let link = link.replace('\0', "x");
            let mut bytes = Vec::new();
            file(&mut bytes, &path, b"content", 0o644, 7).expect("writes");
            header(&mut bytes, format!("{path}.link"), TarKind::Symlink(link.as_bytes()), 0, 7).expect("writes");
            header(&mut bytes, format!("{path}.d"), TarKind::Directory, 0o755, 1).expect("writes");
            end(&mut bytes).expect("writes");
            let mut archive = tar::Archive::new(bytes.as_slice());
            let mut entries = archive.entries().expect("reads");
            let mut first = entries.next().expect("an entry").expect("reads");
            let mut content = String::new();
            first.read_to_string(&mut content).expect("reads");
            prop_assert_eq!(content, "content");
            prop_assert_eq!(first.path_bytes().into_owned(), path.clone().into_bytes());
            let second = entries.next().expect("an entry").expect("reads");
            prop_assert_eq!(second.path_bytes().into_owned(), format!("{path}.link").into_bytes());
            prop_assert_eq!(second.link_name_bytes().expect("a target").into_owned(), link.into_bytes());
            let third = entries.next().expect("an entry").expect("reads");
            prop_assert_eq!(third.path_bytes().into_owned(), format!("{path}.d/").into_bytes());
            prop_assert!(entries.next().is_none());
        }
    }
}
