//! Places of this machine in the file of a lock: what lies beside or below the lock is written relative to it, so that
//! two clones of a repository have the same lock. So is a base elsewhere that was given by a relative path (`./../base`):
//! it is found from whatever directory a build is started in.

use std::path::{Component, Path, PathBuf};

use url::Url;

use super::Lock;
use crate::model::BaseRef;

/// What relative places begin with.
const HERE: &str = "./";

/// `./REST` of an absolute path in `folder`; nothing of one that lies elsewhere.
pub fn relative(path: &Path, folder: &Path) -> Option<String> {
    let path = lexical(path);
    let rest = match path.strip_prefix(lexical(folder)) {
        Ok(rest) => rest.to_owned(),
        // The same folder by another name, through a link.
        Err(_) => path.canonicalize().ok()?.strip_prefix(folder.canonicalize().ok()?).ok()?.to_owned(),
    };
    Some(format!("{HERE}{}", rest.to_str()?))
}

/// The path without `.` and `..`.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// The path of a place in `folder`; nothing of what is no relative place.
fn found(text: &str, folder: &Path) -> Option<PathBuf> {
    text.strip_prefix(HERE).map(|rest| lexical(&folder.join(rest)))
}

/// How a URL is written.
pub(super) fn url_text(url: &Url, folder: &Path) -> Option<String> {
    let path = (url.scheme() == "file").then(|| url.to_file_path().ok())??;
    relative(&path, folder)
}

/// The URL of a place in `folder`.
pub(super) fn url(text: &str, folder: &Path) -> Option<Url> {
    Url::from_file_path(found(text, folder)?).ok()
}

/// How a channel of a lock, which is a URL, is written.
pub(super) fn channel_text(channel: &str, folder: &Path) -> String {
    let relative = Url::parse(channel).ok().and_then(|url| url_text(&url, folder));
    relative.unwrap_or_else(|| channel.to_owned())
}

/// The channel as a URL again.
pub(super) fn channel(text: &str, folder: &Path) -> String {
    url(text, folder).map_or_else(|| text.to_owned(), |url| url.as_str().trim_end_matches('/').to_owned())
}

/// How the reference of a base is written.
pub(super) fn base_text(reference: &str, folder: &Path) -> String {
    let Ok(base) = reference.parse::<BaseRef>() else { return reference.to_owned() };
    let path = base.path().filter(|path| path.is_absolute());
    let path = path.and_then(|path| relative(path, folder).or_else(|| climbing(path, folder)));
    path.map_or_else(|| reference.to_owned(), |path| base.at(path.into()).to_string())
}

/// `./../REST` of a path that [`base_place`] made for a base outside of `folder`.
fn climbing(path: &Path, folder: &Path) -> Option<String> {
    let rest = path.strip_prefix(folder).ok().filter(|rest| rest.starts_with(".."))?;
    Some(format!("{HERE}{}", rest.to_str()?))
}

/// The reference of a base with the path of this machine.
pub(super) fn base(text: &str, folder: &Path) -> String {
    let Ok(base) = text.parse::<BaseRef>() else { return text.to_owned() };
    let rest = base.path().and_then(Path::to_str).and_then(|path| path.strip_prefix(HERE));
    let place = rest.map(|rest| match rest.starts_with("..") {
        // As it is: the directory of the lock may be a link, and the system follows it.
        true => folder.join(rest),
        false => lexical(&folder.join(rest)),
    });
    place.map_or_else(|| text.to_owned(), |path| base.at(path).to_string())
}

/// A base as a lock in `folder` names it: one beside or below the lock by its whole path, one elsewhere as it was given,
/// if that is absolute; otherwise by the way that leads there from `folder`.
///
/// # Errors
/// When the system does not tell the working directory.
pub fn base_place(base: &BaseRef, folder: &Path) -> std::io::Result<BaseRef> {
    let Some(given) = base.path() else { return Ok(base.clone()) };
    let path = std::path::absolute(given)?;
    if relative(&path, folder).is_some() {
        return Ok(base.at(path));
    }
    if given.is_absolute() {
        return Ok(base.clone());
    }
    Ok(base.at(way(&path, folder).map_or(path, |way| folder.join(way))))
}

/// The way from a directory to a path that is not below it, as `../../REST`.
fn way(path: &Path, folder: &Path) -> Option<PathBuf> {
    // Its own name stays, if it is a link: that may lead elsewhere tomorrow.
    let path = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize().ok()?.join(name),
        _ => path.canonicalize().ok()?,
    };
    let folder = folder.canonicalize().ok()?;
    let common = path.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    Some(up.chain(path.components().skip(common)).collect())
}

/// The base of a lock whose relative path, as older locks have them, began in the working directory: it begins in
/// `folder`, the lock's, where it leads nowhere otherwise.
pub fn older_base(base: BaseRef, folder: &Path) -> BaseRef {
    let is_lost = |path: &Path| path.is_relative() && !path.exists() && folder.join(path).exists();
    if base.path().is_some_and(is_lost) { base.beginning_in(folder) } else { base }
}

