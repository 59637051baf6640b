//! All files of a folder or an archive, sorted into pictures, other files, and those that nobody misses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::account::{Account, LeftOut, Weight, weight_of_pictures};
use crate::disk;
use crate::formats::{self, Unread};
use crate::litter;
use crate::options::Split;

/// Reads the first bytes of a file of the source, [`formats::FIRST_BYTES`] or fewer.
pub(crate) type FirstBytes<'a> = dyn Fn(&Path) -> Vec<u8> + 'a;

/// How much a picture of a format that is not read is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It would not be used either.
    Nothing,
    Picture,
    /// With it, its class.
    Class,
}

/// The use of a file beside others of one data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Used,
    /// It belongs to the data set and is not used, for this reason.
    Not(&'static str),
    /// It does not belong to it.
    Unknown,
}

impl Use {
    /// A file of another split than the one that is read.
    pub(crate) fn other_split(read: Split) -> Self {
        Self::Not(if read == Split::Train { "a split that is not trained on" } else { "another split" })
    }
}

/// The files of a source by their paths in it, each sorted.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub pictures: Vec<PathBuf>,
    /// Files that are no pictures, and pictures of formats that are not read: tables and lists of labels are among them.
    pub others: Vec<PathBuf>,
    /// Files, or folders with all that is in them, that are hidden or litter.
    passed_over: BTreeSet<PathBuf>,
    /// Pictures that only their first bytes tell, by extension.
    by_bytes: BTreeMap<String, usize>,
}

impl Listing {
    /// Sorts the files at `paths`: the same for a folder and for any archive of it. A folder that is passed over
    /// ([`litter::is_passed_over`]) may be given for all files in it.
    pub(crate) fn of(paths: impl IntoIterator<Item = PathBuf>, first_bytes: &FirstBytes<'_>) -> Self {
        let mut listing = Self::default();
        for path in paths {
            if let Some(inner) = litter::passed_over(&path) {
                listing.passed_over.insert(inner);
            } else if formats::is_image(&path) {
                listing.pictures.push(path);
            } else {
                let is_unclear = path.extension().is_none() || formats::unread(&path).is_some();
                if is_unclear && formats::is_image_by_bytes(&path, &first_bytes(&path)) {
                    *listing.by_bytes.entry(formats::extension(&path)).or_insert(0) += 1;
                    listing.pictures.push(path);
                } else {
                    listing.others.push(path);
                }
            }
        }
        listing.pictures.sort();
        listing.others.sort();
        listing
    }

    /// The number of files; of those in folders that are passed over none.
    pub(crate) fn len(&self) -> usize {
        self.pictures.len() + self.others.len() + self.passed_over.len()
    }

    /// The account of everything that is no picture, except for the files that are `used` (tables). Pictures that are not read
    /// beside `count` that are read are a doubt unless they are few, `is_meant`, or no `loss`.
    pub(crate) fn account(
        &self,
        used: &BTreeSet<PathBuf>,
        count: usize,
        is_meant: bool,
        loss: &dyn Fn(&Path) -> Loss,
    ) -> Account {
        let mut account = Account::default();
        for (extension, count) in &self.by_bytes {
            let name = if extension.is_empty() { "without an extension".into() } else { format!(".{extension}") };
            account.decided(format!("files {name} with the first bytes of a picture that is read are used: {count}"));
        }
        for path in &self.passed_over {
            let (weight, what, reason) = match path.file_name().and_then(litter::kind) {
                Some(kind) => (Weight::Litter, kind.trim_end(), ""),
                None => (Weight::Note, "hidden files", "their names begin with a dot; rename them if they are meant"),
            };
            account.leave_out(weight, what, reason, path.display());
        }
        let mut groups: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
        for path in self.others.iter().filter(|path| !used.contains(*path)) {
            groups.entry(formats::extension(path)).or_default().push(path);
        }
        for (extension, paths) in groups {
            let missed: Vec<&Path> = paths.iter().copied().filter(|path| loss(path) != Loss::Nothing).collect();
            let (reason, weight) = match formats::unread(paths[0]) {
                Some(Unread { name, converter }) => {
                    let is_class_lost = missed.iter().any(|path| loss(path) == Loss::Class);
                    let count = if is_class_lost { 0 } else { count };
                    let weight = weight_of_pictures(missed.len(), count, is_meant);
                    let them = if paths.len() == 1 { "it" } else { "them" };
                    let lost = if is_class_lost { ", without which whole classes are lost" } else { "" };
                    (format!("this build reads no {name}{lost}; convert {them}, e.g. with {converter}"), weight)
                }
                None if formats::is_archive(paths[0]) => self.of_archives(&missed, is_meant),
                None => ("no pictures".to_string(), Weight::Note),
            };
            let what = match (paths.as_slice(), extension.as_str()) {
                ([single], _) => single.display().to_string(),
                (_, "") => "files without an extension".to_string(),
                _ => format!("files .{extension}"),
            };
            let examples = paths.iter().take(3).map(|path| path.display().to_string()).collect();
            account.leave_out_all(LeftOut { what, reason, count: paths.len(), examples, weight });
        }
        account
    }

