//! The cache of decoded images: a file for each dataset and set of options, mapped into memory when it is used.
//!
//! The name of a file is the SHA-256 of its sources (names and contents of the source files, options), so that it is never
//! out of date. The hash of an unchanged folder is remembered by the names, lengths and times of its files, so that they
//! need not all be read again. A file holds a line with its layout, the values, and a description in JSON.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use files::Action;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::channels::keep_first;
use crate::disk::{file_name, list};
use crate::error::DataError;
use crate::hash::{hexadecimal, sha256};
use crate::levels::Levels;
use crate::options::{ClassFrom, LoadOptions};
use crate::pixels::{Pixels, map};
use crate::places::Places;
use crate::remark::Remark;

/// Raised when the same files and options would give other values, or the layout changes.
const VERSION: u32 = 3;

/// Length of the first line, padded with spaces: the lengths of the values and of the description, and the hash of the latter.
const START: usize = 128;

/// Two changes of a file within this time may have the same time stamp.
const STAMP: Duration = Duration::from_secs(2);

/// A temporary file that was not written to for this long is abandoned.
const ABANDONED: Duration = Duration::from_secs(600);

/// The extension of a complete file ...
const COMPLETE: &str = ".images";
/// ... and the prefix of one that is being written.
const TEMPORARY: &str = ".images-";

/// A folder of decoded images.
#[derive(Debug, Clone)]
pub struct Cache {
    /// The folder of the files; created by the first write.
    pub folder: PathBuf,
    /// Source files of fewer bytes in all are not looked up: they are decoded as quickly.
    pub at_least: u64,
    /// Images of at least this many bytes in all are kept here, not in memory, however small their source files are.
    pub decoded_at_least: u64,
}

/// The description of the values of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub count: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Whether the last of four channels is alpha.
    pub has_alpha: bool,
    pub sixteen_bits: bool,
    pub content_size: (usize, usize),
    /// The number of pictures of each (height, width).
    pub sizes: Vec<((usize, usize), usize)>,
    /// The indices of the pictures in the source.
    pub kept: Vec<usize>,
    /// The indices of those that cannot be read, and the reasons.
    pub broken: Vec<(usize, String)>,
    /// What is said about channels, pages and ranges.
    pub remarks: Vec<Remark>,
    /// The extremes of the values of the source.
    pub levels: Levels,
    /// What the source decided while it was read.
    pub decisions: Vec<String>,
}

/// A file of the cache, as [`Cache::entries`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// When it was written.
    pub written: SystemTime,
}

impl Cache {
    /// The folder `images` beside the datasets of [`Places::from_environment`], for 16 MiB of source files and 256 MiB of
    /// images; `None` where the environment names no place for caches.
    pub fn from_environment() -> Option<Self> {
        let folder = Places::from_environment().cache?.with_file_name("images");
        Some(Self { folder, at_least: 16 << 20, decoded_at_least: 256 << 20 })
    }

    /// The files of the cache, those that are being written included; none where the folder does not exist.
    ///
    /// # Errors
    /// [`DataError::File`] where the folder cannot be listed.
    pub fn entries(&self) -> Result<Vec<CacheEntry>, DataError> {
        if matches!(self.folder.try_exists(), Ok(false)) {
            return Ok(Vec::new());
        }
        let entry = |path: PathBuf| {
            // a file that is gone since is no entry
            let metadata = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
            let name = file_name(&path);
            let is_ours = name.ends_with(COMPLETE) || name.starts_with(TEMPORARY);
            let written = metadata.modified().unwrap_or(UNIX_EPOCH);
            is_ours.then_some(CacheEntry { path, bytes: metadata.len(), written })
        };
        let mut entries: Vec<CacheEntry> = list(&self.folder)?.into_iter().filter_map(entry).collect();
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(entries)
    }

