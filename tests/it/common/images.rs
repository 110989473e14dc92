//! Images that several tests look at, each built once, and readers of what images hold.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use super::engine::swept;
use super::tree::Image;
use super::{Workspace, program, succeed};

/// Where the environment lies in an image.
pub const PREFIX: &str = "opt/conda/envs/default";

/// A cache that tests share which do not test packing: most of their layers are in it already.
pub fn shared_cache() -> PathBuf {
    swept().join("cache")
}

/// Python and one noarch package: an OCI layout with the tag `1`.
pub fn small() -> &'static Layout {
    static SMALL: OnceLock<Layout> = OnceLock::new();
    SMALL.get_or_init(|| Layout::build("small", &super::environment(&["python=3.11", "click"]), &[]))
}

/// What people do with Python, and variables in every form: an OCI layout with the tag `1`.
pub fn full() -> &'static Layout {
    static FULL: OnceLock<Layout> = OnceLock::new();
    FULL.get_or_init(|| {
        small();
        let packages = ["numpy", "pandas", "flask", "requests", "click", "pytest", "pip", "feature-activate"];
        let environment = super::environment(&[&["python=3.11"], &packages[..]].concat());
        Layout::build("full", &format!("{environment}variables:\n  APP_MODE: \"two words, $one dollar\"\n"), &[])
    })
}

/// An image in an OCI layout of its own, under the tag `1`.
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// Builds an environment.yml with these flags.
    pub fn build(name: &str, environment: &str, flags: &[&str]) -> Self {
        let workspace = Workspace::new();
        workspace.file("environment.yml", environment);
        let layout = Self { folder: swept().join(name) };
        let mut build = workspace.build_here();
        build.env("CONDAIMG_CACHE_DIR", shared_cache()).args(flags).args(["--output", &layout.image()]);
        succeed(&mut build);
        // Checks it.
        Image::read(layout.folder());
        layout
    }

    /// A layout that is there.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// As tools of the containers family name it.
    pub fn image(&self) -> String {
        format!("oci:{}:1", self.folder.display())
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn manifest(&self) -> Value {
        json(&skopeo(&["inspect", "--raw", &self.image()]))
    }

    pub fn config(&self) -> Value {
        json(&skopeo(&["inspect", "--config", &self.image()]))
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> String {
        skopeo(&["inspect", "--format", "{{.Digest}}", &self.image()]).trim().to_owned()
    }

    /// The layer blobs' digests, lowest first.
    pub fn layers(&self) -> Vec<String> {
        digests(&self.manifest())
    }

    /// A blob of it, unpacked when it is compressed by gzip.
    pub fn layer(&self, digest: &str) -> impl Read + use<> {
        let blob = self.folder.join("blobs").join(digest.replace(':', "/"));
        flate2::read::MultiGzDecoder::new(fs_err::File::open(blob).expect("a blob"))
    }
}

/// The digests of a manifest's layers, lowest first.
pub fn digests(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().expect("layers").iter();
    layers.map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
}

pub fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// skopeo, whatever policy file this machine has.
pub fn skopeo(arguments: &[&str]) -> String {
    succeed(program("skopeo", "skopeo").arg("--insecure-policy").args(arguments))
}
