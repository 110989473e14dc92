//! Files with `@EXPLICIT`, as `conda list --explicit` writes them (conda's documentation, "Building identical conda
//! environments"): the URL of one archive a line, mostly with a hash behind `#`.

use std::path::Path;

use rattler_conda_types::{ExplicitEnvironmentEntry, PackageArchiveHash, RepoDataRecord, Subdir};
use url::Url;

use super::{ChannelList, Pinned, PinnedPackage, PinnedWheel, platform_of, record_of, subdir_of};
use crate::model::Platform;
use crate::util::{Digest, Error, Limit, Result, plural, redact};

/// The line that makes a file one of these.
pub const MARK: &str = "@EXPLICIT";
/// How conda's history, and an export of ours, says what was asked for.
const SPECS: &str = "update specs:";

/// The content of such a file.
#[derive(Debug, Clone)]
pub(super) struct Explicit {
    /// `# platform:`, or that of the first archive that is not for all platforms.
    platform: Option<Subdir>,
    pub(super) channels: Vec<String>,
    pub(super) specs: Vec<String>,
    packages: Vec<RepoDataRecord>,
    wheels: Vec<PinnedWheel>,
}

impl Explicit {
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self> {
        let mut channels = ChannelList::default();
        let mut explicit =
            Self { platform: None, channels: Vec::new(), specs: Vec::new(), packages: Vec::new(), wheels: Vec::new() };
        for (index, line) in text.lines().map(str::trim).enumerate() {
            let at = |reason: String| {
                Error::user(format!("{}:{}: {reason}", file.display(), index + 1))
                    .hint("each line is the URL of one archive, as `conda list --explicit --sha256` writes it")
            };
            match line.strip_prefix('#') {
                Some(comment) => explicit.comment(comment.trim()).map_err(at)?,
                None if line.is_empty() || line == MARK => {}
                None => {
                    let url = url_of(line, file).map_err(at)?;
                    channels.add_of(&url);
                    explicit.packages.push(package(&url).map_err(at)?);
                    if explicit.packages.len() > Limit::Dependencies.count() {
                        return Err(
                            Limit::Dependencies.exceeded(&format!("`{}` names more packages than", file.display()))
                        );
                    }
                }
            }
        }
        if explicit.packages.is_empty() {
            return Err(Error::user(format!("`{}` names no package", file.display()))
                .hint("behind `@EXPLICIT`, each line is the URL of one archive"));
        }
        explicit.channels = channels.texts;
        if explicit.platform.is_none() {
            let subdirs = explicit.packages.iter().filter_map(|record| subdir_of(&record.url));
            explicit.platform = subdirs.into_iter().find(|subdir| *subdir != Subdir::NoArch);
        }
        Ok(explicit)
    }

    /// Comments that mean something.
    fn comment(&mut self, comment: &str) -> Result<(), String> {
        if let Some(platform) = comment.strip_prefix("platform:") {
            let platform = platform.trim();
            self.platform = Some(platform.parse().map_err(|_| format!("`{platform}` is no platform of conda"))?);
        } else if let Some(specs) = comment.strip_prefix(SPECS) {
            // Nothing depends on it but the history of the environment.
            self.specs = serde_json::from_str(specs).unwrap_or_default();
        } else if let Some(wheel) = comment.strip_prefix("pip ") {
            self.wheels.push(wheel_of(wheel)?);
        }
        Ok(())
    }

    pub(super) fn notices(&self, file: &Path) -> Vec<String> {
        let bare = self
            .packages
            .iter()
            .filter(|record| record.package_record.sha256.is_none() && record.package_record.md5.is_none());
        match bare.count() {
            0 => Vec::new(),
            count => vec![format!(
                "{}: {count} of {} pinned by URL alone; the lock has the sha256 of what the server sends today",
                file.display(),
                plural(self.packages.len(), "package")
            )],
        }
    }

    pub(super) fn pinned(&self, file: &Path, platform: &Platform) -> Result<Pinned> {
        if let Some(own) = self.platform.filter(|own| *own != platform.subdir) {
            let error =
                Error::user(format!("`{}` is for {own}, and the image is for {}", file.display(), platform.subdir));
            return Err(match platform_of(own) {
                Some(own) => error.hint(format!("build for it: `--platform {own}`")),
                None => error.hint(format!("images are for Linux; make such a file on {}", platform.subdir)),
            });
        }
        let packages = self.packages.iter().map(|record| PinnedPackage { record: record.clone(), complete: false });
        Ok(Pinned { packages: packages.collect(), wheels: self.wheels.clone() })
    }
}