    /// Removes all files but those that are being written, and returns the bytes that became free. A process that has a file
    /// mapped keeps its contents until it ends.
    ///
    /// # Errors
    /// [`DataError::File`] for the first file that cannot be removed.
    pub fn clear(&self) -> Result<u64, DataError> {
        let mut bytes = 0;
        for entry in self.entries()? {
            let is_complete = file_name(&entry.path).ends_with(COMPLETE);
            // left by a process that was killed
            let is_abandoned = entry.written.elapsed().is_ok_and(|age| age > ABANDONED);
            if !(is_complete || is_abandoned) {
                continue;
            }
            match fs::remove_file(&entry.path) {
                Ok(()) => bytes += entry.bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(DataError::io(Action::Remove, &entry.path, error)),
            }
        }
        let stamps = self.folder.join("stamps");
        if stamps.exists() {
            fs::remove_dir_all(&stamps).map_err(|error| DataError::io(Action::Remove, &stamps, error))?;
        }
        Ok(bytes)
    }

    /// Whether the source files are large enough to be looked up.
    pub(crate) fn is_worth_a_look(&self, files: &[(String, PathBuf)]) -> bool {
        let mut bytes = 0;
        files.iter().any(|(_, path)| {
            bytes += fs::metadata(path).map_or(0, |metadata| metadata.len());
            bytes >= self.at_least
        })
    }

    /// The slot of the images of these files with these options; `None` where a file cannot be read (the reader names it).
    pub(crate) fn slot(
        &self,
        files: &[(String, PathBuf)],
        options: &LoadOptions,
        progress: &dyn Fn(usize, usize),
    ) -> Option<Slot> {
        let Stamp { name, is_settled } = stamp_of(files)?;
        let stamps = self.folder.join("stamps");
        let remembered_at = stamps.join(&name);
        let is_key = |key: &String| key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let content = match fs::read_to_string(&remembered_at).ok().filter(is_key) {
            Some(content) => content,
            None => {
                let content = content_of(files, progress)?;
                if is_settled && stamp_of(files).is_some_and(|again| again.name == name) {
                    // without the stamp the files are read again the next time: nothing is lost
                    let _ = fs::create_dir_all(&stamps)
                        .map(|()| files::write_atomically(&remembered_at, content.as_bytes()));
                }
                content
            }
        };
        // options that change labels or errors only do not change the values
        let pixels =
            LoadOptions { skip_unreadable: false, class_from: ClassFrom::Auto, label_column: None, ..options.clone() };
        let key = format!("diffuse images {VERSION}\n{content}\n{}", serde_json::to_string(&pixels).ok()?);
        let path = self.folder.join(format!("{}{COMPLETE}", hexadecimal(&Sha256::digest(key))));
        Some(Slot { path, files: files.to_vec(), stamp: name })
    }
}

/// The look of files without their contents.
struct Stamp {
    name: String,
    /// Whether they are old enough for a change to show.
    is_settled: bool,
}

/// Path, length, time of change and, where the system has it, the number of each file, as one hash.
fn stamp_of(files: &[(String, PathBuf)]) -> Option<Stamp> {
    let mut stamp = Sha256::new();
    let mut newest = UNIX_EPOCH;
    for (name, path) in files {
        let metadata = fs::metadata(path).ok()?;
        let modified = metadata.modified().unwrap_or_else(|_| SystemTime::now());
        newest = newest.max(modified);
        let time = modified.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let path = path.canonicalize().ok()?;
        stamp.update(format!("{name}\0{}\0{}\0{time}\0{}\n", path.display(), metadata.len(), number_of(&metadata)));
    }
    let is_settled = SystemTime::now().duration_since(newest).is_ok_and(|age| age > STAMP);
    Some(Stamp { name: hexadecimal(&stamp.finalize()), is_settled })
}

