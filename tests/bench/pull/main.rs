//! The pull benchmark: what nodes pull when images are rebuilt week by week, under several ways to cut layers.
//!
//! `pull [ENVIRONMENTS.yaml [DATA [CACHE]]]`; `tests/bench/pull.sh` runs it. The tables go to standard output.

#![allow(clippy::print_stdout)]

mod history;
mod replay;
mod strategies;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use condaimg::model::Stability;
use history::{Corpus, Places, Plan, Series};
use replay::Tally;
use strategies::Strategy;

type Failure = Box<dyn std::error::Error>;
/// By budget and strategy: one image over time, and across an organisation's.
type Results = BTreeMap<(usize, Strategy), [Tally; 2]>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| PathBuf::from(arguments.next().unwrap_or_else(|| default.to_owned()));
    let plan = next("tests/bench/pull/environments.yaml");
    let places = Places { data: next("tests/data"), cache: std::path::absolute(next("target/bench-pull"))? };
    let plan: Plan = serde_yaml::from_str(&fs_err::read_to_string(plan)?)?;
    let mut all = Vec::new();
    for corpus in &plan.corpora {
        let series = history::replay(corpus, &places).await?;
        tell_history(corpus, &series);
        tell_classes(&series);
        all.push((corpus.name.as_str(), measure(corpus, &series, &plan.budgets)?));
    }
    for (which, title) in ["One image over time", "Another image of the organisation"].iter().enumerate() {
        tables(title, which, &all, &plan.budgets);
    }
    for (title, tables) in SUMS {
        gaps(title, tables, &all, &plan.budgets);
    }
    Ok(())
}

/// Whether two weeks' environments differ.
fn changes(series: &Series) -> Vec<bool> {
    let urls = |at: usize| series.locks[at].packages.iter().map(|package| &package.record.url);
    (1..series.locks.len()).map(|week| urls(week - 1).ne(urls(week))).collect()
}

fn tell_history(corpus: &Corpus, all: &[Series]) {
    for series in all {
        let (weeks, packages) = (series.locks.len(), series.locks.last().map_or(0, |lock| lock.packages.len()));
        let changed = changes(series).into_iter().filter(|changed| *changed).count();
        println!("- {}, `{}`: {weeks} weeks, {changed} with a change, {packages} packages", corpus.name, series.name);
    }
}

/// How often packages of each class changed within a week.
fn tell_classes(all: &[Series]) {
    for class in Stability::ALL {
        let (mut weeks, mut changed) = (0_u32, 0_u32);
        for pair in all.iter().flat_map(|series| series.locks.windows(2)) {
            for package in pair[0].packages.iter().filter(|package| package.facts.stability == Some(class)) {
                weeks += 1;
                changed += u32::from(!pair[1].packages.iter().any(|now| now.record.url == package.record.url));
            }
        }
        let share = f64::from(changed) / f64::from(weeks.max(1));
        println!("  - {}: {weeks} weeks of packages, changed in {:.1} %", class.name(), 100.0 * share);
    }
}

fn measure(corpus: &Corpus, all: &[Series], budgets: &[usize]) -> Result<Results, Failure> {
    let mut results = Results::new();
    for &budget in budgets {
        for strategy in Strategy::ALL {
            let mut images = HashMap::new();
            let mut tallies = [Tally::default(); 2];
            for series in all {
                let layers = series.locks.iter().map(|lock| strategy.layers(lock, budget));
                let weeks = layers.collect::<Result<Vec<_>, _>>()?;
                tallies[0].add(&replay::over_time(&weeks, &changes(series)));
                if corpus.organisation.contains(&series.name) {
                    images.insert(series.name.as_str(), weeks);
                }
            }
            tallies[1] = replay::across(&images);
            results.insert((budget, strategy), tallies);
        }
    }
    Ok(results)
}

fn tables(title: &str, which: usize, all: &[(&str, Results)], budgets: &[usize]) {
    println!("\n### {title}\n");
    println!("| corpus | layers | way | blob MB/pull | chain MB/pull | reused (blob) | prefix kept | layers made |");
    println!("|---|---|---|---|---|---|---|---|");
    for (corpus, results) in all {
        for &budget in budgets {
            for strategy in Strategy::ALL {
                let it = results[&(budget, strategy)][which];
                let mean = |bytes: u64| bytes as f64 / it.pulls.max(1) as f64;
                println!(
                    "| {corpus} | {budget} | {} | {:.3} | {:.3} | {:.1} % | {:.1} | {:.1} |",
                    strategy.name(),
                    mean(it.blob) / 1e6,
                    mean(it.chain) / 1e6,
                    100.0 * (1.0 - it.blob as f64 / it.whole.max(1) as f64),
                    mean(it.prefix),
                    mean(it.layers)
                );
            }
        }
    }
}

/// Of which tables a pull's bytes are added up.
const SUMS: [(&str, &[usize]); 3] =
    [("One image over time", &[0]), ("Another image of the organisation", &[1]), ("Both together", &[0, 1])];

/// How much of the gap between the best other way and the bound ours close.
fn gaps(title: &str, tables: &[usize], all: &[(&str, Results)], budgets: &[usize]) {
    println!("\n#### {title}: gap closed\n");
    println!(
        "| corpus | layers | model | best other | MB/pull | bound | `default` | gap closed | `shared` | gap closed |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut sums = [[0.0_f64; 4]; 2];
    for (corpus, results) in all {
        for &budget in budgets {
            for (model, name) in ["blob", "chain"].iter().enumerate() {
                let of_table = |strategy, table: &usize| {
                    let it: Tally = results[&(budget, strategy)][*table];
                    (if model == 0 { it.blob } else { it.chain }) as f64 / it.pulls.max(1) as f64 / 1e6
                };
                let bytes = |strategy| tables.iter().map(|table| of_table(strategy, table)).sum::<f64>();
                let best = Strategy::OTHERS.into_iter().min_by(|a, b| bytes(*a).total_cmp(&bytes(*b)));
                let Some(best) = best else { continue };
                let row = [best, Strategy::Bound, Strategy::Ours, Strategy::Shared].map(bytes);
                // Corpora count alike, however large their packages are.
                sums[model].iter_mut().zip(row).for_each(|(sum, value)| *sum += value / row[0]);
                println!("| {corpus} | {budget} | {name} | {} | {}", best.name(), shown(row, 3));
            }
        }
    }
    let rows = (all.len() * budgets.len()) as f64;
    for (sum, name) in sums.into_iter().zip(["blob", "chain"]) {
        println!("| all, each by its best other | | {name} | | {}", shown(sum.map(|value| value / rows), 2));
    }
}

fn shown([best, bound, ours, shared]: [f64; 4], digits: usize) -> String {
    let gap = |ours: f64| closed([best, ours, bound]);
    format!(
        "{best:.digits$} | {bound:.digits$} | {ours:.digits$} | {} | {shared:.digits$} | {} |",
        gap(ours),
        gap(shared)
    )
}

/// The bound of the chain model is a good order, not the best one.
fn closed([best, ours, bound]: [f64; 3]) -> String {
    match 100.0 * (ours - best) / best {
        worse if worse > 0.0 => format!("worse, {worse:+.1} %"),
        _ if ours < bound => "below the bound".to_owned(),
        _ => format!("{:.0} %", 100.0 * (best - ours) / (best - bound)),
    }
}
