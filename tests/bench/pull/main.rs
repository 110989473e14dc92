//! The pull benchmark: what nodes pull when images are rebuilt week by week, under several ways to cut layers.

#![allow(clippy::print_stdout)]

mod history;

use std::path::PathBuf;

use history::{Places, Plan};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| PathBuf::from(arguments.next().unwrap_or_else(|| default.to_owned()));
    let plan = next("tests/bench/pull/environments.yaml");
    let places = Places { data: next("tests/data"), cache: std::path::absolute(next("target/bench-pull"))? };
    let plan: Plan = serde_yaml::from_str(&fs_err::read_to_string(plan)?)?;
    for corpus in &plan.corpora {
        let all = history::replay(corpus, &places).await?;
        for series in &all {
            let changes = series.locks.windows(2).filter(|pair| {
                pair[0].packages.iter().map(|p| &p.record.url).ne(pair[1].packages.iter().map(|p| &p.record.url))
            });
            println!(
                "{} {}: {} weeks, {} changes, {} packages",
                corpus.name,
                series.name,
                series.locks.len(),
                changes.count(),
                series.locks[0].packages.len()
            );
        }
    }
    Ok(())
}
