//! The names of pictures, for findings that name files.

use std::path::{Path, PathBuf};

/// Begins a name that does not lie below the root.
const WHOLE: char = '\0';

/// Names of pictures, in one text: paths below a common folder or file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Titles {
    /// The start of all names.
    root: String,
    /// The rest of each name, one after the other.
    text: String,
    /// The end of each name in the text.
    ends: Vec<usize>,
}

impl Titles {
    /// Keeps the names of pictures of the source `root`.
    pub(crate) fn new(root: &Path, titles: impl Iterator<Item = PathBuf>) -> Self {
        let root = root.display().to_string();
        let (mut text, mut ends) = (String::new(), Vec::new());
        for title in titles {
            let title = title.display().to_string();
            match title.strip_prefix(&root) {
                Some(rest) => text.push_str(rest),
                None => {
                    text.push(WHOLE);
                    text.push_str(&title);
                }
            }
            ends.push(text.len());
        }
        text.shrink_to_fit();
        Self { root, text, ends }
    }

    /// The name of picture `index`.
    pub(crate) fn get(&self, index: usize) -> Option<String> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let kept = self.text.get(start..end)?;
        Some(kept.strip_prefix(WHOLE).map_or_else(|| format!("{}{kept}", self.root), str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_whole() {
        let paths = ["set/a/1.png", "set/ä.png", "set.zip/b.png"].map(PathBuf::from);
        for root in ["set", "", "elsewhere"] {
            let titles = Titles::new(Path::new(root), paths.iter().cloned());
            let all: Vec<_> = (0..4).map(|index| titles.get(index)).collect();
            let expected = [Some("set/a/1.png"), Some("set/ä.png"), Some("set.zip/b.png"), None];
            assert_eq!(all, expected.map(|name| name.map(str::to_owned)), "{root}");
        }
    }
}
