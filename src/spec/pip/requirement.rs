//! One requirement: PEP 508, and what pip takes beside it: bare URLs, paths, repositories.

use std::path::{Path, PathBuf};

use pep508_rs::{MarkerTree, PackageName, Requirement};
use url::Url;

use super::line::expand;
use super::{PipDirect, PipGit, PipLocation, PipRequirement, PipWanted};
use crate::model::git;
use crate::util::{Error, Result, redact};

/// What pip takes for an archive, by the end of its name.
const ARCHIVES: [&str; 6] = [".whl", ".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz"];

/// Reads a line that is no option. `written` still has its environment variables.
pub(super) fn read(folder: &Path, place: &str, written: &str) -> Result<PipRequirement> {
    let (text, _) = split_options(written);
    let shown = redact::within(text);
    let expanded = expand(written)?;
    let (expanded, options) = split_options(&expanded);
    let hashes = options.iter().map(|option| hash(option)).collect::<Result<_>>()?;
    let what = match split_direct(expanded) {
        Some(direct) => PipWanted::Direct(Box::new(direct_of(folder, &direct, &shown)?)),
        None => PipWanted::Index(Box::new(parse(expanded, &shown)?)),
    };
    Ok(PipRequirement { place: place.to_owned(), text: shown, what, hashes })
}

/// The requirement, and the options behind it.
fn split_options(text: &str) -> (&str, Vec<String>) {
    match text.find(" --").or_else(|| text.find("\t--")) {
        Some(at) => {
            let (before, options) = text.split_at(at);
            // `--hash sha256:1` is `--hash=sha256:1`.
            let mut joined: Vec<String> = Vec::new();
            for word in options.split_whitespace() {
                match joined.last_mut() {
                    Some(last) if !word.starts_with('-') => last.push_str(&format!("={word}")),
                    _ => joined.push(word.to_owned()),
                }
            }
            (before.trim(), joined)
        }
        None => (text.trim(), Vec::new()),
    }
}

/// How many hexadecimal digits a hash of an algorithm has, of those that pip takes.
const HASHES: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

fn hash(option: &str) -> Result<String> {
    let Some(hash) = option.strip_prefix("--hash=") else {
        let name = option.split('=').next().unwrap_or_default();
        return Err(Error::user(format!("`{name}` is not supported behind a requirement"))
            .hint("only `--hash=sha256:...` is; other options have a line for themselves"));
    };
    let hash = hash.to_lowercase();
    let right = hash.split_once(':').is_some_and(|(algorithm, digits)| {
        let hexadecimal = digits.chars().all(|char| char.is_ascii_hexdigit());
        hexadecimal && HASHES.contains(&(algorithm, digits.len()))
    });
    match right {
        true => Ok(hash),
        false => Err(Error::user(format!("`{hash}` is no hash that pip takes"))
            .hint("write `--hash=sha256:` and 64 hexadecimal digits; sha384 and sha512 are taken, too")),
    }
}

fn parse(text: &str, shown: &str) -> Result<Requirement<Url>> {
    text.parse().map_err(|error: pep508_rs::Pep508Error<Url>| wrong(shown, &error.message.to_string()))
}

fn wrong(shown: &str, reason: &str) -> Error {
    Error::user(format!("`{shown}` is no requirement: {}", redact::within(reason))).hint(
        "write for example `requests`, `requests[socks]>=2.8,<3`, `requests @ https://host/requests.whl`, `git+https://host/repository@v1`, `./folder`",
    )
}

/// A direct reference, in parts.
struct Direct<'a> {
    /// `name[extras]`, or nothing.
    head: &'a str,
    /// URL or path.
    place: &'a str,
    marker: &'a str,
}

/// The parts of a requirement that says where its package lies.
fn split_direct(text: &str) -> Option<Direct<'_>> {
    // pip wants white space before the semicolon behind a URL, which may have one itself.
    let (place, marker) = text.split_once(" ;").or_else(|| text.split_once("; ")).unwrap_or((text, ""));
    let (place, marker) = (place.trim(), marker.trim());
    if let Some((head, behind)) = place.split_once('@')
        && !head.contains(['/', ':', '<', '>', '=', '~', '!', ';', '.', '+'])
            | head.trim().parse::<Requirement<Url>>().is_ok_and(|it| it.version_or_url.is_none())
    {
        return Some(Direct { head: head.trim(), place: behind.trim(), marker });
    }
    let path = place.split('[').next().unwrap_or_default();
    let is_path = path.contains('/') || matches!(path, "." | "..") || ARCHIVES.iter().any(|it| path.ends_with(it));
    (is_path || place.contains("://")).then_some(Direct { head: "", place, marker })
}

fn direct_of(folder: &Path, direct: &Direct<'_>, shown: &str) -> Result<PipDirect> {
    let (mut name, mut extras) = (None, Vec::new());
    let mut take = |head: &str| -> Result<()> {
        let named = parse(head, shown)?;
        name = Some(named.name);
        extras = named.extras;
        Ok(())
    };
    let (location, behind) = location(folder, direct.place, shown)?;
    match (direct.head, &behind) {
        ("", Behind::Egg(egg)) => take(egg)?,
        ("", Behind::Extras(extras)) if !extras.is_empty() => {
            // The name is not known yet; any will do to read the extras.
            take(&format!("name[{extras}]"))?;
            name = None;
        }
        ("", _) => {}
        (head, _) => take(head)?,
    }
    let marker = match direct.marker {
        "" => MarkerTree::TRUE,
        marker => MarkerTree::parse_str::<Url>(marker).map_err(|error| wrong(shown, &error.message.to_string()))?,
    };
    if name.is_none() {
        name = name_of_wheel(&location);
    }
    Ok(PipDirect { name, extras, marker, location })
}