/// Device, number and time of the last change of any kind, which tools that set the time of writing do not set.
#[cfg(unix)]
fn number_of(metadata: &fs::Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    format!("{} {} {} {}", metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn number_of(_: &fs::Metadata) -> String {
    String::new()
}

/// SHA-256 over names and contents.
fn content_of(files: &[(String, PathBuf)], progress: &dyn Fn(usize, usize)) -> Option<String> {
    let mut content = Sha256::new();
    for (chunk, done) in files.chunks(256).zip((0..).step_by(256)) {
        progress(done, files.len());
        let hashes: Option<Vec<_>> = chunk.par_iter().map(|(_, path)| sha256(File::open(path).ok()?).ok()).collect();
        for ((name, _), (_, hash)) in chunk.iter().zip(hashes?) {
            content.update((name.len() as u64).to_le_bytes());
            content.update(name);
            content.update(hash);
        }
    }
    progress(files.len(), files.len());
    Some(hexadecimal(&content.finalize()))
}

/// The place of one file in the cache, which may be empty.
#[derive(Debug)]
pub(crate) struct Slot {
    path: PathBuf,
    /// The source files, and their stamp before they were read.
    files: Vec<(String, PathBuf)>,
    stamp: String,
}

impl Slot {
    /// The images, if they are there and whole.
    pub(crate) fn read(&self) -> Option<(Content, Pixels)> {
        let mut file = File::open(&self.path).ok()?;
        let length = file.metadata().ok()?.len();
        let mut start = [0; START];
        file.read_exact(&mut start).ok()?;
        let mut words = std::str::from_utf8(&start).ok()?.strip_prefix("diffuse images ")?.split_whitespace();
        let mut number = || words.next()?.parse::<u64>().ok();
        let (version, values, description_length) = (number()?, number()?, number()?);
        let whole = (START as u64).checked_add(values)?.checked_add(description_length)?;
        if version != u64::from(VERSION) || whole != length {
            return None;
        }
        file.seek(SeekFrom::Start(START as u64 + values)).ok()?;
        let mut description = Vec::new();
        file.read_to_end(&mut description).ok()?;
        if words.next()? != hexadecimal(&Sha256::digest(&description)) {
            return None;
        }
        let content: Content = serde_json::from_slice(&description).ok()?;
        let sides = [content.height, content.width, content.channels, 1 + usize::from(content.sixteen_bits)];
        let len = sides.iter().try_fold(content.count, |product, &side| product.checked_mul(side))?;
        if len as u64 != values || content.kept.len() != content.count {
            return None;
        }
        Some((content, Pixels::Mapped { map: map(&file).ok()?, start: START, len }))
    }

    /// Writes the file: the values, which `fill` passes to its argument, and the description that it returns. Of more channels
    /// than the description has, the first are kept. A file that is not finished is removed.
    ///
    /// # Errors
    /// [`DataError::File`] with an action other than reading where the file cannot be written, and the errors of `fill`.
    pub(crate) fn write(
        &self,
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), DataError>) -> Result<Content, DataError>,
    ) -> Result<(Content, Pixels), DataError> {
        let failed = |error: std::io::Error| DataError::io(Action::Write, &self.path, error);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        files::create_folder(folder)?;
        let file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder).map_err(failed)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&[b' '; START]).map_err(failed)?;
        let mut len = 0;
        let content = fill(&mut |values| {
            len += values.len();
            file.write_all(values).map_err(failed)
        })?;
        if stamp_of(&self.files).is_none_or(|stamp| stamp.name != self.stamp) {
            return Err(failed(std::io::Error::other("the data changed while it was read")));
        }
        let pixels = content.count * content.height * content.width;
        let value_bytes = 1 + usize::from(content.sixteen_bits);
        let channels = len / (pixels * value_bytes).max(1);
        if channels > content.channels {
            file.flush().map_err(failed)?;
            let sizes = [value_bytes, channels, content.channels];
            len = narrow(file.get_mut().as_file_mut(), pixels, sizes).map_err(failed)?;
        }
        let description = serde_json::to_vec(&content).map_err(|error| failed(error.into()))?;
        file.write_all(&description).map_err(failed)?;
        let mut file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        let hash = hexadecimal(&Sha256::digest(&description));
        let start = format!("diffuse images {VERSION} {len} {} {hash}", description.len());
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        file.write_all(format!("{start:<width$}\n", width = START - 1).as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        let file = file.persist(&self.path).map_err(|error| failed(error.error))?;
        let map = map(&file).map_err(failed)?;
        Ok((content, Pixels::Mapped { map, start: START, len }))
    }
}

