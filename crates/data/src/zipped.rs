//! A zip file of images, which is read as a folder of them would be, without unpacking it.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use files::Action;
use zip::ZipArchive;
use zip::result::ZipError;

use crate::classes::{Classes, inner_path, split_folder};
use crate::collect::{Collection, Source, Visitor};
use crate::context::ReadContext;
use crate::decode::{Encoded, LARGEST_FILE};
use crate::error::DataError;
use crate::folder::{LOOKED_FOR, is_image};
use crate::loaded::Loaded;
use crate::metadata;
use crate::options::{LoadOptions, Split};

/// A part of an archive that unpacks to more than this ...
const SMALL: u64 = 64 << 20;
/// ... and to more than this many times its length is no picture but a decompression bomb.
const LARGEST_RATIO: u64 = 20;

pub(crate) type Archive = ZipArchive<BufReader<File>>;

/// Opens an archive.
pub(crate) fn open(path: &Path) -> Result<Archive, DataError> {
    let file = File::open(path).map_err(|error| DataError::io(Action::Read, path, error))?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| match error {
        ZipError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            DataError::io(Action::Read, path, error)
        }
        error => DataError::bad_file(path, format!("is no whole zip archive ({error}); get it again")),
    })
}

/// The bytes of a part of an archive, or why they cannot be had.
fn read(archive: &mut Archive, number: usize) -> Result<Vec<u8>, String> {
    let mut part = archive.by_index(number).map_err(|error| error.to_string())?;
    let (packed, length) = (part.compressed_size(), part.size());
    if length > LARGEST_FILE {
        return Err(format!("has {length} bytes, more than the limit of {LARGEST_FILE} for an image"));
    }
    // what is there may be more than what the directory claims
    let most = SMALL.max(packed.saturating_mul(LARGEST_RATIO)).min(LARGEST_FILE);
    let mut bytes = Vec::new();
    (&mut part).take(most + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most {
        return Err(format!("{packed} bytes unpack to more than {most}: no picture does"));
    }
    Ok(bytes)
}

/// Reads the images of the archive at `path` as `options` say: [`crate::folder::load`], in an archive. Where all lies in one
/// folder, this is the folder.
///
/// # Errors
/// [`DataError::BadFile`] where it is no archive; the rest as for a folder.
pub(crate) fn load(name: &str, path: &Path, options: &LoadOptions, context: &ReadContext) -> Result<Loaded, DataError> {
    let mut archive = open(path)?;
    let mut images = Vec::new();
    let mut tables = Vec::new();
    for number in 0..archive.len() {
        // what has no readable name, or one that leads out, is nothing of ours
        let inner = archive
            .name_for_index(number)
            .and_then(Result::ok)
            .and_then(|name| if name.ends_with('/') { None } else { inner_path(&name) });
        let Some(inner) = inner else { continue };
        let hidden = |part: &std::ffi::OsStr| part.as_encoded_bytes().starts_with(b".") || part == "__MACOSX";
        if inner.iter().any(hidden) {
            continue;
        }
        if is_image(&inner) {
            images.push((inner, number));
        } else if metadata::NAMES.iter().any(|name| inner.ends_with(name)) {
            tables.push((inner, number));
        }
    }
    if images.is_empty() {
        let found = format!("has no image among its {} files", archive.len());
        return Err(DataError::NothingFound { path: path.to_path_buf(), found, looked_for: LOOKED_FOR });
    }
    images.sort();
    descend_into_the_only_folder(&mut images, &mut tables);
    let paths: Vec<PathBuf> = images.iter().map(|(path, _)| path.clone()).collect();
    let part = split_folder(path, &paths, options.split)?;
    let mut root = path.to_path_buf();
    match &part {
        Some(part) => {
            let within = |(path, number): (PathBuf, usize)| Some((path.strip_prefix(part).ok()?.to_path_buf(), number));
            images = images.into_iter().filter_map(within).collect();
            root.push(part);
        }
        None if options.split == Split::Test => {
            let problem =
                format!("{} has no folders `train` and `test`; name the archive of test images", path.display());
            return Err(DataError::BadOption { key: "split", problem });
        }
        None => {}
    }
    let mut unreadable = Vec::new();
    // the table of the part, else that of the whole; one that lies deeper is of neither
    let depth = |table: &Path| match &part {
        Some(part) if table.parent() == Some(Path::new(part)) => 0,
        _ if table.components().count() == 1 => 1,
        _ => 2,
    };
    tables.sort_by_key(|(table, _)| (depth(table), table.clone()));
    let mut found = None;
    for (table, number) in tables.into_iter().filter(|(table, _)| depth(table) < 2) {
        let shown = path.join(&table);
        let bytes = read(&mut archive, number).map_err(|reason| DataError::bad_file(&shown, reason))?;
        if let Some(listed) = metadata::read(&shown, &bytes, options)? {
            let listed = if depth(&table) == 1 { listed.within(part.as_deref()) } else { listed };
            found = Some((table, listed));
            break;
        }
    }
    let classes = match found {
        Some((table, listed)) => {
            let at = |wanted: &PathBuf| images.binary_search_by(|(path, _)| path.cmp(wanted)).ok();
            let places: Vec<Option<usize>> = listed.files.iter().map(at).collect();
            for (listed, _) in listed.files.iter().zip(&places).filter(|(_, place)| place.is_none()) {
                let reason = format!("is listed in {}, but not there", table.display());
                unreadable.push((root.join(listed), reason));
            }
            images = places.iter().flatten().map(|&place| images[place].clone()).collect();
            listed.retain(|index| places[index].is_some(), Vec::new()).classes
        }
        None if options.label_column.is_some() => {
            let problem = format!(
                "there is no table to take it from; {} has no {}",
                root.display(),
                metadata::NAMES.join(" and no ")
            );
            return Err(DataError::BadOption { key: "label_column", problem });
        }
        None => None,
    };
    let classes = match classes {
        Some(classes) => classes,
        None if options.ignore_classes => Classes::default(),
        None => Classes::by_folder(&root, &images.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>())?,
    };
    let source = Zipped { root: &root, archive: RefCell::new(archive), images };
    let files = vec![(String::new(), path.to_path_buf())];
    let (labels, class_names) = (classes.labels, classes.names);
    Collection { name, root: &root, files, source: &source, labels, class_names, unreadable }.load(options, context)
}

/// Takes away a folder that everything lies in.
fn descend_into_the_only_folder(images: &mut [(PathBuf, usize)], tables: &mut [(PathBuf, usize)]) {
    let all = || images.iter().chain(tables.iter()).map(|(path, _)| path);
    let Some(first) = images.first().and_then(|(path, _)| path.iter().next()).map(PathBuf::from) else { return };
    if all().any(|path| path.components().count() < 2 || !path.starts_with(&first)) {
        return;
    }
    for (path, _) in images.iter_mut().chain(tables) {
        if let Ok(inner) = path.strip_prefix(&first) {
            *path = inner.to_path_buf();
        }
    }
}

/// Pictures that are parts of an archive.
struct Zipped<'a> {
    /// The archive, and the folder in it.
    root: &'a Path,
    /// It has one place from which it reads.
    archive: RefCell<Archive>,
    /// Path in that folder, and number in the archive, of each.
    images: Vec<(PathBuf, usize)>,
}

