//! A zip file of images, read as a folder of them, without unpacking it to the disk.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use files::Action;
use zip::ZipArchive;
use zip::result::ZipError;

use crate::account::{Account, Weight};
use crate::archive::Archives;
use crate::classes::inner_path;
use crate::context::ReadContext;
use crate::decode::{LARGEST_FILE, Reason};
use crate::disk;
use crate::error::DataError;
use crate::formats::FIRST_BYTES;
use crate::loaded::Loaded;
use crate::options::LoadOptions;

/// A part of an archive that unpacks to more than this ...
const SMALL: u64 = 64 << 20;
/// ... and to more than this many times its length is no picture but a decompression bomb.
const LARGEST_RATIO: u64 = 20;

pub(crate) type Archive = ZipArchive<BufReader<File>>;

/// Opens an archive.
pub(crate) fn open(path: &Path) -> Result<Archive, DataError> {
    let (file, _) = disk::open(path)?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| match error {
        ZipError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            DataError::io(Action::Read, path, error)
        }
        error => DataError::bad_file(path, format!("is no whole zip archive ({error}); get it again")),
    })
}

/// The bytes of a part of an archive, or the reason why they cannot be read.
fn read(archive: &mut Archive, number: usize) -> Result<Vec<u8>, Reason> {
    let mut part = archive.by_index(number)?;
    let (packed, length) = (part.compressed_size(), part.size());
    if length > LARGEST_FILE {
        return Err(format!("has {length} bytes, more than the limit of {LARGEST_FILE} for an image").into());
    }
    // the part may be longer than the directory claims
    let most = SMALL.max(packed.saturating_mul(LARGEST_RATIO)).min(LARGEST_FILE);
    let mut bytes = Vec::new();
    (&mut part).take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(format!("{packed} bytes unpack to more than {most}: no picture does").into());
    }
    Ok(bytes)
}

/// Reads the images of the archive at `path` as `options` say: [`crate::folder::load`], in an archive.
///
/// # Errors
/// [`DataError::BadFile`] where it is no archive; the rest as for a folder.
pub(crate) fn load(name: &str, path: &Path, options: &LoadOptions, context: &ReadContext) -> Result<Loaded, DataError> {
    let archive = open(path)?;
    let mut account = Account::default();
    let places = files_in(&archive, &mut account);
    // it has one position from which it reads
    let archive = RefCell::new(archive);
    Archives {
        root: path,
        paths: vec![path.to_path_buf()],
        are_shards: false,
        places,
        first_bytes: &|number| first_bytes(&archive, *number),
        read: &|number| read(&mut archive.borrow_mut(), *number),
        account: &|_| account.clone(),
    }
    .load(name, options, context)
}

/// The files of an archive by their paths, and their numbers in it; of several of one path the last one, as if they were
/// unpacked.
fn files_in(archive: &Archive, account: &mut Account) -> BTreeMap<PathBuf, usize> {
    let mut numbers = BTreeMap::new();
    for (number, raw) in archive.file_names_raw().enumerate() {
        // many programs write UTF-8 without saying so
        let name = match (std::str::from_utf8(raw), archive.name_for_index(number)) {
            (Ok(name), _) => Cow::Borrowed(name),
            (_, Some(Ok(name))) => name,
            _ => String::from_utf8_lossy(raw),
        };
        // PowerShell 5 and old .NET write `\`
        let name = name.replace('\\', "/");
        if name.ends_with('/') {
            continue;
        }
        match inner_path(&name) {
            Some(inner) => _ = numbers.insert(inner, number),
            None => account.leave_out(Weight::Doubt, "files", "their paths lead out of the archive", name),
        }
    }
    numbers
}

