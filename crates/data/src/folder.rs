//! A folder of images: recursive, in order of path; sub-folders are classes, a flat folder has no labels.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::{Path, PathBuf};

use files::Action;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;
use walkdir::WalkDir;

use crate::error::DataError;
use crate::image_set::{ImageSet, evenly_spread, prepare, zeroed};
use crate::open::Loaded;
use crate::options::LoadOptions;
use crate::transform::Raster;

/// The extensions, in any letter case, that are taken for images. What a file is, is told by its first bytes.
pub const EXTENSIONS: [&str; 15] =
    ["png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "gif", "tif", "tiff", "pnm", "pbm", "pgm", "ppm"];

const LOOKED_FOR: &str = "png, jpg, webp, bmp, gif, tiff or pnm files, in it or in its sub-folders, in any letter case \
                          (hidden files are ignored)";

/// Against decompression bombs: no side of a source image may be longer, ...
const LARGEST_SOURCE_SIDE: u32 = 65_535;
/// ... no decoded image take more bytes, ...
const LARGEST_DECODED: u64 = 512 << 20;
/// ... and no file be longer.
const LARGEST_FILE: u64 = 1 << 30;

/// A file that cannot be read, and why.
type Unreadable = (PathBuf, String);

/// What the header of an image file says; height and width are those after its EXIF orientation.
#[derive(Debug, Clone, Copy)]
struct Header {
    height: usize,
    width: usize,
    channels: usize,
}

/// Reads all images of `root` as `options` say.
///
/// Headers are read first (then sizes and channels are known), and the images decoded straight to their places, both
/// in parallel; the order is that of the paths, whatever thread is quicker.
///
/// # Errors
/// [`DataError::NothingFound`] where there is no image, [`DataError::Unreadable`] where some cannot be read and
/// [`LoadOptions::skip_unreadable`] is not set, [`DataError::MixedSizes`] where they differ in size and
/// [`LoadOptions::size`] is not set; [`DataError::TooLarge`], [`DataError::File`], [`DataError::BadOption`].
pub fn load(name: &str, root: &Path, options: &LoadOptions) -> Result<Loaded, DataError> {
    options.check()?;
    let (mut files, mut unreadable) = find(root)?;
    let class_names = if options.ignore_classes { None } else { class_names(root, &files)? };
    if let Some(limit) = options.limit {
        files = evenly_spread(files.len(), limit).map(|index| files[index].clone()).collect();
    }
    let total = files.len() + unreadable.len();

    let headers: Vec<Result<Header, String>> = files.par_iter().map(|path| read_header(path)).collect();
    let mut readable = Vec::with_capacity(files.len());
    for (path, header) in files.into_iter().zip(headers) {
        match header {
            Ok(header) => readable.push((path, header)),
            Err(reason) => unreadable.push((path, reason)),
        }
    }
    let Some((first_path, first)) = readable.first().cloned() else {
        return Err(unreadable_error(root, unreadable, total));
    };
    if !options.skip_unreadable && !unreadable.is_empty() {
        // so that they are all counted and named at once, those with a good header too
        unreadable.par_extend(
            readable.par_iter().filter_map(|(path, _)| decode(path).err().map(|reason| (path.clone(), reason))),
        );
        return Err(unreadable_error(root, unreadable, total));
    }
    let differs = |header: &Header| (header.height, header.width) != (first.height, first.width);
    if options.size.is_none()
        && let Some((second_path, second)) = readable.iter().find(|(_, header)| differs(header))
    {
        return Err(DataError::MixedSizes {
            first: first_path,
            first_size: (first.height, first.width),
            second: second_path.clone(),
            second_size: (second.height, second.width),
        });
    }
    let (height, width) = options.final_size((first.height, first.width))?;
    let most_channels = readable.iter().map(|(_, header)| header.channels).max();
    let channels = options.channels.or(most_channels).unwrap_or(first.channels);
    let image_len = height * width * channels;

    let mut pixels = zeroed(readable.len(), image_len, root)?;
    let outcomes: Vec<Result<(usize, usize), String>> = pixels
        .par_chunks_exact_mut(image_len)
        .zip(&readable)
        .map(|(slot, (path, _))| {
            let picture = decode(path)?;
            let prepared = prepare(&picture, channels, options).map_err(|error| error.to_string())?;
            if prepared.pixels().len() != slot.len() {
                return Err("changed while it was read".to_string());
            }
            slot.copy_from_slice(prepared.pixels());
            Ok((picture.height(), picture.width()))
        })
        .collect();

    let mut sizes = BTreeMap::new();
    let mut labels = Vec::new();
    let mut kept = 0;
    for (index, ((path, _), outcome)) in readable.into_iter().zip(outcomes).enumerate() {
        match outcome {
            Ok(size) => {
                pixels.copy_within(index * image_len..(index + 1) * image_len, kept * image_len);
                kept += 1;
                *sizes.entry(size).or_insert(0) += 1;
                labels.extend(class_names.as_ref().and_then(|names| label(root, &path, names)));
            }
            Err(reason) => unreadable.push((path, reason)),
        }
    }
    if kept == 0 || !(options.skip_unreadable || unreadable.is_empty()) {
        return Err(unreadable_error(root, unreadable, total));
    }
    pixels.truncate(kept * image_len);
    unreadable.sort();
    let labels = class_names.is_some().then_some(labels);
    // without a target size all images have one
    let content = options.size.or_else(|| sizes.keys().next().copied()).unwrap_or((height, width));
    let images =
        ImageSet::new(name, pixels, [kept, height, width, channels], labels, class_names)?.with_content_size(content);
    Ok(Loaded { images: images.with_source_sizes(sizes), skipped: unreadable, source: root.display().to_string() })
}

/// The image files under `root`, sorted by path, and the entries that the operating system would not show.
fn find(root: &Path) -> Result<(Vec<PathBuf>, Vec<Unreadable>), DataError> {
    let mut files = Vec::new();
    let mut unreadable = Vec::new();
    let mut others = 0;
    let mut an_other = None;
    let visible =
        |entry: &walkdir::DirEntry| entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".");
    for entry in WalkDir::new(root).follow_links(true).into_iter().filter_entry(visible) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => {
                let path = entry.into_path();
                let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
                if EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()) {
                    files.push(path);
                } else {
                    others += 1;
                    an_other.get_or_insert(path);
                }
            }
            Ok(_) => {}
            Err(error) => {
                let path = error.path().unwrap_or(root).to_path_buf();
                if error.depth() == 0 {
                    let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other("a loop of links"));
                    return Err(DataError::io(Action::List, &path, source));
                }
                unreadable.push((path, error.to_string()));
            }
        }
    }
    files.sort();
    if files.is_empty() && unreadable.is_empty() {
        let found = match an_other {
            None => "is empty".to_string(),
            Some(path) => format!("has no image among its {others} files (one is {})", path.display()),
        };
        return Err(DataError::NothingFound { path: root.to_path_buf(), found, looked_for: LOOKED_FOR });
    }
    Ok((files, unreadable))
}

