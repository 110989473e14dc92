//! What a wheel says of itself: `WHEEL`, `METADATA` and `entry_points.txt` of its `.dist-info` folder (binary
//! distribution format; core metadata; entry points specification).

use std::collections::{BTreeMap, BTreeSet};

use rattler_conda_types::package::EntryPoint;

use super::{WheelFile, WheelZip, normalise_name, same_version};
use crate::model::WheelName;
use crate::util::{Error, Result};

/// What resolving and packing need to know of a wheel.
#[derive(Debug, Clone)]
pub struct WheelMetadata {
    /// Normalised name (PEP 503).
    pub name: String,
    /// Name as METADATA has it.
    pub display_name: String,
    /// Version as METADATA has it (PEP 440).
    pub version: String,
    /// Requirements as written (PEP 508), in the order of METADATA.
    pub requires_dist: Vec<String>,
    /// The versions of Python that it is for, as written.
    pub requires_python: Option<String>,
    /// Its extras, as written.
    pub provides_extra: Vec<String>,
    /// The wheel's file name.
    pub file_name: String,
    /// What its file name says: the tags among it.
    pub tags: WheelName,
}

/// Reads and checks what a wheel says of itself.
///
/// # Errors
/// Damaged and hostile wheels; one whose file name, folder and METADATA contradict each other.
pub fn read_metadata(wheel: &WheelFile) -> Result<WheelMetadata> {
    let mut zip = WheelZip::open(wheel)?;
    read(&mut zip).map(|(metadata, _)| metadata)
}

/// The metadata, and the name without `.dist-info` of the folder that it is in.
pub(super) fn read(zip: &mut WheelZip) -> Result<(WheelMetadata, String)> {
    let wheel = zip.wheel().clone();
    let tags = WheelName::parse(&wheel.name).ok_or_else(|| {
        Error::user(format!("`{}` is no name of a wheel", wheel.name))
            .hint("wheels are named NAME-VERSION-PYTHON-ABI-PLATFORM.whl")
    })?;
    let stem = dist_info(zip)?;
    let (name, version) =
        stem.rsplit_once('-').ok_or_else(|| wheel.broken(format!("its folder `{stem}.dist-info` names no version")))?;
    same_package(&wheel, &tags, &format!("its folder `{stem}.dist-info`"), name, version)?;
    check_format(zip, &stem)?;
    let headers = headers(zip, &format!("{stem}.dist-info/METADATA"))?;
    let one = |key: &str| headers.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let all = |key: &str| headers.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect();
    let missing = |key: &str| wheel.broken(format!("its METADATA has no `{key}`"));
    let display_name = one("name").ok_or_else(|| missing("Name"))?;
    let version = one("version").ok_or_else(|| missing("Version"))?;
    same_package(&wheel, &tags, "its METADATA", &display_name, &version)?;
    let name = normalise_name(&display_name)
        .ok_or_else(|| wheel.broken(format!("`{}` is no name of a project", display_name.escape_debug())))?;
    let metadata = WheelMetadata {
        name,
        display_name,
        version,
        requires_dist: all("requires-dist"),
        requires_python: one("requires-python").filter(|text| !text.is_empty()),
        provides_extra: all("provides-extra"),
        file_name: wheel.name.clone(),
        tags,
    };
    Ok((metadata, stem))
}

/// The name of the one `.dist-info` folder, without that.
fn dist_info(zip: &WheelZip) -> Result<String> {
    let folders: BTreeSet<&str> =
        zip.entries().keys().filter_map(|path| path.split_once('/')?.0.strip_suffix(".dist-info")).collect();
    let mut folders = folders.into_iter();
    match (folders.next(), folders.next()) {
        (Some(stem), None) => Ok(stem.to_owned()),
        (None, _) => Err(zip.wheel().broken("it has no folder `*.dist-info`")),
        (Some(one), Some(other)) => {
            let what = format!("it has two metadata folders (`{one}.dist-info` and `{other}.dist-info`)");
            Err(zip.wheel().hostile(&what))
        }
    }
}

fn same_package(wheel: &WheelFile, said: &WheelName, place: &str, name: &str, version: &str) -> Result<()> {
    let names = (normalise_name(&said.distribution), normalise_name(name));
    let same_name = matches!(&names, (Some(a), Some(b)) if a == b);
    if same_name && same_version(&said.version, version) {
        return Ok(());
    }
    Err(wheel.broken(format!("{place} says that it is `{} {}`", name.escape_debug(), version.escape_debug())))
}

