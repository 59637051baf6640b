//! The pictures of a folder, or of an archive that is read as one: its splits, its table and its classes.

use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::classes::{Classes, split_folder};
use crate::collect::Unreadable;
use crate::error::DataError;
use crate::metadata::{self, Metadata};
use crate::options::{ClassFrom, LoadOptions, Split};

/// Reads the file at a path; `None` where it does not exist.
type TableReader<'a> = dyn Fn(&Path) -> Result<Option<Vec<u8>>, DataError> + 'a;

/// A folder or an archive, and the pictures in it. Paths are relative to `root`, except for those of `unreadable`.
pub(crate) struct Tree<'a> {
    pub root: &'a Path,
    /// The pictures, sorted.
    pub paths: Vec<PathBuf>,
    /// Entries that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// What was left out so far.
    pub account: Account,
    /// Whether a picture exists.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// Reads a table.
    pub table: &'a TableReader<'a>,
}

/// The pictures of one split.
pub(crate) struct Pictures {
    /// The folder of the split, relative to the root of the tree (empty without splits), ...
    pub part: PathBuf,
    /// ... and with it.
    pub folder: PathBuf,
    /// The pictures, relative to the folder: sorted, or in the order of the table.
    pub paths: Vec<PathBuf>,
    pub classes: Classes,
    /// Pictures that cannot be read, or are listed and missing, with the root.
    pub unreadable: Vec<Unreadable>,
    pub account: Account,
}

impl Tree<'_> {
    /// The pictures of `options.split`. Where there is a table, they are those that it lists, with its classes; else their
    /// classes are the first folders of their paths.
    ///
    /// # Errors
    /// [`DataError::NothingFound`] or [`DataError::BadOption`] where there is no such split, [`DataError::BadOption`] where
    /// `options.label_column` is set and there is no table, and the errors of the table and of [`Classes::by_folder`].
    pub(crate) fn pictures(self, options: &LoadOptions) -> Result<Pictures, DataError> {
        let root = self.root;
        let split = split_folder(root, &self.paths, options.split)?;
        if split.is_none() && options.split == Split::Test {
            let advice = "name the folder or archive of test images";
            let problem = format!("{} has no folders `train` and `test`; {advice}", root.display());
            return Err(DataError::bad_option("split", problem));
        }
        let part = PathBuf::from(split.as_deref().unwrap_or_default());
        // to join an empty path would add a slash
        let folder = split.as_ref().map_or_else(|| root.to_path_buf(), |split| root.join(split));
        let table = self.find_table(split.as_deref(), options)?;
        let Self { mut paths, mut unreadable, account, exists, .. } = self;
        paths = paths.iter().filter_map(|path| Some(path.strip_prefix(&part).ok()?.to_path_buf())).collect();
        unreadable.retain(|(path, _)| path.starts_with(&folder));
        let mut classes = None;
        if let Some((table, listed)) = table {
            let listed = listed.filter_map(|path| {
                if exists(&part.join(&path)) {
                    return Some(path);
                }
                unreadable.push((folder.join(path), format!("is listed in {}, but not there", table.display())));
                None
            });
            (paths, classes) = (listed.files, listed.classes);
        } else if options.label_column.is_some() {
            let names = metadata::NAMES.join(" or ");
            let problem = format!("there is no table to take it from; put {names} into {}", folder.display());
            return Err(DataError::bad_option("label_column", format!("{problem}, or leave it out")));
        }
        let classes = match classes {
            Some(classes) => classes,
            None if options.class_from == ClassFrom::None => Classes::default(),
            None => Classes::by_folder(&folder, &paths)?,
        };
        Ok(Pictures { part, folder, paths, classes, unreadable, account })
    }

    /// The path of the table of a split, else of that of all splits, and its rows of this split.
    fn find_table(&self, split: Option<&str>, options: &LoadOptions) -> Result<Option<(PathBuf, Metadata)>, DataError> {
        let of_split = split.map(|split| (split, None));
        for (folder, within) in of_split.into_iter().chain([("", split)]) {
            for path in metadata::NAMES.map(|name| Path::new(folder).join(name)) {
                if let Some(bytes) = (self.table)(&path)?
                    && let Some(listed) = metadata::read(&self.root.join(&path), &bytes, options)?
                {
                    return Ok(Some((path, listed.within(within))));
                }
            }
        }
        Ok(None)
    }
}