/// Keeps the first `to` of each `from` values, of `value_bytes` each, of the pixels in a file, and cuts it after them; returns
/// the length of the values.
fn narrow(file: &mut File, pixels: usize, [value_bytes, from, to]: [usize; 3]) -> std::io::Result<usize> {
    const BLOCK: usize = 1 << 16;
    let mut block = vec![0; BLOCK * value_bytes * from];
    let place = |pixel: usize, channels: usize| (START + pixel * value_bytes * channels) as u64;
    for first in (0..pixels).step_by(BLOCK) {
        let block = &mut block[..(pixels - first).min(BLOCK) * value_bytes * from];
        file.seek(SeekFrom::Start(place(first, from)))?;
        file.read_exact(block)?;
        let kept = keep_first(block, value_bytes, from, to);
        file.seek(SeekFrom::Start(place(first, to)))?;
        file.write_all(&block[..kept])?;
    }
    file.set_len(place(pixels, to))?;
    file.seek(SeekFrom::End(0))?;
    Ok(pixels * value_bytes * to)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::context::{Progress, ReadContext};
    use crate::loaded::{Cached, Loaded};
    use crate::open::open_with;
    use crate::testing::{gray, write};

    /// A folder of pictures, two days old, and a cache without a least size.
    struct Place {
        folder: tempfile::TempDir,
        cache: Cache,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let cache = Cache { folder: folder.path().join("cache/images"), at_least: 0, decoded_at_least: 0 };
            let place = Self { folder, cache };
            for number in 0..10 {
                place.put(&format!("pictures/{}/{number}.png", ["cat", "dog"][number % 2]), &gray(3, 5, number as u8));
            }
            place
        }

        fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = write(&self.folder, name, bytes);
            let old = SystemTime::now() - Duration::from_secs(2 * 86_400);
            File::options().append(true).open(&path).unwrap().set_modified(old).unwrap();
            path
        }

        fn open(&self, name: &str, options: &LoadOptions) -> Loaded {
            let path = self.folder.path().join(name).display().to_string();
            let context = ReadContext { cache: Some(self.cache.clone()), progress: None };
            open_with(&Places::default(), &path, options, &context).unwrap()
        }
    }

    fn assert_same(left: &Loaded, right: &Loaded) {
        assert_eq!(left.images.content_hash(), right.images.content_hash());
        assert_eq!(left.images.class_names(), right.images.class_names());
        assert_eq!(left.images.source_sizes(), right.images.source_sizes());
        assert_eq!(left.images.content_size(), right.images.content_size());
        assert_eq!(left.skipped, right.skipped);
    }

    #[test]
    fn decoded_images_are_mapped() {
        let place = Place::new();
        let options = LoadOptions {
            padding: crate::Padding::Multiple { of: 4, fill: 9 },
            channels: Some(3),
            skip_unreadable: true,
            ..LoadOptions::default()
        };
        place.put("pictures/cat/broken.png", b"no picture");
        let path = place.folder.path().join("pictures").display().to_string();
        let plain = crate::open_in(&Places::default(), &path, &options).unwrap();
        assert_eq!((plain.cached.clone(), plain.images.is_mapped()), (Cached::Unused, false));
        let first = place.open("pictures", &options);
        assert_eq!((first.cached.clone(), first.images.is_mapped()), (Cached::Written, true));
        let second = place.open("pictures", &options);
        assert_eq!((second.cached.clone(), second.images.is_mapped()), (Cached::Read, true));
        for loaded in [&first, &second] {
            assert_same(loaded, &plain);
        }
        assert_eq!(second.skipped.len(), 1);
        let mut numbers = vec![0.0; plain.images.image_len()];
        second.images.subset([3]).write_chw_f32(0, true, &mut numbers);
        let mut expected = numbers.clone();
        plain.images.write_chw_f32(3, true, &mut expected);
        assert_eq!(numbers, expected);
    }

    #[test]
    fn channels_that_carry_nothing_are_dropped_in_the_file_too() {
        use image::{ImageFormat, Rgba, RgbaImage};
        let place = Place::new();
        for number in 0..3 {
            // more pixels than a block
            let picture = RgbaImage::from_fn(300, 300, |x, y| {
                let shade = (x * 7 + y * 3 + number) as u8;
                Rgba([shade, shade, shade, 255])
            });
            place.put(&format!("gray/{number}.png"), &crate::testing::encoded(picture, ImageFormat::Png));
        }
        let path = place.folder.path().join("gray").display().to_string();
        let plain = crate::open_in(&Places::default(), &path, &LoadOptions::default()).unwrap();
        assert_eq!((plain.images.channels(), plain.images.image(2)[..2].to_vec()), (1, vec![2, 9]));
        assert_eq!(plain.account.lines().len(), 2, "{:?}", plain.account.lines());
        for cached in [Cached::Written, Cached::Read] {
            let loaded = place.open("gray", &LoadOptions::default());
            assert_eq!((loaded.cached.clone(), loaded.images.is_mapped()), (cached, true));
            assert_same(&loaded, &plain);
            assert_eq!(loaded.account, plain.account);
        }
    }

    #[test]
    fn the_key_depends_on_the_content() {
        let place = Place::new();
        let options = LoadOptions::default();
        assert_eq!(place.open("pictures", &options).cached, Cached::Written);
        // with other options the images differ
        assert_eq!(place.open("pictures", &LoadOptions { limit: Some(3), ..options.clone() }).cached, Cached::Written);
        // not with options of labels or errors
        let other = LoadOptions { class_from: ClassFrom::None, skip_unreadable: true, ..options.clone() };
        let unlabeled = place.open("pictures", &other);
        assert_eq!((unlabeled.cached, unlabeled.images.labels()), (Cached::Read, None));
        // a folder that was moved has the same content
        fs::rename(place.folder.path().join("pictures"), place.folder.path().join("moved")).unwrap();
        assert_eq!(place.open("moved", &options).cached, Cached::Read);
        // as has one whose file was only touched
        let picture = gray(3, 5, 0);
        write(&place.folder, "moved/cat/0.png", &picture);
        assert_eq!(place.open("moved", &options).cached, Cached::Read);
        // a picture of the same length and age is another content
        let other = gray(3, 5, 200);
        assert_eq!(other.len(), picture.len());
        write(&place.folder, "moved/cat/0.png", &other);
        let loaded = place.open("moved", &options);
        assert_eq!((loaded.cached, loaded.images.image(0)[0]), (Cached::Written, 200));
        // also with the time of writing of the one before
        let before = fs::metadata(place.folder.path().join("moved/cat/0.png")).unwrap().modified().unwrap();
        let path = write(&place.folder, "moved/cat/0.png", &gray(3, 5, 201));
        File::options().append(true).open(path).unwrap().set_modified(before).unwrap();
        let loaded = place.open("moved", &options);
        assert_eq!((loaded.cached, loaded.images.image(0)[0]), (Cached::Written, 201));
        // and so is one more picture
        place.put("moved/cat/more.png", &picture);
        assert_eq!(place.open("moved", &options).cached, Cached::Written);
    }

    #[test]
    fn unreadable_pictures_are_an_error_from_the_cache_too() {
        let place = Place::new();
        place.put("pictures/cat/broken.png", b"no picture");
        let skip = LoadOptions { skip_unreadable: true, ..LoadOptions::default() };
        assert_eq!(place.open("pictures", &skip).cached, Cached::Written);
        let path = place.folder.path().join("pictures").display().to_string();
        let context = ReadContext { cache: Some(place.cache.clone()), progress: None };
        let error = open_with(&Places::default(), &path, &LoadOptions::default(), &context).unwrap_err().to_string();
        assert!(error.contains("1 of 11") && error.contains("broken.png"), "{error}");
        // a missing picture does not keep the others from the cache
        place.put("pictures/metadata.csv", b"file_name\ncat/0.png\ngone.png\n");
        for expected in [Cached::Written, Cached::Read] {
            let loaded = place.open("pictures", &skip);
            assert_eq!((loaded.cached, loaded.images.len(), loaded.skipped.len()), (expected, 1, 1));
        }
    }

    #[test]
    fn broken_files_are_written_again() {
        let place = Place::new();
        let first = place.open("pictures", &LoadOptions::default());
        let path = place.cache.entries().unwrap()[0].path.clone();
        let whole = fs::read(&path).unwrap();
        let mut other_version = whole.clone();
        other_version[15] = b'9';
        let mut other_description = whole.clone();
        let end = whole.len() - 1;
        other_description[end] = b'!';
        // the mapped file is unlinked, not changed
        for broken in [&whole[..whole.len() / 2], &whole[..10], b"", &other_version, &other_description] {
            fs::remove_file(&path).unwrap();
            fs::write(&path, broken).unwrap();
            let again = place.open("pictures", &LoadOptions::default());
            assert_eq!(again.cached, Cached::Written);
            assert_same(&again, &first);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn a_cache_that_cannot_be_written_leaves_the_images_in_memory() {
        let place = Place::new();
        place.put("cache", b"a file where the folder should be");
        let loaded = place.open("pictures", &LoadOptions::default());
        let Cached::Failed(reason) = &loaded.cached else { panic!("{:?}", loaded.cached) };
        assert!(reason.contains("cache"), "{reason}");
        assert!(!loaded.images.is_mapped() && loaded.images.len() == 10);
    }

    /// A file system of 64 kB, as on a full disk; needs the right to mount.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_leaves_the_images_in_memory() {
        let place = Place::new();
        for number in 0..40 {
            place.put(&format!("large/{number:02}.png"), &gray(100, 100, number));
        }
        fs::create_dir_all(&place.cache.folder).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(&place.cache.folder)
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("not tested: this user may not mount");
            return;
        }
        let loaded = place.open("large", &LoadOptions::default());
        let left = place.cache.entries().unwrap();
        let unmounted = std::process::Command::new("umount").arg(&place.cache.folder).status();
        assert!(unmounted.unwrap().success());
        let Cached::Failed(reason) = &loaded.cached else { panic!("{:?}", loaded.cached) };
        assert!(reason.contains("space"), "{reason}");
        assert_eq!((loaded.images.len(), loaded.images.image(7)[0], left.len()), (40, 7, 0));
    }

    #[test]
    fn small_data_is_not_cached_and_clearing_is_complete() {
        let mut place = Place::new();
        place.cache.at_least = 1 << 20;
        place.cache.decoded_at_least = 1 << 20;
        assert_eq!(place.open("pictures", &LoadOptions::default()).cached, Cached::Unused);
        assert_eq!((place.cache.entries().unwrap().len(), place.cache.clear().unwrap()), (0, 0));
        // large images of small files
        let large = LoadOptions { size: Some((400, 400)), ..LoadOptions::default() };
        let loaded = place.open("pictures", &large);
        assert_eq!(loaded.cached, Cached::Written);
        assert_eq!(place.open("pictures", &large).cached, Cached::Read);
        let bytes = place.cache.entries().unwrap().iter().map(|entry| entry.bytes).sum::<u64>();
        assert!(bytes > 10 * 400 * 400);
        assert_eq!(place.cache.clear().unwrap(), bytes);
        assert!(place.cache.entries().unwrap().is_empty());
        // a mapped file keeps its contents
        assert_eq!(loaded.images.image(9)[0], 9);
        assert_eq!(place.open("pictures", &large).cached, Cached::Written);
    }

    #[test]
    fn progress_reaches_the_end() {
        let place = Place::new();
        let seen = RefCell::new(Vec::new());
        let tell = |progress: Progress| seen.borrow_mut().push(progress);
        let context = ReadContext { cache: Some(place.cache.clone()), progress: Some(&tell) };
        let path = place.folder.path().join("pictures").display().to_string();
        open_with(&Places::default(), &path, &LoadOptions::default(), &context).unwrap();
        let seen = seen.into_inner();
        let last = seen.last().unwrap();
        assert_eq!((last.stage, last.done, last.total), (crate::Stage::Decoding, 10, 10));
        assert!(seen.iter().all(|progress| progress.done <= progress.total));
    }
}
