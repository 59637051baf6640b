//! Damaged files: thousands of mutations of each format, opened in one process. Each is read or refused; none panics, and none
//! allocates much more memory than the file has bytes.
//!
//! `MUTATIONS=100000 cargo test --workspace --test mutations` tries more.

use std::{
    alloc::System,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use burn::tensor::Device;
use cap::Cap;
use checkpoint::{Header, ImageFormat, Model};
use classifier::{NoisedClassifier, TrainingOptions};
use data::{Cache, Cached, ImageSet, LoadOptions, Places, ReadContext};
use interchange::{
    lucidrains::{self, ImportOptions},
    torch_file::TorchFile,
};
use noise::{Noise, NoiseStream, Purpose};
use train::{Config, Run, Trainer};
use unet::UnetConfig;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Mutations of each format.
fn count() -> u64 {
    std::env::var("MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

/// Numbers that decoders trip over.
const NUMBERS: [u32; 8] = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff];

/// A copy with one to four changes: bits, bytes, numbers in either byte order, digits, pieces cut out, doubled or inserted.
fn mutated(bytes: &[u8], stream: NoiseStream, number: u64) -> Vec<u8> {
    let mut draws = 0;
    let mut below = |bound: usize| {
        draws += 1;
        stream.below(number, draws, bound.max(1) as u64) as usize
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + below(4) {
        // headers stand at the start
        let reach = if below(2) == 0 { bytes.len().min(200) } else { bytes.len() };
        let at = below(reach);
        let end = (at + 1 + below(16)).min(bytes.len());
        match below(9) {
            _ if bytes.is_empty() => bytes.push(below(256) as u8),
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at] = below(256) as u8,
            2 | 3 => {
                let number = NUMBERS[below(NUMBERS.len())];
                let number = if below(2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                let length = [1, 2, 4][below(3)].min(bytes.len() - at);
                bytes[at..at + length].copy_from_slice(&number[..length]);
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            7 => {
                let digits = (0..1 + below(8)).map(|_| b'0' + below(10) as u8).collect::<Vec<_>>();
                bytes.splice(at..at, digits);
            }
            _ => {
                let noise = (0..1 + below(8)).map(|_| below(256) as u8).collect::<Vec<_>>();
                bytes.splice(at..at, noise);
            }
        }
    }
    bytes
}

/// A limit of memory that no mutation reaches, for formats of which only panics are looked for: a picture may be decoded up to
/// the limits of crate `data`.
const ANY: usize = 1 << 40;

/// Opens all mutations of a file and prints how many were read. Opening may allocate `factor` times the length of the file, and a
/// megabyte.
fn try_all(name: &str, file: &Path, factor: usize, open: &dyn Fn() -> bool) {
    let whole = std::fs::read(file).expect("a file");
    let (stream, count) = (Noise::new(7).stream(Purpose::Custom(name.len() as u32)), count());
    assert!(open(), "{name}: the file itself cannot be read");
    let mut read = 0;
    for number in 0..count {
        let bytes = mutated(&whole, stream, number);
        std::fs::write(file, &bytes).expect("written");
        let before = ALLOCATOR.allocated();
        let allowed = factor * bytes.len().max(whole.len()) + (1 << 20);
        // an allocation beyond it aborts the process, which fails the test
        ALLOCATOR.set_limit(before + allowed).expect("room for what is there");
        let opened = catch_unwind(AssertUnwindSafe(open));
        ALLOCATOR.set_limit(usize::MAX).expect("no limit");
        let Ok(was_read) = opened else {
            let kept = std::env::temp_dir().join(format!("mutation-{name}-{number}"));
            std::fs::write(&kept, bytes).expect("written");
            panic!("{name}: mutation {number} panics; it is kept in {}", kept.display());
        };
        read += u64::from(was_read);
    }
    std::fs::write(file, whole).expect("written");
    eprintln!("{name}: {read} of {count} mutations were read");
    assert!(read < count, "{name}: every mutation was read: nothing was tested");
}

/// As [`try_all`], of a file of a dataset at `path`.
fn try_dataset(name: &str, file: &Path, factor: usize, path: &Path) {
    try_all(name, file, factor, &|| data::open(&path.display().to_string(), &LoadOptions::default()).is_ok());
}

// one test: the limit of memory is that of the process
#[test]
fn mutations_are_read_or_refused() {
    // in memory where there is such a folder: a disk is slow to replace a file that often
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a folder");
    let root = folder.path();
    try_arrays_of_bytes(root);
    try_pictures(root);
    try_files_of_python(root);
    try_tables_and_cache(root);
    try_models(root);
    try_files_of_torch(root);
    try_configuration(root);
}

/// IDX, plain and compressed, and CIFAR.
fn try_arrays_of_bytes(root: &Path) {
    // two images of 3x4 pixels
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4][..], &[7; 24]].concat();
    let path = root.join("images-idx3-ubyte");
    std::fs::write(&path, &idx).expect("written");
    try_dataset("idx", &path, 20, &path);
    let path = root.join("images-idx3-ubyte.gz");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&idx).expect("written");
    std::fs::write(&path, gzip.finish().expect("a gzip")).expect("written");
    // deflate can grow a thousand times
    try_dataset("idx.gz", &path, 1100, &path);

    let path = root.join("data_batch_1.bin");
    let cifar: Vec<u8> =
        (0..3).flat_map(|label| std::iter::once(label).chain((0..3072).map(|byte| byte as u8))).collect();
    std::fs::write(&path, cifar).expect("written");
    try_dataset("cifar", &path, 20, &path);
}

fn picture() -> image::RgbImage {
    let values = (0..12 * 9 * 3).map(|byte| (byte * 7) as u8).collect();
    image::RgbImage::from_raw(12, 9, values).expect("a picture")
}

/// A picture in a folder.
fn try_pictures(root: &Path) {
    for extension in ["png", "jpg", "bmp", "gif", "tiff", "ppm", "webp"] {
        let folder = root.join(extension);
        std::fs::create_dir(&folder).expect("a folder");
        let path = folder.join(format!("picture.{extension}"));
        picture().save(&path).expect("written");
        try_dataset(extension, &path, ANY, &folder);
    }
    // bands, floating-point numbers with alpha, a palette, and two pages
    for name in ["bands.tiff", "float.tiff", "palette.tiff", "stack.tiff"] {
        let folder = root.join(name);
        std::fs::create_dir(&folder).expect("a folder");
        let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/image").join(name);
        std::fs::copy(seed, folder.join(name)).expect("written");
        try_dataset(name, &folder.join(name), ANY, &folder);
    }
}

/// Files that Python's libraries wrote.
fn try_files_of_python(root: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/data/tests/golden");
    for (name, factor) in [
        ("hugging_face.parquet", ANY),
        ("pandas.parquet", ANY),
        ("gzip.parquet", ANY),
        ("brotli.parquet", ANY),
        ("pictures.zip", ANY),
        ("arrays.npz", 1100),
        ("floats.npz", 1100),
        ("one_hot.npz", 1100),
        ("deep.npy", 20),
        ("fortran.npy", 20),
    ] {
        let path = root.join(name);
        std::fs::copy(golden.join(name), &path).expect("copied");
        try_dataset(name, &path, factor, &path);
    }
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (name, factor) in [
        ("pickle/protocol_2", 200),
        ("pickle/protocol_4", 200),
        ("tar/webdataset.tar", ANY),
        ("tar/pax.tar", ANY),
        ("tar/gnu.tgz", ANY),
        ("tar/small.tar.bz2", ANY),
    ] {
        let path = root.join(Path::new(name).file_name().expect("a name"));
        std::fs::copy(seeds.join(name), &path).expect("copied");
        try_dataset(name, &path, factor, &path);
    }
}

/// Tables of a folder of pictures, and the cache of that folder.
fn try_tables_and_cache(root: &Path) {
    let folder = root.join("listed");
    std::fs::create_dir(&folder).expect("a folder");
    for name in ["a.png", "b.png"] {
        picture().save(folder.join(name)).expect("written");
    }
    for (name, text) in [
        ("metadata.csv", "file_name,label\na.png,cat\nb.png,dog\n"),
        ("labels.csv", "id;class\na;cat\nb;dog\n"),
        ("metadata.jsonl", "{\"file_name\": \"b.png\", \"label\": 1}\n{\"file_name\": \"a.png\", \"label\": 0}\n"),
        ("dataset.json", "{\"labels\": [[\"a.png\", 1], [\"b.png\", 0]]}"),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        try_dataset(name, &path, ANY, &folder);
        std::fs::remove_file(&path).expect("removed");
    }

    // a broken file of the cache is written again: only one that was taken for whole counts as read
    let cache = Cache { folder: root.join("cache"), at_least: 0, decoded_at_least: 0 };
    let from_cache = || {
        let context = ReadContext { cache: Some(cache.clone()), progress: None };
        let path = folder.display().to_string();
        data::open_with(&Places::default(), &path, &LoadOptions::default(), &context).expect("images").cached
    };
    assert_eq!(from_cache(), Cached::Written);
    let path = cache.entries().expect("a list")[0].path.clone();
    try_all("cache", &path, ANY, &|| from_cache() == Cached::Read);
}

fn digits() -> ImageSet {
    data::open("mnist-5k", &LoadOptions { limit: Some(40), ..LoadOptions::default() }).expect("digits").images
}

/// A network and a classifier.
fn try_models(root: &Path) {
    let device = Device::flex();
    let unet = UnetConfig { dim: 8, dim_mults: vec![1], channels: 1, ..UnetConfig::default() };
    let model = Model {
        unet: unet.init(&device).expect("a network").into(),
        header: Header::new(unet, ImageFormat::new(1, 8, 8)),
    };
    let path = root.join("model.safetensors");
    model.save(&path).expect("saved");
    try_all("model", &path, 40, &|| Model::load(&path, &device).is_ok());

    let options = TrainingOptions { steps: 1, batch_size: 2, ..TrainingOptions::default() };
    let schedule = schedule::ScheduleConfig::default();
    let classifier = NoisedClassifier::train(&digits(), &schedule, options, &device, &mut |_, _| ()).expect("trained");
    let path = root.join("classifier.safetensors");
    classifier.save(&path).expect("saved");
    try_all("classifier", &path, 40, &|| NoisedClassifier::load(&path, &device).is_ok());
}

/// Files of torch.save, and a model in one.
fn try_files_of_torch(root: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/interchange/tests/golden/lucidrains");
    let read_all = |path: &Path| {
        let Ok(file) = TorchFile::open(path) else { return false };
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        names.iter().all(|name| file.tensor(name).is_ok())
    };
    for name in ["zip.pt", "protocol4.pt", "older.pt"] {
        let path = root.join(name);
        std::fs::copy(golden.join(name), &path).expect("copied");
        try_all(name, &path, 40, &|| read_all(&path));
    }
    let device = Device::flex();
    let unet = UnetConfig { dim: 4, dim_mults: vec![1], channels: 1, ..UnetConfig::default() };
    let model = Model {
        unet: unet.init(&device).expect("a network").into(),
        header: Header::new(unet, ImageFormat::new(1, 8, 8)),
    };
    let path = root.join("model.pt");
    lucidrains::export(&model, None, &path).expect("written");
    let options = ImportOptions::default();
    try_all("model.pt", &path, 40, &|| lucidrains::import(&path, &options, &device).is_ok());
}

/// The configuration of a run directory.
fn try_configuration(root: &Path) {
    let mut config = Config::preset("digits").expect("a preset");
    let unet = config.unet.as_unet_mut().expect("lucidrains' network");
    (unet.dim, unet.dim_mults, unet.attention) = (8, vec![1], Vec::new());
    let directory = root.join("run");
    let trainer = Trainer::new(config, digits(), &Device::flex()).expect("a run");
    let run = Run::create(trainer, &directory).expect("a run");
    let path = run.files.config();
    try_all("config", &path, ANY, &|| Run::config_of(&directory).is_ok_and(|config| config.validate().is_ok()));
}
