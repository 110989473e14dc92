//! Stub wheels: what is there already, for the resolver's eyes only.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use pep508_rs::{MarkerExpression, Requirement};
use url::Url;
use zip::write::SimpleFileOptions;

use super::Installed;
use crate::util::{Error, Result};

/// Writes the stub of a distribution into a folder; its path.
pub(super) fn write(folder: &Path, installed: &Installed) -> Result<PathBuf> {
    let stem = format!("{}-{}", installed.name.replace('-', "_"), installed.version);
    let path = folder.join(format!("{stem}-py3-none-any.whl"));
    let mut zip = zip::ZipWriter::new(fs::File::create(&path)?);
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default());
    let files = [
        ("METADATA", metadata(installed)),
        ("WHEEL", "Wheel-Version: 1.0\nGenerator: condaimg\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned()),
        ("RECORD", String::new()),
    ];
    let failed = |error: zip::result::ZipError| Error::user("a stub cannot be written").caused_by(error);
    for (name, content) in files {
        zip.start_file(format!("{stem}.dist-info/{name}"), options).map_err(failed)?;
        zip.write_all(content.as_bytes())?;
    }
    zip.finish().map_err(failed)?;
    Ok(path)
}

/// Without the dependencies: who installed it has seen to them. Those of extras are pip's, who alone knows extras.
fn metadata(installed: &Installed) -> String {
    let mut text = format!("Metadata-Version: 2.1\nName: {}\nVersion: {}\n", installed.name, installed.version);
    let mut extras = Vec::new();
    let mut lines = Vec::new();
    for requirement in &installed.requires_dist {
        let Ok(parsed) = requirement.parse::<Requirement<Url>>() else { continue };
        let named = parsed.marker.to_dnf().into_iter().flatten().filter_map(|expression| match expression {
            MarkerExpression::Extra { name, .. } => Some(name.to_string()),
            _ => None,
        });
        let before = extras.len();
        extras.extend(named);
        if extras.len() > before {
            lines.push(format!("Requires-Dist: {requirement}\n"));
        }
    }
    extras.sort();
    extras.dedup();
    text.extend(extras.iter().map(|extra| format!("Provides-Extra: {extra}\n")));
    text.extend(lines);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dependencies_of_extras_stay() {
        let requires = [
            "click>=7",
            "httptools>=0.6 ; extra == 'standard'",
            "uvloop ; sys_platform == 'linux' and extra == 'fast'",
        ];
        let installed = Installed {
            name: "uvicorn".to_owned(),
            version: "0.30".to_owned(),
            bringer: "the conda package `uvicorn-0.30-0`".to_owned(),
            of_base: false,
            requires_dist: requires.map(str::to_owned).to_vec(),
        };
        let text = metadata(&installed);
        assert!(!text.contains("click") && text.contains(requires[1]) && text.contains(requires[2]), "{text}");
        assert!(text.contains("Provides-Extra: fast\nProvides-Extra: standard\n"), "{text}");
    }
}