/// A channel as somebody wrote it, for comparing: one in a folder of this machine relative to the lock, which lies in
/// `lock_folder`, if it is there; others as they are. `folder` is what the writer's relative paths are relative to.
pub fn written_channel(text: &str, folder: &Path, lock_folder: &Path) -> String {
    let path = match text.strip_prefix("file://") {
        Some(_) => Url::parse(text).ok().and_then(|url| url.to_file_path().ok()),
        None if text.starts_with(['.', '/']) => Some(folder.join(text)),
        None => None,
    };
    path.and_then(|path| relative(&path, lock_folder)).unwrap_or_else(|| text.to_owned())
}

impl Lock {
    /// Whether packages, or the channels that were searched, lie on this machine.
    pub fn names_local_files(&self) -> bool {
        let packages = self.packages.iter().chain(self.interpreters.values().flatten());
        let urls =
            packages.map(|package| &package.record.url).chain(self.wheels.iter().map(|wheel| wheel.source.url()));
        let inputs = self.inputs.iter();
        let channels = inputs.flat_map(|inputs| inputs.channels.iter().chain(inputs.channel_urls.values().flatten()));
        let is_local = |channel: &String| channel.starts_with(['.', '/']) || channel.starts_with("file:");
        urls.into_iter().any(|url| url.scheme() == "file") || self.channels.iter().chain(channels).any(is_local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_is_relative() {
        let folder = Path::new("/project/app");
        for (path, expected) in [
            ("/project/app/channel", Some("./channel")),
            ("/project/app/./a/../channel/", Some("./channel")),
            ("/project/app", Some("./")),
            ("/project/application", None),
            ("/project", None),
        ] {
            assert_eq!(relative(Path::new(path), folder).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn places_are_written_and_found() {
        let folder = Path::new("/project");
        for (absolute, written) in [
            ("file:///project/my%20channel", "./my channel"),
            ("file:///project", "./"),
            ("file:///srv/channel", "file:///srv/channel"),
            ("https://host/channel", "https://host/channel"),
        ] {
            assert_eq!(channel_text(absolute, folder), written);
            assert_eq!(channel(written, folder), absolute);
        }
        for (absolute, written) in [
            ("oci:/project/base:debian", "oci:./base:debian"),
            ("rootfs:/project/root.tar", "rootfs:./root.tar"),
            ("oci-archive:/srv/base.tar", "oci-archive:/srv/base.tar"),
            ("docker.io/library/debian:12-slim", "docker.io/library/debian:12-slim"),
            ("scratch", "scratch"),
        ] {
            assert_eq!(base_text(absolute, folder), written);
            assert_eq!(base(written, folder), absolute);
        }
        assert_eq!(base_text("oci:../base", folder), "oci:../base", "as it was given");
    }

    #[test]
    fn relative_bases_elsewhere_are_found_from_the_lock() {
        let folder = Path::new("/project");
        for (place, written) in [
            ("oci:/project/../lb:1", "oci:./../lb:1"),
            ("oci-archive:/project/../../srv/b.tar", "oci-archive:./../../srv/b.tar"),
        ] {
            assert_eq!(base_text(place, folder), written);
            assert_eq!(base(written, folder), place);
        }
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().canonicalize().expect("is there");
        for name in ["a/lock", "b/real"] {
            fs_err::create_dir_all(root.join(name)).expect("creates");
        }
        std::os::unix::fs::symlink(root.join("b/real"), root.join("a/link")).expect("links");
        std::os::unix::fs::symlink(root.join("a/lock"), root.join("b/lock")).expect("links");
        // The lock's directory by its own name and through a link, the base by its own name and by that of a link.
        for (path, expected) in [("b/real", "../../b/real"), ("a/link", "../link"), ("b/new", "../../b/new")] {
            for lock in ["a/lock", "b/lock"] {
                assert_eq!(way(&root.join(path), &root.join(lock)), Some(expected.into()), "{path} {lock}");
            }
        }
        let given = BaseRef::Layout(root.join("b/real"), None);
        assert_eq!(base_place(&given, &root.join("a/lock")).expect("is told"), given, "an absolute path stays");
    }

    #[test]
    fn older_bases_begin_where_they_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        fs_err::create_dir_all(folder.path().join("below")).expect("creates");
        let at = |path: &str| BaseRef::Rootfs(path.into());
        assert_eq!(older_base(at("below"), folder.path()), BaseRef::Rootfs(folder.path().join("below")));
        // One of the working directory, and one that is nowhere.
        for path in ["src", "nowhere", "/nowhere"] {
            assert_eq!(older_base(at(path), folder.path()), at(path));
        }
    }

    #[test]
    fn channels_of_a_folder_are_the_same_however_they_are_written() {
        let (here, lock) = (Path::new("/project/envs"), Path::new("/project"));
        for text in ["../channel", "./../channel/", "/project/channel", "file:///project/channel"] {
            assert_eq!(written_channel(text, here, lock), "./channel", "{text}");
        }
        for text in ["conda-forge", "https://host/channel", "/srv/channel", "../../channel"] {
            assert_eq!(written_channel(text, here, lock), text);
        }
    }
}
