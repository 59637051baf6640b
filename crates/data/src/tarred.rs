//! Tar archives of images, plain or packed with gzip, bzip2 or zstd, read as a folder of them.
//!
//! A tar has no directory: its headers are read once, and the places of its files kept. One that is packed cannot be read from
//! the middle: it is unpacked once, into memory up to [`IN_MEMORY`] bytes, else into a temporary file that has no name and is
//! gone with the process.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bzip2::read::MultiBzDecoder;
use files::Action;
use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};
use tempfile::SpooledTempFile;

use crate::account::{Account, Weight, weight_of_pictures};
use crate::archive::Archives;
use crate::classes::inner_path;
use crate::context::ReadContext;
use crate::decode::{LARGEST_FILE, Reason};
use crate::disk::{self, file_name};
use crate::error::DataError;
use crate::formats::{FIRST_BYTES, is_image};
use crate::loaded::Loaded;
use crate::options::LoadOptions;
use crate::recognize::{Kind, recognize};

/// Bytes of unpacked archives that are kept in memory; more lie in a temporary file.
const IN_MEMORY: usize = 256 << 20;

/// An archive that unpacks to more than this ...
const SMALL: u64 = 1 << 30;
/// ... and to more than this many times its length is a decompression bomb.
const LARGEST_RATIO: u64 = 100;

/// Files of the archives at most; ImageNet in all has 14 million.
const MOST_FILES: usize = 1 << 24;

/// Bytes of a long name at most.
const LONGEST_NAME: u64 = 1 << 16;

/// Bytes of a block, and of a header.
const BLOCK: u64 = 512;

/// The place of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The index of its archive; of one that was unpacked, the place is in the temporary file.
    archive: usize,
    offset: u64,
    length: u64,
}

/// One or more archives, and the files in them.
pub(crate) struct Tars {
    /// The paths of the archives, and whether they were unpacked.
    archives: Vec<(PathBuf, bool)>,
    unpacked: RefCell<SpooledTempFile>,
    /// The archive that was read last, of those that are not packed.
    opened: RefCell<Option<(usize, File)>>,
    /// The files in their order, and the paths in their archives.
    pub files: Vec<(PathBuf, Place)>,
    /// What cannot be read as a file: kind, reason, path.
    left_out: Vec<(&'static str, &'static str, PathBuf)>,
    account: Account,
}

impl Tars {
    /// Reads the headers of the archives at `paths`, whichever way they are packed. What has to be unpacked goes into memory or
    /// into a temporary file in `folder`, else in that of the system.
    ///
    /// # Errors
    /// [`DataError::BadFile`] where one is no whole tar, or unpacks to more than tars of pictures do; [`DataError::File`].
    pub(crate) fn open(paths: &[PathBuf], folder: Option<&Path>) -> Result<Self, DataError> {
        let folder = folder.filter(|folder| std::fs::create_dir_all(folder).is_ok());
        let unpacked = match folder {
            Some(folder) => tempfile::spooled_tempfile_in(IN_MEMORY, folder),
            None => tempfile::spooled_tempfile(IN_MEMORY),
        };
        let mut tars = Self {
            archives: Vec::new(),
            unpacked: RefCell::new(unpacked),
            opened: RefCell::new(None),
            files: Vec::new(),
            left_out: Vec::new(),
            account: Account::default(),
        };
        paths.iter().try_for_each(|path| tars.add(path))?;
        Ok(tars)
    }

    fn add(&mut self, path: &Path) -> Result<(), DataError> {
        let (file, length) = disk::open(path)?;
        let packed = unpacker(path, &file)?;
        self.archives.push((path.to_path_buf(), packed.is_some()));
        let Some(packed) = packed else { return self.list(path, &file, 0, length) };
        let mut unpacked = std::mem::replace(self.unpacked.get_mut(), tempfile::spooled_tempfile(0));
        let failed = |error| DataError::io(Action::Read, path, error);
        let start = unpacked.seek(SeekFrom::End(0)).map_err(failed)?;
        let length = unpack(path, packed, &mut unpacked, SMALL.max(length.saturating_mul(LARGEST_RATIO)))?;
        unpacked.seek(SeekFrom::Start(start)).map_err(failed)?;
        let listed = self.list(path, &mut unpacked, start, length);
        *self.unpacked.get_mut() = unpacked;
        listed
    }