/// The format's version: a newer minor one adds what may be ignored, a newer major one does not.
fn check_format(zip: &mut WheelZip, stem: &str) -> Result<()> {
    let headers = headers(zip, &format!("{stem}.dist-info/WHEEL"))?;
    let version = headers.iter().find(|(name, _)| name == "wheel-version").map(|(_, value)| value.as_str());
    match version.map(|version| version.split('.').next().unwrap_or_default()) {
        Some("1") => Ok(()),
        Some(_) => {
            let version = version.unwrap_or_default().escape_debug();
            Err(Error::user(format!("the wheel `{}` has format {version}, only 1 is known", zip.wheel().name))
                .hint("a newer condaimg may know it"))
        }
        None => Err(zip.wheel().broken("its WHEEL has no `Wheel-Version`")),
    }
}

fn text(zip: &mut WheelZip, path: &str) -> Result<Option<String>> {
    let Some(content) = zip.read(path)? else { return Ok(None) };
    let text = String::from_utf8(content).map_err(|_| zip.wheel().broken(format!("`{path}` is not UTF-8")))?;
    Ok(Some(text.trim_start_matches('\u{feff}').to_owned()))
}

/// The fields of a file in the form of an e-mail's head (core metadata); names in lower case.
fn headers(zip: &mut WheelZip, path: &str) -> Result<Vec<(String, String)>> {
    let content = zip.read(path)?.ok_or_else(|| zip.wheel().broken(format!("it holds no `{path}`")))?;
    // Of old packages the description, which ends the fields, may be in any encoding.
    Ok(parse_headers(&String::from_utf8_lossy(&content)))
}

fn parse_headers(text: &str) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        if line.is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = headers.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    headers
}

/// The scripts that the wheel asks for, by name.
pub(super) fn entry_points(zip: &mut WheelZip, stem: &str) -> Result<BTreeMap<String, EntryPoint>> {
    let path = format!("{stem}.dist-info/entry_points.txt");
    let Some(text) = text(zip, &path)? else { return Ok(BTreeMap::new()) };
    parse_entry_points(&text).map_err(|error| zip.wheel().unsupported(&format!("{error} in its `{path}`")))
}

/// Console and GUI scripts are the same on Linux. Where both have a name, the last one stands, as for installers.
fn parse_entry_points(text: &str) -> Result<BTreeMap<String, EntryPoint>, String> {
    let mut found = BTreeMap::new();
    let mut are_scripts = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            are_scripts = matches!(section.trim(), "console_scripts" | "gui_scripts");
            continue;
        }
        if !are_scripts {
            continue;
        }
        // `name = module:function [extra]`: the extras are not looked at any more when a script runs.
        let line = line.split_once('[').map_or(line, |(line, _)| line);
        let entry_point: EntryPoint =
            line.parse().map_err(|error| format!("invalid entry point `{}` ({error})", line.escape_debug()))?;
        if entry_point.command.chars().any(char::is_control) {
            return Err(format!("invalid entry point `{}`", entry_point.command.escape_debug()));
        }
        found.insert(entry_point.command.clone(), entry_point);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_of_an_email() {
        let text = "Metadata-Version: 2.1\r\nNAME: foo\nRequires-Dist: a\n  ; python_version > '3'\nRequires-Dist:b\nodd\n\nName: body";
        let headers = parse_headers(text);
        let values = |key: &str| -> Vec<&str> {
            headers.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!(values("name"), ["foo"]);
        assert_eq!(values("requires-dist"), ["a ; python_version > '3'", "b"]);
    }

    #[test]
    fn scripts_are_read_and_other_entry_points_not() {
        let text = "# comment\n[console_scripts]\nfoo = foo.cli:main\nbar=foo:Bar.run [extra, more]\n\n[pytest11]\nx = not a script\n[gui_scripts]\n baz = foo:gui\n";
        let found = parse_entry_points(text).expect("reads");
        let shown: Vec<String> = found.values().map(ToString::to_string).collect();
        assert_eq!(shown, ["bar = foo:Bar.run", "baz = foo:gui", "foo = foo.cli:main"]);
        for wrong in ["../x = a:b", "x = a", "x = a:b; import os", ".x = a:b", "a\u{7}b = a:b", "x"] {
            assert!(parse_entry_points(&format!("[console_scripts]\n{wrong}\n")).is_err(), "{wrong}");
        }
    }
}
