//! Keys and certificates, made by `openssl` in the folder of the server that they are for.

use std::path::Path;
use std::process::Command;

use fs_err as fs;

/// The names that servers' certificates are good for.
const NAMES: &str = "subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1";
const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// `server.crt` and `server.key`, and as `ca.crt` the same certificate: it is its own authority.
pub fn self_signed(folder: &Path) {
    let subject = "-subj /CN=localhost";
    openssl(folder, &format!("req -x509 {KEY} -days 2 {subject} -addext {NAMES} -keyout server.key -out server.crt"));
    fs::copy(folder.join("server.crt"), folder.join("ca.crt")).expect("copies");
}

/// `ca.crt`, an authority, with `server.crt` and `server.key` signed by it.
pub fn signed(folder: &Path) {
    openssl(folder, &format!("req -x509 {KEY} -days 2 -subj /CN=authority -keyout ca.key -out ca.crt"));
    sign(folder, "server", "localhost", NAMES);
}

/// `client.crt` and `client.key`, signed by the authority that [`signed`] made.
pub fn client(folder: &Path) {
    sign(folder, "client", "client", "extendedKeyUsage=clientAuth");
}

/// `tokens.crt` and `tokens.key`: what a token server signs with (RSA, since RS256 is what all registries know).
pub fn for_tokens(folder: &Path) {
    let key = "-newkey rsa:2048 -nodes";
    openssl(folder, &format!("req -x509 {key} -days 2 -subj /CN=tokens -keyout tokens.key -out tokens.crt"));
}

fn sign(folder: &Path, name: &str, subject: &str, extension: &str) {
    openssl(folder, &format!("req -new {KEY} -subj /CN={subject} -keyout {name}.key -out {name}.csr"));
    fs::write(folder.join("extension"), extension).expect("writes");
    let authority = "-CA ca.crt -CAkey ca.key -CAcreateserial";
    openssl(folder, &format!("x509 -req -in {name}.csr {authority} -days 2 -extfile extension -out {name}.crt"));
}

fn openssl(folder: &Path, arguments: &str) {
    run(folder, "openssl", "openssl", &arguments.split(' ').collect::<Vec<_>>());
}

/// Runs a program of Debian's `package` in the folder; it must succeed.
pub fn run(folder: &Path, program: &str, package: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("`{program}` (`apt-get install {package}`): {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
