//! Manifests and indexes as others write them, and the choice of a platform in an index.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;

use super::{json, media};
use crate::model::Platform;
use crate::util::{Error, Result};

/// A manifest or an index.
pub(super) enum Document {
    /// Names the images of several platforms.
    Index(Box<ImageIndex>),
    /// One image.
    Manifest(Box<ImageManifest>),
}

/// The members by which the two are told apart when `mediaType`, which is optional, is missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Parses a manifest or index.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let outline: Outline = json::parse(bytes, "its manifest")?;
        if outline.schema_version == Some(1) {
            return Err(Error::user("its manifest is of Docker's schema 1, which is no longer in use")
                .hint("push the base again with a current tool"));
        }
        // Some would take it for an image, others for an index (CVE-2021-41190).
        if outline.manifests.is_some() && outline.layers.is_some() {
            return Err(Error::user(
                "its manifest is ambiguous: it has `layers` of an image and `manifests` of an index",
            ));
        }
        let media_type = outline.media_type.as_deref();
        let index = match media_type {
            Some(media_type) => media::is_index(media_type),
            None => outline.manifests.is_some(),
        };
        if index {
            return Ok(Self::Index(Box::new(json::parse(bytes, "its index")?)));
        }
        if let Some(media_type) = media_type.filter(|media_type| !media::is_manifest(media_type)) {
            return Err(Error::user(format!("it is no image but `{media_type}`")));
        }
        let manifest: ImageManifest = json::parse(bytes, "its manifest")?;
        let config = manifest.config().media_type().as_ref();
        if !media::is_config(config) {
            return Err(Error::user(format!("it is no image but an artifact with the config `{config}`")));
        }
        Ok(Self::Manifest(Box::new(manifest)))
    }
}

/// Chooses the image for a platform: the highest variant that is not above the one asked for.
///
/// # Errors
/// When there is none, naming what is there.
pub fn choose<'a>(descriptors: &[&'a Descriptor], platform: &Platform) -> Result<&'a Descriptor> {
    let mut best: Option<(Level, &Descriptor)> = None;
    for descriptor in descriptors {
        let Some(offered) = descriptor.platform() else { continue };
        let (os, architecture) = (offered.os().to_string(), offered.architecture().to_string());
        let Some(level) = rank(&os, &architecture, offered.variant().as_deref(), platform) else { continue };
        if best.is_none_or(|(highest, _)| level > highest) {
            best = Some((level, descriptor));
        }
    }
    if let Some((_, descriptor)) = best {
        return Ok(descriptor);
    }
    // Without a platform only its config can tell, which is checked later.
    let mut unnamed = descriptors.iter().filter(|descriptor| descriptor.platform().is_none());
    match (unnamed.next(), unnamed.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(Error::user(format!("it has no image for {platform}")).hint(offer(descriptors))),
    }
}

fn offer(descriptors: &[&Descriptor]) -> String {
    let names: Vec<String> = descriptors
        .iter()
        .filter_map(|descriptor| descriptor.platform().as_ref())
        .map(|it| platform_name(&it.os().to_string(), &it.architecture().to_string(), it.variant().as_deref()))
        // How attestations are listed; they are no images.
        .filter(|name| name != "unknown/unknown")
        .collect();
    match names.is_empty() {
        true => "it names no platform at all".to_owned(),
        false => format!("it has {}", names.join(", ")),
    }
}

/// A platform as people write it.
pub(super) fn platform_name(os: &str, architecture: &str, variant: Option<&str>) -> String {
    match variant {
        Some(variant) => format!("{os}/{architecture}/{variant}"),
        None => format!("{os}/{architecture}"),
    }
}

/// A variant as a number: `v8.2` is (8, 2).
type Level = (u32, u32);

/// How well an offered platform fits: its variant's level; nothing when it would not run.
pub(super) fn rank(os: &str, architecture: &str, variant: Option<&str>, wanted: &Platform) -> Option<Level> {
    if os != Platform::OS || architecture != wanted.architecture {
        return None;
    }
    let level = |variant: Option<&str>| match variant.filter(|variant| !variant.is_empty()) {
        // The baselines (image-spec, image-index.md, "Platform Variants").
        None if architecture == "arm64" => Some((8, 0)),
        None => Some((1, 0)),
        Some(variant) => {
            let digits = variant.strip_prefix('v')?;
            let (major, minor) = digits.split_once('.').unwrap_or((digits, "0"));
            Some((major.parse().ok()?, minor.parse().ok()?))
        }
    };
    let offered = level(variant)?;
    (offered <= level(wanted.variant.as_deref())?).then_some(offered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(digit: char, platform: Option<(&str, Option<&str>)>) -> Descriptor {
        let mut value = serde_json::json!({
            "mediaType": media::MANIFEST,
            "digest": format!("sha256:{}", digit.to_string().repeat(64)),
            "size": 2,
        });
        if let Some((architecture, variant)) = platform {
            value["platform"] = serde_json::json!({"os": "linux", "architecture": architecture, "variant": variant});
        }
        serde_json::from_value(value).expect("a descriptor")
    }

    #[test]
    fn the_best_variant_that_still_runs_is_chosen() {
        let all = [
            descriptor('1', Some(("arm64", Some("v8")))),
            descriptor('2', Some(("amd64", None))),
            descriptor('3', Some(("amd64", Some("v2")))),
            descriptor('4', Some(("amd64", Some("v4")))),
        ];
        let all: Vec<&Descriptor> = all.iter().collect();
        for (wanted, index) in [("linux/amd64", 1), ("linux/amd64/v3", 2), ("linux/amd64/v4", 3), ("linux/arm64", 0)] {
            let wanted = wanted.parse().expect("a platform");
            assert_eq!(choose(&all, &wanted).expect("found"), all[index], "{wanted}");
        }
        let error = choose(&all, &"linux/s390x".parse().expect("a platform")).expect_err("is not there");
        assert!(error.hints()[0].contains("linux/arm64/v8, linux/amd64"), "{error:?}");
    }

    #[test]
    fn documents_without_media_type_are_told_apart() {
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(Document::parse(index), Ok(Document::Index(_))));
        let config = descriptor('1', None);
        let mut manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": []});
        manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
        let bytes = serde_json::to_vec(&manifest).expect("serialises");
        assert!(matches!(Document::parse(&bytes), Ok(Document::Manifest(_))));
        manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
        let bytes = serde_json::to_vec(&manifest).expect("serialises");
        assert!(Document::parse(&bytes).is_err());
        assert!(Document::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#).is_err());
    }
}
