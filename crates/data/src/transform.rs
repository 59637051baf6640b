//! Transforms of a single picture: channels, resize and crop, padding. Rows from top to bottom, channels last, bytes or
//! values of 16 bits.

use std::fmt::Debug;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3, U8x4, U16, U16x3, U16x4};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use image::DynamicImage;

use crate::error::DataError;

/// The longest side, in pixels, that a picture may be resized or padded to.
pub const LARGEST_SIDE: usize = 16_384;

/// The most channels of a picture.
pub const MOST_CHANNELS: usize = 64;

/// One value of a picture: a byte, or 16 bits; 0 is black and [`Value::MOST`] white.
pub trait Value: bytemuck::Pod + Into<u64> + Debug + PartialEq + Send + Sync + sealed::Sealed {
    /// The largest value.
    const MOST: u64;
    /// A pixel of 1 such value, in the resizer.
    #[doc(hidden)]
    type Gray: PixelTrait;
    /// A pixel of 3.
    #[doc(hidden)]
    type Rgb: PixelTrait;
    /// A pixel of 4.
    #[doc(hidden)]
    type Rgba: PixelTrait;
    /// The value in `0..=MOST`.
    #[doc(hidden)]
    fn from_number(number: u64) -> Self;
    /// The values of a decoded image in 1, 3 or 4 channels.
    #[doc(hidden)]
    fn of_image(image: DynamicImage, channels: usize) -> Vec<Self>;
    /// Writes values, least significant byte first.
    #[doc(hidden)]
    fn write_bytes(values: &[Self], out: &mut [u8]);
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
}

impl Value for u8 {
    const MOST: u64 = u8::MAX as u64;
    type Gray = U8;
    type Rgb = U8x3;
    type Rgba = U8x4;

    fn from_number(number: u64) -> Self {
        number as u8
    }

    fn of_image(image: DynamicImage, channels: usize) -> Vec<Self> {
        match channels {
            1 => image.into_luma8().into_raw(),
            3 => image.into_rgb8().into_raw(),
            _ => image.into_rgba8().into_raw(),
        }
    }

    fn write_bytes(values: &[Self], out: &mut [u8]) {
        out.copy_from_slice(values);
    }
}

impl Value for u16 {
    const MOST: u64 = u16::MAX as u64;
    type Gray = U16;
    type Rgb = U16x3;
    type Rgba = U16x4;

    fn from_number(number: u64) -> Self {
        number as u16
    }

    fn of_image(image: DynamicImage, channels: usize) -> Vec<Self> {
        match channels {
            1 => image.into_luma16().into_raw(),
            3 => image.into_rgb16().into_raw(),
            _ => image.into_rgba16().into_raw(),
        }
    }

    fn write_bytes(values: &[Self], out: &mut [u8]) {
        for (value, bytes) in values.iter().zip(out.chunks_exact_mut(2)) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// A picture on the host: `pixels` is `[height, width, channels]`, row-major. One channel is gray, three are RGB and four are
/// RGBA; other numbers of channels, and those of [`Raster::of_bands`], have no colors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raster<V = u8> {
    pixels: Vec<V>,
    height: usize,
    width: usize,
    channels: usize,
    has_alpha: bool,
}

impl<V: Value> Raster<V> {
    /// Wraps `pixels`, which must hold `height * width * channels` values; `channels` is in `1..=64`, and the last of four is
    /// alpha.
    ///
    /// # Errors
    /// [`DataError::BadShape`] if a side is 0, the channels are out of range, or the length does not fit.
    pub fn new(pixels: Vec<V>, height: usize, width: usize, channels: usize) -> Result<Self, DataError> {
        check_channels(channels)?;
        let expected = height.checked_mul(width).and_then(|area| area.checked_mul(channels));
        if height == 0 || width == 0 || expected != Some(pixels.len()) {
            let expected = format!("{height}x{width}x{channels} values, none of them 0");
            return Err(DataError::bad_shape("pixels of a picture", expected, format!("{} values", pixels.len())));
        }
        Ok(Self { pixels, height, width, channels, has_alpha: channels == 4 })
    }

