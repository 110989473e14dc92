//! What nodes pull.

use std::collections::{HashMap, HashSet};

use crate::strategies::Layer;

/// Sums over a replay. Bytes are those of compressed layers.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub pulls: u64,
    pub blob: u64,
    pub chain: u64,
    /// Of the images pulled, whole.
    pub whole: u64,
    /// Layers that were there from the bottom without a gap, and all layers.
    pub prefix: u64,
    pub layers: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.pulls += other.pulls;
        self.blob += other.blob;
        self.chain += other.chain;
        self.whole += other.whole;
        self.prefix += other.prefix;
        self.layers += other.layers;
    }

    /// One image is pulled by a node that holds the others.
    fn pull(&mut self, image: &[Layer], held: &[&Vec<Layer>]) {
        let blobs: HashSet<Layer> = held.iter().flat_map(|image| image.iter().copied()).collect();
        let common = |other: &&Vec<Layer>| image.iter().zip(other.iter()).take_while(|(a, b)| a == b).count();
        let prefix = held.iter().map(common).max().unwrap_or(0);
        let size = |layers: &[Layer]| layers.iter().map(|layer| layer.size).sum::<u64>();
        self.pulls += 1;
        self.blob += image.iter().filter(|layer| !blobs.contains(layer)).map(|layer| layer.size).sum::<u64>();
        self.chain += size(&image[prefix..]);
        self.whole += size(image);
        self.prefix += prefix as u64;
        self.layers += image.len() as u64;
    }
}

/// One image over time: a node that has last week's pulls this week's. Weeks without a change are none.
pub fn over_time(weeks: &[Vec<Layer>], changed: &[bool]) -> Tally {
    let mut tally = Tally::default();
    for (pair, _) in weeks.windows(2).zip(changed).filter(|(_, changed)| **changed) {
        tally.pull(&pair[1], &[&pair[0]]);
    }
    tally
}

/// Images of one organisation: each week, for each image, a node that has all others pulls it.
pub fn across(images: &HashMap<&str, Vec<Vec<Layer>>>) -> Tally {
    let mut tally = Tally::default();
    let weeks = images.values().map(Vec::len).min().unwrap_or(0);
    for week in 0..weeks {
        for name in images.keys() {
            let others: Vec<&Vec<Layer>> =
                images.iter().filter(|(other, _)| *other != name).map(|(_, weeks)| &weeks[week]).collect();
            tally.pull(&images[name][week], &others);
        }
    }
    tally
}