    /// Adds the files of a tar of `length` bytes in `stream`, which stands at its start, `start`.
    fn list(&mut self, path: &Path, stream: impl Read + Seek, start: u64, length: u64) -> Result<(), DataError> {
        let bad = |problem: String| DataError::bad_file(path, problem);
        let broken = |error: std::io::Error| match error.kind() {
            ErrorKind::PermissionDenied => DataError::io(Action::Read, path, error),
            _ => bad(format!("is no whole tar archive ({error}); get it again")),
        };
        let mut archive = Archive::new(stream);
        // of archives that were written one behind the other, all are read
        archive.set_ignore_zeros(true);
        let (mut end, mut last, mut extensions) = (0, 0, Extensions::default());
        for entry in archive.entries_with_seek().map_err(broken)?.raw(true) {
            let mut entry = entry.map_err(broken)?;
            let (offset, size) = (entry.raw_file_position(), entry.size());
            (end, last) = (offset.saturating_add(size), size);
            let kind = entry.header().entry_type();
            if extensions.read(kind, &mut entry).map_err(bad)? {
                continue;
            }
            let Extensions { name, size: true_size, is_sparse } = std::mem::take(&mut extensions);
            let name = name_of(&name.unwrap_or_else(|| entry.header().path_bytes().into_owned()));
            if is_sparse || kind.is_gnu_sparse() || true_size.is_some_and(|true_size| true_size != size) {
                let advice = "unpack it (`tar -xf`) and name the folder";
                return Err(bad(format!(
                    "its file `{name}` is sparse or longer than 8 GiB, which is not read; {advice}"
                )));
            }
            if self.files.len() + self.left_out.len() >= MOST_FILES {
                return Err(bad(format!("has more than {MOST_FILES} files; name one with fewer")));
            }
            let place = Place { archive: self.archives.len() - 1, offset: start.saturating_add(offset), length: size };
            self.add_entry(kind, &name, place);
        }
        if end > length {
            let there = format!("its last file claims {last} bytes, and {} are missing", end - length);
            return Err(bad(format!("is truncated: {there}; get it again")));
        }
        if length < end.next_multiple_of(BLOCK) + BLOCK && end > 0 {
            let reason = "the archive ends without its mark and may be cut; get it again";
            self.account.leave_out(Weight::Doubt, "everything behind the last file", reason, file_name(path));
        }
        Ok(())
    }

    fn add_entry(&mut self, kind: EntryType, name: &str, place: Place) {
        let inner = inner_path(name);
        let shown = || PathBuf::from(name.chars().take(200).collect::<String>());
        match kind {
            // old archives have folders as files
            EntryType::Regular | EntryType::Continuous if name.ends_with('/') => {}
            EntryType::Directory => {}
            EntryType::Regular | EntryType::Continuous => match inner {
                Some(inner) => self.files.push((inner, place)),
                None => self.left_out.push(("files", "their paths lead out of the archive", shown())),
            },
            EntryType::Symlink | EntryType::Link => {
                let reason = "links in an archive are not followed; unpack it, and name the folder";
                self.left_out.push(("links", reason, shown()));
            }
            _ => self.left_out.push(("entries", "they are devices or of a type that holds no file", shown())),
        }
    }

    /// The account of the archives, of which `used` pictures are used.
    pub(crate) fn account(&self, used: usize) -> Account {
        let mut account = self.account.clone();
        let pictures = self.left_out.iter().filter(|(.., path)| is_image(path)).count();
        for (what, reason, path) in &self.left_out {
            let weight = if is_image(path) { weight_of_pictures(pictures, used, false) } else { Weight::Note };
            account.leave_out(weight, *what, *reason, path.display());
        }
        account
    }

