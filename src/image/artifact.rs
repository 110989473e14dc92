//! Artifacts: manifests that attach files to an image (image-spec, manifest.md, "Guidelines for Artifact Usage").

use std::collections::{BTreeMap, HashMap};

use oci_spec::image::{Descriptor, ImageManifestBuilder, MediaType, SCHEMA_VERSION};

use super::assemble::descriptor;
use super::media;
use crate::model::Blob;
use crate::util::json::canonical;
use crate::util::{Error, Result};

/// The annotation with a file's name (image-spec, annotations.md).
const TITLE: &str = "org.opencontainers.image.title";

/// The bytes of the config, and of the only layer of an artifact without files.
const EMPTY: &[u8] = b"{}";
/// They as `data` of their descriptor holds them, in base64.
const EMPTY_DATA: &str = "e30=";

/// A file of an artifact.
#[derive(Debug, Clone)]
pub struct ArtifactFile {
    /// Its bytes and media type.
    pub blob: Blob,
    /// The name that tools save it under.
    pub title: String,
}

/// An artifact, ready to be pushed.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Its manifest.
    pub manifest: Blob,
    /// The empty config, which a registry must have all the same.
    pub config: Blob,
    /// Its files; the empty blob once more when there are none.
    pub layers: Vec<Blob>,
}

impl Artifact {
    /// All its blobs in the order in which they should be stored: the manifest comes last.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain([&self.config, &self.manifest])
    }
}

/// Makes an artifact that refers to `subject`. Pure: equal inputs give equal bytes, so that it is pushed once.
///
/// # Errors
/// Defects of ours only.
pub fn artifact(
    subject: &Descriptor,
    artifact_type: &str,
    files: &[ArtifactFile],
    annotations: &BTreeMap<String, String>,
) -> Result<Artifact> {
    let config = Blob::from_bytes(media::EMPTY, EMPTY.to_vec());
    let mut layers = files.iter().map(file).collect::<Result<Vec<_>>>()?;
    if layers.is_empty() {
        layers.push(empty(&config)?);
    }
    let mut manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .artifact_type(MediaType::from(artifact_type))
        .config(empty(&config)?)
        .layers(layers)
        // Only what names it: the platform and the annotations that an index gives it are not of the subject.
        .subject(Descriptor::new(subject.media_type().clone(), subject.size(), subject.digest().clone()));
    if !annotations.is_empty() {
        manifest = manifest.annotations(annotations.clone().into_iter().collect::<HashMap<_, _>>());
    }
    let manifest = manifest.build().map_err(|error| Error::bug("a manifest cannot be made").caused_by(error))?;
    let layers = match files {
        [] => vec![config.clone()],
        files => files.iter().map(|file| file.blob.clone()).collect(),
    };
    Ok(Artifact { manifest: Blob::from_bytes(media::MANIFEST, canonical(&manifest)?), config, layers })
}

/// Makes an artifact that refers to nothing and has one blob, which it keeps a registry from collecting. Pure, as
/// [`artifact`].
///
/// # Errors
/// Defects of ours only.
pub fn lone_artifact(artifact_type: &str, blob: &Blob, annotations: &BTreeMap<String, String>) -> Result<Artifact> {
    let config = Blob::from_bytes(media::EMPTY, EMPTY.to_vec());
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .artifact_type(MediaType::from(artifact_type))
        .config(empty(&config)?)
        .layers([descriptor(blob)?])
        .annotations(annotations.clone().into_iter().collect::<HashMap<_, _>>())
        .build()
        .map_err(|error| Error::bug("a manifest cannot be made").caused_by(error))?;
    let manifest = Blob::from_bytes(media::MANIFEST, canonical(&manifest)?);
    Ok(Artifact { manifest, config, layers: vec![blob.clone()] })
}

fn file(file: &ArtifactFile) -> Result<Descriptor> {
    let mut descriptor = descriptor(&file.blob)?;
    descriptor.set_annotations(Some(HashMap::from([(TITLE.to_owned(), file.title.clone())])));
    Ok(descriptor)
}

/// The descriptor of the empty blob, which holds the blob itself.
fn empty(blob: &Blob) -> Result<Descriptor> {
    let mut descriptor = descriptor(blob)?;
    descriptor.set_data(Some(EMPTY_DATA.to_owned()));
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BlobSource;

    fn bytes(blob: &Blob) -> Vec<u8> {
        match &blob.source {
            BlobSource::Bytes(bytes) => bytes.to_vec(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn artifacts_are_as_the_specification_wants_them() {
        let mut subject = descriptor(&Blob::from_bytes(media::MANIFEST, b"subject".to_vec())).expect("a descriptor");
        subject.set_annotations(Some(HashMap::from([("a".to_owned(), "b".to_owned())])));
        let lock = ArtifactFile {
            blob: Blob::from_bytes("application/vnd.condaimg.lock.v1+yaml", b"lock".to_vec()),
            title: "condaimg.lock".into(),
        };
        let annotations = BTreeMap::from([("z".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())]);
        let make = || artifact(&subject, "application/vnd.condaimg.lock.v1", std::slice::from_ref(&lock), &annotations);
        let made = make().expect("makes");
        let text = String::from_utf8(bytes(&made.manifest)).expect("text");
        let expected = format!(
            concat!(
                r#"{{"annotations":{{"a":"2","z":"1"}},"artifactType":"application/vnd.condaimg.lock.v1","#,
                r#""config":{{"data":"e30=","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","#,
                r#""mediaType":"application/vnd.oci.empty.v1+json","size":2}},"#,
                r#""layers":[{{"annotations":{{"org.opencontainers.image.title":"condaimg.lock"}},"digest":"{}","#,
                r#""mediaType":"application/vnd.condaimg.lock.v1+yaml","size":4}}],"#,
                r#""mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2,"#,
                r#""subject":{{"digest":"{}","mediaType":"application/vnd.oci.image.manifest.v1+json","size":7}}}}"#,
            ),
            lock.blob.digest,
            crate::util::Digest::of("subject"),
        );
        assert_eq!(text, expected);
        assert_eq!(make().expect("makes").manifest.digest, made.manifest.digest);
        assert_eq!(made.blobs().count(), 3);
    }

    #[test]
    fn an_artifact_without_files_has_the_empty_one() {
        let subject = descriptor(&Blob::from_bytes(media::MANIFEST, b"subject".to_vec())).expect("a descriptor");
        let made = artifact(&subject, "application/x", &[], &BTreeMap::new()).expect("makes");
        let document: serde_json::Value = serde_json::from_slice(&bytes(&made.manifest)).expect("JSON");
        assert_eq!(document["layers"][0], document["config"]);
        assert_eq!(document.get("annotations"), None);
        assert_eq!(made.layers[0].digest, made.config.digest);
    }
}