    /// As [`new`](Self::new), but the fourth of four channels is no alpha.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_bands(pixels: Vec<V>, height: usize, width: usize, channels: usize) -> Result<Self, DataError> {
        Ok(Self { has_alpha: false, ..Self::new(pixels, height, width, channels)? })
    }

    /// The same picture with other values and another size.
    fn with_pixels(&self, pixels: Vec<V>, height: usize, width: usize) -> Result<Self, DataError> {
        Ok(Self { has_alpha: self.has_alpha, ..Self::new(pixels, height, width, self.channels)? })
    }

    /// The values, `[height, width, channels]`.
    pub fn pixels(&self) -> &[V] {
        &self.pixels
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// 1 (gray), 3 (RGB), 4 (RGBA), or another number of bands, at most [`MOST_CHANNELS`].
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Whether the last of four channels is alpha.
    pub fn has_alpha(&self) -> bool {
        self.has_alpha
    }
}

pub(crate) fn check_channels(channels: usize) -> Result<(), DataError> {
    if (1..=MOST_CHANNELS).contains(&channels) {
        return Ok(());
    }
    Err(DataError::bad_shape("channels", format!("1 to {MOST_CHANNELS}"), channels))
}

/// Resizes the picture, with its aspect ratio, until it just covers `height` x `width`, and crops the long side at the
/// center.
///
/// The filter is Catmull-Rom (a = -0.5, the "bicubic" of Pillow), widened when shrinking against aliasing. RGBA is resized
/// with its colors multiplied by alpha; channels without colors are resized apart. A picture of the right size is returned
/// unchanged.
///
/// # Errors
/// [`DataError::BadOption`] if a target side is 0 or above [`LARGEST_SIDE`].
pub fn resize_short_side_and_center_crop<V: Value>(
    picture: &Raster<V>,
    height: usize,
    width: usize,
) -> Result<Raster<V>, DataError> {
    check_target("size", height, width)?;
    if (picture.height, picture.width) == (height, width) {
        return Ok(picture.clone());
    }
    match (picture.channels, picture.has_alpha) {
        (1, _) => resize::<V, V::Gray>(picture, height, width),
        (3, _) => resize::<V, V::Rgb>(picture, height, width),
        (4, true) => resize::<V, V::Rgba>(picture, height, width),
        _ => resize_bands(picture, height, width),
    }
}

/// Resizes a picture of pixels `P`. With types that are known the resizer is compiled for those that occur, not for all.
fn resize<V: Value, P: PixelTrait>(picture: &Raster<V>, height: usize, width: usize) -> Result<Raster<V>, DataError> {
    let impossible = |error: &dyn std::fmt::Display| {
        let (from_height, from_width) = (picture.height, picture.width);
        DataError::bad_option("size", format!("cannot resize {from_height}x{from_width} to {height}x{width}: {error}"))
    };
    let side = |pixels: usize| u32::try_from(pixels).map_err(|error| impossible(&error));
    let bytes = bytemuck::cast_slice(&picture.pixels);
    let source = TypedImageRef::<P>::from_buffer(side(picture.width)?, side(picture.height)?, bytes)
        .map_err(|error| impossible(&error))?;
    let mut pixels = vec![V::from_number(0); height * width * picture.channels];
    let mut target = TypedImage::<P>::from_buffer(side(width)?, side(height)?, bytemuck::cast_slice_mut(&mut pixels))
        .map_err(|error| impossible(&error))?;
    // the source is cropped first: a panorama is never scaled to its whole length
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
        .fit_into_destination(Some((0.5, 0.5)));
    Resizer::new().resize_typed(&source, &mut target, &options).map_err(|error| impossible(&error))?;
    picture.with_pixels(pixels, height, width)
}

/// Resizes each channel as a gray picture.
fn resize_bands<V: Value>(picture: &Raster<V>, height: usize, width: usize) -> Result<Raster<V>, DataError> {
    let channels = picture.channels;
    let mut pixels = vec![V::from_number(0); height * width * channels];
    for channel in 0..channels {
        let band = picture.pixels.iter().skip(channel).step_by(channels).copied().collect();
        let band = Raster::new(band, picture.height, picture.width, 1)?;
        let band = resize_short_side_and_center_crop(&band, height, width)?;
        let places = pixels.iter_mut().skip(channel).step_by(channels);
        places.zip(band.pixels).for_each(|(place, value)| *place = value);
    }
    picture.with_pixels(pixels, height, width)
}

/// Centers the picture in one of `height` x `width` whose other values are `fill` (0 to 255; for 16 bits the same shade). Where
/// the border is odd, the extra row or column is at the bottom or on the right.
///
/// # Errors
/// [`DataError::BadOption`] if the picture is larger than the target, or the target above [`LARGEST_SIDE`].
pub fn pad_to<V: Value>(picture: &Raster<V>, height: usize, width: usize, fill: u8) -> Result<Raster<V>, DataError> {
    check_target("padding", height, width)?;
    if height < picture.height || width < picture.width {
        let problem = format!(
            "a picture of {}x{} cannot be padded to {height}x{width} (height x width); pad to at least its size, or set \
             a smaller `data.image_size`",
            picture.height, picture.width
        );
        return Err(DataError::bad_option("padding", problem));
    }
    let channels = picture.channels;
    let fill = V::from_number(u64::from(fill) * (V::MOST / u64::from(u8::MAX)));
    let mut pixels = vec![fill; height * width * channels];
    let top = (height - picture.height) / 2;
    let left = (width - picture.width) / 2;
    for (row, line) in picture.pixels.chunks_exact(picture.width * channels).enumerate() {
        let start = ((top + row) * width + left) * channels;
        pixels[start..start + line.len()].copy_from_slice(line);
    }
    picture.with_pixels(pixels, height, width)
}

/// Whether channels are gray, RGB or RGBA, and not bands.
pub(crate) fn has_colors(channels: usize, has_alpha: bool) -> bool {
    matches!(channels, 1 | 3) || has_alpha
}

/// Converts a picture of 1 (gray), 3 (RGB) or 4 (RGBA) channels to one of these numbers.
///
/// Of bands without colors, the first ones are kept. Gray is the luma of ITU-R BT.601, as of Pillow's `convert("L")`; color of a gray picture repeats the value; without alpha,
/// the picture lies on white; alpha that is added is opaque.
///
/// # Errors
/// [`DataError::BadOption`] where the picture or the result has another number of channels, and not the same.
pub fn convert_channels<V: Value>(picture: &Raster<V>, channels: usize) -> Result<Raster<V>, DataError> {
    if channels == picture.channels {
        return Ok(picture.clone());
    }
    let has_colors = has_colors(picture.channels, picture.has_alpha);
    if !has_colors && matches!(channels, 1 | 3) && channels < picture.channels {
        let pixels = picture.pixels.chunks_exact(picture.channels).flat_map(|pixel| &pixel[..channels]).copied();
        return Raster::new(pixels.collect(), picture.height, picture.width, channels);
    }
    if !(has_colors && matches!(channels, 1 | 3 | 4)) {
        let problem = format!(
            "a picture of {} channels cannot be converted to {channels}; leave the key out to keep the channels",
            picture.channels
        );
        return Err(DataError::bad_option("channels", problem));
    }
    let mut pixels = Vec::with_capacity(picture.height * picture.width * channels);
    for pixel in picture.pixels.chunks_exact(picture.channels) {
        let opaque = V::from_number(V::MOST);
        let (red, green, blue, alpha) = match *pixel {
            [gray] => (gray, gray, gray, opaque),
            [red, green, blue] => (red, green, blue, opaque),
            [red, green, blue, alpha] => (red, green, blue, alpha),
            _ => (opaque, opaque, opaque, opaque),
        };
        let over = |value: V| over_white(value, alpha);
        match channels {
            1 => pixels.push(luma(over(red), over(green), over(blue))),
            3 => pixels.extend([over(red), over(green), over(blue)]),
            _ => pixels.extend([red, green, blue, alpha]),
        }
    }
    Raster::new(pixels, picture.height, picture.width, channels)
}

fn over_white<V: Value>(value: V, alpha: V) -> V {
    let (value, alpha) = (value.into(), alpha.into());
    V::from_number((value * alpha + V::MOST * (V::MOST - alpha) + V::MOST / 2) / V::MOST)
}

fn luma<V: Value>(red: V, green: V, blue: V) -> V {
    let (red, green, blue) = (red.into(), green.into(), blue.into());
    V::from_number((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16)
}

pub(crate) fn check_target(key: &'static str, height: usize, width: usize) -> Result<(), DataError> {
    if (1..=LARGEST_SIDE).contains(&height) && (1..=LARGEST_SIDE).contains(&width) {
        return Ok(());
    }
    let problem = format!("{height}x{width} (height x width): each side must be in 1..={LARGEST_SIDE}");
    Err(DataError::bad_option(key, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(height: usize, width: usize, value: impl Fn(usize, usize) -> u8) -> Raster {
        let pixels = (0..height * width).map(|at| value(at / width, at % width)).collect();
        Raster::new(pixels, height, width, 1).unwrap()
    }

    /// White disc of `radius` in the middle, on black.
    fn disc(height: usize, width: usize, radius: f64) -> Raster {
        gray(height, width, |row, column| {
            let down = row as f64 + 0.5 - height as f64 / 2.0;
            let across = column as f64 + 0.5 - width as f64 / 2.0;
            if down.hypot(across) < radius { 255 } else { 0 }
        })
    }

    fn lit(pixels: impl Iterator<Item = u8>) -> usize {
        pixels.filter(|&value| value > 127).count()
    }

    #[test]
    fn a_circle_stays_a_circle() {
        for (height, width) in [(120, 300), (300, 120), (120, 120)] {
            let small = resize_short_side_and_center_crop(&disc(height, width, 50.0), 48, 48).unwrap();
            let across = lit((0..48).map(|column| small.pixels()[24 * 48 + column]));
            let down = lit((0..48).map(|row| small.pixels()[row * 48 + 24]));
            // 100 of 120 pixels, scaled by 48/120
            assert_eq!((across, down), (40, 40), "from {height}x{width}");
        }
    }

    #[test]
    fn the_center_is_kept_when_cropping() {
        // columns 0..100 rise from 0 to 198; a square cut out of the middle third runs from 66 to 132
        let ramp = gray(100, 300, |_, column| (column * 2 / 3).min(255) as u8);
        let square = resize_short_side_and_center_crop(&ramp, 100, 100).unwrap();
        assert_eq!(square.pixels()[0], ramp.pixels()[100]);
        assert_eq!(square.pixels()[99], ramp.pixels()[199]);
    }

    #[test]
    fn a_target_that_is_not_square_is_covered_too() {
        // source 2:1 wide, target 1:2 tall: only a quarter of the width is seen, and it is not squeezed
        let small = resize_short_side_and_center_crop(&disc(200, 400, 40.0), 100, 50).unwrap();
        assert_eq!((small.height(), small.width()), (100, 50));
        let across = lit((0..50).map(|column| small.pixels()[50 * 50 + column]));
        let down = lit((0..100).map(|row| small.pixels()[row * 50 + 25]));
        assert_eq!((across, down), (40, 40));
    }

    #[test]
    fn shrinking_does_not_alias() {
        // stripes one pixel wide: any filter that samples instead of averaging gives black or white
        let stripes = gray(128, 128, |_, column| if column % 2 == 0 { 255 } else { 0 });
        let small = resize_short_side_and_center_crop(&stripes, 16, 16).unwrap();
        for &value in small.pixels() {
            assert!((120..=135).contains(&value), "{value}");
        }
    }

    /// Keys' cubic with a = -0.5, which Catmull and Rom's spline is.
    fn cubic(at: f64) -> f64 {
        let at = at.abs();
        if at < 1.0 {
            1.5 * at.powi(3) - 2.5 * at.powi(2) + 1.0
        } else if at < 2.0 {
            -0.5 * at.powi(3) + 2.5 * at.powi(2) - 4.0 * at + 2.0
        } else {
            0.0
        }
    }

    #[test]
    fn the_filter_is_catmull_rom() {
        for (source, target) in [(24, 10), (10, 24)] {
            let value = |column: usize| ((column * 67) % 200 + 20) as u8;
            let picture = gray(source, source, |_, column| value(column));
            let resized = resize_short_side_and_center_crop(&picture, target, target).unwrap();
            let scale = source as f64 / target as f64;
            let support = scale.max(1.0);
            for column in 0..target {
                let center = (column as f64 + 0.5) * scale;
                let weight = |at: usize| cubic((at as f64 + 0.5 - center) / support);
                let total: f64 = (0..source).map(weight).sum();
                let sum: f64 = (0..source).map(|at| weight(at) * f64::from(value(at))).sum();
                let expected = (sum / total).clamp(0.0, 255.0);
                let got = f64::from(resized.pixels()[column]);
                assert!((got - expected).abs() < 1.0, "{source} to {target}, column {column}: {got}, not {expected}");
            }
        }
    }

    #[test]
    fn a_picture_of_the_right_size_is_unchanged() {
        let picture = gray(7, 5, |row, column| (row * 31 + column * 7) as u8);
        assert_eq!(resize_short_side_and_center_crop(&picture, 7, 5).unwrap(), picture);
    }

    #[test]
    fn extreme_pictures_are_resized_or_refused() {
        let line = gray(1, 60_000, |_, column| (column % 256) as u8);
        let square = resize_short_side_and_center_crop(&line, 64, 64).unwrap();
        assert_eq!((square.height(), square.width()), (64, 64));
        assert!(matches!(resize_short_side_and_center_crop(&line, 0, 64), Err(DataError::BadOption { .. })));
        assert!(matches!(resize_short_side_and_center_crop(&line, 64, usize::MAX), Err(DataError::BadOption { .. })));
    }

    #[test]
    fn transparent_colors_do_not_bleed() {
        // the left half is opaque white, the right half transparent black
        let pixels = (0..32 * 32).flat_map(|at| if at % 32 < 16 { [255u8; 4] } else { [0; 4] }).collect();
        let picture = Raster::new(pixels, 32, 32, 4).unwrap();
        let small = resize_short_side_and_center_crop(&picture, 5, 5).unwrap();
        for pixel in small.pixels().chunks_exact(4).filter(|pixel| pixel[3] > 8) {
            assert!(pixel[0] > 250, "white became {pixel:?}");
        }
    }

    #[test]
    fn padding_is_centered() {
        let picture = gray(2, 3, |row, column| (10 * row + column + 1) as u8);
        let padded = pad_to(&picture, 5, 5, 9).unwrap();
        #[rustfmt::skip]
        assert_eq!(padded.pixels(), [
            9, 9, 9, 9, 9,
            9, 1, 2, 3, 9,
            9, 11, 12, 13, 9,
            9, 9, 9, 9, 9,
            9, 9, 9, 9, 9,
        ]);
        let error = pad_to(&picture, 5, 2, 0).unwrap_err().to_string();
        assert!(error.contains("2x3") && error.contains("5x2"), "{error}");
    }

    #[test]
    fn channels_convert_as_documented() {
        let rgb = Raster::new(vec![255u8, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255], 1, 4, 3).unwrap();
        // Pillow 10: Image.fromarray(rgb).convert("L")
        assert_eq!(convert_channels(&rgb, 1).unwrap().pixels(), [76, 150, 29, 255]);
        let gray = Raster::new(vec![7u8], 1, 1, 1).unwrap();
        assert_eq!(convert_channels(&gray, 3).unwrap().pixels(), [7, 7, 7]);
        assert_eq!(convert_channels(&gray, 4).unwrap().pixels(), [7, 7, 7, 255]);
        let clear = Raster::new(vec![0u8, 0, 0, 0, 0, 0, 0, 255, 0, 100, 200, 128], 1, 3, 4).unwrap();
        assert_eq!(convert_channels(&clear, 3).unwrap().pixels(), [255, 255, 255, 0, 0, 0, 127, 177, 227]);
        assert!(convert_channels(&gray, 2).is_err());
        let bands = Raster::of_bands(vec![1u8, 2, 3, 4], 1, 1, 4).unwrap();
        assert_eq!(convert_channels(&bands, 4).unwrap(), bands);
        assert_eq!(convert_channels(&bands, 3).unwrap().pixels(), [1, 2, 3]);
        let error = convert_channels(&bands, 2).unwrap_err().to_string();
        assert!(error.contains("data.channels: a picture of 4 channels cannot be converted to 2"), "{error}");
    }

    #[test]
    fn bands_are_resized_and_padded_apart() {
        let value = |band: usize, at: usize| (at * (7 + band) % 251) as u8;
        for bands in [2, 4, 5, 64] {
            let pixels = (0..12 * 12 * bands).map(|at| value(at % bands, at / bands)).collect();
            let picture = Raster::of_bands(pixels, 12, 12, bands).unwrap();
            let small = resize_short_side_and_center_crop(&picture, 5, 4).unwrap();
            assert_eq!((small.height(), small.width(), small.channels()), (5, 4, bands));
            assert!(!pad_to(&small, 8, 8, 0).unwrap().has_alpha());
            for band in 0..bands {
                let alone = gray(12, 12, |row, column| value(band, row * 12 + column));
                let alone = resize_short_side_and_center_crop(&alone, 5, 4).unwrap();
                let band: Vec<u8> = small.pixels().iter().skip(band).step_by(bands).copied().collect();
                assert_eq!(band, alone.pixels());
            }
        }
    }

    #[test]
    fn sixteen_bits_are_treated_as_bytes_are() {
        let deep = |value: u8| u16::from(value) * 257;
        let bytes = Raster::new((0..9 * 7 * 4).map(|at| (at * 37 % 256) as u8).collect(), 9, 7, 4).unwrap();
        let words = Raster::new(bytes.pixels().iter().map(|&value| deep(value)).collect(), 9, 7, 4).unwrap();
        // within half a byte's step, for these are rounded more finely
        let same = |bytes: &Raster, words: &Raster<u16>| {
            assert_eq!(
                (bytes.height(), bytes.width(), bytes.channels()),
                (words.height(), words.width(), words.channels())
            );
            for (&byte, &word) in bytes.pixels().iter().zip(words.pixels()) {
                assert!(deep(byte).abs_diff(word) <= 257, "{byte} and {word}");
            }
        };
        for channels in [1, 3, 4] {
            same(&convert_channels(&bytes, channels).unwrap(), &convert_channels(&words, channels).unwrap());
        }
        let gray = Raster::new(bytes.pixels()[..63].to_vec(), 9, 7, 1).unwrap();
        let deep_gray = Raster::new(words.pixels()[..63].to_vec(), 9, 7, 1).unwrap();
        for (height, width) in [(5, 5), (18, 10)] {
            same(
                &resize_short_side_and_center_crop(&gray, height, width).unwrap(),
                &resize_short_side_and_center_crop(&deep_gray, height, width).unwrap(),
            );
        }
        same(&pad_to(&bytes, 12, 12, 200).unwrap(), &pad_to(&words, 12, 12, 200).unwrap());
        // white stays white
        assert_eq!((luma(0xffffu16, 0xffff, 0xffff), over_white(0u16, 0)), (0xffff, 0xffff));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        assert!(Raster::new(vec![0u8; 5], 2, 3, 1).is_err());
        assert!(Raster::<u8>::new(vec![], 0, 3, 1).is_err());
        assert!(Raster::<u8>::new(vec![], 2, 3, 0).is_err());
        assert!(Raster::new(vec![0u8; 6 * 65], 2, 3, 65).is_err());
        assert!(Raster::new(vec![0u8; 12], 2, 3, 2).is_ok());
        assert!(Raster::<u8>::new(vec![], usize::MAX, usize::MAX, 4).is_err());
    }
}
