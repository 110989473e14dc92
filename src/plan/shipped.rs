//! The layer policies that are compiled in.

/// Name and text of each, the default first.
pub(super) const SHIPPED: [(&str, &str); 7] = [
    ("default", include_str!("../../layers/default.yaml")),
    ("shared", include_str!("../../layers/shared.yaml")),
    ("tiers", include_str!("../../layers/tiers.yaml")),
    ("single", include_str!("../../layers/single.yaml")),
    ("per-package", include_str!("../../layers/per-package.yaml")),
    ("gpu", include_str!("../../layers/gpu.yaml")),
    ("org-base", include_str!("../../layers/org-base.yaml")),
];

/// Other names of them.
pub(super) const ALIASES: [(&str, &str); 1] = [("cuda", "gpu")];
