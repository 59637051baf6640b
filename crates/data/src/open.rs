//! From a name or a path to an [`ImageSet`].

use std::path::{Path, PathBuf};

use files::Action;

use crate::account::Account;
use crate::cache::Cache;
use crate::context::ReadContext;
use crate::error::DataError;
use crate::image_set::ImageSet;
use crate::listing::{OF_ARRAYS, Use, say_beside};
use crate::loaded::{Cached, Loaded};
use crate::manifest::{self, Format, Manifest};
use crate::options::{LoadOptions, Split};
use crate::places::Places;
use crate::range::Range;
use crate::recognize::{Kind, is_tar_name, recognize, recognize_in_gzip};
use crate::tarred::{self, Tars};
use crate::webdataset::Shards;
use crate::{cifar, disk, folder, idx, numpy, parquet, stack, webdataset, zipped};

/// Reads a dataset by its name or path; see [`open_with`]. Names are looked for in [`Places::from_environment`], and the
/// decoded images of large datasets kept in [`Cache::from_environment`].
///
/// # Errors
/// See [`open_with`].
pub fn open(path_or_name: &str, options: &LoadOptions) -> Result<Loaded, DataError> {
    let context = ReadContext { cache: Cache::from_environment(), progress: None };
    open_with(&Places::from_environment(), path_or_name, options, &context)
}

/// Reads a dataset by its name or path, with other places and without a cache; see [`open_with`].
///
/// # Errors
/// See [`open_with`].
pub fn open_in(places: &Places, path_or_name: &str, options: &LoadOptions) -> Result<Loaded, DataError> {
    open_with(places, path_or_name, options, &ReadContext::default())
}

