//! The channels of a set of pictures: the colors and alpha that they are stored with, those that carry something, and bands.

use std::path::PathBuf;

use crate::account::{Weight, weight_of_pictures};
use crate::decode::Look;
use crate::error::DataError;
use crate::options::LoadOptions;
use crate::remark::{Pictures, Remark};
use crate::transform::{Raster, Value};

/// The channels that all pictures get.
pub(crate) struct Channels {
    pub count: usize,
    /// Whether the last of four is alpha.
    pub has_alpha: bool,
    /// Whether channels that carry nothing are dropped when all pictures are decoded.
    pub may_narrow: bool,
    /// Pictures that are stored in color, ...
    colored: usize,
    /// ... and with alpha.
    with_alpha: usize,
    pub remarks: Vec<Remark>,
}

impl Channels {
    /// The channels of pictures that look like `looks`, of which there is at least one: those of `data.channels`, else the most
    /// that any has; alpha only where at least half of them have it. Bands without colors are the same in all pictures.
    ///
    /// # Errors
    /// [`DataError::BadOption`] where bands differ, or cannot be converted.
    pub fn of(
        looks: &[(usize, Look)],
        options: &LoadOptions,
        title: &dyn Fn(usize) -> PathBuf,
    ) -> Result<Self, DataError> {
        let with = |least: usize| looks.iter().filter(|(_, look)| look.header.channels >= least).count();
        let (colored, with_alpha) = (with(3), with(4));
        let remarks = of_files(looks);
        let has_bands = looks.iter().any(|(_, look)| look.is_bands());
        if let Some(wanted) = options.channels {
            let mut channels =
                Self { count: wanted, has_alpha: !has_bands, may_narrow: false, colored, with_alpha, remarks };
            channels.remarks.extend(first_bands(looks, wanted, title)?);
            return Ok(channels);
        }
        if has_bands {
            let count = same_bands(looks, title)?;
            return Ok(Self { count, has_alpha: false, may_narrow: false, colored, with_alpha, remarks });
        }
        let most = looks.iter().map(|(_, look)| look.header.channels).max().unwrap_or(1);
        let is_laid_on_white = most == 4 && with_alpha * 2 < looks.len();
        let count = if is_laid_on_white { 3 } else { most };
        Ok(Self { count, has_alpha: count == 4, may_narrow: count > 1, colored, with_alpha, remarks })
    }

    /// The channels to keep, the first ones, and what is said about it.
    pub fn that_carry_something(&self, seen: &Seen) -> (usize, Vec<Remark>) {
        let mut remarks = Vec::new();
        if !self.may_narrow || seen.count == 0 {
            let some = &seen.transparent;
            if some.count > 0 && matches!(self.count, 1 | 3) {
                let choice =
                    format!("{} of {} pictures have transparent pixels: laid on white", some.count, seen.count);
                remarks.push(Remark::decided(choice, some.clone()));
            }
            return (self.count, remarks);
        }
        let Seen { count, colored, transparent } = seen;
        let mut say = |choice: String, pictures: &Pictures| remarks.push(Remark::decided(choice, pictures.clone()));
        let nobody = Pictures::default();
        let mut keep = self.count;
        let are = |count: usize| if count == 1 { "is" } else { "are" };
        let some = transparent.count;
        if self.count == 4 && some == 0 {
            let stored = self.with_alpha;
            let advice = "`data.channels = 4` keeps it";
            say(
                format!("every picture is opaque, though {stored} of {count} have alpha: alpha was dropped; {advice}"),
                &nobody,
            );
            keep = 3;
        } else if self.count == 4 && some < *count {
            let advice = "`data.channels = 3` lays them on white";
            say(
                format!(
                    "{some} of {count} pictures {} transparent somewhere, the others opaque: alpha is kept; {advice}",
                    are(some)
                ),
                transparent,
            );
        } else if self.count == 3 && some > 0 {
            let reason = "as most files have no alpha; `data.channels = 4` keeps it";
            say(
                format!("{some} of {count} pictures {} transparent somewhere: laid on white, {reason}", are(some)),
                transparent,
            );
        }
        let some = colored.count;
        if some == 0 && keep == 3 {
            let stored = self.colored;
            let advice = "`data.channels = 3` keeps three";
            say(
                format!(
                    "every picture is gray, though {stored} of {count} are stored in color: read as 1 channel; {advice}"
                ),
                &nobody,
            );
            keep = 1;
        } else if some == 0 {
            say(
                format!("every picture is gray, with alpha: read as RGBA, which repeats the gray ({count} pictures)"),
                &nobody,
            );
        } else if some * 10 <= *count {
            let advice = "`data.channels = 1` makes all gray";
            say(
                format!("{some} of {count} pictures {} in color, the others gray: read in color; {advice}", are(some)),
                colored,
            );
        }
        (keep, remarks)
    }
}