/// A wheel tells its name by that of its file.
fn name_of_wheel(location: &PipLocation) -> Option<PackageName> {
    let file = match location {
        PipLocation::Archive(url) => url.path_segments()?.next_back()?.to_owned(),
        PipLocation::Path(path) => path.file_name()?.to_string_lossy().into_owned(),
        PipLocation::Git(_) => return None,
    };
    file.strip_suffix(".whl")?.split('-').next()?.parse().ok()
}

/// The name and the repository of a requirement of a package's metadata (`name @ git+URL@reference`); nothing of any
/// other. Unlike a line of the user it is a stranger's text: no variable in it is expanded.
pub(crate) fn git_of_metadata(text: &str) -> Option<(PackageName, PipGit)> {
    let direct = split_direct(text)?;
    let name = direct.head.split('[').next()?.trim().parse().ok()?;
    match repository_at(direct.place.strip_prefix("git+")?, text).ok()?.0 {
        PipLocation::Git(at) => Some((name, at)),
        _ => None,
    }
}

/// What stands behind a place.
enum Behind {
    Nothing,
    /// `#egg=name[extras]`.
    Egg(String),
    /// `./path[extras]`.
    Extras(String),
}

fn location(folder: &Path, place: &str, shown: &str) -> Result<(PipLocation, Behind)> {
    if let Some(repository) = place.strip_prefix("git+") {
        return repository_at(repository, shown);
    }
    let Some((scheme, _)) = place.split_once("://").filter(|(scheme, _)| !scheme.contains(['/', '.'])) else {
        let (path, extras) = match place.strip_suffix(']').and_then(|place| place.rsplit_once('[')) {
            Some((path, extras)) => (path, extras),
            None => (place, ""),
        };
        return Ok((PipLocation::Path(clean(&folder.join(path))), Behind::Extras(extras.to_owned())));
    };
    let mut url = Url::parse(place).map_err(|error| wrong(shown, &error.to_string()))?;
    let egg = egg(&url);
    match scheme {
        "file" => {
            url.set_fragment(None);
            let path = url.to_file_path().map_err(|()| wrong(shown, "it is no path on this machine"))?;
            Ok((PipLocation::Path(clean(&path)), egg))
        }
        "http" | "https" => Ok((PipLocation::Archive(url), egg)),
        _ => Err(wrong(shown, &format!("{scheme}:// is not supported"))),
    }
}

/// A path without `.` and `..`, as far as that needs no look at the disk.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

/// A value of a URL's fragment (`#egg=...&subdirectory=...`).
fn fragment(url: &Url, key: &str) -> Option<String> {
    let fields = url.fragment()?.split('&');
    let value = fields.filter_map(|field| field.split_once('=')).find(|(name, _)| *name == key)?.1;
    // The same encoding as a query's.
    let decoded = url::form_urlencoded::parse(format!("v={value}").as_bytes()).next()?.1.into_owned();
    (!decoded.is_empty()).then_some(decoded)
}

fn egg(url: &Url) -> Behind {
    fragment(url, "egg").map_or(Behind::Nothing, Behind::Egg)
}

fn repository_at(repository: &str, shown: &str) -> Result<(PipLocation, Behind)> {
    let mut url = Url::parse(repository).map_err(|error| {
        // `git@host:path`, as scp and `git clone` have it.
        let place = repository.strip_prefix("ssh://").unwrap_or(repository);
        let hint = match place.split_once(':').filter(|(host, _)| host.contains('@') && !host.contains('/')) {
            Some((host, path)) => {
                format!("write the repository as `git+ssh://{host}/{}`", path.trim_start_matches('/'))
            }
            None => "a repository is `git+https://host/path@reference`".to_owned(),
        };
        let reason = redact::within(&error.to_string());
        Error::user(format!("`{shown}` is no requirement: {reason}")).hint(redact::within(&hint))
    })?;
    git::check_repository(&url).map_err(|what| wrong(shown, &what))?;
    let (egg, subdirectory) = (egg(&url), fragment(&url, "subdirectory"));
    let subdirectory = subdirectory.map(|it| git::subdirectory(&it)).transpose();
    let subdirectory = subdirectory.map_err(|what| wrong(shown, &what))?.flatten();
    url.set_fragment(None);
    let path = url.path().to_owned();
    let reference = match path.rsplit_once('@') {
        Some((path, reference)) if !path.is_empty() => {
            url.set_path(path);
            (!reference.is_empty()).then(|| reference.to_owned())
        }
        _ => None,
    };
    reference.as_deref().map(git::check_reference).transpose().map_err(|what| wrong(shown, &what))?;
    Ok((PipLocation::Git(PipGit { url, reference, subdirectory }), egg))
}
