//! Fetching a known dataset: from the cache, a folder, the packages of the system, or the network.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use files::{Action, FileError};
use flate2::read::MultiGzDecoder;
use tempfile::NamedTempFile;

use crate::disk;
use crate::error::DataError;
use crate::hash::{hexadecimal, sha256};
use crate::manifest::{self, Manifest, ManifestFile};
use crate::places::Places;

/// Fetches the dataset `name` and returns the folder that holds it. Sources, in this order:
///
/// - `from`, where given: its files (as published, compressed again, or uncompressed) are checked and copied;
/// - the cache (`cache`, else that of [`Places`]): files that lie there already are checked;
/// - a package of the system (Debian's `dataset-fashion-mnist`): its files are checked, and used where they are;
/// - the network: each file from the first mirror that sends the right bytes. At most as many bytes are read as the file has
///   uncompressed, and it appears under its name only if its SHA-256 is right.
///
/// `progress` is called with a line of text now and then.
///
/// # Errors
/// [`DataError::UnknownDataset`], [`DataError::NoCache`], [`DataError::Mismatch`], [`DataError::Download`],
/// [`DataError::NothingFound`] where `from` lacks a file, [`DataError::File`].
pub fn fetch(
    name: &str,
    from: Option<&Path>,
    cache: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, DataError> {
    let unknown = || DataError::UnknownDataset { name: name.to_string(), known: manifest::names() };
    let manifest = manifest::find(name).ok_or_else(unknown)?;
    let mut places = Places::from_environment();
    if let Some(cache) = cache {
        places.cache = Some(cache.to_path_buf());
    }
    fetch_manifest(manifest, from, &places, progress)
}

/// As [`fetch()`], for any manifest and places.
///
/// # Errors
/// As [`fetch()`].
pub fn fetch_manifest(
    manifest: &Manifest,
    from: Option<&Path>,
    places: &Places,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, DataError> {
    let target = places.cache.as_ref().ok_or(DataError::NoCache)?.join(&manifest.name);
    if let Some(from) = from {
        copy_all(manifest, from, &target, progress)?;
        return finish(manifest, target);
    }
    match check_all(manifest, &target, &mut |_| {}) {
        Ok(true) => {
            progress(&format!("{} is in {} already; checksums are right", manifest.name, target.display()));
            return finish(manifest, target);
        }
        Ok(false) => {}
        Err(error) => progress(&format!("fetching again: {error}")),
    }
    if let Some(installed) = places.system.as_ref().map(|system| system.join(&manifest.name)) {
        match check_all(manifest, &installed, progress) {
            Ok(true) => {
                progress(&format!("{} is installed in {}; checksums are right", manifest.name, installed.display()));
                return Ok(installed);
            }
            Ok(false) => {}
            Err(error) => progress(&format!("not using what is installed: {error}")),
        }
    }
    if manifest.name == "mnist-5k" {
        for ((name, bytes), file) in manifest::MNIST_5K.into_iter().zip(&manifest.files) {
            let target = target.join(name);
            Published { manifest, file, packed: true }.store(bytes, &target, &target, &mut |_| {})?;
        }
        progress(&format!("{} is built in; wrote it to {}", manifest.name, target.display()));
        return finish(manifest, target);
    }
    for file in &manifest.files {
        download(manifest, file, &target.join(&file.name), progress)?;
    }
    finish(manifest, target)
}

/// Writes the manifest beside the files, so that the folder can be opened by its path with the class names.
fn finish(manifest: &Manifest, folder: PathBuf) -> Result<PathBuf, DataError> {
    let path = folder.join("manifest.toml");
    let text = toml::to_string(manifest)
        .map_err(|error| DataError::BadManifest { path: path.display().to_string(), problem: error.to_string() })?;
    if std::fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(folder);
    }
    files::create_folder(&folder)?;
    files::write_atomically(&path, text.as_bytes())?;
    Ok(folder)
}

/// The path of `file` in `folder`, under any of its names, and whether it is the compressed one.
fn find(file: &ManifestFile, folder: &Path) -> Option<(PathBuf, bool)> {
    file.possible_names().into_iter().map(|(name, packed)| (folder.join(name), packed)).find(|(path, _)| path.is_file())
}

/// The folder and the files of a dataset that is there as a whole: as published, or unpacked.
fn complete<'a>(manifest: &'a Manifest, folder: &Path) -> Option<(PathBuf, &'a [ManifestFile])> {
    let inner = folder.join("cifar-10-batches-bin");
    [(folder.to_path_buf(), &manifest.files), (folder.to_path_buf(), &manifest.unpacked), (inner, &manifest.unpacked)]
        .into_iter()
        .find(|(folder, files)| !files.is_empty() && files.iter().all(|file| find(file, folder).is_some()))
        .map(|(folder, files)| (folder, files.as_slice()))
}