/// What decoded pictures have.
#[derive(Default)]
pub(crate) struct Seen {
    count: usize,
    colored: Pictures,
    transparent: Pictures,
}

/// What one picture has.
#[derive(Clone, Copy)]
pub(crate) struct Traits {
    is_colored: bool,
    is_transparent: bool,
}

impl Traits {
    /// Whether a pixel that can be seen has a color, and whether one can be seen through.
    pub fn of<V: Value>(picture: &Raster<V>) -> Self {
        let opaque = V::from_number(V::MOST);
        let is_clear = |pixel: &[V]| picture.has_alpha() && pixel[3] == V::from_number(0);
        let is_colored = |pixel: &[V]| (pixel[0] != pixel[1] || pixel[1] != pixel[2]) && !is_clear(pixel);
        let mut pixels = picture.pixels().chunks_exact(picture.channels());
        Self {
            is_transparent: picture.has_alpha() && pixels.clone().any(|pixel| pixel[3] != opaque),
            is_colored: picture.channels() > 2 && pixels.any(is_colored),
        }
    }
}

impl Seen {
    pub fn add(&mut self, index: usize, traits: Traits) {
        self.count += 1;
        if traits.is_colored {
            self.colored.add(index);
        }
        if traits.is_transparent {
            self.transparent.add(index);
        }
    }
}

/// Keeps the first `to` of each `from` items of `item` bytes, in place; returns the length.
pub(crate) fn keep_first(bytes: &mut [u8], item: usize, from: usize, to: usize) -> usize {
    let pixels = bytes.len() / (item * from);
    for pixel in 0..pixels {
        bytes.copy_within(pixel * item * from..pixel * item * from + item * to, pixel * item * to);
    }
    pixels * item * to
}

/// The number of bands, which is the same in all pictures.
fn same_bands(looks: &[(usize, Look)], title: &dyn Fn(usize) -> PathBuf) -> Result<usize, DataError> {
    let kind = |look: &Look| (look.header.channels, look.is_bands());
    let Some((first, look)) = looks.first() else { return Ok(1) };
    let others = Pictures::of(looks.iter().filter(|(_, other)| kind(other) != kind(look)).map(|(index, _)| *index));
    let Some(other) = looks.iter().find(|(index, _)| others.first.first() == Some(index)) else {
        return Ok(look.header.channels);
    };
    let (first, second) = (title(*first), title(other.0));
    let problem = format!(
        "the pictures have different bands: {} has {}, {} has {} ({} of {} pictures differ from the first); `data.channels = 3` \
         keeps the first three of each, or read them apart",
        first.display(),
        look.in_words(),
        second.display(),
        other.1.in_words(),
        others.count,
        looks.len()
    );
    Err(DataError::bad_option("channels", problem))
}

