//! What `condaimg plan` tells, for people.

use super::report::{Layer, Plan, PlatformPlan};
use crate::model::Stability;
use crate::plan::expected::Expected;
use crate::plan::{LayerRule, Reason, TierRule};
use crate::util::{human, plural};

/// The widest column of names.
const NAME_WIDTH: usize = 30;

/// The whole text; with `keys`, the keys of layers in full.
pub fn text(plan: &Plan, keys: bool) -> String {
    let mut text = format!("policy {}, at most {} layers, {}\n", plan.policy, plan.max_layers, plan.compression);
    for platform in &plan.platforms {
        text.push_str(&of_platform(platform, keys));
    }
    text
}

fn of_platform(platform: &PlatformPlan, keys: bool) -> String {
    let base = &platform.base;
    let mut text = format!(
        "\n{}: {}, {} of archives, in {} on {} ({}, {})\n",
        platform.platform,
        plural(platform.packages, "package"),
        human(platform.archive_size),
        plural(platform.layers.len(), "layer"),
        base.reference,
        plural(base.layers, "layer"),
        human(base.size)
    );
    for (index, layer) in platform.layers.iter().enumerate() {
        text.push_str(&of_layer(index + 1, layer, keys));
    }
    text.push_str(&of_costs(platform));
    text
}

fn of_layer(number: usize, layer: &Layer, keys: bool) -> String {
    let key = if keys { layer.key.to_string() } else { layer.key.short().to_string() };
    let state = match &layer.blob {
        Some(blob) => format!("made, {}", human(blob.size)),
        None => "to be made".to_owned(),
    };
    let tier = layer.tier.as_ref().filter(|tier| **tier != layer.name);
    let tier = tier.map_or_else(String::new, |tier| format!(", tier {tier}"));
    let keeps = layer.keeps.map_or_else(String::new, |keeps| format!(", changes {:.0} %", (1.0 - keeps) * 100.0));
    let size = match layer.kind {
        "bytecode" => plural(layer.packages.len(), "package"),
        _ => human(layer.source_size),
    };
    let mut text = format!("\n{number:>3}  {}{tier}  {size}{keeps}, {state}, key {key}\n", layer.name);
    if layer.kind == "bytecode" {
        let names: Vec<&str> = layer.packages.iter().map(|package| package.name.as_str()).collect();
        text.push_str(&format!("       byte code, which depends on the exact Python: {}\n", names.join(", ")));
        return text;
    }
    for package in &layer.packages {
        let stability = package.stability.map_or("-", Stability::name);
        let why = package.why.as_ref().map_or("", |why| why.text.as_str());
        let name = format!("{} {}", package.name, package.version);
        text.push_str(&format!("       {name:NAME_WIDTH$}  {:>11}  {stability:<8}  {why}\n", human(package.size)));
    }
    text
}

fn of_costs(platform: &PlatformPlan) -> String {
    let pull = &platform.expected_pull;
    let other = &pull.alternatives;
    let mut text = format!(
        "\nexpected to be pulled at an update after {} days{}layer by layer  all above a change (Docker)\n",
        pull.days, "  "
    );
    for (name, Expected { blob, chain }) in [
        ("this plan", pull.plan),
        ("one layer", other.single),
        ("a layer for each tier", other.tiers),
        ("a layer for each package", other.per_package),
    ] {
        text.push_str(&format!("  {name:43}  {:>14}  {:>27}\n", human(blob as u64), human(chain as u64)));
    }
    text
}

/// Why a package is where it is, in a sentence without an end.
pub fn sentence(name: &str, reason: &Reason) -> String {
    let tier = match &reason.rule {
        TierRule::ClosureOf(root) if root == name => format!("is `{root}`"),
        TierRule::ClosureOf(root) => format!("`{root}` needs it"),
        TierRule::Named(pattern) if pattern == name => format!("named by tier {}", reason.tier),
        TierRule::Named(pattern) => format!("like `{pattern}` of tier {}", reason.tier),
        TierRule::LargerThan(size) => format!("compiled, at least {}", human(*size)),
        TierRule::Rest => "no other tier takes it".to_owned(),
    };
    match reason.layer {
        LayerRule::Together => format!("{tier}; the tier is one layer"),
        LayerRule::Own => format!("{tier}; large enough for its own layer"),
        LayerRule::Shared => format!("{tier}; shares the tier's layer"),
        LayerRule::Cost => format!("{tier}; where updates are expected to cost least"),
        LayerRule::BuiltTogether => format!("{tier}; was built with packages of this layer's tier"),
        LayerRule::Limit => format!("{tier}; joined with others because of the limit"),
    }
}
