//! Reading OCI image layouts, a folder or a tar of one (image-spec, image-layout.md).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use oci_spec::image::{Descriptor, ImageIndex};
use serde_json::json;

use super::assemble::descriptor;
use super::base::{TarFile, check_size, docker_image, verify};
use super::layout::REF_NAME;
use super::{json, media};
use crate::model::{Blob, BlobSource};
use crate::store::Store;
use crate::util::json::canonical;
use crate::util::{Digest, Error, Limit, Result, files};

/// An OCI image layout, wherever its files are.
pub struct LayoutReader {
    files: Box<dyn Files + Send + Sync>,
}

impl LayoutReader {
    /// A layout in a folder; its blobs stay where they are.
    ///
    /// # Errors
    /// When the folder is no layout.
    pub fn folder(folder: &Path) -> Result<Self> {
        if files::find(folder)?.is_none() {
            return Err(Error::user(format!(
                "failed to read the layout `{}`: there is no such directory",
                folder.display()
            ))
            .hint("is the path right? A relative one begins in the working directory"));
        }
        if files::find(&folder.join("index.json"))?.is_none() {
            return Err(Error::user(format!("`{}` is no OCI image layout: it has no index.json", folder.display()))
                .hint("an archive is given as `oci-archive:FILE`, a root file system as `rootfs:FOLDER`"));
        }
        Ok(Self { files: Box::new(Folder(folder.to_owned())) })
    }

    /// A tar of a layout; its blobs come into the store when they are asked for.
    ///
    /// # Errors
    /// When the file is no such tar.
    pub fn archive(path: &Path, store: &Store) -> Result<Self> {
        let tar = TarFile::open(path, store)?;
        if !tar.has("index.json") {
            let hint = match tar.has("manifest.json") {
                true => "give it as `docker-archive:FILE`",
                false => "a root file system is given as `rootfs:FILE`",
            };
            return Err(Error::user("it is no OCI archive: it has no index.json").hint(hint));
        }
        Ok(Self { files: Box::new(Archive { tar, store: store.clone() }) })
    }

    /// The image of a tar, whether of a layout or of `docker save`, as a layout. The layers of the latter come into the
    /// store, compressed.
    ///
    /// # Errors
    /// When the file is neither; when it is damaged.
    pub fn any_archive(path: &Path, store: &Store) -> Result<Self> {
        let tar = TarFile::open(path, store)?;
        if tar.has("index.json") || !tar.has("manifest.json") {
            return Self::archive(path, store);
        }
        Ok(Self { files: Box::new(Blobs::new(docker_image(&tar, store)?)?) })
    }

    /// All entries of its index.json.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn entries(&self) -> Result<Vec<Descriptor>> {
        let index: ImageIndex = json::parse(&self.files.read("index.json")?, "its index.json")?;
        Ok(index.manifests().clone())
    }

    /// The entries that a tag, or no tag, stands for: one, or the platforms of one image.
    ///
    /// # Errors
    /// When there is none, or several images and no tag.
    pub fn images(&self, tag: Option<&str>) -> Result<Vec<Descriptor>> {
        Ok(pick(&self.entries()?, tag)?.into_iter().cloned().collect())
    }

    /// Reads a manifest, index or config and verifies it.
    ///
    /// # Errors
    /// When it is not there, too large, or damaged.
    pub fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>> {
        let path = format!("blobs/sha256/{}", digest.hex());
        check_size(size, &path)?;
        let bytes = self.files.read(&path)?;
        verify(&bytes, digest, &format!("`{path}`"))?;
        Ok(bytes)
    }

    /// Where the bytes of a blob can be read from now on.
    ///
    /// # Errors
    /// When it is not there or has another size.
    pub fn blob(&self, digest: &Digest, size: u64) -> Result<BlobSource> {
        self.files.blob(digest, size)
    }
}

/// Where a layout's files are.
trait Files {
    /// A small file, by its path in the layout.
    fn read(&self, path: &str) -> Result<Vec<u8>>;
    /// See [`LayoutReader::blob`].
    fn blob(&self, digest: &Digest, size: u64) -> Result<BlobSource>;
}

/// The entries that a tag, or no tag, stands for: one, or the platforms of one image.
fn pick<'a>(entries: &'a [Descriptor], tag: Option<&str>) -> Result<Vec<&'a Descriptor>> {
    // What has an artifact type is no image but, say, an SBOM of one.
    let images = entries.iter().filter(|entry| entry.artifact_type().is_none() && is_image(entry));
    let images: Vec<&Descriptor> = images.collect();
    let names: BTreeSet<Option<&str>> = images.iter().map(|entry| name(entry)).collect();
    if let Some(tag) = tag {
        let tagged: Vec<&Descriptor> = images.into_iter().filter(|entry| name(entry) == Some(tag)).collect();
        return match tagged.is_empty() {
            true => Err(Error::user(format!("it has no image with the tag `{tag}`")).hint(list(&names))),
            false => Ok(tagged),
        };
    }
    // One image may have several tags.
    let mut seen = BTreeSet::new();
    let images: Vec<&Descriptor> = images.into_iter().filter(|entry| seen.insert(entry.digest().as_ref())).collect();
    match images.len() {
        0 => Err(Error::user("it holds no image")),
        1 => Ok(images),
        _ if names.len() == 1 && images.iter().all(|entry| entry.platform().is_some()) => Ok(images),
        count => Err(Error::user(format!("it holds {count} images, and none was chosen"))
            .hint(format!("choose one by its tag, `oci:FOLDER:TAG`; {}", list(&names)))),
    }
}

