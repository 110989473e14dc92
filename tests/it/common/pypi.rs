//! An index of Python packages on loopback (PEP 503), and what wheels are built from: repositories and folders with a
//! build backend of their own, so that a build needs nothing from the network.

#![allow(dead_code, reason = "each test uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use condaimg::util::Digest;

use super::file_server::FileServer;
use super::wheels::Wheel;
use super::{program, succeed};

/// A running index.
pub struct PackageIndex {
    pub server: FileServer,
    folder: PathBuf,
    /// Project → file → its hash.
    files: BTreeMap<String, BTreeMap<String, String>>,
}

impl PackageIndex {
    pub fn start(folder: PathBuf) -> Self {
        fs_err::create_dir_all(&folder).expect("a folder");
        Self { server: FileServer::start(&folder), folder, files: BTreeMap::new() }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("{}/simple/", self.server.url)
    }

    /// Its URL with user and password.
    pub fn url_with(&self, login: &str) -> String {
        self.url().replace("://", &format!("://{login}@"))
    }

    pub fn add(&mut self, wheel: &Wheel) {
        self.add_file(&wheel.name, &wheel.file_name(), &wheel.bytes());
    }

    pub fn add_file(&mut self, project: &str, name: &str, bytes: &[u8]) {
        let hash = Digest::of(bytes).hex();
        self.write(name, bytes);
        let project = project.to_lowercase().replace(['_', '.'], "-");
        self.files.entry(project.clone()).or_default().insert(name.to_owned(), hash);
        let links: String = self.files[&project]
            .iter()
            .map(|(name, hash)| {
                format!(
                    "<a href=\"/files/{}#sha256={hash}\">{name}</a>\n",
                    name.replace('+', "%2B").replace('!', "%21")
                )
            })
            .collect();
        let page = self.folder.join("simple").join(&project).join("index.html");
        fs_err::create_dir_all(page.parent().expect("a parent")).expect("a folder");
        fs_err::write(page, format!("<!DOCTYPE html><html><body>{links}</body></html>")).expect("writes");
    }

    /// Puts other bytes in a file's place; the page stays as it is.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.join("files").join(name);
        fs_err::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs_err::write(path, bytes).expect("writes");
    }
}

/// A build backend (PEP 517) that needs nothing: it packs `NAME.py`, and as `_NAME.so` what a
/// `compile.sh`, if there is one, makes as `compiled`.
const BACKEND: &str = r#"
import base64, hashlib, os, platform, subprocess, zipfile
NAME, VERSION, REQUIRES, SCRIPTS = "@NAME@", "@VERSION@", @REQUIRES@, "@SCRIPTS@"

def build_wheel(folder, config_settings=None, metadata_directory=None):
    tag, files = "py3-none-any", {}
    if os.path.exists("compile.sh"):
        subprocess.run(["sh", "-e", "compile.sh"], check=True)
        tag, files[f"_{NAME}.so"] = f"py3-none-linux_{platform.machine()}", open("compiled", "rb").read()
    name = f"{NAME}-{VERSION}-{tag}.whl"
    info = f"{NAME}-{VERSION}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n"
    metadata += "".join(f"Requires-Dist: {it}\n" for it in REQUIRES)
    pure = "true" if tag.endswith("any") else "false"
    files[f"{NAME}.py"] = open(f"{NAME}.py", "rb").read()
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: {pure}\nTag: {tag}\n".encode()
    if SCRIPTS:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{SCRIPTS}\n".encode()
    def line(path, content):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        return f"{path},sha256={digest},{len(content)}\n"
    files[f"{info}/RECORD"] = ("".join(line(*file) for file in files.items()) + f"{info}/RECORD,,\n").encode()
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
    return name
"#;

/// Writes a project that has to be built; its module says `value`.
pub fn project(folder: &Path, name: &str, version: &str, requires: &[&str], value: &str) {
    project_with_script(folder, name, version, requires, value, "");
}

/// The same with a command (`NAME = MODULE:FUNCTION`).
pub fn project_with_script(folder: &Path, name: &str, version: &str, requires: &[&str], value: &str, script: &str) {
    fs_err::create_dir_all(folder).expect("a folder");
    let write = |file: &str, text: &str| fs_err::write(folder.join(file), text).expect("writes");
    let requires: Vec<String> = requires.iter().map(|it| format!("'{it}'")).collect();
    let requires = format!("[{}]", requires.join(", "));
    let fill = |text: &str| {
        text.replace("@NAME@", name)
            .replace("@VERSION@", version)
            .replace("@REQUIRES@", &requires)
            .replace("@SCRIPTS@", script)
    };
    write("backend.py", &fill(BACKEND));
    write(
        "pyproject.toml",
        &fill(
            "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n\n[project]\nname = \"@NAME@\"\ndynamic = [\"version\", \"dependencies\"]\n",
        ),
    );
    write(&format!("{name}.py"), &format!("VALUE = \"{value}\"\n\n\ndef main():\n    print(VALUE)\n"));
}

/// A repository that is served as files are (git's "dumb" protocol).
pub struct Repository {
    pub work: PathBuf,
    pub bare: PathBuf,
}

impl Repository {
    /// In `served/NAME.git`, of a folder that a server serves.
    pub fn new(work: PathBuf, served: &Path, name: &str) -> Self {
        fs_err::create_dir_all(&work).expect("a folder");
        fs_err::create_dir_all(served).expect("a folder");
        let repository = Self { work, bare: served.join(format!("{name}.git")) };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        succeed(
            program("git", "git").args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(&repository.bare),
        );
        repository
    }

    fn git(&self, words: &[&str]) -> String {
        let mut git = program("git", "git");
        git.args(["-c", "user.name=test", "-c", "user.email=test@example", "-C"]).arg(&self.work).args(words);
        succeed(&mut git).trim().to_owned()
    }

    /// Commits what is there, under a tag if there is one, and publishes it; the commit.
    pub fn commit(&self, tag: Option<&str>) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "change"]);
        if let Some(tag) = tag {
            self.git(&["tag", "--force", tag]);
        }
        let bare = self.bare.to_string_lossy().into_owned();
        self.git(&["push", "--quiet", "--force", "--tags", &bare, "main"]);
        succeed(program("git", "git").arg("-C").arg(&self.bare).arg("update-server-info"));
        self.git(&["rev-parse", "HEAD"])
    }

    /// Takes a tag away.
    pub fn delete_tag(&self, tag: &str) {
        self.git(&["tag", "--delete", tag]);
        let bare = self.bare.to_string_lossy().into_owned();
        self.git(&["push", "--quiet", &bare, "--delete", &format!("refs/tags/{tag}")]);
        succeed(program("git", "git").arg("-C").arg(&self.bare).arg("update-server-info"));
    }

    /// Takes all of it away.
    pub fn remove(&self) {
        fs_err::remove_dir_all(&self.work).expect("removes");
        fs_err::remove_dir_all(&self.bare).expect("removes");
    }
}