impl Source for Zipped<'_> {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn title(&self, index: usize) -> PathBuf {
        self.root.join(&self.images[index].0)
    }

    fn visit(&self, indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError> {
        indices.iter().try_for_each(|&index| {
            let bytes = read(&mut self.archive.borrow_mut(), self.images[index].1);
            visit(index, bytes.map_or_else(Encoded::Broken, Encoded::Bytes))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;
    use crate::testing::{gray, write};

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

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
        assert!(error.contains("no image among its 1 files"), "{error}");

        let folder = tempfile::tempdir().unwrap();
        let whole = archive(&[("a.png", &good)]);
        for bytes in [&whole[..whole.len() / 2], b"PK", b""] {
            let path = write(&folder, "cut.zip", bytes);
            let error = load("cut", &path, &LoadOptions::default(), &ReadContext::default()).unwrap_err().to_string();
            assert!(error.contains("cut.zip") && error.contains("zip archive"), "{error}");
        }
        let mut flipped = whole.clone();
        let at = whole.windows(4).position(|window| window == b"IDAT").unwrap();
        flipped[at + 4] ^= 0xff;
        let path = write(&folder, "flipped.zip", &flipped);
        let error = load("flipped", &path, &LoadOptions::default(), &ReadContext::default()).unwrap_err().to_string();
        assert!(error.contains("a.png"), "{error}");
    }
}