fn is_image(entry: &Descriptor) -> bool {
    let media_type = entry.media_type().as_ref();
    media::is_index(media_type) || media::is_manifest(media_type)
}

fn name(entry: &Descriptor) -> Option<&str> {
    entry.annotations().as_ref()?.get(REF_NAME).map(String::as_str)
}

fn list(names: &BTreeSet<Option<&str>>) -> String {
    let tags: Vec<String> = names.iter().flatten().map(|tag| format!("`{tag}`")).collect();
    match tags.is_empty() {
        true => "none of its images has a tag".to_owned(),
        false => format!("it has {}", tags.join(", ")),
    }
}

/// A layout in a folder; its layers stay where they are.
struct Folder(PathBuf);

impl Files for Folder {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // One byte more than allowed, to see that there is more.
        files::regular(&self.0.join(path))?
            .take(Limit::ImageDocument.value().saturating_add(1))
            .read_to_end(&mut bytes)?;
        check_size(bytes.len() as u64, &format!("`{path}`"))?;
        Ok(bytes)
    }

    fn blob(&self, digest: &Digest, size: u64) -> Result<BlobSource> {
        let path = self.0.join("blobs").join("sha256").join(digest.hex());
        files::refuse_special(&path)?;
        let found = fs::metadata(&path)?.len();
        if found != size {
            return Err(Error::user(format!("`{}` has {found} bytes and should have {size}", path.display()))
                .hint("the layout is incomplete or damaged; make it again"));
        }
        Ok(BlobSource::File(path))
    }
}

/// A layout in a tar; its layers come into the store.
struct Archive {
    tar: TarFile,
    store: Store,
}

impl Files for Archive {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.tar.read(path)
    }

    fn blob(&self, digest: &Digest, _size: u64) -> Result<BlobSource> {
        self.tar.store_blob(&format!("blobs/sha256/{}", digest.hex()), digest, &self.store)?;
        Ok(BlobSource::File(self.store.blob(digest)))
    }
}

/// The blobs of one image, the first of which is its manifest, as a layout.
struct Blobs {
    index: Vec<u8>,
    blobs: BTreeMap<Digest, Blob>,
}

impl Blobs {
    fn new(blobs: Vec<Blob>) -> Result<Self> {
        let manifest = blobs.first().ok_or_else(|| Error::bug("an image without a manifest"))?;
        let manifests = [descriptor(manifest)?];
        let index = canonical(&json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": manifests}))?;
        Ok(Self { index, blobs: blobs.into_iter().map(|blob| (blob.digest, blob)).collect() })
    }

    fn find(&self, digest: &Digest) -> Result<&Blob> {
        self.blobs.get(digest).ok_or_else(|| Error::user(format!("the archive has no blob {digest}")))
    }
}

impl Files for Blobs {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let Some(hex) = path.strip_prefix("blobs/sha256/") else { return Ok(self.index.clone()) };
        match &self.find(&format!("sha256:{hex}").parse()?)?.source {
            BlobSource::Bytes(bytes) => Ok(bytes.to_vec()),
            _ => Err(Error::bug(format!("`{path}` is not in memory"))),
        }
    }

    fn blob(&self, digest: &Digest, _size: u64) -> Result<BlobSource> {
        Ok(self.find(digest)?.source.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn entry(tag: Option<&str>, architecture: Option<&str>) -> Descriptor {
        let mut value = serde_json::json!({
            "mediaType": media::MANIFEST, "size": 2, "digest": Digest::of(b"").to_string(),
        });
        if let Some(tag) = tag {
            value["annotations"] = serde_json::json!({REF_NAME: tag});
        }
        if let Some(architecture) = architecture {
            value["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
        }
        serde_json::from_value(value).expect("a descriptor")
    }

    #[test]
    fn an_image_is_picked_by_tag_or_because_it_is_alone() {
        let two = [entry(Some("a"), None), entry(Some("b"), None)];
        assert_eq!(pick(&two, Some("b")).expect("is there"), [&two[1]]);
        assert_eq!(pick(&two[..1], None).expect("is alone"), [&two[0]]);
        assert!(pick(&two, Some("c")).expect_err("is not there").hints()[0].contains("`a`, `b`"));
        assert_eq!(pick(&[entry(Some("a"), None), entry(Some("b"), None)], None).expect("one image").len(), 1);
        let mut two = two;
        two[1].set_digest(OTHER.parse().expect("a digest"));
        assert!(pick(&two, None).expect_err("ambiguous").hints()[0].contains("`a`, `b`"));
        let mut platforms = [entry(None, Some("amd64")), entry(None, Some("arm64"))];
        platforms[1].set_digest(OTHER.parse().expect("a digest"));
        assert_eq!(pick(&platforms, None).expect("one image").len(), 2);
        assert!(pick(&[], None).is_err());
    }
}