/// The first-level folder that holds `path`, or `None` where it lies in `root` itself.
fn class_of(root: &Path, path: &Path) -> Option<String> {
    let mut inner = path.strip_prefix(root).ok()?.components();
    let first = inner.next()?;
    inner.next()?;
    Some(first.as_os_str().to_string_lossy().into_owned())
}

/// The names of the first-level folders with images, sorted; `None` where all images lie in `root` itself.
fn class_names(root: &Path, files: &[PathBuf]) -> Result<Option<Vec<String>>, DataError> {
    let mut names = BTreeSet::new();
    let mut flat = None;
    let mut nested = None;
    for path in files {
        match class_of(root, path) {
            Some(name) => {
                names.insert(name);
                nested.get_or_insert(path);
            }
            None => {
                flat.get_or_insert(path);
            }
        }
    }
    match (flat, nested) {
        (Some(flat), Some(nested)) => Err(DataError::bad_file(
            root,
            format!(
                "has images both beside and in its sub-folders ({} and {}), so it is unclear whether the sub-folders \
                 are classes; move the former into one, or set `ignore_classes = true`",
                flat.display(),
                nested.display()
            ),
        )),
        (None, Some(_)) => Ok(Some(names.into_iter().collect())),
        _ => Ok(None),
    }
}