/// What is left out of bands where `data.channels` is `wanted`.
fn first_bands(
    looks: &[(usize, Look)],
    wanted: usize,
    title: &dyn Fn(usize) -> PathBuf,
) -> Result<Vec<Remark>, DataError> {
    let mut cut: Vec<(usize, Pictures)> = Vec::new();
    for (index, look) in looks {
        let (bands, is_bands) = (look.header.channels, look.is_bands());
        let is_color = matches!(wanted, 1 | 3 | 4);
        if bands == wanted || (!is_bands && is_color) {
            continue;
        }
        if !(is_bands && matches!(wanted, 1 | 3) && bands > wanted) {
            let title = title(*index);
            let problem = format!(
                "{} has {}, which cannot be converted to {wanted}; leave the key out to keep them",
                title.display(),
                look.in_words()
            );
            return Err(DataError::bad_option("channels", problem));
        }
        match cut.iter_mut().find(|(other, _)| *other == bands) {
            Some((_, pictures)) => pictures.add(*index),
            None => cut.push((bands, Pictures::of([*index]))),
        }
    }
    let remark = |(bands, pictures): (usize, Pictures)| {
        let which =
            if bands == wanted + 1 { format!("band {bands}") } else { format!("bands {} to {bands}", wanted + 1) };
        Remark::LeftOut {
            what: format!("{which} of {}", files(pictures.count)),
            reason: format!("`data.channels = {wanted}` keeps the first"),
            is_doubt: false,
            pictures,
        }
    };
    Ok(cut.into_iter().map(remark).collect())
}

/// `1 file`, `2 files`
fn files(count: usize) -> String {
    format!("{count} file{}", if count == 1 { "" } else { "s" })
}

