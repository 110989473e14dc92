//! How findings are shown: a table for people, JSON for machines.

use serde::Serialize;

use crate::registry::{Examination, Finding, Reference, State};

/// All findings.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// About this machine.
    pub local: Vec<Finding>,
    /// One for each channel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<Finding>,
    /// About the base, if one was named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub base: Vec<Finding>,
    /// About the registry, if one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<Tried>,
}

/// What was found out about a registry.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tried {
    /// Its name as in references.
    pub registry: String,
    /// The repository that was tried.
    pub repository: String,
    /// The findings.
    #[serde(flatten)]
    pub examination: Examination,
}

impl Tried {
    /// Says where it was tried.
    pub fn new(target: &Reference, examination: Examination) -> Self {
        Self { registry: target.registry().to_owned(), repository: target.repository().to_owned(), examination }
    }
}

impl Report {
    /// As a table.
    pub fn text(&self) -> String {
        let mut text = section("this machine", &self.local);
        if !self.channels.is_empty() {
            text.push_str(&section("channels", &self.channels));
        }
        if !self.base.is_empty() {
            text.push_str(&section("base", &self.base));
        }
        if let Some(Tried { registry, repository, examination }) = &self.registry {
            let title = format!("registry {registry}, repository {repository}");
            text.push_str(&section(&title, &examination.findings));
            for (index, left) in examination.left.iter().enumerate() {
                text.push_str(if index == 0 { "left behind, since it cannot be deleted\n" } else { "" });
                text.push_str(&format!("      {left}\n"));
            }
        }
        text
    }
}

fn section(title: &str, findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = format!("{title}\n");
    for Finding { name, state, detail, advice } in findings {
        text.push_str(&format!("  {:2}  {name:width$}  {detail}\n", mark(*state)));
        if let Some(advice) = advice {
            text.push_str(&format!("      {:width$}  -> {advice}\n", ""));
        }
    }
    text
}

fn mark(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::No => "no",
        State::Unknown => "?",
    }
}