/// The first bytes of a part of an archive; none where it cannot be read.
fn first_bytes(archive: &RefCell<Archive>, number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(part) = archive.borrow_mut().by_index(number) {
        let _ = part.take(FIRST_BYTES as u64).read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Split;
    use crate::testing::{archive, gray, write};

    fn load_files(files: &[(&str, &[u8])], options: &LoadOptions) -> Result<Loaded, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&folder, "pictures.zip", &archive(files));
        load("pictures", &path, options, &ReadContext::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_archive_is_a_folder() {
        let [one, two, three] = [1, 2, 3].map(|value| gray(2, 3, value));
        let files: [(&str, &[u8]); 6] = [
            ("pictures/dog/2.png", &three),
            ("pictures/cat/1.PNG", &one),
            ("pictures/cat/2.png", &two),
            ("pictures/cat/.hidden.png", b"no picture"),
            ("__MACOSX/pictures/cat/._1.png", b"no picture"),
            ("pictures/readme.txt", b"no picture"),
        ];
        let images = load_files(&files, &LoadOptions::default()).unwrap().images;
        assert_eq!((images.len(), images.height(), images.width()), (3, 2, 3));
        assert_eq!([images.image(0)[0], images.image(1)[0], images.image(2)[0]], [1, 2, 3]);
        assert_eq!(images.labels(), Some([0, 0, 1].as_slice()));
        assert_eq!(images.class_names(), Some(["cat".to_string(), "dog".to_string()].as_slice()));
        let flat = load_files(&[("all/1.png", &one), ("all/2.png", &two)], &LoadOptions::default()).unwrap().images;
        assert_eq!((flat.len(), flat.labels()), (2, None));
    }

    #[test]
    fn tables_and_splits_are_read() {
        let [one, two, three] = [1, 2, 3].map(|value| gray(2, 2, value));
        let table = b"file_name,label\nb.png,x\na.png,y\n";
        let files: [(&str, &[u8]); 4] =
            [("train/a.png", &one), ("train/b.png", &two), ("train/metadata.csv", table), ("test/c.png", &three)];
        let train = load_files(&files, &LoadOptions::default()).unwrap().images;
        assert_eq!((train.image(0)[0], train.image(1)[0], train.labels()), (2, 1, Some([0, 1].as_slice())));
        let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
        let images = load_files(&files, &test).unwrap().images;
        assert_eq!((images.len(), images.image(0)[0], images.labels()), (1, 3, None));

        let missing: [(&str, &[u8]); 2] = [("a.png", &one), ("metadata.csv", table)];
        let error = load_files(&missing, &LoadOptions::default()).unwrap_err();
        assert!(error.contains("b.png: is listed in metadata.csv, but not there"), "{error}");
        let skip = LoadOptions { skip_unreadable: true, ..LoadOptions::default() };
        let loaded = load_files(&missing, &skip).unwrap();
        assert_eq!((loaded.images.labels(), loaded.skipped.len()), (Some([1].as_slice()), 1));
        let error = load_files(&missing[..1], &LoadOptions { label_column: Some("x".into()), ..skip }).unwrap_err();
        assert!(error.contains("label_column") && error.contains("metadata.csv"), "{error}");
        assert!(load_files(&missing[..1], &test).unwrap_err().contains("`split`"));
    }

    #[test]
    fn bombs_and_broken_archives_are_refused() {
        let good = gray(2, 2, 1);
        // a hundred megabytes of zeros behind a good picture
        let mut bomb = good.clone();
        bomb.resize(100 << 20, 0);
        let error = load_files(&[("bomb.png", &bomb)], &LoadOptions::default()).unwrap_err();
        assert!(error.contains("bomb.png") && error.contains("no picture does"), "{error}");
        let error = load_files(&[("notes.txt", b"text")], &LoadOptions::default()).unwrap_err();
        assert!(error.contains("no image among its 1 files: notes.txt left out: no pictures"), "{error}");

        let folder = tempfile::tempdir().unwrap();
        let whole = archive(&[("a.png", &good)]);
        for bytes in [&whole[..whole.len() / 2], b"PK", b""] {
            let path = write(&folder, "cut.zip", bytes);
            let error = load("cut", &path, &LoadOptions::default(), &ReadContext::default()).unwrap_err().to_string();
            assert!(error.contains("cut.zip") && error.contains("zip archive"), "{error}");
        }
        let mut flipped = whole.clone();
        // a byte of the packed picture, behind the header of 30 bytes and the name
        flipped[30 + "a.png".len() + 10] ^= 0xff;
        let path = write(&folder, "flipped.zip", &flipped);
        let error = load("flipped", &path, &LoadOptions::default(), &ReadContext::default()).unwrap_err().to_string();
        assert!(error.contains("a.png"), "{error}");
    }
}
