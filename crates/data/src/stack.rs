//! A TIFF file of several pages, each of which is an image.

use std::path::{Path, PathBuf};

use crate::account::{Account, Weight};
use crate::classes::Classes;
use crate::collect::{Collection, Source, Visitor};
use crate::context::ReadContext;
use crate::decode::{Encoded, LARGEST_FILE};
use crate::disk::{self, file_name};
use crate::error::DataError;
use crate::loaded::Loaded;
use crate::options::{LoadOptions, Split};
use crate::tiff::Page;

/// Reads the pages of a file; `None` where it has one only.
///
/// # Errors
/// [`DataError::BadFile`] where it is no TIFF, [`DataError::BadOption`] where its test part is asked for, and those of its pages.
pub(crate) fn load(
    name: &str,
    path: &Path,
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Option<Loaded>, DataError> {
    let bytes = disk::read(path, LARGEST_FILE)?;
    let (pages, copies) = Page::all(bytes).map_err(|reason| DataError::bad_file(path, reason.to_string()))?;
    if pages.len() < 2 {
        return Ok(None);
    }
    if options.split == Split::Test {
        let problem = format!("{} has no test part; name the file of test images", path.display());
        return Err(DataError::bad_option("split", problem));
    }
    let mut account = Account::default();
    account.decided(format!("each of the {} pages of the file is an image", pages.len()));
    if copies > 0 {
        let what = format!("{copies} smaller copies and masks");
        account.leave_out(Weight::Note, what, "they belong to the page before them", path.display());
    }
    Collection {
        name,
        root: path,
        files: vec![(file_name(path), path.to_path_buf())],
        source: &Pages { path, pages },
        classes: Classes::default(),
        unreadable: Vec::new(),
        account,
    }
    .load(options, context)
    .map(Some)
}

struct Pages<'a> {
    path: &'a Path,
    pages: Vec<Page>,
}

impl Source for Pages<'_> {
    fn len(&self) -> usize {
        self.pages.len()
    }

    fn title(&self, index: usize) -> PathBuf {
        self.path.join(format!("page {}", index + 1))
    }

    fn visit(&self, indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError> {
        indices.iter().try_for_each(|&index| visit(index, Encoded::Page(self.pages[index].clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TiffPage, tiff, write};

    #[test]
    fn pages_are_images() {
        let folder = tempfile::tempdir().unwrap();
        let page = |value: u8| TiffPage { size: (1, 2), values: vec![value, value + 1], ..TiffPage::default() };
        let path = write(&folder, "stack.tif", &tiff(&[page(1), page(5), page(9)]));
        let open =
            |options: &LoadOptions| crate::open_in(&crate::Places::default(), &path.display().to_string(), options);
        let loaded = open(&LoadOptions::default()).unwrap();
        assert_eq!((loaded.images.len(), loaded.images.image(1), loaded.images.labels()), (3, [5, 6].as_slice(), None));
        assert_eq!(loaded.account.lines(), ["each of the 3 pages of the file is an image"]);
        let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
        assert!(open(&test).unwrap_err().is_missing_split());
        write(&folder, "stack.tif", &tiff(&[page(1)]));
        let error = open(&LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("is a single image"), "{error}");
        write(&folder, "stack.tif", b"no picture");
        assert!(open(&LoadOptions::default()).unwrap_err().to_string().contains("stack.tif"));
    }
}