fn label(root: &Path, path: &Path, names: &[String]) -> Option<u32> {
    let name = class_of(root, path)?;
    names.binary_search(&name).ok().and_then(|at| u32::try_from(at).ok())
}

fn unreadable_error(root: &Path, mut unreadable: Vec<Unreadable>, total: usize) -> DataError {
    unreadable.sort();
    let mut lines: Vec<String> =
        unreadable.iter().take(5).map(|(path, reason)| format!("  {}: {reason}", path.display())).collect();
    if unreadable.len() > 5 {
        lines.push(format!("  and {} more", unreadable.len() - 5));
    }
    DataError::Unreadable { path: root.to_path_buf(), count: unreadable.len(), total, first: lines.join("\n") }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SOURCE_SIDE);
    limits.max_image_height = Some(LARGEST_SOURCE_SIDE);
    limits.max_alloc = Some(LARGEST_DECODED);
    limits
}

/// Opens a decoder, and refuses what would decode to too many bytes.
fn decoder<'a, R: std::io::BufRead + std::io::Seek + 'a>(
    reader: ImageReader<R>,
) -> Result<impl ImageDecoder + 'a, String> {
    let mut reader = reader.with_guessed_format().map_err(|error| error.to_string())?;
    reader.limits(limits());
    let decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(format!("has no pixel: {height}x{width}"));
    }
    if decoder.total_bytes() > LARGEST_DECODED {
        let bytes = decoder.total_bytes();
        return Err(format!(
            "{height}x{width} would decode to {bytes} bytes, more than the limit of {LARGEST_DECODED}"
        ));
    }
    Ok(decoder)
}

fn read_header(path: &Path) -> Result<Header, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length > LARGEST_FILE {
        return Err(format!("has {length} bytes, more than the limit of {LARGEST_FILE} for an image"));
    }
    if length == 0 {
        return Err("is empty".into());
    }
    let mut reader = ImageReader::new(BufReader::new(file));
    if let Ok(format) = ImageFormat::from_path(path) {
        reader.set_format(format);
    }
    let mut decoder = decoder(reader)?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    let (mut height, mut width) = (height as usize, width as usize);
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    if let Ok(Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH) = decoder.orientation() {
        std::mem::swap(&mut height, &mut width);
    }
    Ok(Header { height, width, channels: channels_of(color) })
}

fn channels_of(color: image::ColorType) -> usize {
    match (color.has_alpha(), color.has_color()) {
        (true, _) => 4,
        (false, true) => 3,
        (false, false) => 1,
    }
}

/// Decodes an image file (a GIF's first frame) to 8 bits and 1, 3 or 4 channels, turned as its EXIF orientation says.
fn decode(path: &Path) -> Result<Raster, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut reader = ImageReader::new(Cursor::new(&bytes));
    if let Ok(format) = ImageFormat::from_path(path) {
        reader.set_format(format);
    }
    let mut decoder = decoder(reader)?;
    if bytes.starts_with(&[0xff, 0xd8]) && !jpeg_ends(&bytes) {
        return Err("truncated: this JPEG has no end marker".into());
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    image.apply_orientation(orientation);
    let (height, width) = (image.height() as usize, image.width() as usize);
    let channels = channels_of(image.color());
    let pixels = match channels {
        1 => image.into_luma8().into_raw(),
        3 => image.into_rgb8().into_raw(),
        _ => image.into_rgba8().into_raw(),
    };
    Raster::new(pixels, height, width, channels).map_err(|error| error.to_string())
}

