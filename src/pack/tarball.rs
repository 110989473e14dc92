//! Tar entries as an image layer wants them (image-spec, layer.md): ustar headers, PAX records only where ustar
//! cannot say it, numeric owners without names, whole seconds.

use std::io::{self, Write};

/// Directories get one fixed time: a shared directory must not change with the package that brings it. One
/// second after 1970, because some tools take 0 for "unknown".
pub const DIRECTORY_MTIME: u64 = 1;

/// The largest number that eleven octal digits of a ustar header hold.
const USTAR_MAX: u64 = 0o777_7777_7777;

/// What kind of entry to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarKind<'a> {
    /// A regular file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(&'a str),
    /// A hard link to this path of the same layer.
    Hardlink(&'a str),
}

/// Who may do what: the only modes that a layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModePolicy {
    /// Whether the group gets the owner's permissions.
    pub group_write: bool,
}

impl ModePolicy {
    /// The mode of a file: executable or not, never setuid, setgid or sticky.
    pub fn file(self, executable: bool) -> u32 {
        match (executable, self.group_write) {
            (true, false) => 0o755,
            (true, true) => 0o775,
            (false, false) => 0o644,
            (false, true) => 0o664,
        }
    }

    /// The mode of a directory.
    pub fn directory(self) -> u32 {
        self.file(true)
    }
}

/// Writes the header of an entry (with PAX records before it where needed). A file's content and
/// [`padding`] follow. `path` is relative to the root, without a trailing slash.
///
/// # Errors
/// Those of the writer.
pub fn header(out: &mut impl Write, path: &str, kind: TarKind<'_>, mode: u32, mtime: u64) -> io::Result<()> {
    let (entry_type, size, link) = match kind {
        TarKind::File(size) => (tar::EntryType::Regular, size, ""),
        TarKind::Directory => (tar::EntryType::Directory, 0, ""),
        TarKind::Symlink(target) => (tar::EntryType::Symlink, 0, target),
        TarKind::Hardlink(target) => (tar::EntryType::Link, 0, target),
    };
    let name = if entry_type == tar::EntryType::Directory { format!("{path}/") } else { path.to_owned() };
    let mode = if entry_type == tar::EntryType::Symlink { 0o777 } else { mode };

    let mut records = Vec::new();
    let mut header = tar::Header::new_ustar();
    if link.len() > 100 || !link.is_ascii() {
        record(&mut records, "linkpath", link);
    }
    if !put_name(&mut header, &name) {
        record(&mut records, "path", &name);
    }
    if size > USTAR_MAX {
        record(&mut records, "size", &size.to_string());
    }
    let mtime = mtime.min(USTAR_MAX);
    if !records.is_empty() {
        extended(out, &records, mtime)?;
    }
    put(&mut header.as_old_mut().linkname, link.as_bytes());
    finish(&mut header, entry_type, mode, mtime, size);
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
pub fn file(out: &mut impl Write, path: &str, content: &[u8], mode: u32, mtime: u64) -> io::Result<()> {
    header(out, path, TarKind::File(content.len() as u64), mode, mtime)?;
    out.write_all(content)?;
    padding(out, content.len() as u64)
}

/// Writes the end-of-archive marker: two zero blocks, exactly.
///
/// # Errors
/// Those of the writer.
pub fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 1024])
}

fn finish(header: &mut tar::Header, entry_type: tar::EntryType, mode: u32, mtime: u64, size: u64) {
    header.set_entry_type(entry_type);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header.set_size(size.min(USTAR_MAX));
    header.set_cksum();
}

/// Puts a path into the name and prefix fields; false when it does not fit and PAX must say it.
fn put_name(header: &mut tar::Header, name: &str) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    let bytes = name.as_bytes();
    if name.is_ascii() {
        if bytes.len() <= 100 {
            put(&mut ustar.name, bytes);
            return true;
        }
        // The prefix field takes up to 155 bytes before a slash, the name field up to 100 after it.
        let last = bytes.len() - 1;
        let split =
            (bytes.len().saturating_sub(101)..=155.min(last)).find(|&at| bytes[at] == b'/' && at > 0 && at < last);
        if let Some(at) = split {
            put(&mut ustar.prefix, &bytes[..at]);
            put(&mut ustar.name, &bytes[at + 1..]);
            return true;
        }
    }
    put(&mut ustar.name, ascii_tail(name).as_bytes());
    false
}

/// What a reader without PAX gets to see.
fn ascii_tail(name: &str) -> String {
    let mut tail: String = name.chars().map(|char| if char.is_ascii() { char } else { '_' }).collect();
    tail.split_off(tail.len().saturating_sub(100))
}

fn put(field: &mut [u8], bytes: &[u8]) {
    field.fill(0);
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// A PAX record: its own length in decimal, a space, `key=value`, a newline (POSIX pax, "pax Extended Header").
fn record(records: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
}

fn extended(out: &mut impl Write, records: &[u8], mtime: u64) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    put_name(&mut header, "PaxHeaders.0/extended");
    finish(&mut header, tar::EntryType::XHeader, 0o644, mtime, records.len() as u64);
    out.write_all(header.as_bytes())?;
    out.write_all(records)?;
    padding(out, records.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_path_is_read_back(path in "([a-zé-ü0-9._-]{1,120}/){0,4}[a-z0-9é._-]{1,120}", link in ".{1,180}") {
            let link = link.replace('\0', "x");
            let mut bytes = Vec::new();
            file(&mut bytes, &path, b"content", 0o644, 7).expect("writes");
            header(&mut bytes, &format!("{path}.link"), TarKind::Symlink(&link), 0, 7).expect("writes");
            header(&mut bytes, &format!("{path}.d"), TarKind::Directory, 0o755, 1).expect("writes");
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
