//! Names that look like another: for "did you mean".

/// The three names nearest to `wanted`, nearest first; none that differ too much.
pub fn names<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    // One slip in a short name, two in a longer one.
    let most = if wanted.len() <= 4 { 1 } else { 2 };
    let mut near: Vec<(usize, &str)> = known
        .filter(|name| name.len().abs_diff(wanted.len()) <= most)
        .map(|name| (distance(wanted.as_bytes(), name.as_bytes()), name))
        .filter(|(distance, _)| *distance <= most)
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that make one name the other.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found() {
        let known = ["numpy", "pandas", "flask", "scipy", "six", "numba"];
        assert_eq!(names("nunpy", known.into_iter()), ["numpy"]);
        assert_eq!(names("pnadas", known.into_iter()), ["pandas"]);
        assert_eq!(names("numpyy", known.into_iter()), ["numpy"]);
        assert!(names("tensorflow", known.into_iter()).is_empty());
        assert!(names("sax1", known.into_iter()).is_empty());
    }
}