/// Whether an end marker (ff d9) comes after the first start of scan (ff da): the decoder is lenient and would fill what
/// is missing with grey. The segments before it are stepped over, for a thumbnail in them has its own end marker; in
/// a scan, ff is always followed by 00 or a restart marker.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        match marker {
            0xff => at += 1,
            0xda => return bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    // not laid out as expected: that is for the decoder to judge
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::write;
    use image::{GrayImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn grey(height: u32, width: u32, value: u8) -> Vec<u8> {
        encoded(GrayImage::from_pixel(width, height, Luma([value])), ImageFormat::Png)
    }

    fn load_default(root: &tempfile::TempDir) -> Result<Loaded, DataError> {
        load("test", root.path(), &LoadOptions::default())
    }

    /// Red on the left half, blue on the right.
    fn halves(height: u32, width: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) })
    }

    /// Puts an EXIF segment with nothing but `orientation` after the start marker of a JPEG.
    fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01".to_vec();
        exif.extend([0x01, 0x12, 0x00, 0x03, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0]);
        let mut bytes = jpeg[..2].to_vec();
        bytes.extend([0xff, 0xe1]);
        bytes.extend((exif.len() as u16 + 2).to_be_bytes());
        bytes.extend(exif);
        bytes.extend(&jpeg[2..]);
        bytes
    }

    #[test]
    fn every_format_in_any_letter_case() {
        let root = tempfile::tempdir().unwrap();
        let picture = RgbImage::from_pixel(4, 3, Rgb([200, 100, 50]));
        for (name, format) in [
            ("a.PNG", ImageFormat::Png),
            ("b.Jpg", ImageFormat::Jpeg),
            ("c.WEBP", ImageFormat::WebP),
            ("d.bmp", ImageFormat::Bmp),
            ("e.GIF", ImageFormat::Gif),
            ("f.TIFF", ImageFormat::Tiff),
            ("g.ppm", ImageFormat::Pnm),
            ("h-is-a-jpeg.png", ImageFormat::Jpeg),
        ] {
            write(&root, name, &encoded(picture.clone(), format));
        }
        write(&root, ".hidden.png", b"not an image");
        write(&root, ".cache/also-hidden.png", b"not an image");
        write(&root, "notes.txt", b"ignored");
        let options = LoadOptions { channels: Some(3), ..LoadOptions::default() };
        let set = load("formats", root.path(), &options).unwrap().images;
        assert_eq!((set.len(), set.height(), set.width(), set.channels()), (8, 3, 4, 3));
        assert_eq!(set.labels(), None);
        for index in 0..8 {
            for (got, wanted) in set.image(index).iter().zip([200, 100, 50].iter().cycle()) {
                assert!(got.abs_diff(*wanted) <= 3, "image {index}: {got} instead of {wanted}");
            }
        }
    }

    #[test]
    fn sixteen_bits_and_every_colour_type() {
        let root = tempfile::tempdir().unwrap();
        let deep: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_fn(2, 1, |x, _| Luma([[0x8080, 0xffff][x as usize]]));
        write(&root, "a.png", &encoded(deep, ImageFormat::Png));
        let set = load_default(&root).unwrap().images;
        assert_eq!((set.channels(), set.image(0)), (1, [0x80, 0xff].as_slice()));

        let deep: ImageBuffer<Rgb<u16>, _> = ImageBuffer::from_pixel(2, 1, Rgb([0, 0x1010, 0xffff]));
        write(&root, "b.png", &encoded(deep, ImageFormat::Png));
        let set = load_default(&root).unwrap().images;
        assert_eq!((set.channels(), set.image(1)), (3, [0, 0x10, 0xff, 0, 0x10, 0xff].as_slice()));
        assert_eq!(set.image(0)[..3], [0x80; 3]);

        let pale: ImageBuffer<LumaA<u8>, _> = ImageBuffer::from_pixel(2, 1, LumaA([9, 128]));
        write(&root, "c.png", &encoded(pale, ImageFormat::Png));
        write(&root, "d.png", &encoded(RgbaImage::from_pixel(2, 1, Rgba([1, 2, 3, 4])), ImageFormat::Png));
        let set = load_default(&root).unwrap().images;
        assert_eq!(
            (set.channels(), &set.image(2)[..4], &set.image(3)[..4]),
            (4, &[9, 9, 9, 128][..], &[1, 2, 3, 4][..])
        );
        assert_eq!(set.image(0)[..4], [0x80, 0x80, 0x80, 255]);
    }

    #[test]
    fn exif_orientation_is_applied() {
        let root = tempfile::tempdir().unwrap();
        let jpeg = encoded(halves(16, 32), ImageFormat::Jpeg);
        write(&root, "plain.jpg", &jpeg);
        let upright = load_default(&root).unwrap().images;
        assert_eq!((upright.height(), upright.width()), (16, 32));
        // 6: the camera was turned; show it rotated by 90 degrees clockwise. Red, on the left, comes to the top.
        write(&root, "plain.jpg", &with_orientation(&jpeg, 6));
        let turned = load_default(&root).unwrap().images;
        assert_eq!((turned.height(), turned.width()), (32, 16));
        let pixel = |row: usize, column: usize| &turned.image(0)[(row * 16 + column) * 3..][..3];
        assert!(pixel(2, 2)[0] > 200 && pixel(2, 14)[0] > 200, "red is not on top: {:?}", pixel(2, 14));
        assert!(pixel(29, 2)[2] > 200, "blue is not below");
        // 3: by 180 degrees
        write(&root, "plain.jpg", &with_orientation(&jpeg, 3));
        let turned = load_default(&root).unwrap().images;
        assert_eq!(turned.width(), 32);
        assert!(turned.image(0)[2] > 200, "blue is not on the left");
    }

    #[test]
    fn a_gif_gives_its_first_frame() {
        let root = tempfile::tempdir().unwrap();
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
        for value in [255, 0] {
            encoder
                .encode_frame(image::Frame::new(RgbaImage::from_pixel(2, 2, Rgba([value, value, value, 255]))))
                .unwrap();
        }
        drop(encoder);
        write(&root, "a.gif", &bytes);
        let options = LoadOptions { channels: Some(1), ..LoadOptions::default() };
        assert_eq!(load("gif", root.path(), &options).unwrap().images.image(0), [255; 4]);
    }

    #[test]
    fn sub_folders_are_classes() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "dog/2.png", &grey(2, 2, 3));
        write(&root, "cat/deep/er/1.png", &grey(2, 2, 2));
        write(&root, "cat/1.png", &grey(2, 2, 1));
        write(&root, "empty/readme.txt", b"no image here");
        let set = load_default(&root).unwrap().images;
        assert_eq!(set.class_names(), Some(["cat".to_string(), "dog".to_string()].as_slice()));
        assert_eq!(set.labels(), Some([0, 0, 1].as_slice()));
        assert_eq!([set.image(0)[0], set.image(1)[0], set.image(2)[0]], [1, 2, 3]);

        write(&root, "stray.png", &grey(2, 2, 9));
        let error = load_default(&root).unwrap_err().to_string();
        assert!(error.contains("stray.png") && error.contains("ignore_classes"), "{error}");
        let options = LoadOptions { ignore_classes: true, ..LoadOptions::default() };
        let set = load("mixed", root.path(), &options).unwrap().images;
        assert_eq!((set.len(), set.labels(), set.classes()), (4, None, 0));
    }

    #[test]
    fn different_sizes_need_a_target() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "a.png", &grey(10, 20, 50));
        write(&root, "b.png", &grey(10, 20, 50));
        write(&root, "c.png", &grey(30, 15, 50));
        let error = load_default(&root).unwrap_err().to_string();
        assert!(error.contains("a.png is 10x20") && error.contains("c.png is 30x15"), "{error}");
        let options = LoadOptions { size: Some((8, 8)), ..LoadOptions::default() };
        let set = load("sizes", root.path(), &options).unwrap().images;
        assert_eq!((set.len(), set.height(), set.width()), (3, 8, 8));
        assert_eq!(set.source_sizes(), Some(&BTreeMap::from([((10, 20), 2), ((30, 15), 1)])));
        assert_eq!(crate::inspect(&set).source_sizes, [((10, 20), 2), ((30, 15), 1)]);
        assert!(set.image(2).iter().all(|&value| value == 50));
    }

    /// One broken file of each kind; each must be noticed, and none of them take the others along.
    fn broken(root: &tempfile::TempDir) -> Vec<&'static str> {
        let noise = RgbImage::from_fn(64, 64, |x, y| Rgb([(x * y * 7) as u8, (x * 31 + y) as u8, (y * 17) as u8]));
        let files: Vec<(&str, ImageFormat)> = vec![
            ("bad/cut.bmp", ImageFormat::Bmp),
            ("bad/cut.gif", ImageFormat::Gif),
            ("bad/cut.jpg", ImageFormat::Jpeg),
            ("bad/cut.png", ImageFormat::Png),
            ("bad/cut.ppm", ImageFormat::Pnm),
            ("bad/cut.tif", ImageFormat::Tiff),
            ("bad/cut.webp", ImageFormat::WebP),
        ];
        for (name, format) in &files {
            let bytes = encoded(noise.clone(), *format);
            write(root, name, &bytes[..bytes.len() / 2]);
        }
        write(root, "bad/empty.png", b"");
        write(root, "bad/text.jpg", b"this is no picture");
        let mut flipped = encoded(noise, ImageFormat::Png);
        let middle = flipped.len() / 2;
        flipped[middle..middle + 8].fill(0xaa);
        write(root, "bad/flipped.png", &flipped);
        // a PNG of 100 bytes that claims 60,000 x 60,000 pixels
        let mut bomb = grey(1, 1, 0);
        bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        write(root, "bad/bomb.png", &bomb);
        write(root, "bad/bomb.pgm", b"P5 60000 60000 255\nabc");
        let mut names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        names.extend(["bad/empty.png", "bad/text.jpg", "bad/flipped.png", "bad/bomb.png", "bad/bomb.pgm"]);
        names.sort_unstable();
        names
    }

    #[test]
    fn unreadable_files_are_counted_and_named() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "good/1.png", &grey(64, 64, 1));
        write(&root, "good/2.png", &grey(64, 64, 2));
        let names = broken(&root);
        let options = LoadOptions { skip_unreadable: true, channels: Some(1), ..LoadOptions::default() };
        let loaded = load("broken", root.path(), &options).unwrap();
        let skipped: Vec<String> = loaded
            .skipped
            .iter()
            .map(|(path, _)| path.strip_prefix(root.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(skipped, names);
        assert_eq!(loaded.images.len(), 2);
        assert_eq!((loaded.images.image(0)[0], loaded.images.image(1)[0]), (1, 2));
        // the class of nothing but broken files is still a class
        assert_eq!((loaded.images.classes(), loaded.images.labels()), (2, Some([1, 1].as_slice())));

        let error = load_default(&root).unwrap_err().to_string();
        assert!(error.contains("skip_unreadable") && error.contains("bad/bomb.png"), "{error}");
        let DataError::Unreadable { count, total, first, .. } = load_default(&root).unwrap_err() else { panic!() };
        assert_eq!((count, total), (names.len(), names.len() + 2));
        assert!(first.lines().count() <= 6);
    }

    #[test]
    fn a_jpeg_is_whole_whatever_lies_around_it() {
        let jpeg = encoded(halves(16, 32), ImageFormat::Jpeg);
        // a thumbnail in a segment before the picture, and another start of scan behind its end
        let mut decorated = jpeg[..2].to_vec();
        decorated.extend([0xff, 0xe2, 0, 2 + 4, 0xff, 0xda, 0xff, 0xd9]);
        decorated.extend(&jpeg[2..]);
        assert!(jpeg_ends(&jpeg) && jpeg_ends(&decorated));
        assert!(!jpeg_ends(&decorated[..decorated.len() - 2]));
        decorated.extend([0xff, 0xda, 0, 0]);
        assert!(jpeg_ends(&decorated));
    }

    /// However a file is damaged, the answer is a picture or a reason.
    #[test]
    fn damaged_files_never_panic() {
        let root = tempfile::tempdir().unwrap();
        let noise = RgbImage::from_fn(24, 24, |x, y| Rgb([(x * y * 7) as u8, (x * 31 + y) as u8, (y * 17) as u8]));
        let mut state = 1u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let formats = [
            ImageFormat::Bmp,
            ImageFormat::Gif,
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::Pnm,
            ImageFormat::Tiff,
            ImageFormat::WebP,
        ];
        let mut refused = 0;
        for format in formats {
            let whole = encoded(noise.clone(), format);
            for _ in 0..100 {
                let mut bytes = whole.clone();
                for _ in 0..=random(4) {
                    // headers are the more interesting half
                    let reach = if random(2) == 0 { bytes.len().min(64) } else { bytes.len() };
                    let at = random(reach);
                    bytes[at] = random(256) as u8;
                }
                let path = write(&root, "damaged.png", &bytes);
                refused += usize::from(read_header(&path).and_then(|_| decode(&path)).is_err());
            }
        }
        assert!(refused > 100, "only {refused} of 700 damaged files were refused");
    }

    #[test]
    fn an_unreadable_image_alone_is_an_error_even_when_skipping() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "a.png", &grey(8, 8, 1)[..40]);
        let options = LoadOptions { skip_unreadable: true, ..LoadOptions::default() };
        let error = load("bad", root.path(), &options).unwrap_err().to_string();
        assert!(error.contains("1 of 1") && error.contains("a.png"), "{error}");
    }

    #[test]
    fn folders_without_images_say_what_was_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let error = load_default(&root).unwrap_err().to_string();
        assert!(error.contains("is empty") && error.contains("png"), "{error}");
        write(&root, "notes.txt", b"hello");
        let error = load_default(&root).unwrap_err().to_string();
        assert!(error.contains("notes.txt") && error.contains("webp"), "{error}");
        let missing = root.path().join("missing");
        let error = load("missing", &missing, &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
    }

    #[test]
    fn limits_take_from_every_class() {
        let root = tempfile::tempdir().unwrap();
        for class in ["a", "b", "c"] {
            for number in 0..4 {
                write(&root, &format!("{class}/{number}.png"), &grey(2, 2, 1));
            }
        }
        let options = LoadOptions { limit: Some(3), ..LoadOptions::default() };
        let set = load("limited", root.path(), &options).unwrap().images;
        assert_eq!((set.labels(), set.classes()), (Some([0, 1, 2].as_slice()), 3));
    }

    #[test]
    fn parallel_reading_keeps_the_order() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..200u8 {
            write(&root, &format!("{number:03}.png"), &grey(if number % 3 == 0 { 90 } else { 4 }, 4, number));
        }
        let options = LoadOptions { size: Some((4, 4)), ..LoadOptions::default() };
        let set = load("order", root.path(), &options).unwrap().images;
        assert!((0..200).all(|number| set.image(number)[5] == number as u8));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_loops_are_named() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "a/1.png", &grey(2, 2, 1));
        std::os::unix::fs::symlink(root.path().join("a"), root.path().join("b")).unwrap();
        assert_eq!(load_default(&root).unwrap().images.len(), 2);
        std::os::unix::fs::symlink(root.path(), root.path().join("a/loop")).unwrap();
        assert!(load_default(&root).unwrap_err().to_string().contains("loop"));
    }
}