/// Whether all files lie in `folder`; an error where one is wrong.
fn check_all(manifest: &Manifest, folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<bool, DataError> {
    let Some((folder, files)) = complete(manifest, folder) else { return Ok(false) };
    for file in files {
        let Some((path, packed)) = find(file, &folder) else { return Ok(false) };
        progress(&format!("checking {}", path.display()));
        let (mut stream, _) = disk::open(&path)?;
        Published { manifest, file, packed }.check(&mut stream, &path)?;
    }
    Ok(true)
}

/// Checks and copies the files of a folder.
fn copy_all(manifest: &Manifest, from: &Path, target: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), DataError> {
    let Some((folder, files)) = complete(manifest, from) else {
        let names = |files: &mut dyn Iterator<Item = &ManifestFile>| {
            files.map(|file| file.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let mut found = if from.is_dir() {
            format!("lacks {}", names(&mut manifest.files.iter().filter(|file| find(file, from).is_none())))
        } else {
            "is not a folder".to_string()
        };
        if !manifest.unpacked.is_empty() {
            found += &format!(" (unpacked: {})", names(&mut manifest.unpacked.iter()));
        }
        let looked_for = "the files of the dataset under their published names, .gz or uncompressed";
        return Err(DataError::nothing_found(from, found, looked_for));
    };
    for file in files {
        let Some((path, packed)) = find(file, &folder) else { continue };
        let (stream, _) = disk::open(&path)?;
        let copy = target.join(disk::file_name(&path));
        Published { manifest, file, packed }.store(stream, &path, &copy, &mut |_| {})?;
        progress(&format!("took {} (checksum is right)", path.display()));
    }
    Ok(())
}

/// A file of a dataset, compressed or not.
#[derive(Clone, Copy)]
struct Published<'a> {
    manifest: &'a Manifest,
    file: &'a ManifestFile,
    packed: bool,
}

impl Published<'_> {
    /// Length and SHA-256.
    fn expected(&self) -> (u64, &str) {
        match (self.packed, self.file.contents_bytes, &self.file.contents_sha256) {
            (false, Some(bytes), Some(sha256)) => (bytes, sha256),
            _ => (self.file.bytes, &self.file.sha256),
        }
    }

    /// Bytes at most, with room for another compression of the same contents.
    fn most(&self) -> u64 {
        self.expected().0.max(self.file.contents_bytes.unwrap_or(0)).saturating_add(1024)
    }

    /// Copies `stream` to `target`, which appears only if the bytes are right. `source` is the origin of the stream, for
    /// messages; `progress` is called with the number of bytes so far.
    fn store(
        &self,
        stream: impl Read,
        source: &Path,
        target: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), DataError> {
        let failed = |error| DataError::io(Action::Write, target, error);
        let folder = target.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut copy = NamedTempFile::new_in(folder).map_err(failed)?;
        let (mut stream, mut buffer, mut done) = (stream.take(self.most() + 1), vec![0; 1 << 16], 0);
        loop {
            let count = match stream.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                count => count.map_err(|error| DataError::io(Action::Read, source, error))?,
            };
            if count == 0 {
                break;
            }
            copy.write_all(&buffer[..count]).map_err(failed)?;
            done += count as u64;
            progress(done);
        }
        copy.rewind().map_err(failed)?;
        self.check(copy.as_file_mut(), source)?;
        copy.as_file().sync_all().map_err(failed)?;
        copy.persist(target).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Compares a file with the published one, or, if they differ, its contents with the published contents; `path` is for
    /// messages.
    fn check(&self, file: &mut File, path: &Path) -> Result<(), DataError> {
        let failed = |error| DataError::io(Action::Read, path, error);
        let (bytes, expected) = self.expected();
        let most = self.most();
        let (length, hash) = sha256((&mut *file).take(most + 1)).map_err(failed)?;
        let hash = hexadecimal(&hash);
        if (length, hash.as_str()) == (bytes, expected) {
            return Ok(());
        }
        file.rewind().map_err(failed)?;
        if self.packed && length <= most && self.has_contents(file) {
            return Ok(());
        }
        let problem = if length == bytes {
            format!("its SHA-256 is {hash} instead of {expected}")
        } else {
            let at_least = if length > most { "at least " } else { "" };
            format!("it has {at_least}{length} bytes instead of {bytes}")
        };
        Err(DataError::Mismatch { dataset: self.manifest.name.clone(), path: path.to_path_buf(), problem })
    }

    /// Whether a gzip stream has the published contents.
    fn has_contents(&self, stream: impl Read) -> bool {
        let Some(length) = self.file.contents_bytes else { return false };
        sha256(MultiGzDecoder::new(stream).take(length + 1)).is_ok_and(|(got, hash)| {
            got == length && self.file.contents_sha256.as_ref().is_some_and(|sha256| *sha256 == hexadecimal(&hash))
        })
    }

    /// Downloads the file from `url` to `target`.
    fn download(
        &self,
        agent: &ureq::Agent,
        url: &str,
        target: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), Attempt> {
        let body = agent.get(url).call().map_err(|error| Attempt::There(error.to_string()))?.into_body();
        let total = self.file.bytes;
        if let Some(length) = body.content_length()
            && length != total
        {
            return Err(Attempt::There(format!("offers {length} bytes instead of {total}")));
        }
        // every tenth of a long download
        let mut tenths = 0;
        let mut report = |done: u64| {
            let now = done.saturating_mul(10) / total.max(1);
            if now > tenths && total > 1_000_000 {
                tenths = now;
                progress(&format!("{} % of {:.1} MB", tenths * 10, total as f64 / 1e6));
            }
        };
        self.store(body.into_reader(), target, target, &mut report).map_err(|error| match error {
            DataError::Mismatch { problem, .. } => Attempt::There(problem),
            DataError::File(FileError { action: Action::Read, source, .. }) => Attempt::There(source.to_string()),
            other => Attempt::Here(other),
        })
    }
}

/// The side on which a download failed: this machine's, or the mirror's.
enum Attempt {
    Here(DataError),
    There(String),
}

/// Downloads `file` from the first mirror that sends the right bytes.
fn download(
    manifest: &Manifest,
    file: &ManifestFile,
    target: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(), DataError> {
    let published = Published { manifest, file, packed: true };
    if let Ok((mut present, _)) = disk::open(target)
        && published.check(&mut present, target).is_ok()
    {
        progress(&format!("{} is there already", file.name));
        return Ok(());
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .user_agent(concat!("diffuse-data/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut failures = Vec::new();
    for mirror in &manifest.mirrors {
        let url = format!("{mirror}{}", file.name);
        progress(&format!("downloading {url} ({:.1} MB)", file.bytes as f64 / 1e6));
        match published.download(&agent, &url, target, progress) {
            Ok(()) => return Ok(()),
            // another mirror does not help against a full disk
            Err(Attempt::Here(error)) => return Err(error),
            Err(Attempt::There(reason)) => {
                progress(&format!("{url}: {reason}"));
                failures.push(format!("  {url}: {reason}"));
            }
        }
    }
    if failures.is_empty() {
        failures.push("  its manifest names no mirror".into());
    }
    Err(DataError::Download { dataset: manifest.name.clone(), file: file.name.clone(), failures: failures.join("\n") })
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::manifest::Format;
    use crate::options::LoadOptions;
    use crate::testing::{gzip, idx, write};
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    fn sha256_of(bytes: &[u8]) -> String {
        hexadecimal(&Sha256::digest(bytes))
    }

    /// A dataset of one image, and the bytes of its file.
    fn tiny() -> (Manifest, Vec<u8>, Vec<u8>) {
        let contents = idx(&[1, 2, 2], &[1, 2, 3, 4]);
        let packed = gzip(&contents);
        let file = ManifestFile {
            name: "train-images-idx3-ubyte.gz".into(),
            bytes: packed.len() as u64,
            sha256: sha256_of(&packed),
            contents_bytes: Some(contents.len() as u64),
            contents_sha256: Some(sha256_of(&contents)),
        };
        let manifest = Manifest {
            name: "tiny".into(),
            title: "one image".into(),
            format: Format::Idx,
            count: 1,
            height: 2,
            width: 2,
            channels: 1,
            classes: vec![],
            license: "none".into(),
            source: "a test".into(),
            mirrors: vec![],
            files: vec![file],
            unpacked: vec![],
        };
        (manifest, packed, contents)
    }

    fn places(folder: &tempfile::TempDir) -> Places {
        Places { roots: vec![], cache: Some(folder.path().join("cache")), system: Some(folder.path().join("system")) }
    }

    /// Serves each answer once, in order, and returns the base URL.
    fn serve(answers: Vec<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let mut request = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while request.read_line(&mut line).is_ok_and(|count| count > 2) {
                    line.clear();
                }
                let _ = stream.write_all(&answer);
            }
        });
        url
    }

    fn answer(bytes: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
        [head.as_bytes(), bytes].concat()
    }

    fn files_in(folder: &Path) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_next_mirror_is_tried() {
        let (mut manifest, packed, _) = tiny();
        let folder = tempfile::tempdir().unwrap();
        let mut wrong = packed.clone();
        wrong[12] ^= 1;
        let mut endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        endless.extend(vec![7; 100_000]);
        let mut cut = answer(&packed);
        cut.truncate(cut.len() - 5);
        manifest.mirrors = vec![
            serve(vec![b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()]),
            serve(vec![answer(&wrong)]),
            serve(vec![answer(b"too short")]),
            serve(vec![endless]),
            serve(vec![cut]),
            serve(vec![answer(&packed)]),
        ];
        let mut lines = Vec::new();
        let got = fetch_manifest(&manifest, None, &places(&folder), &mut |line| lines.push(line.to_string())).unwrap();
        let text = lines.join("\n");
        for part in ["404", "SHA-256", "9 bytes instead", "at least"] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        assert_eq!(lines.iter().filter(|line| line.starts_with("downloading")).count(), 6);
        assert_eq!(files_in(&got), ["manifest.toml", "train-images-idx3-ubyte.gz"]);
        let images = crate::open_in(&Places::default(), got.to_str().unwrap(), &LoadOptions::default()).unwrap().images;
        assert_eq!(images.image(0), [1, 2, 3, 4]);

        // the second time, no mirror is used
        manifest.mirrors = vec![];
        let mut lines = Vec::new();
        fetch_manifest(&manifest, None, &places(&folder), &mut |line| lines.push(line.to_string())).unwrap();
        assert!(lines[0].contains("already"), "{lines:?}");
    }

    #[test]
    fn no_mirror_is_an_error_that_names_them_all() {
        let (mut manifest, packed, _) = tiny();
        let folder = tempfile::tempdir().unwrap();
        let mut wrong = packed;
        wrong[12] ^= 1;
        manifest.mirrors = vec!["http://127.0.0.1:1/".into(), serve(vec![answer(&wrong)])];
        let error = fetch_manifest(&manifest, None, &places(&folder), &mut |_| {}).unwrap_err().to_string();
        for part in ["127.0.0.1:1/train-images", "SHA-256", "--from DIR"] {
            assert!(error.contains(part), "`{part}` is not in\n{error}");
        }
        // no partial file is left
        assert_eq!(files_in(&folder.path().join("cache/tiny")), Vec::<String>::new());
    }

    #[test]
    fn local_files_are_checked_in_every_form() {
        let (manifest, packed, contents) = tiny();
        let again = {
            let mut encoder = flate2::GzBuilder::new().filename("other").write(Vec::new(), flate2::Compression::none());
            encoder.write_all(&contents).unwrap();
            encoder.finish().unwrap()
        };
        assert_ne!(again, packed);
        for (name, bytes) in [
            ("train-images-idx3-ubyte.gz", &packed),
            ("train-images-idx3-ubyte.gz", &again),
            ("train-images-idx3-ubyte", &contents),
            ("train-images.idx3-ubyte", &contents),
        ] {
            let folder = tempfile::tempdir().unwrap();
            write(&folder, &format!("from/{name}"), bytes);
            let from = folder.path().join("from");
            let got = fetch_manifest(&manifest, Some(&from), &places(&folder), &mut |_| {}).unwrap();
            assert_eq!(files_in(&got), ["manifest.toml", name]);
            let loaded = crate::open_in(&Places::default(), got.to_str().unwrap(), &LoadOptions::default()).unwrap();
            assert_eq!(loaded.images.image(0), [1, 2, 3, 4]);

            let mut wrong = bytes.clone();
            let last = wrong.len() - 9;
            wrong[last] ^= 1;
            write(&folder, &format!("from/{name}"), &wrong);
            let error = fetch_manifest(&manifest, Some(&from), &places(&folder), &mut |_| {}).unwrap_err();
            assert!(matches!(error, DataError::Mismatch { .. }), "{name}: {error}");
            assert!(error.to_string().contains("train-images"), "{error}");
        }
    }

    #[test]
    fn an_intact_archive_of_other_contents_is_refused() {
        let (manifest, _, mut contents) = tiny();
        contents[16] ^= 1;
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "from/train-images-idx3-ubyte.gz", &gzip(&contents));
        let from = folder.path().join("from");
        let error = fetch_manifest(&manifest, Some(&from), &places(&folder), &mut |_| {}).unwrap_err();
        assert!(matches!(error, DataError::Mismatch { .. }), "{error}");
        assert_eq!(files_in(&folder.path().join("cache/tiny")), Vec::<String>::new());
    }

    #[test]
    fn a_folder_that_lacks_a_file_is_an_error() {
        let (manifest, ..) = tiny();
        let folder = tempfile::tempdir().unwrap();
        for from in [folder.path().to_path_buf(), folder.path().join("missing")] {
            let error = fetch_manifest(&manifest, Some(&from), &places(&folder), &mut |_| {}).unwrap_err().to_string();
            assert!(error.contains(&from.display().to_string()) && error.contains("published names"), "{error}");
        }
        let error = fetch("mnits", None, None, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("`mnits`") && error.contains("cifar10"), "{error}");
        let nowhere = Places::default();
        assert!(matches!(fetch_manifest(&manifest, None, &nowhere, &mut |_| {}), Err(DataError::NoCache)));
    }

    #[test]
    fn a_package_of_the_system_is_used_where_it_is() {
        let (manifest, _, contents) = tiny();
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "system/tiny/train-images-idx3-ubyte.gz", &gzip(&contents));
        let got = fetch_manifest(&manifest, None, &places(&folder), &mut |_| {}).unwrap();
        assert_eq!(got, folder.path().join("system/tiny"));
        assert_eq!(files_in(&got), ["train-images-idx3-ubyte.gz"]);
    }

    #[test]
    fn a_broken_package_is_not_used() {
        let (mut manifest, packed, _) = tiny();
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "system/tiny/train-images-idx3-ubyte.gz", b"broken");
        manifest.mirrors = vec![serve(vec![answer(&packed)])];
        let got = fetch_manifest(&manifest, None, &places(&folder), &mut |_| {}).unwrap();
        assert_eq!(got, folder.path().join("cache/tiny"));
    }

    #[test]
    fn a_broken_cache_is_fetched_again() {
        let (mut manifest, packed, _) = tiny();
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "cache/tiny/train-images-idx3-ubyte.gz", b"broken");
        manifest.mirrors = vec![serve(vec![answer(&packed)])];
        let mut lines = Vec::new();
        let got = fetch_manifest(&manifest, None, &places(&folder), &mut |line| lines.push(line.to_string())).unwrap();
        assert!(lines[0].contains("fetching again"), "{lines:?}");
        assert_eq!(std::fs::read(got.join("train-images-idx3-ubyte.gz")).unwrap(), packed);
    }

    #[test]
    fn an_unpacked_archive_is_accepted() {
        let batch = vec![3; 3073];
        let file = |name: &str, bytes: &[u8]| ManifestFile {
            name: name.into(),
            bytes: bytes.len() as u64,
            sha256: sha256_of(bytes),
            contents_bytes: None,
            contents_sha256: None,
        };
        let (mut manifest, ..) = tiny();
        manifest.format = Format::Cifar10;
        manifest.files = vec![file("cifar-10-binary.tar.gz", b"never there")];
        manifest.unpacked = vec![file("data_batch_1.bin", &batch)];
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "from/cifar-10-batches-bin/data_batch_1.bin", &batch);
        let from = folder.path().join("from");
        let got = fetch_manifest(&manifest, Some(&from), &places(&folder), &mut |_| {}).unwrap();
        assert_eq!(files_in(&got), ["data_batch_1.bin", "manifest.toml"]);
    }

    #[test]
    fn the_built_in_dataset_can_be_written_out() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = manifest::find("mnist-5k").unwrap();
        let got = fetch_manifest(manifest, None, &places(&folder), &mut |_| {}).unwrap();
        let written = crate::open_in(&Places::default(), got.to_str().unwrap(), &LoadOptions::default()).unwrap();
        assert_eq!((written.images.len(), written.images.classes()), (5000, 10));
    }

    /// Debian's package, where it is installed, fits the manifest.
    #[test]
    fn debians_fashion_mnist_matches_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let mut here = places(&folder);
        here.system = Places::from_environment().system;
        let manifest = manifest::find("fashion-mnist").unwrap();
        if !here.system.as_ref().is_some_and(|system| system.join("fashion-mnist").is_dir()) {
            return;
        }
        let got = fetch_manifest(manifest, None, &here, &mut |_| {}).unwrap();
        assert_eq!(got, here.system.clone().unwrap().join("fashion-mnist"));
        let images = crate::open_in(&here, "fashion-mnist", &LoadOptions::default()).unwrap().images;
        assert_eq!((images.len(), images.label(0)), (60_000, Some(9)));
        assert_eq!(images.class_names().unwrap()[9], "Ankle boot");
        let inspection = crate::inspect(&images);
        assert!(inspection.classes.iter().all(|(_, count)| *count == 6000));
        // 0.2860 and 0.3530: the constants that training scripts normalize Fashion-MNIST with
        assert!((inspection.mean[0] - 0.2860).abs() < 1e-4 && (inspection.deviation[0] - 0.3530).abs() < 1e-4);
    }
}
