//! What a job sees of the operating system. It is a list of what is seen, not of what is hidden.

use std::path::{Path, PathBuf};

use super::plan::{Access, Bind};

/// How much of the operating system a job sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// The C library and its loader.
    Libraries,
    /// Compilers and other programs.
    Tools,
}

/// Libraries; `/nix/store` and `/gnu/store` hold those of NixOS and Guix.
const LIBRARIES: [&str; 6] = ["/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];
const LIBRARIES_OF_USR: [&str; 4] = ["/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32"];
const LOADER: [&str; 2] = ["/etc/ld.so.cache", "/etc/ld.so.conf"];

/// Programs and what they read. The files below /etc hold no secrets.
const TOOLS: [&str; 12] = [
    "/usr",
    "/bin",
    "/sbin",
    "/etc/alternatives",
    "/etc/ld.so.conf.d",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/debian_version",
];

/// Names, addresses and certificates, for jobs with network.
const NETWORK: [&str; 13] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust",
    "/etc/crypto-policies",
];

/// Devices that every job has.
pub(super) const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// What there is of it on this machine.
pub(super) fn binds(system: System, network: bool) -> Vec<Bind> {
    let of_usr: &[&str] = match system {
        System::Libraries => &LIBRARIES_OF_USR,
        System::Tools => &TOOLS,
    };
    let of_network: &[&str] = if network { &NETWORK } else { &[] };
    let paths = LIBRARIES.iter().chain(&LOADER).chain(of_usr).chain(of_network);
    paths.filter_map(|path| bind(Path::new(path), Access::Read)).collect()
}

/// A path as a job sees it; nothing when it does not exist.
pub(super) fn bind(path: &Path, access: Access) -> Option<Bind> {
    let source = std::fs::canonicalize(path).ok()?;
    Some(Bind { source, target: absolute(path), access })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