/// Reads a dataset by its name or path.
///
/// A known name comes first (`./mnist` is a folder of that name); it is looked for in `places`, and `mnist-5k` is built in.
/// A path is an IDX file (its labels are found beside it), a folder with IDX files, a batch of CIFAR-10 or CIFAR-100 in their
/// binary or Python version, a folder or `.tar.gz` of them, a folder, `.zip` or `.tar` (plain, or packed with gzip, bzip2 or
/// zstd) of images (with a table such as `metadata.csv`, files `.cls` beside them, or sub-folders as classes), a folder of tars
/// (shards of WebDataset), a Parquet file or a folder of them, or a NumPy array (`.npy`, `.npz`). Where a name says nothing, the
/// first bytes do. A `manifest.toml` beside IDX files has their class names. In a folder without any of them, one folder of IDX
/// or CIFAR files is looked for, as torchvision makes it (`MNIST/raw`).
///
/// # Errors
/// [`DataError::BadOption`] for options that cannot be met, [`DataError::NoSuchData`] for a name or path that does not exist,
/// [`DataError::NotFetched`] for a known dataset that is not on this machine, and the errors of the readers.
pub fn open_with(
    places: &Places,
    path_or_name: &str,
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Loaded, DataError> {
    options.check()?;
    if let Some(manifest) = manifest::find(path_or_name) {
        return open_known(places, manifest, options);
    }
    let path = Path::new(path_or_name);
    if path_or_name.is_empty() || !path.exists() {
        return Err(DataError::NoSuchData { given: path_or_name.to_string(), known: manifest::names() });
    }
    let name = name_of(path);
    let loaded = if path.is_dir() {
        open_folder(&name, path, options, context)
    } else if path.is_file() {
        open_file(&name, path, options, context)
    } else {
        Err(DataError::bad_file(path, "is neither a regular file nor a folder"))
    };
    loaded.map_err(|error| match error {
        DataError::NothingFound { path, found, looked_for } if is_like_cifar(&name) => {
            let found = format!("{found}; `diffuse data fetch cifar10` gets CIFAR-10 in a version that is read");
            DataError::NothingFound { path, found, looked_for }
        }
        error => error,
    })
}

/// Whether a name looks like one of CIFAR-10.
fn is_like_cifar(name: &str) -> bool {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    letters.to_ascii_lowercase().contains("cifar10") && !letters.contains("100")
}

/// The last part of a path, also of `.`.
fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    whole.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn open_known(places: &Places, manifest: &Manifest, options: &LoadOptions) -> Result<Loaded, DataError> {
    let folders = places.folders(&manifest.name);
    for folder in folders.iter().filter(|folder| holds(folder, manifest)) {
        let images = match manifest.format {
            Format::Idx => match idx::images_in(folder, options.split)? {
                Some(images) => {
                    let (set, mut account) = idx::load(&manifest.name, &images, Some(manifest.classes.clone()))?;
                    say_beside(&mut account, folder, OF_ARRAYS, &|path| idx::use_of(path, &images, options.split));
                    Some((set, account))
                }
                None => None,
            },
            Format::Cifar10 => cifar::load_folder(&manifest.name, folder, options.split)?,
        };
        if let Some((images, account)) = images {
            return whole(images, account, folder, options);
        }
    }
    if manifest.name == "mnist-5k" {
        return open_built_in(manifest, options);
    }
    let looked = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(DataError::NotFetched { name: manifest.name.clone(), looked })
}

/// Whether the files of a dataset, not only its manifest, lie in `folder`.
fn holds(folder: &Path, manifest: &Manifest) -> bool {
    folder.is_dir()
        && match manifest.format {
            Format::Idx => !matches!(idx::images_in(folder, Split::Train), Ok(None)),
            Format::Cifar10 => cifar::lies_in(folder),
        }
}

fn open_built_in(manifest: &Manifest, options: &LoadOptions) -> Result<Loaded, DataError> {
    if options.split == Split::Test {
        return Err(DataError::bad_option(
            "split",
            "mnist-5k has no test split; fetch `mnist`, or leave it at `train`",
        ));
    }
    let path = Path::new("built in");
    let [images, labels] =
        manifest::MNIST_5K.map(|(file, bytes)| idx::read_stream(bytes, bytes.len() as u64, Path::new(file)));
    let classes = Some(manifest.classes.clone());
    let (images, account) = idx::assemble(&manifest.name, (images?, path), Some((labels?, path)), classes)?;
    whole(images, account, path, options)
}

fn open_folder(name: &str, path: &Path, options: &LoadOptions, context: &ReadContext) -> Result<Loaded, DataError> {
    if let Some(images) = idx::images_in(path, options.split)? {
        let (set, mut account) = idx::load(name, &images, classes_beside(&images))?;
        say_beside(&mut account, path, OF_ARRAYS, &|file| idx::use_of(file, &images, options.split));
        return whole(set, account, path, options);
    }
    if let Some((images, account)) = cifar::load_folder(name, path, options.split)? {
        return whole(images, account, path, options);
    }
    if let Some(files) = parquet::files_in(path, options.split)? {
        return parquet::load(name, path, files, options, context);
    }
    match folder::load_with(name, path, options, context) {
        Err(error @ DataError::NothingFound { .. }) => open_below(name, path, options, context).unwrap_or(Err(error)),
        loaded => loaded,
    }
}

/// Opens what lies in a folder without pictures: tar archives, or the folders that torchvision makes of MNIST and CIFAR. `None`
/// where there is none of them.
fn open_below(
    name: &str,
    path: &Path,
    options: &LoadOptions,
    context: &ReadContext,
) -> Option<Result<Loaded, DataError>> {
    let tars = match webdataset::shards_in(path, options.split) {
        Ok(Shards::None) => None,
        Ok(Shards::One(tar)) => Some((open_tar(name, &tar, options, context), vec![tar])),
        Ok(Shards::Several(tars)) => {
            let opened = Tars::open(&tars, spill(context));
            Some((opened.and_then(|opened| tarred::load(name, path, &opened, true, options, context)), tars))
        }
        Err(error) => return Some(Err(error)),
    };
    if let Some((loaded, tars)) = tars {
        return Some(loaded.map(|loaded| with_beside(loaded, path, &tars)));
    }
    // `MNIST` or the folder that it lies in: MNIST/raw
    let mut folders = disk::list(path).ok()?;
    folders.extend(folders.clone().into_iter().map(|folder| folder.join("raw")));
    folders.retain(|folder| {
        folder.is_dir() && (cifar::lies_in(folder) || !matches!(idx::images_in(folder, Split::Train), Ok(None)))
    });
    folders.sort();
    match folders.as_slice() {
        [] => None,
        [only] => Some(open_folder(name, only, options, context).map(|mut loaded| {
            loaded.account.decided(format!("the data set in {} is read, the only one there", only.display()));
            loaded
        })),
        [first, second, ..] => {
            let both = format!("{} and {}", first.display(), second.display());
            Some(Err(DataError::bad_file(path, format!("has several data sets, as {both}; name one of them"))))
        }
    }
}

/// Adds the files beside the archives of a folder to the account.
fn with_beside(mut loaded: Loaded, folder: &Path, tars: &[PathBuf]) -> Loaded {
    loaded.account.decided(match tars {
        [only] => format!("{} is read, the only archive there", disk::file_name(only)),
        tars => format!("{} archives are read as one data set, in order of their names", tars.len()),
    });
    say_beside(&mut loaded.account, folder, "archives", &|path| {
        if tars.iter().any(|tar| tar == path) {
            Use::Used
        } else if is_tar_name(&disk::file_name(path)) {
            Use::Not("another split")
        } else {
            Use::Unknown
        }
    });
    loaded
}

fn open_file(name: &str, path: &Path, options: &LoadOptions, context: &ReadContext) -> Result<Loaded, DataError> {
    let lower = name.to_ascii_lowercase();
    let extension = lower.rsplit('.').next().unwrap_or_default();
    if matches!(extension, "tif" | "tiff")
        && let Some(loaded) = stack::load(name, path, options, context)?
    {
        return Ok(loaded);
    }
    if folder::EXTENSIONS.contains(&extension) {
        return Err(DataError::bad_file(path, "is a single image; name the folder it lies in"));
    }
    let format = match extension {
        "zip" => Kind::Zip,
        "npz" => return numpy::load_npz(name, path, options, context),
        "npy" => Kind::Npy,
        "parquet" => Kind::Parquet,
        "bin" => Kind::Pickle,
        _ if is_tar_name(&lower) => Kind::Tar,
        _ => format_of(path)?,
    };
    let (images, account) = match format {
        Kind::Zip => return zipped::load(name, path, options, context),
        Kind::Npy => return numpy::load_npy(name, path, options, context),
        Kind::Parquet => return parquet::load(name, path, parquet::Files::of(path), options, context),
        Kind::Tar => return open_tar(name, path, options, context),
        Kind::Pickle => cifar::load_file(name, path)?,
        Kind::Idx => idx::load(name, path, classes_beside(path))?,
        other => return Err(DataError::bad_file(path, format!("is not an IDX file but {other}"))),
    };
    whole(images, account, path, options)
}

/// The format of a file whose name says nothing; of unknown bytes, IDX, whose reader refuses them.
fn format_of(path: &Path) -> Result<Kind, DataError> {
    let (mut file, _) = disk::open(path)?;
    let format = recognize(&mut file).map_err(|error| DataError::io(Action::Read, path, error))?.unwrap_or(Kind::Idx);
    if format != Kind::Gzip {
        return Ok(if format == Kind::Bzip2 || format == Kind::Zstd { Kind::Tar } else { format });
    }
    // what cannot be unpacked, the reader of IDX names
    match recognize_in_gzip(&mut file).ok().flatten() {
        Some(Kind::Tar) => Ok(Kind::Tar),
        None | Some(Kind::Idx) => Ok(Kind::Idx),
        Some(_) => Ok(format),
    }
}

/// Opens a tar archive, of CIFAR or of pictures.
fn open_tar(name: &str, path: &Path, options: &LoadOptions, context: &ReadContext) -> Result<Loaded, DataError> {
    let tar = Tars::open(&[path.to_path_buf()], spill(context))?;
    match cifar::load_archive(name, path, &tar, options.split)? {
        Some((images, account)) => whole(images, account, path, options),
        None => tarred::load(name, path, &tar, false, options, context),
    }
}

/// The folder for what archives unpack to.
fn spill<'a>(context: &'a ReadContext<'_>) -> Option<&'a Path> {
    context.cache.as_ref().map(|cache| cache.folder.as_path())
}

/// The class names of the `manifest.toml` beside a file.
fn classes_beside(path: &Path) -> Option<Vec<String>> {
    manifest::read(&path.with_file_name("manifest.toml")).ok().map(|manifest| manifest.classes)
}

/// The result of a reader that reads all images or none.
fn whole(images: ImageSet, mut account: Account, source: &Path, options: &LoadOptions) -> Result<Loaded, DataError> {
    let sentences = images.levels(options).sentences(Range::given(options));
    sentences.into_iter().for_each(|sentence| account.decided(sentence));
    Ok(Loaded {
        images: images.prepared(options)?,
        skipped: Vec::new(),
        account,
        source: source.display().to_string(),
        cached: Cached::Unused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Padding;
    use crate::testing::{archive, gray, gzip, idx, tar, write};

    fn nowhere() -> Places {
        Places::default()
    }

    #[test]
    fn mnist_5k_is_built_in() {
        let loaded = open_in(&nowhere(), "mnist-5k", &LoadOptions::default()).unwrap();
        let inspection = crate::inspect(&loaded.images);
        assert_eq!(loaded.source, "built in");
        assert_eq!((inspection.count, inspection.height, inspection.width, inspection.channels), (5000, 28, 28, 1));
        let expected: Vec<(String, usize)> = (0..10).map(|digit| (digit.to_string(), 500)).collect();
        assert_eq!(inspection.classes, expected);
        // computed from the same files with Python's gzip and integers
        assert!((inspection.mean[0] - 0.13131962985194076).abs() < 1e-12, "{}", inspection.mean[0]);
        assert!((inspection.deviation[0] - 0.3085502947096444).abs() < 1e-12, "{}", inspection.deviation[0]);
        assert_eq!(loaded.images.labels().unwrap()[..10], [5, 8, 1, 5, 6, 2, 9, 3, 7, 3]);
    }

    #[test]
    fn the_folder_of_the_repository_equals_the_built_in_dataset() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets");
        let built_in = open_in(&nowhere(), "mnist-5k", &LoadOptions::default()).unwrap().images;
        let places = Places { roots: vec![folder.clone()], ..Places::default() };
        let found = open_in(&places, "mnist-5k", &LoadOptions::default()).unwrap();
        assert_ne!(found.source, "built in");
        assert_eq!(found.images.content_hash(), built_in.content_hash());
        for path in [folder.join("mnist-5k"), folder.join("mnist-5k/images-idx3-ubyte.gz")] {
            let found = open_in(&nowhere(), path.to_str().unwrap(), &LoadOptions::default()).unwrap().images;
            assert_eq!(found.content_hash(), built_in.content_hash());
            assert_eq!(found.class_names(), built_in.class_names());
        }
    }

    #[test]
    fn known_names_are_looked_for_in_order() {
        let places = tempfile::tempdir().unwrap();
        let put = |root: &str, value: u8| {
            write(&places, &format!("{root}/mnist/train-images-idx3-ubyte.gz"), &gzip(&idx(&[1, 1, 1], &[value])));
        };
        let folders = Places {
            roots: vec![places.path().join("root")],
            cache: Some(places.path().join("cache")),
            system: Some(places.path().join("system")),
        };
        let first = || open_in(&folders, "mnist", &LoadOptions::default()).map(|loaded| loaded.images.image(0)[0]);
        let error = first().unwrap_err().to_string();
        assert!(error.contains("diffuse data fetch mnist") && error.contains("cache/mnist"), "{error}");
        // a manifest alone is not the dataset
        write(&places, "root/mnist/manifest.toml", b"");
        assert!(first().is_err());
        for (root, value) in [("system", 3), ("cache", 2), ("root", 1)] {
            put(root, value);
            assert_eq!(first().unwrap(), value);
        }
        // a broken dataset is an error; the next place is not tried
        write(&places, "root/mnist/train-images-idx3-ubyte.gz", b"broken");
        assert!(first().unwrap_err().to_string().contains("root"));
    }

    #[test]
    fn paths_of_every_format_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let open =
            |path: &str| open_in(&nowhere(), folder.path().join(path).to_str().unwrap(), &LoadOptions::default());
        write(&folder, "idx/train-images-idx3-ubyte.gz", &gzip(&idx(&[2, 1, 1], &[1, 2])));
        write(&folder, "idx/train-labels-idx1-ubyte.gz", &gzip(&idx(&[2], &[0, 1])));
        write(&folder, "idx/t10k-images-idx3-ubyte.gz", &gzip(&idx(&[1, 1, 1], &[9])));
        write(&folder, "idx/notes.txt", b"hello");
        write(&folder, "idx/preview.png", &gray(1, 1, 1));
        let loaded = open("idx").unwrap();
        assert_eq!(loaded.images.labels(), Some([0, 1].as_slice()));
        for line in [
            "files of the data set left out: a split that is not trained on (t10k-images-idx3-ubyte.gz)",
            "pictures left out: the data set beside them is read; name another folder if they are meant (preview.png)",
            "notes.txt left out: no pictures",
        ] {
            assert!(loaded.account.lines().contains(&line.to_string()), "{line}: {:?}", loaded.account.lines());
        }
        assert_eq!(loaded.account.doubts().count(), 0);
        assert_eq!(open("idx/t10k-images-idx3-ubyte.gz").unwrap().images.image(0), [9]);
        let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
        let images = open_in(&nowhere(), folder.path().join("idx").to_str().unwrap(), &test).unwrap().images;
        assert_eq!((images.image(0), images.labels()), ([9].as_slice(), None));

        let record: Vec<u8> = std::iter::once(4).chain([8; 3072]).collect();
        write(&folder, "cifar/data_batch_1.bin", &record);
        write(&folder, "cifar/test_batch.bin", &record);
        write(&folder, "cifar/batches.meta.txt", b"airplane");
        let loaded = open("cifar").unwrap();
        assert_eq!(loaded.images.labels(), Some([4].as_slice()));
        let of_test = "files of the data set left out: a split that is not trained on (test_batch.bin)";
        assert_eq!(loaded.account.lines()[1..], [of_test]);
        assert_eq!(open("cifar/data_batch_1.bin").unwrap().images.labels(), Some([4].as_slice()));

        write(&folder, "pictures/a.pgm", b"P5 2 1 255\n\x01\x02");
        let loaded = open("pictures").unwrap();
        assert_eq!((loaded.images.image(0), loaded.images.name()), ([1, 2].as_slice(), "pictures"));
        assert!(open("pictures/a.pgm").unwrap_err().to_string().contains("name the folder"));
        let pictures = folder.path().join("pictures");
        let error = open_in(&nowhere(), pictures.to_str().unwrap(), &test).unwrap_err().to_string();
        assert!(error.contains("`split`"), "{error}");

        // a device or a pipe may block or never end
        #[cfg(unix)]
        assert!(open("/dev/zero").unwrap_err().to_string().contains("neither a regular file"));

        write(&folder, "random", &[0x42; 1000]);
        assert!(open("random").unwrap_err().to_string().contains("not an IDX file"));
    }

    #[test]
    fn names_that_say_nothing_are_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, bytes: &[u8]| {
            let path = write(&folder, name, bytes);
            open_in(&nowhere(), path.to_str().unwrap(), &LoadOptions::default())
        };
        let shade = |name: &str, bytes: &[u8]| open(name, bytes).unwrap().images.image(0)[0];
        assert_eq!(shade("download", &archive(&[("a.png", &gray(2, 2, 3))])), 3);
        assert_eq!(shade("images.dat", &tar(&[("a.png", &gray(2, 2, 4))])), 4);
        assert_eq!(shade("images.gz", &gzip(&idx(&[1, 1, 1], &[5]))), 5);
        assert_eq!(shade("images", &idx(&[1, 1, 1], &[6])), 6);
        for (name, bytes, wanted) in [
            ("a.7z", b"7z\xbc\xaf\x27\x1c".to_vec(), "not an IDX file but a 7z archive"),
            ("a.h5", b"\x89HDF\r\n\x1a\n".to_vec(), "an HDF5 file"),
            ("a.json.gz", gzip(b"{\"a\": 1}"), "is not an IDX file: it starts with 7b"),
            ("a.npy.gz", gzip(b"\x93NUMPY"), "packed with gzip; unpack it"),
            ("photo", gray(1, 1, 1), "a single image; name the folder"),
            ("mnist.pkl", b"\x80\x02cnumpy\nload\n.".to_vec(), "`numpy.load`, and no code"),
        ] {
            let error = open(name, &bytes).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn folders_of_torchvision_are_found_below() {
        let root = tempfile::tempdir().unwrap();
        let open =
            |path: &str, options: &LoadOptions| open_in(&nowhere(), root.path().join(path).to_str().unwrap(), options);
        for (part, shade) in [("train", 1), ("t10k", 2)] {
            let (images, labels) = (idx(&[1, 1, 1], &[shade]), idx(&[1], &[7]));
            write(&root, &format!("torch/MNIST/raw/{part}-images-idx3-ubyte"), &images);
            write(&root, &format!("torch/MNIST/raw/{part}-images-idx3-ubyte.gz"), &gzip(&images));
            write(&root, &format!("torch/MNIST/raw/{part}-labels-idx1-ubyte"), &labels);
        }
        let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
        for path in ["torch/MNIST/raw", "torch/MNIST", "torch"] {
            let images = open(path, &LoadOptions::default()).unwrap().images;
            assert_eq!((images.image(0), images.labels()), ([1].as_slice(), Some([0].as_slice())), "{path}");
            assert_eq!(images.class_names(), Some(["7".to_string()].as_slice()));
            assert_eq!(open(path, &test).unwrap().images.image(0), [2]);
        }
        write(&root, "torch/FashionMNIST/raw/train-images-idx3-ubyte", &idx(&[1, 1, 1], &[3]));
        assert_eq!(open("torch/FashionMNIST", &LoadOptions::default()).unwrap().images.image(0), [3]);
        let error = open("torch", &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("FashionMNIST/raw and") && error.contains("name one of them"), "{error}");
        // pictures in the folder come first
        write(&root, "torch/a.png", &gray(1, 1, 9));
        assert_eq!(open("torch", &LoadOptions::default()).unwrap().images.image(0), [9]);

        write(&root, "cifar-10-batches-mat/data_batch_1.mat", b"MATLAB 5.0 MAT-file");
        let error = open("cifar-10-batches-mat", &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("diffuse data fetch cifar10"), "{error}");
    }

    #[test]
    fn missing_data_is_an_error_with_the_known_names() {
        for given in ["mnits", "/no/such/folder", ""] {
            let error = open_in(&nowhere(), given, &LoadOptions::default()).unwrap_err().to_string();
            assert!(error.contains(&format!("`{given}`")) && error.contains("fashion-mnist"), "{error}");
        }
        let empty = tempfile::tempdir().unwrap();
        let error = open_in(&nowhere(), empty.path().to_str().unwrap(), &LoadOptions::default()).unwrap_err();
        assert!(error.to_string().contains("is empty"), "{error}");
    }

    #[test]
    fn options_apply_to_every_reader() {
        let options = LoadOptions {
            size: Some((14, 14)),
            channels: Some(3),
            padding: Padding::To { height: 16, width: 16, fill: 0 },
            limit: Some(10),
            ..LoadOptions::default()
        };
        let images = open_in(&nowhere(), "mnist-5k", &options).unwrap().images;
        assert_eq!((images.len(), images.height(), images.width(), images.channels()), (10, 16, 16, 3));
        assert_eq!((images.classes(), images.class_names().map(<[_]>::len)), (10, Some(10)));
        let bad = LoadOptions { channels: Some(2), ..LoadOptions::default() };
        assert!(matches!(open_in(&nowhere(), "mnist-5k", &bad), Err(DataError::BadOption { .. })));
        let small = LoadOptions { padding: Padding::To { height: 20, width: 32, fill: 0 }, ..LoadOptions::default() };
        let error = open_in(&nowhere(), "mnist-5k", &small).unwrap_err().to_string();
        assert!(error.contains("28x28") && error.contains("20x32"), "{error}");
    }
}
