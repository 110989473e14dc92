//! Byte code: whether the Python of an image would use what is there, and `.pyc` files for packages.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::Stdio;

use super::example_python;
use super::tree::{Image, Kind, Node};

/// The magic number of CPython 3.11.
pub const MAGIC: [u8; 4] = [0xa7, 0x0d, 0x0d, 0x0a];

/// The `.pyc` in an image that its Python would not use beside the modules that are there, with the reason; symbolic
/// links are followed as Python does. What the base alone has is not looked at, and what has no module, which Python
/// does not look for.
pub fn stale(image: &Image) -> Vec<String> {
    let entries = |layer: &'_ super::tree::Layer| layer.entries.clone();
    let whole: BTreeMap<String, Node> = image.layers.iter().flat_map(entries).collect();
    let added = || image.added().flat_map(|layer| layer.entries.iter().map(|(path, _)| path.as_str()));
    let linked = added().filter(|path| path.ends_with("/__pycache__")).flat_map(|path| {
        let folder = format!("{}/", followed(path, &whole).unwrap_or_else(|| path.to_owned()));
        let names = whole.keys().filter_map(move |inside| inside.strip_prefix(&folder).map(str::to_owned));
        names.map(move |name| format!("{path}/{name}")).collect::<Vec<_>>()
    });
    let seen: BTreeSet<String> = added().map(str::to_owned).chain(linked).collect();
    seen.iter().filter_map(|path| Some(format!("{path}: {}", reason(path, &whole)?))).collect()
}

/// Where a path leads through symbolic links; nothing when they lead out of what is known.
fn followed(path: &str, tree: &BTreeMap<String, Node>) -> Option<String> {
    let mut pending: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut found: Vec<String> = Vec::new();
    for _ in 0..1_000 {
        let Some(part) = pending.pop() else { return Some(found.join("/")) };
        match part.as_str() {
            "" | "." => {}
            ".." => drop(found.pop()?),
            _ => found.push(part),
        }
        if let Some(Kind::Symlink(target)) = tree.get(&found.join("/")).map(|node| &node.kind) {
            found.pop();
            if target.starts_with('/') {
                found.clear();
            }
            pending.extend(target.split('/').rev().map(str::to_owned));
        }
    }
    None
}

/// Why Python 3.11 would not use a file; nothing when it would, or would not look.
fn reason(path: &str, tree: &BTreeMap<String, Node>) -> Option<String> {
    let (folder, name) = path.strip_suffix(".pyc")?.split_once("__pycache__/")?;
    let name = name.split(".opt-").next()?;
    let (stem, tag) = name.rsplit_once('.')?;
    let minor: u32 = tag.strip_prefix("cpython-3")?.parse().ok()?;
    let source = tree.get(&followed(&format!("{folder}{stem}.py"), tree)?)?;
    let code = tree.get(&followed(path, tree)?)?;
    let (Kind::File(code), Kind::File(module)) = (&code.kind, &source.kind) else { return None };
    let word = |at: usize| u32::from_le_bytes(code.head[at..at + 4].try_into().expect("four bytes"));
    if (3..7).contains(&minor) {
        // Before PEP 552: magic number, time, size.
        let fits = code.head.len() >= 12 && word(4) == source.mtime as u32 && word(8) == module.size as u32;
        return (!fits).then(|| format!("old head {:02x?}", code.head));
    }
    if minor != 11 {
        return None;
    }
    if code.head.len() < 16 || code.head[..4] != MAGIC {
        return Some(format!("bad magic number {:02x?}", code.head));
    }
    match word(4) {
        0 if word(12) != module.size as u32 => Some(format!("of {} bytes, not {}", word(12), module.size)),
        0 if word(8) != source.mtime as u32 => Some(format!("of {}, not {}", word(8), source.mtime)),
        0 => None,
        1 | 3 => (module.source_hash.map(u64::to_le_bytes)?[..] != code.head[8..16]).then(|| "other hash".to_owned()),
        flags => Some(format!("bad flags {flags}")),
    }
}

/// A `.pyc` of CPython 3.11 for a module with this content, with the time in it.
pub fn stamped(source: &str, mtime: u64) -> Vec<u8> {
    let header = format!("importlib._bootstrap_external._code_to_timestamp_pyc(code, {mtime}, len(source))");
    compiled(source, &header)
}

/// A `.pyc` of CPython 3.11 with the hash of its module; `checked`, if Python is to look at it.
pub fn hashed(source: &str, checked: bool) -> Vec<u8> {
    let checked = if checked { "True" } else { "False" };
    let hash = "importlib.util.source_hash(source)";
    compiled(source, &format!("importlib._bootstrap_external._code_to_hash_pyc(code, {hash}, {checked})"))
}

fn compiled(source: &str, expression: &str) -> Vec<u8> {
    let program = format!(
        "import sys, importlib.util, importlib._bootstrap_external\nsource = sys.stdin.buffer.read()\n\
         code = compile(source, 'module.py', 'exec')\nsys.stdout.buffer.write({expression})"
    );
    let mut python = std::process::Command::new(example_python());
    let mut child = python.args(["-c", &program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs");
    child.stdin.take().expect("a pipe").write_all(source.as_bytes()).expect("writes");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success() && output.stdout[..4] == MAGIC, "the Python of the examples is not 3.11");
    output.stdout
}
