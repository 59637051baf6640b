//! A folder of images: recursive, in order of path. Its splits and classes are found as those of an archive.

use std::path::{Path, PathBuf};

use files::Action;
use walkdir::WalkDir;

use crate::account::Account;
use crate::collect::{Collection, Source, Unreadable, Visitor};
use crate::context::ReadContext;
use crate::decode::Encoded;
use crate::disk;
use crate::error::DataError;
use crate::formats::{FIRST_BYTES, is_image};
use crate::listing::Listing;
use crate::litter::{self, is_passed_over};
use crate::loaded::Loaded;
use crate::metadata;
use crate::options::LoadOptions;
use crate::tree::Tree;

pub use crate::formats::EXTENSIONS;

/// Reads all images of `root` as `options` say.
///
/// Headers are read first, so that sizes and channels are known, then the images decoded straight to their places, both in
/// parallel; the order is that of the paths. Where `root` has a table of the images, they are those that it lists, in the
/// order of a `metadata.csv` or `metadata.jsonl`.
///
/// # Errors
/// [`DataError::NothingFound`] where there is no image, [`DataError::Unreadable`] where some cannot be read and
/// [`LoadOptions::skip_unreadable`] is not set, [`DataError::MixedSizes`] where they differ in size and
/// [`LoadOptions::size`] is not set; [`DataError::TooLarge`], [`DataError::File`], [`DataError::BadOption`].
pub fn load(name: &str, root: &Path, options: &LoadOptions) -> Result<Loaded, DataError> {
    options.check()?;
    load_with(name, root, options, &ReadContext::default())
}