    /// The reason and the weight of archives that are left out.
    fn of_archives(&self, paths: &[&Path], is_meant: bool) -> (String, Weight) {
        let is_unpacked = |path: &&Path| {
            let folder = path.with_extension("").with_extension("");
            let at = self.pictures.partition_point(|picture| picture < &folder);
            self.pictures.get(at).is_some_and(|picture| picture.starts_with(&folder))
        };
        if paths.iter().all(is_unpacked) {
            return ("archives, unpacked in the folders of their names".to_string(), Weight::Note);
        }
        let reason = "an archive within a folder is not read: unpack it, or name the archive itself as the data";
        (reason.to_string(), if is_meant { Weight::Note } else { Weight::Doubt })
    }
}

/// The files of a data set of arrays that are not read, in the account.
pub(crate) const OF_ARRAYS: &str = "files of the data set";

/// Adds the files of a folder beside those that were read as one data set to the account; `what` are those that belong to it.
pub(crate) fn say_beside(account: &mut Account, folder: &Path, what: &str, use_of: &dyn Fn(&Path) -> Use) {
    let mut others = Vec::new();
    for path in disk::list(folder).unwrap_or_default().into_iter().filter(|path| path.is_file()) {
        let name = disk::file_name(&path);
        match use_of(&path) {
            Use::Used => {}
            Use::Not(reason) => account.leave_out(Weight::Note, what, reason, name),
            Use::Unknown => others.push(PathBuf::from(name)),
        }
    }
    let listing = Listing::of(others, &|_| Vec::new());
    for picture in &listing.pictures {
        let reason = "the data set beside them is read; name another folder if they are meant";
        account.leave_out(Weight::Note, "pictures", reason, picture.display());
    }
    account.add(listing.account(&BTreeSet::new(), 0, true, &|_| Loss::Nothing));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let first_bytes = |path: &Path| if path.ends_with("0a1b") { b"\x89PNG\r\n\x1a\n".to_vec() } else { Vec::new() };
        Listing::of(paths.iter().map(PathBuf::from), &first_bytes)
    }

    #[test]
    fn every_file_is_a_picture_or_in_the_account() {
        let listing = listing(&[
            "b.png",
            "a/c.jpg",
            "a/.DS_Store",
            "a/@eaDir/c.jpg/SYNOPHOTO_THUMB_M.jpg",
            "a/@eaDir/d.jpg",
            "a/.x.png",
            "1.heic",
            "2.HEIC",
            "notes.txt",
            "labels.csv",
            "more.zip",
            "0a1b",
            "LICENSE",
        ]);
        assert_eq!(listing.pictures, ["0a1b", "a/c.jpg", "b.png"].map(PathBuf::from));
        assert_eq!(listing.len(), 12);
        let used = BTreeSet::from([PathBuf::from("labels.csv")]);
        assert_eq!(
            listing.account(&used, 3, false, &|_| Loss::Picture).lines(),
            [
                "files without an extension with the first bytes of a picture that is read are used: 1",
                "2 files and folders of systems and programs left out: .DS_Store, @eaDir",
                "hidden files left out: their names begin with a dot; rename them if they are meant (a/.x.png)",
                "LICENSE left out: no pictures",
                "notes.txt left out: no pictures",
                "2 files .heic left out: this build reads no HEIC; convert them, e.g. with `heif-convert` or \
                 `magick mogrify -format jpg` (1.heic, 2.HEIC)",
                "more.zip left out: an archive within a folder is not read: unpack it, or name the archive itself as the data",
            ]
        );
        let doubts = |count, is_meant, loss| listing.account(&used, count, is_meant, &|_| loss).doubts().count();
        // the archive and the pictures, or the archive alone
        assert_eq!((doubts(3, false, Loss::Picture), doubts(1000, false, Loss::Picture)), (2, 1));
        assert_eq!((doubts(1000, false, Loss::Class), doubts(3, true, Loss::Class)), (2, 0));
        assert_eq!(doubts(3, false, Loss::Nothing), 0);
    }

    #[test]
    fn an_archive_that_is_unpacked_beside_itself_is_no_doubt() {
        let unpacked = listing(&["pets.tar.gz", "pets/1.png", "pets.zip"]);
        assert_eq!(unpacked.account(&BTreeSet::new(), 1, false, &|_| Loss::Picture).doubts().count(), 0);
    }
}
