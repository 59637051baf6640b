//! Which known name a misspelled one is nearest to.

/// The known names at the smallest distance from `unknown`, where that is small enough for a slip of the fingers.
pub fn nearest<'known>(unknown: &str, known: &[&'known str]) -> Vec<&'known str> {
    let distances: Vec<(usize, &str)> = known.iter().map(|name| (distance(unknown, name), *name)).collect();
    let Some(smallest) = distances.iter().map(|(distance, _)| *distance).min() else {
        return vec![];
    };
    if smallest > unknown.chars().count().max(2) / 2 {
        return vec![];
    }
    distances.into_iter().filter(|(distance, _)| *distance == smallest).map(|(_, name)| name).collect()
}

/// The number of insertions, deletions, replacements and exchanges of neighbors that turn one name into the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut table = vec![vec![0; to.len() + 1]; from.len() + 1];
    for row in 0..=from.len() {
        for column in 0..=to.len() {
            table[row][column] = if row == 0 || column == 0 {
                row + column
            } else {
                let replaced = table[row - 1][column - 1] + usize::from(from[row - 1] != to[column - 1]);
                let mut best = replaced.min(table[row - 1][column] + 1).min(table[row][column - 1] + 1);
                if row > 1 && column > 1 && from[row - 1] == to[column - 2] && from[row - 2] == to[column - 1] {
                    best = best.min(table[row - 2][column - 2] + 1);
                }
                best
            };
        }
    }
    table[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_single_slips() {
        let cases =
            [("train", "train", 0), ("tarin", "train", 1), ("tain", "train", 1), ("", "ci", 2), ("sampel", "data", 5)];
        for (from, to, expected) in cases {
            assert_eq!(distance(from, to), expected, "{from} {to}");
            assert_eq!(distance(to, from), expected, "{to} {from}");
        }
    }

    #[test]
    fn only_near_names_are_named() {
        let known = ["train", "test", "sample"];
        assert_eq!(nearest("trian", &known), ["train"]);
        assert_eq!(nearest("tast", &known), ["test"]);
        assert_eq!(nearest("xyz", &known), [""; 0]);
        assert_eq!(nearest("ac", &["ab", "bc", "zz"]), ["ab", "bc"]);
        assert_eq!(nearest("anything", &[]), [""; 0]);
    }
}