/// A line as a URL; a path is one of this machine, as conda takes it.
fn url_of(line: &str, file: &Path) -> Result<Url, String> {
    if line.contains("://") {
        return Url::parse(line).map_err(|error| format!("this is no URL ({error})"));
    }
    let (path, fragment) = line.split_once('#').unwrap_or((line, ""));
    if !path.ends_with(".conda") && !path.ends_with(".tar.bz2") {
        return Err(format!("`{}` is neither the URL nor the path of an archive", redact::within(line)));
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    let path = std::path::absolute(folder.join(path)).map_err(|error| error.to_string())?;
    let mut url = Url::from_file_path(path).map_err(|()| "this is no path".to_owned())?;
    url.set_fragment((!fragment.is_empty()).then_some(fragment));
    Ok(url)
}

/// What a URL with its hash pins.
fn package(url: &Url) -> Result<RepoDataRecord, String> {
    let mut entry = ExplicitEnvironmentEntry { url: url.clone() };
    // `sha256=` and `md5=` are of other tools than conda.
    let fragment = url.fragment().unwrap_or_default();
    let hash = fragment.strip_prefix("md5:").or(fragment.strip_prefix("md5=")).unwrap_or(fragment);
    let hash = hash.strip_prefix("sha256=").map_or(hash.to_owned(), |hash| format!("sha256:{hash}"));
    entry.url.set_fragment((!hash.is_empty()).then_some(&hash));
    let hash = entry
        .package_archive_hash()
        .map_err(|_| format!("`#{fragment}` is no hash: an md5 has 32 hexadecimal digits, a sha256 64"))?;
    let mut location = url.clone();
    location.set_fragment(None);
    let mut record = record_of(&location)?;
    match hash {
        Some(PackageArchiveHash::Md5(md5)) => record.package_record.md5 = Some(md5),
        Some(PackageArchiveHash::Sha256(sha256)) => record.package_record.sha256 = Some(sha256),
        None => {}
    }
    Ok(record)
}

/// `# pip NAME @ URL --hash=sha256:HEX`: how conda-lock writes a package of PyPI, for its own installer.
fn wheel_of(text: &str) -> Result<PinnedWheel, String> {
    let wrong =
        || format!("`# pip {}` is not as conda-lock writes it: NAME @ URL --hash=sha256:...", redact::within(text));
    let (name, rest) = text.split_once('@').ok_or_else(wrong)?;
    let mut words = rest.split_whitespace();
    let url = words.next().and_then(|url| Url::parse(url).ok()).ok_or_else(wrong)?;
    let hash = words.find_map(|word| word.strip_prefix("--hash=sha256:"));
    let sha256 = hash.map(|hash| Digest::from_hex(hash).map_err(|_| wrong())).transpose()?;
    Ok(PinnedWheel::at(name.trim(), None, &url, sha256, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Explicit> {
        Explicit::parse(Path::new("a/explicit.txt"), text)
    }

    #[test]
    fn lines_have_hashes_of_either_kind() {
        let (md5, sha256) =
            ("d7c89558ba9fa0495403155b64376d81", "fe51de6107f9edc7aa4f786a70f4a883943bc9d39b3bb7307c04c41410990726");
        for (fragment, expected) in [
            (String::new(), (false, false)),
            (format!("#{md5}"), (true, false)),
            (format!("#md5={md5}"), (true, false)),
            (format!("#{sha256}"), (false, true)),
            (format!("#sha256:{sha256}"), (false, true)),
            (format!("#sha256={sha256}"), (false, true)),
        ] {
            let text =
                format!("# platform: linux-64\n@EXPLICIT\n\nhttps://host/c/noarch/a-b-1!2.0-py_0.conda{fragment}\n");
            let explicit = parse(&text).expect("parses");
            let record = &explicit.packages[0];
            assert_eq!(record.url.as_str(), "https://host/c/noarch/a-b-1!2.0-py_0.conda");
            assert_eq!(record.channel.as_deref(), Some("https://host/c"));
            let package = &record.package_record;
            assert_eq!((package.name.as_normalized(), package.subdir.as_str()), ("a-b", "noarch"));
            assert_eq!((package.md5.is_some(), package.sha256.is_some()), expected, "{fragment}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_secrets() {
        for (line, expected) in [
            ("https://me:hush@host/c/noarch/a-1-0.conda#abc", "`#abc` is no hash"),
            ("https://host/c/noarch/a-1-0.con", "`a-1-0.con` is no archive"),
            ("https://host/c/noarch/a.conda", "`a.conda` is no archive"),
            ("https://host/c/noarch/a-1-0.whl", "is no archive"),
            ("https://me:hush@/x y", "this is no URL"),
            ("numpy=1.2", "`numpy=1.2` is neither"),
            ("# platform: mars-64", "`mars-64` is no platform"),
            ("# pip a", "is not as conda-lock writes it"),
        ] {
            let message = parse(&format!("@EXPLICIT\n{line}\n")).expect_err(line).to_string();
            assert!(message.starts_with("a/explicit.txt:2: ") && message.contains(expected), "{message}");
            assert!(!message.contains("hush"), "{message}");
        }
        assert!(parse("@EXPLICIT\n").expect_err("is empty").to_string().contains("names no package"));
    }

    #[test]
    fn credentials_stay_with_the_channels() {
        let explicit =
            parse("@EXPLICIT\nhttps://host/t/tk-123/c/linux-64/a-1-0.conda\nhttps://host/c/noarch/b-1-0.conda\n")
                .expect("parses");
        assert_eq!(explicit.channels, ["https://host/t/tk-123/c"]);
        assert!(explicit.packages.iter().all(|record| !record.url.as_str().contains("tk-123")));
        assert_eq!(explicit.platform, Some(Subdir::Linux64));
    }
}