    /// The bytes of a file of at most `most`, or the reason why they cannot be read.
    pub(crate) fn read(&self, place: &Place, most: u64) -> Result<Vec<u8>, Reason> {
        if place.length > most {
            return Err(format!("has {} bytes, more than the limit of {most}", place.length).into());
        }
        let bytes = self.start(place, place.length)?;
        if (bytes.len() as u64) < place.length {
            return Err(format!("truncated: {} of {} bytes are there", bytes.len(), place.length).into());
        }
        Ok(bytes)
    }

    /// The first bytes of a file, at most `count`.
    pub(crate) fn start(&self, place: &Place, count: u64) -> std::io::Result<Vec<u8>> {
        let count = count.min(place.length);
        let mut bytes = Vec::new();
        let (path, is_unpacked) = &self.archives[place.archive];
        if *is_unpacked {
            read_at(&mut *self.unpacked.borrow_mut(), place.offset, count, &mut bytes)?;
        } else {
            let mut opened = self.opened.borrow_mut();
            let mut file = match opened.take() {
                Some((archive, file)) if archive == place.archive => file,
                _ => File::open(path)?,
            };
            read_at(&mut file, place.offset, count, &mut bytes)?;
            *opened = Some((place.archive, file));
        }
        Ok(bytes)
    }
}

fn read_at(stream: &mut (impl Read + Seek), offset: u64, count: u64, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    stream.seek(SeekFrom::Start(offset))?;
    stream.take(count).read_to_end(bytes)?;
    Ok(())
}

/// What extended headers say of the file that follows them.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    is_sparse: bool,
}

impl Extensions {
    /// Reads an extended header; `false` where the entry is none.
    fn read(&mut self, kind: EntryType, entry: &mut impl Read) -> Result<bool, String> {
        let is_pax = kind.is_pax_local_extensions();
        if !(is_pax || kind.is_gnu_longname()) {
            return Ok(kind.is_gnu_longlink() || kind.is_pax_global_extensions());
        }
        let mut bytes = Vec::new();
        entry.take(LONGEST_NAME + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() as u64 > LONGEST_NAME {
            return Err(format!("has a file name of more than {LONGEST_NAME} bytes"));
        }
        if !is_pax {
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            bytes.truncate(end);
            self.name = Some(bytes);
            return Ok(true);
        }
        // records of `LENGTH KEY=VALUE` and an end of line; a value may hold such ends, which the crate's reader does not take
        let mut rest = bytes.as_slice();
        while let Some((key, value, after)) = record(rest) {
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"size" => self.size = str::from_utf8(value).ok().and_then(|size| size.parse().ok()),
                key if key.starts_with(b"GNU.sparse") => self.is_sparse = true,
                _ => {}
            }
            rest = after;
        }
        if !rest.is_empty() {
            return Err("has a broken extended header; get it again".into());
        }
        Ok(true)
    }
}

/// Key and value of the first record of an extended header, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length: usize = str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let pair = record.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    Some((&pair[..equals], &pair[equals + 1..], rest))
}

/// A name as text: bytes that are not UTF-8 are taken as Latin-1, so that names stay apart.
fn name_of(bytes: &[u8]) -> String {
    str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_string)
}

/// The stream of a packed archive; `None` where it is not packed. The file is at its start in both cases.
fn unpacker<'a>(path: &Path, file: &'a File) -> Result<Option<Box<dyn Read + 'a>>, DataError> {
    let failed = |error| DataError::io(Action::Read, path, error);
    let format = recognize(&mut &*file).map_err(failed)?;
    let stream = BufReader::with_capacity(1 << 16, file);
    match format {
        Some(Kind::Gzip) => Ok(Some(Box::new(MultiGzDecoder::new(stream)))),
        Some(Kind::Bzip2) => Ok(Some(Box::new(MultiBzDecoder::new(stream)))),
        Some(Kind::Zstd) => Ok(Some(Box::new(zstd::Decoder::with_buffer(stream).map_err(failed)?))),
        Some(Kind::Tar) | None => Ok(None),
        Some(other) => Err(DataError::bad_file(path, format!("is no tar archive but {other}"))),
    }
}

