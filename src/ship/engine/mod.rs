//! Images into the stores of container engines, by the engines' own programs, which know where those stores are and who
//! may write to them. Whether an engine has an image is asked before, so that nothing moves in vain, and afterwards, so
//! that nothing is believed: an engine has it when all of its names stand for the digest of its manifest or config.

mod program;

use std::process::Command;

use fs_err as fs;

use crate::image::{self, Image};
use crate::store::Store;
use crate::util::files::named;
use crate::util::report::{Progress, Silent};
use crate::util::{Error, Result, variables};
use program::{ask, run, stream};

/// Where kubelet, and whatever else speaks CRI, looks for images in containerd.
const KUBERNETES: &str = "k8s.io";

/// The folder of the layout that podman reads.
const LAYOUT: &str = "condaimg-warm";

/// A container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// `podman pull` of a layout: it copies the layers that its store lacks.
    Podman,
    /// `docker load` from a pipe.
    Docker,
    /// `ctr images import` from a pipe, into the namespace that `CONTAINERD_NAMESPACE` names, else Kubernetes's.
    Containerd,
}

/// What there was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// The engine had the image.
    Present,
    /// It was given to it.
    Loaded,
}

impl Engine {
    /// As users call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
        }
    }

    /// Looks for the program.
    ///
    /// # Errors
    /// When it is not there.
    pub fn find(self) -> Result<()> {
        let program = self.program();
        let folders = std::env::var_os("PATH").unwrap_or_default();
        match std::env::split_paths(&folders).any(|folder| folder.join(program).is_file()) {
            true => Ok(()),
            false => {
                Err(Error::user(format!("`--load {}` needs the program `{program}`, which is not there", self.name()))
                    .hint(format!("install it ({}), or put its folder into PATH", self.package())))
            }
        }
    }

    /// Sees to it that the engine has the image under all names, which are whole references (`HOST/NAME:TAG`). Layers
    /// must be on this machine. It waits for the program: not for the runtime's own threads.
    ///
    /// # Errors
    /// When the program fails, or the engine has something else afterwards; when a blob is damaged.
    pub fn load(self, image: &Image, names: &[String], store: &Store, progress: &dyn Progress) -> Result<Intake> {
        if self.has(image, names)? {
            return Ok(Intake::Present);
        }
        match self {
            Self::Podman => pull(image, names, store).map_err(|error| {
                // podman does not say which file it found damaged.
                let read = image::write_load_archive(image, names, &mut std::io::sink(), &Silent);
                read.err().unwrap_or(error)
            })?,
            Self::Docker | Self::Containerd => {
                let fed =
                    stream(self.import(image), |output| image::write_load_archive(image, names, output, progress));
                fed.map_err(|error| match self == Self::Docker && is_zstd(image) {
                    true => error.hint("an old Docker (as 20.10) reads no layers in zstd: use `--compression gzip`"),
                    false => error,
                })?;
            }
        }
        if self.has(image, names)? {
            return Ok(Intake::Loaded);
        }
        let (engine, program) = (self.name(), self.program());
        Err(Error::user(format!("{engine} does not have {} after `{program}` took it", names.join(", "))).hint(
            format!(
                "expected is an image with the config {}; does something else write that name?",
                image.config.digest
            ),
        ))
    }

    fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Containerd => "ctr",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Podman => "Debian: podman",
            Self::Docker => "Debian: docker.io, or docker-ce-cli of Docker",
            Self::Containerd => "it is a part of containerd",
        }
    }

    fn command(self) -> Command {
        let mut command = Command::new(self.program());
        variables::withhold(&mut command);
        if self == Self::Containerd {
            let namespace = std::env::var("CONTAINERD_NAMESPACE").ok().filter(|name| !name.is_empty());
            command.arg("--namespace").arg(namespace.as_deref().unwrap_or(KUBERNETES));
        }
        command
    }

    /// The command that reads an archive.
    fn import(self, image: &Image) -> Command {
        let mut command = self.command();
        match self {
            // Of another platform than this machine's, too; unpacked, so that the first container need not wait.
            Self::Containerd => command.args(["images", "import", "--platform", &image.platform.to_string(), "-"]),
            _ => command.args(["load", "--quiet"]),
        };
        command
    }

    fn has(self, image: &Image, names: &[String]) -> Result<bool> {
        for name in names {
            if !self.has_under(image, name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// An engine that says nothing of an image does not have it; if it is broken, loading will tell.
    fn has_under(self, image: &Image, name: &str) -> Result<bool> {
        let mut command = self.command();
        if self == Self::Containerd {
            command.args(["images", "check", &format!("name==\"{name}\"")]);
            // REF TYPE DIGEST STATUS SIZE UNPACKED
            let is_ready = |line: &str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words.get(2) == Some(&image.manifest.digest.to_string().as_str()) && words.last() == Some(&"true")
            };
            return Ok(ask(command)?.is_some_and(|said| said.lines().any(is_ready)));
        }
        command.args(["image", "inspect", "--format", "{{.Id}}", name]);
        // The config's digest; of Docker's containerd image store the manifest's.
        let ours = [image.config.digest.hex(), image.manifest.digest.hex()];
        Ok(ask(command)?.is_some_and(|said| ours.iter().any(|id| said.trim().trim_start_matches("sha256:") == id)))
    }
}

fn is_zstd(image: &Image) -> bool {
    image.layers.iter().any(|layer| layer.blob.media_type.ends_with("zstd"))
}

/// podman reads from a layout what its store lacks, and nothing twice.
fn pull(image: &Image, names: &[String], store: &Store) -> Result<()> {
    let Some(first) = names.first() else { return Err(Error::bug("an image without a name")) };
    let scratch = store.scratch();
    let folder =
        tempfile::Builder::new().prefix("load-").tempdir_in(&scratch).map_err(|error| named(&scratch, error))?;
    // So that no other process sweeps it away, however long podman takes.
    let held = fs::File::open(folder.path())?;
    held.file().lock().map_err(|error| named(folder.path(), error))?;
    image::link_layout(image, first, &folder.path().join(LAYOUT))?;
    let podman = |words: &[&str]| {
        let mut command = Engine::Podman.command();
        // From here, because a path with a colon in it could not be written.
        command.args(words).current_dir(folder.path());
        command
    };
    let id = run(podman(&["pull", "--quiet", &format!("oci:{LAYOUT}")]))?;
    for name in names {
        run(podman(&["tag", id.trim(), name]))?;
    }
    // Up to version 4 podman calls an image of a layout by the folder; later ones, which do not, refuse this.
    ask(podman(&["untag", id.trim(), &format!("localhost/{LAYOUT}:latest")])).map(drop)
}