pub(crate) fn load_with(
    name: &str,
    root: &Path,
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Loaded, DataError> {
    let (paths, unreadable) = find(root)?;
    let files = Listing::of(paths, &|path| disk::first_bytes(&root.join(path), FIRST_BYTES));
    let exists = |path: &Path| root.join(path).is_file();
    let table = |path: &Path| exists(path).then(|| disk::read(&root.join(path), metadata::LARGEST)).transpose();
    let pictures = Tree { root, files, unreadable, account: Account::default(), exists: &exists, table: &table }
        .pictures(options)?;
    let whole = |path: &PathBuf| (path.display().to_string(), pictures.folder.join(path));
    Collection {
        name,
        root: &pictures.folder,
        files: pictures.paths.iter().map(whole).collect(),
        source: &Files(pictures.paths.iter().map(|path| pictures.folder.join(path)).collect()),
        classes: pictures.classes,
        unreadable: pictures.unreadable,
        account: pictures.account,
    }
    .load(options, context)
}

/// Pictures that are files.
struct Files(Vec<PathBuf>);

impl Source for Files {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn title(&self, index: usize) -> PathBuf {
        self.0[index].clone()
    }

    fn visit(&self, indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError> {
        indices.iter().try_for_each(|&index| visit(index, Encoded::File(self.title(index))))
    }
}

/// The files under `root`, relative to it, and the entries that cannot be listed. Folders that are passed over are among the
/// files, and not looked into: they may lead anywhere.
fn find(root: &Path) -> Result<(Vec<PathBuf>, Vec<Unreadable>), DataError> {
    let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_path_buf();
    let (mut paths, mut unreadable) = (Vec::new(), Vec::new());
    let mut entries = WalkDir::new(root).follow_links(true).into_iter();
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if entry.depth() > 0 && is_passed_over(entry.file_name()) => {
                paths.push(relative(entry.path()));
                if entry.file_type().is_dir() {
                    entries.skip_current_dir();
                }
            }
            Ok(entry) if entry.file_type().is_dir() => {}
            // to open a pipe may block
            Ok(entry) if is_image(entry.path()) && !entry.file_type().is_file() => {
                unreadable.push((entry.into_path(), "is no regular file".to_string()));
            }
            Ok(entry) => paths.push(relative(entry.path())),
            Err(error) => {
                let path = error.path().unwrap_or(root).to_path_buf();
                let inner = relative(&path);
                if error.depth() == 0 {
                    let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other("a loop of links"));
                    return Err(DataError::io(Action::List, &path, source));
                }
                // a link to nowhere, or a folder that may not be read, is no loss if it is none of a picture
                if litter::passed_over(&inner).is_some()
                    || (inner.extension().is_some() && !is_image(&inner) && !path.is_dir())
                {
                    paths.push(inner);
                } else {
                    unreadable.push((path, error.to_string()));
                }
            }
        }
    }
    Ok((paths, unreadable))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::decode::jpeg_ends;
    use crate::options::{ClassFrom, Split};
    use crate::testing::{encoded, gray, write};
    use image::{ImageBuffer, ImageEncoder, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};

    fn load_default(root: &tempfile::TempDir) -> Result<Loaded, DataError> {
        load("test", root.path(), &LoadOptions::default())
    }

    /// Red on the left half, blue on the right.
    fn halves(height: u32, width: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) })
    }

    /// Inserts an EXIF segment with only `orientation` after the start marker of a JPEG.
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
    fn sixteen_bits_and_every_color_type() {
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
        // 6: shown rotated by 90 degrees clockwise: red, on the left, is then on top
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
    fn exif_orientation_is_applied_in_png_and_webp() {
        // the same orientation as in a JPEG, without the start of its segment
        let exif = with_orientation(&[0xff, 0xd8], 6)[12..].to_vec();
        let picture = halves(16, 32);
        let root = tempfile::tempdir().unwrap();
        let create = |name: &str| std::fs::File::create(root.path().join(name)).unwrap();
        let mut encoder = image::codecs::png::PngEncoder::new(create("a.png"));
        encoder.set_exif_metadata(exif.clone()).unwrap();
        picture.write_with_encoder(encoder).unwrap();
        let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(create("b.webp"));
        encoder.set_exif_metadata(exif).unwrap();
        picture.write_with_encoder(encoder).unwrap();
        let images = load_default(&root).unwrap().images;
        assert_eq!((images.len(), images.height(), images.width()), (2, 32, 16));
        for index in 0..2 {
            let pixel = |row: usize, column: usize| &images.image(index)[(row * 16 + column) * 3..][..3];
            assert_eq!(
                (pixel(0, 0), pixel(0, 15), pixel(31, 0)),
                (&[255, 0, 0][..], &[255, 0, 0][..], &[0, 0, 255][..])
            );
        }
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

    /// The decoder of GIFs gives every one an alpha, which is no word of the file.
    #[test]
    fn a_gif_has_alpha_only_where_it_is_transparent() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "a.gif", &encoded(RgbaImage::from_pixel(2, 1, Rgba([255, 0, 0, 255])), ImageFormat::Gif));
        let loaded = load_default(&root).unwrap();
        assert_eq!((loaded.images.channels(), loaded.account.lines().as_slice()), (3, [].as_slice()));
        write(&root, "b.gif", &encoded(RgbaImage::from_pixel(2, 1, Rgba([255, 0, 0, 0])), ImageFormat::Gif));
        let loaded = load_default(&root).unwrap();
        assert_eq!((loaded.images.channels(), loaded.images.image(1)), (3, [255; 6].as_slice()));
        assert!(loaded.account.lines()[0].contains("laid on white"), "{:?}", loaded.account);
        let three = LoadOptions { channels: Some(3), ..LoadOptions::default() };
        let lines = load("three", root.path(), &three).unwrap().account.lines();
        assert!(lines[0].contains("1 of 2 pictures have transparent pixels: laid on white"), "{lines:?}");
    }

    #[test]
    fn sub_folders_are_classes() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "dog/2.png", &gray(2, 2, 3));
        write(&root, "cat/deep/er/1.png", &gray(2, 2, 2));
        write(&root, "cat/1.png", &gray(2, 2, 1));
        write(&root, "empty/readme.txt", b"no image here");
        let set = load_default(&root).unwrap().images;
        assert_eq!(set.class_names(), Some(["cat".to_string(), "dog".to_string()].as_slice()));
        assert_eq!(set.labels(), Some([0, 0, 1].as_slice()));
        assert_eq!([set.image(0)[0], set.image(1)[0], set.image(2)[0]], [1, 2, 3]);

        write(&root, "stray.png", &gray(2, 2, 9));
        let error = load_default(&root).unwrap_err().to_string();
        assert!(error.contains("stray.png") && error.contains("data.class_from"), "{error}");
        let options = LoadOptions { class_from: ClassFrom::None, ..LoadOptions::default() };
        let set = load("mixed", root.path(), &options).unwrap().images;
        assert_eq!((set.len(), set.labels(), set.classes()), (4, None, 0));
    }

    #[test]
    fn a_table_lists_images_and_labels() {
        let root = tempfile::tempdir().unwrap();
        for (name, shade) in [("1.png", 1), ("deep/2.png", 2), ("3.png", 3)] {
            write(&root, name, &gray(2, 2, shade));
        }
        write(&root, "metadata.csv", b"file_name,label,breed\ndeep/2.png,dog,7\n1.png,cat,0\n");
        let set = load_default(&root).unwrap().images;
        assert_eq!((set.len(), set.image(0)[0], set.image(1)[0]), (2, 2, 1));
        assert_eq!((set.labels(), set.class_names().map(<[_]>::len)), (Some([1, 0].as_slice()), Some(2)));
        let breed = LoadOptions { label_column: Some("breed".into()), ..LoadOptions::default() };
        let set = load("breeds", root.path(), &breed).unwrap().images;
        assert_eq!(
            (set.labels(), set.classes(), set.class_names().unwrap()[1].as_str()),
            (Some([1, 0].as_slice()), 2, "7")
        );
        // no image with label 0 is left, but the number of classes is unchanged
        let set = load("one", root.path(), &LoadOptions { limit: Some(1), ..breed.clone() }).unwrap().images;
        assert_eq!((set.len(), set.classes()), (1, 2));

        write(&root, "metadata.csv", b"file_name,label\n1.png,cat\ngone.png,dog\n3.png,dog\n");
        let error = load_default(&root).unwrap_err().to_string();
        assert!(error.contains("gone.png: is listed in metadata.csv, but not there"), "{error}");
        let skip = LoadOptions { skip_unreadable: true, ..LoadOptions::default() };
        let loaded = load("skipped", root.path(), &skip).unwrap();
        assert_eq!((loaded.images.labels(), loaded.skipped.len()), (Some([0, 1].as_slice()), 1));
        // titles are of the pictures that were kept, also in a subset
        let last = loaded.images.subset([1]);
        assert_eq!((last.title(0), last.title(1)), (loaded.images.title(1), None));
        assert!(last.title(0).is_some_and(|title| Path::new(&title).is_file()), "{:?}", last.title(0));

        std::fs::remove_file(root.path().join("metadata.csv")).unwrap();
        let error = load("none", root.path(), &breed).unwrap_err().to_string();
        assert!(error.contains("data.label_column: ") && error.contains("metadata.jsonl"), "{error}");
    }

    #[test]
    fn folders_with_the_names_train_and_test_are_splits() {
        let root = tempfile::tempdir().unwrap();
        for (name, shade) in [("train/cat/1.png", 1), ("train/dog/1.png", 2), ("test/cat/1.png", 3)] {
            write(&root, name, &gray(2, 2, shade));
        }
        let train = load_default(&root).unwrap().images;
        assert_eq!((train.labels(), train.image(1)[0]), (Some([0, 1].as_slice()), 2));
        let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
        let images = load("test", root.path(), &test).unwrap().images;
        assert_eq!((images.len(), images.image(0)[0]), (1, 3));
        let error = load("train", &root.path().join("train"), &test).unwrap_err();
        assert!(error.is_missing_split(), "{error}");
    }

    #[test]
    fn sixteen_bits_are_kept_on_demand() {
        let root = tempfile::tempdir().unwrap();
        let deep: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_fn(2, 1, |x, _| Luma([[0x8081, 0xfffe][x as usize]]));
        write(&root, "a.png", &encoded(deep, ImageFormat::Png));
        write(&root, "b.png", &gray(1, 2, 0x40));
        let keep = LoadOptions { sixteen_bits: true, ..LoadOptions::default() };
        let set = load("deep", root.path(), &keep).unwrap().images;
        assert!(set.sixteen_bits());
        assert_eq!((set.image(0), set.image(1)), ([0x81, 0x80, 0xfe, 0xff].as_slice(), [0x40; 4].as_slice()));
        // images of bytes stay bytes
        std::fs::remove_file(root.path().join("a.png")).unwrap();
        assert!(!load("bytes", root.path(), &keep).unwrap().images.sixteen_bits());
    }

    #[test]
    fn different_sizes_need_a_target() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "a.png", &gray(10, 20, 50));
        write(&root, "b.png", &gray(10, 20, 50));
        write(&root, "c.png", &gray(30, 15, 50));
        let error = load_default(&root).unwrap_err().to_string();
        assert!(error.contains("a.png is 10x20") && error.contains("c.png is 30x15"), "{error}");
        let options = LoadOptions { size: Some((8, 8)), ..LoadOptions::default() };
        let set = load("sizes", root.path(), &options).unwrap().images;
        assert_eq!((set.len(), set.height(), set.width()), (3, 8, 8));
        assert_eq!(set.source_sizes(), Some(&BTreeMap::from([((10, 20), 2), ((30, 15), 1)])));
        assert_eq!(crate::inspect(&set).source_sizes, [((10, 20), 2), ((30, 15), 1)]);
        assert!(set.image(2).iter().all(|&value| value == 50));
    }

    /// One broken file of each format.
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
        let mut bomb = gray(1, 1, 0);
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
        write(&root, "good/1.png", &gray(64, 64, 1));
        write(&root, "good/2.png", &gray(64, 64, 2));
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
        // a class of broken files only is still a class
        assert_eq!((loaded.images.classes(), loaded.images.labels()), (2, Some([1, 1].as_slice())));

        let error = load_default(&root).unwrap_err().to_string();
        assert!(error.contains("skip_unreadable") && error.contains("bad/bomb.png"), "{error}");
        let DataError::Unreadable { count, total, first, .. } = load_default(&root).unwrap_err() else { panic!() };
        assert_eq!((count, total), (names.len(), names.len() + 2));
        assert!(first.lines().count() <= 6);
    }

    #[test]
    fn a_jpeg_is_complete_with_segments_around_it() {
        let jpeg = encoded(halves(16, 32), ImageFormat::Jpeg);
        // a thumbnail in a segment before the picture, and a start of scan behind its end
        let mut decorated = jpeg[..2].to_vec();
        decorated.extend([0xff, 0xe2, 0, 2 + 4, 0xff, 0xda, 0xff, 0xd9]);
        decorated.extend(&jpeg[2..]);
        assert!(jpeg_ends(&jpeg) && jpeg_ends(&decorated));
        assert!(!jpeg_ends(&decorated[..decorated.len() - 2]));
        decorated.extend([0xff, 0xda, 0, 0]);
        assert!(jpeg_ends(&decorated));
    }

    /// A damaged file gives a picture or a reason.
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
                    // half of the changes are in the header
                    let reach = if random(2) == 0 { bytes.len().min(64) } else { bytes.len() };
                    let at = random(reach);
                    bytes[at] = random(256) as u8;
                }
                let encoded = Encoded::File(write(&root, "damaged.png", &bytes));
                refused += usize::from(encoded.look().and_then(|_| encoded.decode_in::<u8>(None, None)).is_err());
            }
        }
        assert!(refused > 100, "only {refused} of 700 damaged files were refused");
    }

    #[test]
    fn an_unreadable_image_alone_is_an_error_even_when_skipping() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "a.png", &gray(8, 8, 1)[..40]);
        let options = LoadOptions { skip_unreadable: true, ..LoadOptions::default() };
        let error = load("bad", root.path(), &options).unwrap_err().to_string();
        assert!(error.contains("1 of 1") && error.contains("a.png"), "{error}");
    }

    #[test]
    fn folders_without_images_are_errors_with_the_formats() {
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
                write(&root, &format!("{class}/{number}.png"), &gray(2, 2, 1));
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
            write(&root, &format!("{number:03}.png"), &gray(if number % 3 == 0 { 90 } else { 4 }, 4, number));
        }
        let options = LoadOptions { size: Some((4, 4)), ..LoadOptions::default() };
        let set = load("order", root.path(), &options).unwrap().images;
        assert!((0..200).all(|number| set.image(number)[5] == number as u8));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_loops_are_named() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "a/1.png", &gray(2, 2, 1));
        std::os::unix::fs::symlink(root.path().join("a"), root.path().join("b")).unwrap();
        assert_eq!(load_default(&root).unwrap().images.len(), 2);
        std::os::unix::fs::symlink(root.path(), root.path().join("a/loop")).unwrap();
        assert!(load_default(&root).unwrap_err().to_string().contains("loop"));
    }

    #[cfg(unix)]
    #[test]
    fn folders_that_are_passed_over_are_not_looked_into_and_links_to_nowhere_are_named() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        write(&root, "1.png", &gray(2, 2, 1));
        write(&root, ".wine/x", b"");
        symlink(root.path(), root.path().join(".wine/loop")).unwrap();
        symlink("/no/such/notes.txt", root.path().join("notes.txt")).unwrap();
        let loaded = load_default(&root).unwrap();
        assert_eq!(loaded.images.len(), 1);
        assert!(loaded.account.lines().contains(&"notes.txt left out: no pictures".to_string()));
        let socket = std::os::unix::net::UnixListener::bind(root.path().join("2.png")).unwrap();
        assert!(load_default(&root).unwrap_err().to_string().contains("2.png: is no regular file"));
        drop(socket);
        std::fs::remove_file(root.path().join("2.png")).unwrap();
        symlink("/no/such/picture.png", root.path().join("3.png")).unwrap();
        assert!(load_default(&root).unwrap_err().to_string().contains("1 of 2 images"));
    }
}