/// Unpacks at most `most` bytes; returns their number.
fn unpack(path: &Path, mut packed: impl Read, unpacked: &mut SpooledTempFile, most: u64) -> Result<u64, DataError> {
    let bad = |problem: String| DataError::bad_file(path, problem);
    let (mut buffer, mut length) = (vec![0; 1 << 18], 0);
    loop {
        let count = match packed.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(bad(format!("is no whole archive ({error}); get it again"))),
        };
        length += count as u64;
        if length > most {
            return Err(bad(format!("unpacks to more than {most} bytes: no archive of pictures does")));
        }
        unpacked.write_all(&buffer[..count]).map_err(|error| {
            let advice =
                "unpack it (`tar -xf`) and name the folder, or set XDG_CACHE_HOME or TMPDIR to a folder with room";
            bad(format!("cannot be unpacked into a temporary file ({error}); {advice}"))
        })?;
    }
}

/// Reads the images of the archive at `root` as `options` say: [`crate::folder::load`], in an archive. `are_shards` of WebDataset in
/// the folder `root` are one data set, whose pictures have no classes but those in files beside them.
///
/// # Errors
/// Those of a folder, and [`DataError::BadOption`] for classes or splits that several archives cannot have.
pub(crate) fn load(
    name: &str,
    root: &Path,
    tars: &Tars,
    are_shards: bool,
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Loaded, DataError> {
    // the paths in several archives come after the names of these
    let shown = |(inner, place): &(PathBuf, Place)| {
        let archive = if are_shards { file_name(&tars.archives[place.archive].0) } else { String::new() };
        (Path::new(&archive).join(inner), *place)
    };
    // of a file that is there twice, the last counts, as where the archive is unpacked
    let places: BTreeMap<PathBuf, Place> = tars.files.iter().map(shown).collect();
    Archives {
        root,
        paths: tars.archives.iter().map(|(path, _)| path.clone()).collect(),
        are_shards,
        places,
        first_bytes: &|place| tars.start(place, FIRST_BYTES as u64).unwrap_or_default(),
        read: &|place| tars.read(place, LARGEST_FILE),
        account: &|used| tars.account(used),
    }
    .load(name, options, context)
}

#[cfg(test)]
mod tests {
    use std::io::repeat;

    use super::*;
    use crate::options::Split;
    use crate::places::Places;
    use crate::testing::{gray, gzip, mutations, tar, write};

    fn open(path: &Path, options: &LoadOptions) -> Result<Loaded, String> {
        crate::open_in(&Places::default(), &path.display().to_string(), options).map_err(|error| error.to_string())
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut packed = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    /// A header of this type whose name is not checked, and the bytes behind it.
    fn entry(name: &[u8], kind: EntryType, bytes: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        let mut block = [header.as_bytes(), bytes].concat();
        block.resize(block.len().next_multiple_of(BLOCK as usize), 0);
        block
    }

    const END: [u8; 1024] = [0; 1024];

    #[test]
    fn an_archive_is_a_folder_however_it_is_packed() {
        let root = tempfile::tempdir().unwrap();
        let files: Vec<(String, Vec<u8>)> =
            ["pets/dog/2.png", "pets/cat/1.PNG", "pets/cat/3.png", "pets/cat/._1.png", "pets/readme.txt"]
                .into_iter()
                .zip(1..)
                .map(|(name, shade)| (name.to_string(), gray(2, 3, shade)))
                .collect();
        files.iter().for_each(|(name, bytes)| _ = write(&root, name, bytes));
        let folder = open(&root.path().join("pets"), &LoadOptions::default()).unwrap();
        assert_eq!(folder.images.labels(), Some([0, 0, 1].as_slice()));
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let plain = tar(&files);
        let zstd = zstd::encode_all(plain.as_slice(), 3).unwrap();
        for (name, bytes) in [
            ("a.tar", plain.clone()),
            ("a.tar.gz", gzip(&plain)),
            ("a.tgz", gzip(&plain)),
            ("a.tar.bz2", bzip2(&plain)),
            ("a.tbz2", bzip2(&plain)),
            ("a.tar.zst", zstd),
            // what browsers make of names, and no extension at all
            ("b.tar.gz", plain.clone()),
            ("b.tar", gzip(&plain)),
            ("download", plain.clone()),
            ("download.gz", gzip(&plain)),
            ("another", bzip2(&plain)),
        ] {
            let loaded = open(&write(&root, name, &bytes), &LoadOptions::default()).unwrap();
            assert_eq!(loaded.images.content_hash(), folder.images.content_hash(), "{name}");
            assert_eq!(
                (loaded.images.class_names(), loaded.images.labels()),
                (folder.images.class_names(), folder.images.labels())
            );
            let lines = loaded.account.lines().join("\n");
            assert!(lines.contains("readme.txt left out") && lines.contains("._*"), "{name}: {lines}");
        }
    }

    #[test]
    fn splits_and_tables_are_those_of_folders() {
        let root = tempfile::tempdir().unwrap();
        let [one, two, three] = [1, 2, 3].map(|shade| gray(2, 2, shade));
        let table = b"file_name,label\nb.png,x\na.png,y\n";
        let files: [(&str, &[u8]); 4] =
            [("train/a.png", &one), ("train/b.png", &two), ("train/metadata.csv", table), ("test/c.png", &three)];
        let path = write(&root, "split.tar.gz", &gzip(&tar(&files)));
        let train = open(&path, &LoadOptions::default()).unwrap().images;
        assert_eq!((train.image(0)[0], train.image(1)[0], train.labels()), (2, 1, Some([0, 1].as_slice())));
        let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
        let test = open(&path, &test).unwrap().images;
        assert_eq!((test.len(), test.image(0)[0], test.labels()), (1, 3, None));
    }

    #[test]
    fn what_is_no_file_is_skipped_and_said() {
        let root = tempfile::tempdir().unwrap();
        let good = gray(2, 2, 9);
        let bytes = [
            entry(b"a/", EntryType::Directory, b""),
            entry(b"a/1.png", EntryType::Regular, &gray(2, 2, 1)),
            entry(b"a/link.png", EntryType::Symlink, b""),
            entry(b"a/again.png", EntryType::Link, b""),
            entry(b"a/null", EntryType::Char, b""),
            entry(b"../../etc/2.png", EntryType::Regular, &good),
            entry(b"/3.png", EntryType::Regular, &good),
            // the last of one name counts
            entry(b"a/1.png", EntryType::Regular, &good),
            END.to_vec(),
        ];
        let loaded = open(&write(&root, "odd.tar", &bytes.concat()), &LoadOptions::default()).unwrap();
        assert_eq!((loaded.images.len(), loaded.images.image(0)), (1, [9; 4].as_slice()));
        let lines = loaded.account.lines().join("\n");
        assert!(lines.contains("entries left out: they are devices") && lines.contains("(a/null)"), "{lines}");
        assert!(lines.contains("2 links left out: links in an archive are not followed"), "{lines}");
        assert!(
            lines.contains("2 files left out: their paths lead out of the archive (../../etc/2.png, /3.png)"),
            "{lines}"
        );
        assert_eq!(loaded.account.doubts().count(), 2);
    }

    #[test]
    fn long_and_strange_names_are_kept_apart() {
        let root = tempfile::tempdir().unwrap();
        let long = format!("{}/{}.png", "folder".repeat(30), "name".repeat(20));
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        let mut append = |builder: &mut tar::Builder<Vec<u8>>, name: &str, shade| {
            let bytes = gray(2, 2, shade);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
        };
        append(&mut builder, &long, 1);
        // a value with an end of line, as macOS writes
        builder.append_pax_extensions([("path", "b\u{fc}/2.png".as_bytes()), ("SCHILY.xattr.x", b"1\n2=\n")]).unwrap();
        append(&mut builder, "short.png", 2);
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - END.len());
        bytes.extend(
            [
                entry(b"\xff/3.png", EntryType::Regular, &gray(2, 2, 3)),
                entry(b"\xfe/3.png", EntryType::Regular, &gray(2, 2, 4)),
            ]
            .concat(),
        );
        bytes.extend(END);
        let images = open(&write(&root, "names.tar", &bytes), &LoadOptions::default()).unwrap().images;
        let shade = |class: &str| {
            let at = images.class_names().unwrap().iter().position(|name| name == class).unwrap() as u32;
            images.image(images.labels().unwrap().iter().position(|&label| label == at).unwrap())[0]
        };
        assert_eq!(images.len(), 4);
        let long_class = "folder".repeat(30);
        assert_eq!([&long_class, "b\u{fc}", "\u{ff}", "\u{fe}"].map(shade), [1, 2, 3, 4]);
    }

    #[test]
    fn cut_and_sparse_and_broken_archives_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let whole = tar(&[("a/1.png", &gray(2, 2, 1)), ("b/2.png", &gray(60, 60, 2))]);
        let refused = |name: &str, bytes: &[u8]| {
            let error = open(&write(&root, name, bytes), &LoadOptions::default()).unwrap_err();
            assert!(error.contains(name), "{error}");
            error
        };
        let error = refused("cut.tar", &whole[..whole.len() - 1024 - 500]);
        assert!(error.contains("truncated"), "{error}");
        let error = refused("cut.tar.gz", &gzip(&whole)[..60]);
        assert!(error.contains("no whole archive") && error.contains("get it again"), "{error}");
        assert!(refused("not.tar", b"not a tar").contains("no whole tar"));
        assert!(refused("page.tgz", b"<!DOCTYPE html>").contains("a web page"));
        assert!(refused("some.tar.xz", b"\xfd7zXZ\0....").contains("packed with xz, which is not read; unpack it"));
        assert!(
            refused("sparse.tar", &[entry(b"a.png", EntryType::GNUSparse, b""), END.to_vec()].concat())
                .contains("sparse")
        );
        let error = refused("notes.tar", &tar(&[("notes.txt", b"text"), ("more.txt", b"text")]));
        assert!(error.contains("no image among its 2 files") && error.contains("2 files .txt"), "{error}");
        // at the end of a file, nothing but the missing mark shows it
        let path = write(&root, "short.tar", &whole[..1024]);
        let loaded = open(&path, &LoadOptions::default()).unwrap();
        assert_eq!(loaded.images.len(), 1);
        assert!(loaded.account.doubts().next().unwrap().reason.contains("may be cut"));
        // two archives, one behind the other
        let two = [whole.clone(), tar(&[("c/3.png", &gray(2, 2, 3))])].concat();
        let options = LoadOptions { size: Some((2, 2)), ..LoadOptions::default() };
        assert_eq!(open(&write(&root, "two.tar", &two), &options).unwrap().images.len(), 3);
    }

    #[test]
    fn bombs_are_refused() {
        let unpacked = &mut tempfile::spooled_tempfile(10);
        let error = unpack(Path::new("bomb.tgz"), repeat(0), unpacked, 1 << 20).unwrap_err().to_string();
        assert!(error.contains("bomb.tgz") && error.contains("more than 1048576 bytes"), "{error}");
        assert_eq!(unpack(Path::new("good.tgz"), repeat(0).take(100), unpacked, 100).unwrap(), 100);
        let mut name = entry(b"././@LongLink", EntryType::GNULongName, &vec![b'a'; 1 << 17]);
        name.extend(END);
        let root = tempfile::tempdir().unwrap();
        let error = open(&write(&root, "name.tar", &name), &LoadOptions::default()).unwrap_err();
        assert!(error.contains("a file name of more than 65536 bytes"), "{error}");
    }

    #[test]
    fn a_damaged_archive_is_read_or_refused() {
        let root = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("path", "train/1.png".as_bytes())]).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - END.len());
        let [long, class] = ["png", "cls"].map(|end| format!("train/{}.{end}", "name".repeat(30)));
        let classes: [(&str, &[u8]); 2] = [("train/1.cls", b"1"), (&class, b"0")];
        bytes.extend(tar(&[[("1.png", gray(2, 2, 1).as_slice()), (&long, &gray(2, 2, 2))], classes].concat()));
        assert!(open(&write(&root, "whole.tar", &bytes), &LoadOptions::default()).is_ok());
        let mut refused = 0;
        for mutated in mutations(&bytes, 1000) {
            refused += usize::from(open(&write(&root, "damaged.tar", &mutated), &LoadOptions::default()).is_err());
        }
        assert!(refused > 100, "only {refused} of 1000 were refused");
    }
}
