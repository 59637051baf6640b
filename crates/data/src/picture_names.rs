//! Pictures by the names that tables have for them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::classes::inner_path;
use crate::tree::Tree;

/// The pictures of a tree by their names.
pub(crate) struct PictureNames<'a> {
    tree: &'a Tree<'a>,
    /// The folder of the split.
    part: &'a Path,
    /// All pictures, and their order.
    exact: HashMap<&'a Path, usize>,
    /// Paths without extension and names without folder of the pictures of the split; `None` for a name of several.
    short: HashMap<Cow<'a, Path>, Option<&'a Path>>,
    /// Names of the root, which tables may have in front of a path.
    roots: Vec<&'a str>,
}

impl<'a> PictureNames<'a> {
    pub(crate) fn new(tree: &'a Tree<'a>, part: &'a Path) -> Self {
        let mut short: HashMap<Cow<'a, Path>, Option<&'a Path>> = HashMap::new();
        for path in &tree.files.pictures {
            let Ok(inner) = path.strip_prefix(part) else { continue };
            let names = [inner.file_name(), inner.file_stem()].into_iter().flatten().map(|name| Path::new(name).into());
            for name in names.chain([Cow::Owned(inner.with_extension(""))]) {
                let same = short.entry(name).or_insert(Some(path));
                if *same != Some(path) {
                    *same = None;
                }
            }
        }
        let roots = [tree.root.file_name(), tree.root.file_stem()];
        let roots = roots.into_iter().flatten().filter_map(|name| name.to_str()).collect();
        let exact = (0..).zip(&tree.files.pictures).map(|(at, path)| (path.as_path(), at)).collect();
        Self { tree, part, exact, short, roots }
    }

    /// The picture that a table in `folder` calls `given`, relative to the root: by its path in the folder, in that of the split
    /// or in the root, where `\` may stand for `/` and the name of the root in front; else by its name alone, with or without
    /// extension, where only one picture of the split has it.
    pub(crate) fn find(&self, folder: &Path, given: &str) -> Option<&'a Path> {
        let literal = inner_path(given);
        let named = |inner: &Path| {
            let in_folders = [folder, self.part, Path::new("")].map(|folder| folder.join(inner));
            let exact = in_folders.iter().find_map(|path| Some(*self.exact.get_key_value(path.as_path())?.0));
            exact.or_else(|| *self.short.get(inner)?)
        };
        if let Some(path) = literal.as_deref().and_then(named) {
            return Some(path);
        }
        let slashed = given.replace('\\', "/");
        let mut rest = slashed.as_str();
        if slashed != given
            && let Some(path) = inner_path(rest).as_deref().and_then(named)
        {
            return Some(path);
        }
        while let Some((first, inner)) = rest.split_once('/') {
            if self.roots.contains(&first) && inner_path(inner).is_some() {
                return inner_path(inner).as_deref().and_then(named);
            }
            rest = inner;
        }
        None
    }

    /// The place of a picture in the order of the tree, which is behind all for one that it does not list.
    pub(crate) fn order(&self, path: &Path) -> usize {
        self.exact.get(path).copied().unwrap_or(usize::MAX)
    }

    /// The pictures of the split, in order, relative to the root.
    pub(crate) fn of_part(&self) -> impl Iterator<Item = &'a Path> {
        self.tree.files.pictures.iter().map(PathBuf::as_path).filter(|path| path.starts_with(self.part))
    }

    /// The file of a tree that a table in `folder` calls `given`, relative to the root, where it is none of the listed
    /// pictures but exists.
    pub(crate) fn other(&self, folder: &Path, given: &str) -> Option<PathBuf> {
        inner_path(given).map(|inner| folder.join(inner)).filter(|path| (self.tree.exists)(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use crate::listing::Listing;

    #[test]
    fn pictures_are_found_by_all_their_names() {
        let tree = Tree {
            root: Path::new("/data/pets.zip"),
            files: Listing::of(
                ["train/a/1.png", "train/a/2.png", "train/b/2.png", "train/3.jpg", "test/4.png"].map(PathBuf::from),
                &|_| Vec::new(),
            ),
            unreadable: Vec::new(),
            account: Account::default(),
            exists: &|_| false,
            table: &|_| Ok(None),
        };
        let names = PictureNames::new(&tree, Path::new("train"));
        let find = |given: &str| names.find(Path::new(""), given).map(|path| path.display().to_string());
        for (given, path) in [
            ("train/a/1.png", "train/a/1.png"),
            ("a/1.png", "train/a/1.png"),
            ("./a\\1.png", "train/a/1.png"),
            ("pets/train/a/1.png", "train/a/1.png"),
            ("/home/me/pets/a/1.png", "train/a/1.png"),
            ("C:\\pets\\a\\1.png", "train/a/1.png"),
            ("1.png", "train/a/1.png"),
            ("1", "train/a/1.png"),
            ("a/2", "train/a/2.png"),
            ("3", "train/3.jpg"),
            ("test/4.png", "test/4.png"),
        ] {
            assert_eq!(find(given).as_deref(), Some(path), "{given}");
        }
        for given in ["2.png", "2", "4.png", "4", "c/1.png", "../1.png", "", "pets", "/"] {
            assert_eq!(find(given), None, "{given}");
        }
    }
}