/// What is said about TIFF files and animations.
fn of_files(looks: &[(usize, Look)]) -> Vec<Remark> {
    let of = |choose: &dyn Fn(&crate::tiff::Layout) -> bool| {
        Pictures::of(looks.iter().filter(|(_, look)| look.tiff.as_ref().is_some_and(choose)).map(|(index, _)| *index))
    };
    let layouts = || looks.iter().filter_map(|(_, look)| look.tiff.as_ref());
    let mut remarks = Vec::new();
    let fourth = of(&|layout| layout.has_unspecified_fourth());
    if fourth.count > 0 {
        let shown = "previews show the first three (`data.preview_channels`), and samples are written as npz";
        let choice = format!(
            "4 bands, the fourth unspecified: kept as a channel, not as alpha, in {}; {shown}",
            files(fourth.count)
        );
        remarks.push(Remark::decided(choice, fourth));
    }
    let stacks = of(&|layout| layout.more_pages > 0);
    if stacks.count > 0 {
        let pages: usize = layouts().map(|layout| layout.more_pages).sum();
        let most = layouts().map(|layout| layout.more_pages + 1).max().unwrap_or(0);
        let is_doubt = weight_of_pictures(pages, looks.len(), false) == Weight::Doubt;
        let which = if most == 2 { "page 2".to_owned() } else { format!("pages 2 to {most}") };
        let what = format!("{which} of {}", files(stacks.count));
        let reason =
            "of a TIFF file among others the first page is read; name one alone as the data to read all of its pages"
                .to_owned();
        remarks.push(Remark::LeftOut { what, reason, is_doubt, pictures: stacks });
    }
    let animated = Pictures::of(looks.iter().filter(|(_, look)| look.frames > 1).map(|(index, _)| *index));
    if animated.count > 0 {
        let most = looks.iter().map(|(_, look)| look.frames).max().unwrap_or(0);
        let which = if most == 2 { "frame 2".to_owned() } else { format!("frames 2 to {most}") };
        let what = format!("{which} of {}", files(animated.count));
        let reason = "of an animation the first frame is read; write its frames as pictures to use them all".to_owned();
        remarks.push(Remark::LeftOut { what, reason, is_doubt: false, pictures: animated });
    }
    let copied = of(&|layout| layout.copies > 0);
    if copied.count > 0 {
        let what = format!("smaller copies and masks in {}", files(copied.count));
        let reason = "they belong to the page before them".to_owned();
        remarks.push(Remark::LeftOut { what, reason, is_doubt: false, pictures: copied });
    }
    let dropped = of(&|layout| layout.dropped_bands() > 0);
    if dropped.count > 0 {
        let what = format!("bands after the fourth of {}", files(dropped.count));
        let reason = "the first four are CMYK, which becomes RGB".to_owned();
        remarks.push(Remark::LeftOut { what, reason, is_doubt: false, pictures: dropped });
    }
    remarks
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
    use tempfile::TempDir;

    use super::*;
    use crate::options::Padding;
    use crate::testing::{TiffPage, animated_gif, animated_png, animated_webp, encoded, gray, tiff, write};
    use crate::{Loaded, folder};

    fn load(root: &TempDir, options: &LoadOptions) -> Result<Loaded, DataError> {
        folder::load("test", root.path(), options)
    }

    fn load_default(root: &TempDir) -> Loaded {
        load(root, &LoadOptions::default()).unwrap()
    }

    fn with_channels(root: &TempDir, channels: usize) -> Loaded {
        load(root, &LoadOptions { channels: Some(channels), ..LoadOptions::default() }).unwrap()
    }

    fn lines(loaded: &Loaded) -> String {
        loaded.account.lines().join("\n")
    }

    /// A PNG of 9x7 pixels.
    fn png(pixel: impl Fn(u8) -> [u8; 4]) -> Vec<u8> {
        let picture = RgbaImage::from_fn(7, 9, |x, y| Rgba(pixel((x * 31 + y * 5) as u8)));
        encoded(picture, ImageFormat::Png)
    }

    fn colored(seed: u8) -> Vec<u8> {
        let picture = RgbImage::from_fn(7, 9, |x, y| Rgb([(x * 31) as u8, (y * 20) as u8, seed]));
        encoded(picture, ImageFormat::Png)
    }

    #[test]
    fn frames_of_animations_are_named() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "a.gif", &animated_gif(3));
        write(&root, "b.webp", &animated_webp(5));
        write(&root, "c.png", &animated_png(2));
        write(&root, "d.png", &gray(2, 2, 1));
        let loaded = load_default(&root);
        assert_eq!((loaded.images.len(), loaded.account.doubts().count()), (4, 0));
        let said = lines(&loaded);
        let expected = "frames 2 to 5 of 3 files left out: of an animation the first frame is read; write its frames as pictures to \
                        use them all (";
        assert!(said.contains(expected) && said.contains("c.png)"), "{said}");
        assert!(!said.contains("d.png"), "{said}");
    }

    #[test]
    fn gray_pictures_stored_in_color_have_one_channel() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..9 {
            let picture = RgbImage::from_fn(7, 9, |x, _| Rgb([(x * 30 + number) as u8; 3]));
            write(&root, &format!("{number}.png"), &encoded(picture, ImageFormat::Png));
        }
        write(&root, "stored-gray.png", &gray(9, 7, 3));
        let loaded = load_default(&root);
        assert_eq!((loaded.images.channels(), &loaded.images.image(2)[..3]), (1, [2, 32, 62].as_slice()));
        assert_eq!(loaded.images.content_hash(), with_channels(&root, 1).images.content_hash());
        let said = lines(&loaded);
        assert!(
            said.contains("every picture is gray, though 9 of 10 are stored in color: read as 1 channel"),
            "{said}"
        );
        let three = with_channels(&root, 3);
        assert_eq!((three.images.channels(), lines(&three).as_str()), (3, ""));
        // one that differs is named
        write(&root, "color.png", &colored(99));
        let loaded = load_default(&root);
        let said = lines(&loaded);
        assert_eq!(loaded.images.channels(), 3);
        assert!(said.contains("1 of 11 pictures is in color") && said.contains("color.png"), "{said}");
    }

    #[test]
    fn alpha_that_carries_nothing_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..3 {
            write(&root, &format!("{number}.png"), &png(|at| [at, 255 - at, number, 255]));
        }
        for size in [None, Some((5, 4)), Some((20, 11))] {
            let loaded = load(&root, &LoadOptions { size, ..LoadOptions::default() }).unwrap();
            let three = LoadOptions { size, channels: Some(3), ..LoadOptions::default() };
            assert_eq!(loaded.images.content_hash(), load(&root, &three).unwrap().images.content_hash(), "{size:?}");
            let said = lines(&loaded);
            assert!(said.contains("every picture is opaque, though 3 of 3 have alpha"), "{said}");
        }
        assert_eq!(with_channels(&root, 4).images.channels(), 4);
        // one that is transparent somewhere is named
        write(&root, "clear.png", &png(|at| [at, 0, 0, at]));
        let loaded = load_default(&root);
        let said = lines(&loaded);
        assert!(loaded.images.has_alpha() && loaded.images.channels() == 4);
        assert!(said.contains("1 of 4 pictures is transparent somewhere") && said.contains("clear.png"), "{said}");
    }

    #[test]
    fn alpha_of_a_few_files_is_laid_on_white() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..7 {
            write(&root, &format!("{number}.png"), &colored(number));
        }
        // red that nobody sees
        write(&root, "logo.png", &png(|at| if at == 0 { [255, 0, 0, 0] } else { [0, 200, 0, 255] }));
        for padding in [Padding::None, Padding::To { height: 16, width: 16, fill: 0 }] {
            let loaded = load(&root, &LoadOptions { padding, ..LoadOptions::default() }).unwrap();
            let three = LoadOptions { padding, channels: Some(3), ..LoadOptions::default() };
            assert_eq!(loaded.images.content_hash(), load(&root, &three).unwrap().images.content_hash());
            let said = lines(&loaded);
            assert!(said.contains("1 of 8 pictures is transparent somewhere: laid on white"), "{said}");
            assert!(said.contains("logo.png") && said.contains("`data.channels = 4`"), "{said}");
        }
        let images = load_default(&root).images;
        assert_eq!(images.image(7)[..6], [255, 255, 255, 0, 200, 0]);
    }

    #[test]
    fn alpha_of_all_files_is_kept() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..3 {
            write(&root, &format!("{number}.png"), &png(|at| [at, 9, number, at]));
        }
        let loaded = load_default(&root);
        assert_eq!((loaded.images.channels(), lines(&loaded).as_str()), (4, ""));
    }

    fn bands<'a>(bands: u16, photometric: u16, extra: &'a [u16]) -> TiffPage<'a> {
        let values = (0..6 * bands).map(|at| (at * 3 + 1) as u8).collect();
        TiffPage { size: (2, 3), bands, photometric, extra, values, ..TiffPage::default() }
    }

    #[test]
    fn an_unspecified_fourth_band_is_a_channel() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "a.tif", &tiff(&[bands(4, 2, &[0])]));
        write(&root, "b.tif", &tiff(&[bands(4, 1, &[])]));
        let loaded = load_default(&root);
        assert_eq!((loaded.images.channels(), loaded.images.has_alpha()), (4, false));
        assert_eq!(loaded.images.image(0)[..8], [1, 4, 7, 10, 13, 16, 19, 22]);
        let said = lines(&loaded);
        assert!(said.contains("the fourth unspecified: kept as a channel, not as alpha, in 2 files"), "{said}");
        let three = with_channels(&root, 3);
        assert_eq!(three.images.image(1)[..6], [1, 4, 7, 13, 16, 19]);
        let said = lines(&three);
        assert!(said.contains("band 4 of 2 files left out: `data.channels = 3` keeps the first"), "{said}");
        // declared alpha is alpha
        let root = tempfile::tempdir().unwrap();
        write(&root, "a.tif", &tiff(&[bands(4, 2, &[2])]));
        let loaded = load_default(&root);
        assert!(loaded.images.has_alpha() && lines(&loaded).is_empty(), "{}", lines(&loaded));
    }

    #[test]
    fn bands_are_kept_or_refused_in_words() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "a.tif", &tiff(&[bands(5, 1, &[])]));
        write(&root, "b.tif", &tiff(&[bands(5, 1, &[])]));
        for options in [LoadOptions::default(), LoadOptions { channels: Some(5), ..LoadOptions::default() }] {
            let loaded = load(&root, &options).unwrap();
            assert_eq!((loaded.images.channels(), &loaded.images.image(1)[4..6]), (5, [13, 16].as_slice()));
        }
        let wanted = |channels| LoadOptions { channels: Some(channels), ..LoadOptions::default() };
        let error = load(&root, &wanted(4)).unwrap_err().to_string();
        assert!(error.contains("a.tif has 5 bands, which cannot be converted to 4"), "{error}");
        write(&root, "c.png", &encoded(RgbImage::from_pixel(3, 2, Rgb([1, 2, 3])), ImageFormat::Png));
        let error = load(&root, &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("a.tif has 5 bands") && error.contains("c.png has 3 channels (RGB)"), "{error}");
        let error = load(&root, &wanted(5)).unwrap_err().to_string();
        assert!(error.contains("c.png has 3 channels (RGB), which cannot be converted to 5"), "{error}");
        let loaded = load(&root, &wanted(3)).unwrap();
        assert_eq!(loaded.images.image(2)[..3], [1, 2, 3]);
        assert!(lines(&loaded).contains("bands 4 to 5 of 2 files left out"), "{}", lines(&loaded));
    }

    #[test]
    fn the_range_of_numbers_is_found_or_asked_for() {
        let floats = |numbers: [f32; 2]| {
            let values = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            tiff(&[TiffPage { size: (1, 2), bits: 32, format: 3, values, ..TiffPage::default() }])
        };
        let root = tempfile::tempdir().unwrap();
        write(&root, "a.tif", &floats([0.0, 1.0]));
        write(&root, "b.tif", &floats([0.5, 0.25]));
        let loaded = load_default(&root);
        assert_eq!((loaded.images.image(0), loaded.images.image(1)), ([0, 255].as_slice(), [128, 64].as_slice()));
        let said = lines(&loaded);
        assert!(said.contains("values of float32 run from 0 to 1: 0 was taken as black, 1 as white"), "{said}");
        write(&root, "b.tif", &floats([0.5, 200.0]));
        assert_eq!(load_default(&root).images.image(1), [1, 200]);
        write(&root, "b.tif", &floats([-1024.0, 3071.0]));
        let error = load(&root, &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("2 TIFF files of float32") && error.contains("a.tif"), "{error}");
        assert!(error.contains("values run from -1024 to 3071") && error.contains("data.range"), "{error}");
        let given = LoadOptions { range: Some([-1024.0, 1024.0]), ..LoadOptions::default() };
        assert_eq!(load(&root, &given).unwrap().images.image(1), [0, 255]);
    }

    #[test]
    fn pages_that_are_not_read_are_a_doubt() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a.tif", "b.tif"] {
            write(&root, name, &tiff(&[bands(1, 1, &[]), bands(1, 1, &[]), bands(1, 1, &[])]));
        }
        let loaded = load_default(&root);
        let doubt = loaded.account.doubts().next().unwrap().to_string();
        assert!(
            doubt.contains("pages 2 to 3 of 2 files left out: of a TIFF file among others the first page"),
            "{doubt}"
        );
        assert!(doubt.contains("a.tif"), "{doubt}");
    }

    #[test]
    fn gray_with_alpha_stays_gray_with_alpha() {
        let root = tempfile::tempdir().unwrap();
        let picture = image::ImageBuffer::from_pixel(2, 2, image::LumaA([9u8, 100]));
        write(&root, "a.png", &encoded(picture, ImageFormat::Png));
        let loaded = load_default(&root);
        assert_eq!((loaded.images.channels(), &loaded.images.image(0)[..4]), (4, [9, 9, 9, 100].as_slice()));
        assert!(lines(&loaded).contains("every picture is gray, with alpha"), "{}", lines(&loaded));
        let deep = image::ImageBuffer::from_pixel(2, 2, Luma([0x8000u16]));
        let root = tempfile::tempdir().unwrap();
        write(&root, "a.png", &encoded(deep, ImageFormat::Png));
        assert_eq!((load_default(&root).images.channels(), lines(&load_default(&root)).as_str()), (1, ""));
    }

    #[test]
    fn first_channels_are_kept_in_place() {
        let mut bytes: Vec<u8> = (0..12).collect();
        assert_eq!((keep_first(&mut bytes, 1, 4, 3), &bytes[..9]), (9, [0, 1, 2, 4, 5, 6, 8, 9, 10].as_slice()));
        let mut words: Vec<u8> = (0..12).collect();
        assert_eq!((keep_first(&mut words, 2, 3, 1), &words[..4]), (4, [0, 1, 6, 7].as_slice()));
    }
}
