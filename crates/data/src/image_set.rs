//! Images of one size, as bytes (or 16 bits) on the host, with their labels.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use burn_dataset::{Dataset, DatasetError};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::decode::words;
use crate::error::DataError;
use crate::hash::hexadecimal;
use crate::levels::{Levels, check_depth};
use crate::options::{LoadOptions, Padding};
use crate::pixels::{Pixels, allocate};
use crate::range::Range;
use crate::titles::Titles;
use crate::transform::{self, Raster, Value};

/// Images of a block of the content hash.
const HASH_BLOCK: usize = 256;

/// A byte in `[0, 255]` as a number in `[-1, 1]`: `value / 127.5 - 1`.
#[inline]
pub fn to_unit_range(value: u8) -> f32 {
    f32::from(value) / 127.5 - 1.0
}

/// A number in `[-1, 1]` as a byte: `(value + 1) * 127.5`, rounded (halves away from zero) and clamped to `[0, 255]`.
/// NaN becomes 0. Inverse of [`to_unit_range`] on all 256 bytes.
#[inline]
pub fn to_u8(value: f32) -> u8 {
    ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
}

/// A value of 16 bits as a number in `[-1, 1]`: `value / 32767.5 - 1`, in f32.
#[inline]
fn word_to_unit_range(value: u16) -> f32 {
    (f64::from(value) / 32767.5 - 1.0) as f32
}

/// A value of 16 bits as a byte: `value / 257`, rounded.
#[inline]
fn word_to_u8(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

/// Images of one size on the host: `[count, height, width, channels]`, row-major, with a label per image or none. Values are
/// bytes, or 16 bits where [`LoadOptions::sixteen_bits`] asked for them; they lie in memory, or in a file of the
/// [`Cache`](crate::Cache) that is mapped into it.
///
/// Cloning and [`subset`](Self::subset) share the pixels. It is a burn-dataset [`Dataset`] of [`Item`]s, so that burn's
/// transforms and loaders take it.
///
/// ```
/// let set = data::ImageSet::new("two", vec![0, 255, 255, 0], [2, 1, 2, 1], Some(vec![0, 1]), None)?;
/// assert_eq!((set.len(), set.classes(), set.image(1)), (2, 2, [255, 0].as_slice()));
///
/// let mut batch = [0.0; 2];
/// set.write_chw_f32(0, true, &mut batch);
/// assert_eq!(batch, [1.0, -1.0]);
/// # Ok::<(), data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ImageSet {
    name: String,
    pixels: Arc<Pixels>,
    sixteen_bits: bool,
    /// For a subset: the indices of its images in `pixels`. `None` is all of them.
    rows: Option<Arc<[u32]>>,
    height: usize,
    width: usize,
    channels: usize,
    has_alpha: bool,
    labels: Option<Vec<u32>>,
    classes: usize,
    class_names: Option<Vec<String>>,
    source_sizes: Option<Arc<BTreeMap<(usize, usize), usize>>>,
    /// The names of the pictures in `pixels`.
    titles: Option<Arc<Titles>>,
    /// (height, width) without the border of [`Padding`].
    content_size: (usize, usize),
    /// The cached [`ImageSet::content_hash`].
    content_hash: Arc<OnceLock<String>>,
}

impl ImageSet {
    /// Wraps `pixels` of shape `[count, height, width, channels]`; `channels` is 1 (gray), 3 (RGB), 4 (RGBA), or another number
    /// up to 64.
    ///
    /// `labels`, where there are any, are one per image, each below the number of `class_names`; without names, the
    /// number of classes is the largest label + 1.
    ///
    /// # Errors
    /// [`DataError::BadShape`] where a side or the count is 0, `pixels` has another length, the channels are more than 64, the labels are another number, a label has no class, or there are class names but no labels.
    pub fn new(
        name: impl Into<String>,
        pixels: Vec<u8>,
        shape: [usize; 4],
        labels: Option<Vec<u32>>,
        class_names: Option<Vec<String>>,
    ) -> Result<Self, DataError> {
        Self::of_pixels(name.into(), Pixels::Memory(pixels), false, shape, labels, class_names)
    }

    /// As [`new`](Self::new), with values of 16 bits, 0 to 65535.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_sixteen_bits(
        name: impl Into<String>,
        pixels: &[u16],
        shape: [usize; 4],
        labels: Option<Vec<u32>>,
        class_names: Option<Vec<String>>,
    ) -> Result<Self, DataError> {
        let mut bytes = vec![0; 2 * pixels.len()];
        u16::write_bytes(pixels, &mut bytes);
        Self::of_pixels(name.into(), Pixels::Memory(bytes), true, shape, labels, class_names)
    }

    pub(crate) fn of_pixels(
        name: String,
        pixels: Pixels,
        sixteen_bits: bool,
        [count, height, width, channels]: [usize; 4],
        labels: Option<Vec<u32>>,
        class_names: Option<Vec<String>>,
    ) -> Result<Self, DataError> {
        transform::check_channels(channels)?;
        let value_bytes = if sixteen_bits { 2 } else { 1 };
        let sides = [height, width, channels, value_bytes];
        let expected = sides.iter().try_fold(count, |product, &side| product.checked_mul(side));
        let bytes = pixels.as_slice().len();
        if expected != Some(bytes) || bytes == 0 || u32::try_from(count).is_err() {
            let expected = format!("{count}x{height}x{width}x{channels} values, none of these 0");
            let got = format!("{} values", bytes / value_bytes);
            return Err(DataError::bad_shape("pixels of an image set", expected, got));
        }
        let mut classes = 0;
        if let Some(labels) = &labels {
            if labels.len() != count {
                let expected = format!("{count}, one per image");
                return Err(DataError::bad_shape("labels of an image set", expected, labels.len()));
            }
            let largest = labels.iter().copied().max().unwrap_or(0);
            classes = class_names.as_ref().map_or(largest as usize + 1, Vec::len);
            if largest as usize >= classes {
                let expected = format!("a label below {classes}, the number of classes");
                return Err(DataError::bad_shape("largest label", expected, largest));
            }
        } else if class_names.is_some() {
            let expected = "one per image, because there are class names";
            return Err(DataError::bad_shape("labels of an image set", expected, "none"));
        }
        Ok(Self {
            name,
            pixels: Arc::new(pixels),
            sixteen_bits,
            rows: None,
            height,
            width,
            channels,
            has_alpha: channels == 4,
            labels,
            classes,
            class_names,
            source_sizes: None,
            titles: None,
            content_size: (height, width),
            content_hash: Arc::default(),
        })
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.rows.as_ref().map_or_else(|| self.pixels.as_slice().len() / self.image_bytes(), |rows| rows.len())
    }

    /// Whether there is no image; only a [`subset`](Self::subset) can be empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// 1 (gray), 3 (RGB), 4 (RGBA), or another number up to 64.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Whether the last of four channels is alpha.
    pub fn has_alpha(&self) -> bool {
        self.has_alpha
    }

    /// Whether the channels are gray, RGB or RGBA, and not bands without colors.
    pub fn has_colors(&self) -> bool {
        transform::has_colors(self.channels, self.has_alpha)
    }

    /// Rows of every image.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns of every image.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values in one image: `height * width * channels`.
    pub fn image_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Bytes in one image: one or two per value.
    fn image_bytes(&self) -> usize {
        self.image_len() * if self.sixteen_bits { 2 } else { 1 }
    }

    /// Whether values have 16 bits instead of 8.
    pub fn sixteen_bits(&self) -> bool {
        self.sixteen_bits
    }

    /// Whether the pixels lie in a mapped file instead of in memory.
    pub fn is_mapped(&self) -> bool {
        matches!(*self.pixels, Pixels::Mapped { .. })
    }

    /// The class of each image, below [`classes`](Self::classes); `None` where the data has no labels.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// The class of image `index`, if there are labels and the image exists.
    pub fn label(&self, index: usize) -> Option<u32> {
        self.labels.as_ref().and_then(|labels| labels.get(index).copied())
    }

    /// The number of classes; 0 where the data has no labels. A subset keeps the number of the whole.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The names of the classes, in order of their labels.
    pub fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    /// The name of the dataset, or of the file or folder of the images.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of images of each (height, width) before resizing; `None` for images of one size that are
    /// unchanged.
    pub fn source_sizes(&self) -> Option<&BTreeMap<(usize, usize), usize>> {
        self.source_sizes.as_deref()
    }

    /// (height, width) without the border of [`Padding`].
    pub fn content_size(&self) -> (usize, usize) {
        self.content_size
    }

    /// The file, or the place in a file, of image `index`; None of arrays, where the index says it.
    pub fn title(&self, index: usize) -> Option<String> {
        let row = match &self.rows {
            Some(rows) => *rows.get(index)? as usize,
            None => index,
        };
        self.titles.as_ref()?.get(row)
    }

    /// Adds the names of all pictures.
    pub(crate) fn with_titles(self, titles: Titles) -> Self {
        Self { titles: Some(Arc::new(titles)), ..self }
    }

    /// The values of image `index`, `[height, width, channels]`: a byte each, or two, the less significant first, where
    /// they have [16 bits](Self::sixteen_bits).
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn image(&self, index: usize) -> &[u8] {
        let row = self.rows.as_ref().map_or(index, |rows| rows[index] as usize);
        &self.pixels.as_slice()[row * self.image_bytes()..][..self.image_bytes()]
    }

    /// The values of image `index`, `[height, width, channels]`, as bytes; values of 16 bits are rounded.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn bytes(&self, index: usize) -> Cow<'_, [u8]> {
        let image = self.image(index);
        if self.sixteen_bits { words(image).map(word_to_u8).collect() } else { Cow::Borrowed(image) }
    }

    /// The images at `indices`, in that order: `0..100`, `(0..len).step_by(2)`, or a list. The pixels are shared.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len).
    pub fn subset(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let indices: Vec<usize> = indices.into_iter().collect();
        let len = self.len();
        let row = |&index: &usize| {
            assert!(index < len, "index {index} is not below the {len} images of `{}`", self.name);
            self.rows.as_ref().map_or(index as u32, |rows| rows[index])
        };
        Self {
            rows: Some(indices.iter().map(row).collect()),
            labels: self.labels.as_ref().map(|labels| indices.iter().map(|&index| labels[index]).collect()),
            source_sizes: None,
            content_hash: Arc::default(),
            ..self.clone()
        }
    }

    /// SHA-256, in hexadecimal, over the shape, the pixels, the number of classes and the labels, but no names: equal data has
    /// an equal hash, wherever it was read from. The first call reads all pixels.
    pub fn content_hash(&self) -> String {
        self.content_hash.get_or_init(|| self.hash_content()).clone()
    }

    fn hash_content(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(if self.sixteen_bits {
            b"diffuse image set of 16 bits 2\0".as_slice()
        } else {
            b"diffuse image set 2\0"
        });
        for number in [self.len(), self.height, self.width, self.channels, self.classes] {
            hash.update((number as u64).to_le_bytes());
        }
        // the blocks are hashed in parallel
        let hash_of_block = |start: usize| {
            let mut hash = Sha256::new();
            (start..self.len().min(start + HASH_BLOCK)).for_each(|index| hash.update(self.image(index)));
            hash.finalize()
        };
        let starts = (0..self.len()).into_par_iter().step_by(HASH_BLOCK);
        for block in starts.map(hash_of_block).collect::<Vec<_>>() {
            hash.update(block);
        }
        for label in self.labels.iter().flatten() {
            hash.update(label.to_le_bytes());
        }
        hexadecimal(&hash.finalize())
    }

    /// Writes image `index` into `out` as numbers in `[-1, 1]`, `[channels, height, width]`, mirrored if `flip`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len), or `out` has another length than [`image_len`](Self::image_len).
    pub fn write_chw_f32(&self, index: usize, flip: bool, out: &mut [f32]) {
        assert_eq!(out.len(), self.image_len(), "`out` must hold channels * height * width numbers");
        let image = self.image(index);
        if self.sixteen_bits {
            self.write_planes(
                |at| word_to_unit_range(u16::from_le_bytes([image[2 * at], image[2 * at + 1]])),
                flip,
                out,
            );
        } else {
            self.write_planes(|at| to_unit_range(image[at]), flip, out);
        }
    }

    /// A batch of images in `[-1, 1]`, `[count, channels, height, width]`, row-major; each is mirrored where its flag is set.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len).
    pub fn batch(&self, images: impl IntoIterator<Item = (usize, bool)>) -> Vec<f32> {
        let images: Vec<(usize, bool)> = images.into_iter().collect();
        let mut batch = vec![0f32; images.len() * self.image_len()];
        for ((index, flip), out) in images.into_iter().zip(batch.chunks_exact_mut(self.image_len())) {
            self.write_chw_f32(index, flip, out);
        }
        batch
    }

    /// Writes the numbers of an image, which `number` returns by their index in `[height, width, channels]`.
    fn write_planes(&self, number: impl Fn(usize) -> f32, flip: bool, out: &mut [f32]) {
        for (channel, plane) in out.chunks_exact_mut(self.height * self.width).enumerate() {
            for (row, line) in plane.chunks_exact_mut(self.width).enumerate() {
                let numbers =
                    (0..self.width).map(|column| number((row * self.width + column) * self.channels + channel));
                if flip {
                    line.iter_mut().rev().zip(numbers).for_each(|(out, number)| *out = number);
                } else {
                    line.iter_mut().zip(numbers).for_each(|(out, number)| *out = number);
                }
            }
        }
    }

    /// Adds the facts of the source: the least number of classes where they have no names (the last ones may have no image
    /// here), the size without padding, and the sizes before resizing.
    pub(crate) fn with_source(
        mut self,
        classes: usize,
        content_size: (usize, usize),
        sizes: BTreeMap<(usize, usize), usize>,
    ) -> Self {
        if self.class_names.is_none() {
            self.classes = self.classes.max(classes);
        }
        Self { content_size, source_sizes: Some(Arc::new(sizes)), ..self }
    }

    /// The same images, the last of whose four channels is alpha, or is none.
    pub(crate) fn with_alpha(self, has_alpha: bool) -> Self {
        Self { has_alpha: has_alpha && self.channels == 4, ..self }
    }

    /// The extremes of its values, which are bytes, in the range of `options`, else in their own.
    pub(crate) fn levels(&self, options: &LoadOptions) -> Levels {
        let range = Range::given(options).unwrap_or(Range::BYTES);
        let mut levels = Levels::default();
        (0..self.len()).for_each(|index| levels.add(&Levels::of_values(range, self.image(index), 1, 1)));
        levels
    }

    /// Limits, stretches, converts, resizes and pads as `options` say, for readers whose images are bytes of one size.
    pub(crate) fn prepared(self, options: &LoadOptions) -> Result<Self, DataError> {
        let limited = match options.limit {
            Some(limit) if limit < self.len() => self.subset(evenly_spread(self.len(), limit)),
            _ => self,
        };
        let channels = options.channels.unwrap_or(limited.channels);
        let size = (limited.height, limited.width);
        let (height, width) = options.final_size(size)?;
        let is_same_size = options.size.is_none_or(|wanted| wanted == size) && (height, width) == size;
        if is_same_size && channels == limited.channels && options.range.is_none() {
            return Ok(limited);
        }
        let range = Range::given(options).unwrap_or(Range::BYTES);
        check_depth(Range::BYTES, range).map_err(|problem| DataError::bad_option("range", problem))?;
        let stretched: Vec<u8> = (0..=u8::MAX).map(|byte| range.value(byte.into())).collect();
        let image_bytes = height * width * channels;
        let mut pixels = allocate(limited.len() as u128 * image_bytes as u128, Path::new(&limited.name))?;
        pixels.resize(limited.len() * image_bytes, 0);
        pixels.par_chunks_exact_mut(image_bytes).enumerate().try_for_each(|(index, slot)| {
            let values = limited.image(index).iter().map(|&byte| stretched[usize::from(byte)]).collect();
            let picture = Raster::new(values, limited.height, limited.width, limited.channels)?;
            slot.copy_from_slice(prepare(&picture, channels, options)?.pixels());
            Ok::<(), DataError>(())
        })?;
        let sizes = BTreeMap::from([(size, limited.len())]);
        let shape = [limited.len(), height, width, channels];
        let prepared = Self::new(limited.name, pixels, shape, limited.labels, limited.class_names)?;
        Ok(prepared.with_source(limited.classes, options.size.unwrap_or(size), sizes))
    }
}

/// Converts, resizes and pads one picture as `options` say.
pub(crate) fn prepare<V: Value>(
    picture: &Raster<V>,
    channels: usize,
    options: &LoadOptions,
) -> Result<Raster<V>, DataError> {
    let mut picture = transform::convert_channels(picture, channels)?;
    if let Some((height, width)) = options.size {
        picture = transform::resize_short_side_and_center_crop(&picture, height, width)?;
    }
    if options.padding == Padding::None {
        return Ok(picture);
    }
    let (height, width) = options.padding.around((picture.height(), picture.width()));
    transform::pad_to(&picture, height, width, options.padding.fill())
}

/// `limit` indices of `0..len`, spread evenly: data sorted by class keeps all its classes.
pub(crate) fn evenly_spread(len: usize, limit: usize) -> impl Iterator<Item = usize> {
    (0..limit.min(len)).map(move |index| (index as u128 * len as u128 / limit.min(len) as u128) as usize)
}

/// One image of an [`ImageSet`], for burn's loaders.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Item {
    /// The values, `[height, width, channels]`, rounded to bytes where they have 16 bits.
    pub pixels: Vec<u8>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 (gray), 3 (RGB), 4 (RGBA), or another number up to 64.
    pub channels: usize,
    /// The class, where the data has labels.
    pub label: Option<u32>,
}

impl Dataset<Item> for ImageSet {
    fn get(&self, index: usize) -> Result<Item, DatasetError> {
        Ok(Item {
            pixels: self.bytes(index).into_owned(),
            height: self.height,
            width: self.width,
            channels: self.channels,
            label: self.label(index),
        })
    }

    fn len(&self) -> usize {
        ImageSet::len(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_dataset::transform::{ComposedDataset, MapperDataset, PartialDataset, SamplerDataset, ShuffledDataset};

    fn ten() -> ImageSet {
        let pixels = (0..10 * 2 * 3).collect();
        ImageSet::new("ten", pixels, [10, 2, 3, 1], Some((0..10).map(|index| index % 5).collect()), None).unwrap()
    }

    #[test]
    fn every_byte_survives_the_unit_range() {
        for value in 0..=255 {
            let unit = to_unit_range(value);
            assert!((-1.0..=1.0).contains(&unit));
            assert_eq!(to_u8(unit), value);
        }
        assert_eq!((to_unit_range(0), to_unit_range(255)), (-1.0, 1.0));
    }

    #[test]
    fn numbers_outside_of_the_range_are_clamped() {
        let numbers = [-3.0, 7.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0];
        assert_eq!(numbers.map(to_u8), [0, 255, 255, 0, 0, 128]);
    }

    #[test]
    fn images_are_written_as_planes_and_flipped() {
        // two RGB pixels over two rows: red 0 255 / 0 0, green 0 0 / 255 0, blue all 255
        let pixels = vec![0, 0, 255, 255, 0, 255, 0, 255, 255, 0, 0, 255];
        let set = ImageSet::new("rgb", pixels, [1, 2, 2, 3], None, None).unwrap();
        let mut out = [9.0; 12];
        set.write_chw_f32(0, false, &mut out);
        assert_eq!(out, [-1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0]);
        set.write_chw_f32(0, true, &mut out);
        assert_eq!(out, [1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn sixteen_bits_give_finer_numbers() {
        let values = [0, 1, 0x8000, 0xffff, 257 * 77, 257 * 77 + 100];
        let set = ImageSet::new_sixteen_bits("deep", &values, [1, 2, 1, 3], None, None).unwrap();
        assert_eq!((set.len(), set.image_len(), set.image(0).len(), set.sixteen_bits()), (1, 6, 12, true));
        assert_eq!(*set.bytes(0), [0, 0, 128, 255, 77, 77]);
        let mut out = [9.0; 6];
        set.write_chw_f32(0, false, &mut out);
        // planes: values 0 and 3, 1 and 4, 2 and 5
        assert_eq!((out[0], out[1]), (-1.0, 1.0));
        assert!((out[2] - (1.0 / 32767.5 - 1.0)).abs() < 1e-7 && out[2] > -1.0);
        assert!((out[3] - to_unit_range(77)).abs() < 1e-6 && out[5] > out[3]);
        let bytes = ImageSet::new("deep", set.image(0).to_vec(), [1, 4, 1, 3], None, None).unwrap();
        assert_ne!(set.content_hash(), bytes.content_hash());
        assert!(ImageSet::new_sixteen_bits("deep", &values, [1, 2, 2, 3], None, None).is_err());
    }

    #[test]
    fn subsets_share_pixels_and_keep_classes() {
        let set = ten();
        assert_eq!((set.len(), set.classes(), set.label(7)), (10, 5, Some(2)));
        let odd = set.subset((1..10).step_by(2));
        assert_eq!(odd.len(), 5);
        assert_eq!(odd.image(1), set.image(3));
        assert_eq!(odd.labels(), Some([1, 3, 0, 2, 4].as_slice()));
        let nested = odd.subset(vec![4, 0]);
        assert_eq!(nested.image(0), set.image(9));
        assert_eq!((nested.image(1), nested.classes()), (set.image(1), 5));
        assert!(Arc::ptr_eq(&set.pixels, &nested.pixels));
        assert!(set.subset(0..0).is_empty());
    }

    #[test]
    fn the_hash_depends_on_the_content_only() {
        let set = ten();
        assert_eq!(set.content_hash(), ten().content_hash());
        assert_eq!(set.content_hash().len(), 64);
        assert_eq!(set.subset(0..10).content_hash(), set.content_hash());
        let relabeled =
            ImageSet::new("ten", set.pixels.as_slice().to_vec(), [10, 2, 3, 1], Some(vec![4; 10]), None).unwrap();
        let reshaped =
            ImageSet::new("ten", set.pixels.as_slice().to_vec(), [10, 3, 2, 1], set.labels.clone(), None).unwrap();
        let mut pixels = set.pixels.as_slice().to_vec();
        pixels[59] ^= 1;
        let touched = ImageSet::new("ten", pixels, [10, 2, 3, 1], set.labels.clone(), None).unwrap();
        for other in [relabeled, reshaped, touched, set.subset(0..9)] {
            assert_ne!(other.content_hash(), set.content_hash());
        }
    }

    #[test]
    fn arrays_that_do_not_fit_are_refused() {
        let two = |labels, names| ImageSet::new("bad", vec![0; 8], [2, 2, 2, 1], labels, names);
        for error in [
            ImageSet::new("bad", vec![0; 7], [2, 2, 2, 1], None, None),
            ImageSet::new("bad", vec![], [0, 2, 2, 1], None, None),
            ImageSet::new("bad", vec![], [usize::MAX, usize::MAX, 4, 1], None, None),
            ImageSet::new("bad", vec![0; 2 * 65], [2, 1, 1, 65], None, None),
            two(Some(vec![0]), None),
            two(Some(vec![0, 2]), Some(vec!["a".into(), "b".into()])),
            two(None, Some(vec!["a".into()])),
        ] {
            assert!(matches!(error, Err(DataError::BadShape { .. })), "{error:?}");
        }
    }

    #[test]
    fn limits_are_spread_over_the_whole() {
        assert_eq!(evenly_spread(10, 5).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
        assert_eq!(evenly_spread(3, 9).collect::<Vec<_>>(), [0, 1, 2]);
        let options = LoadOptions { limit: Some(4), ..LoadOptions::default() };
        assert_eq!(ten().prepared(&options).unwrap().labels(), Some([0, 2, 0, 2].as_slice()));
    }

    #[test]
    fn preparing_resizes_pads_and_converts() {
        let options = LoadOptions {
            size: Some((4, 4)),
            channels: Some(3),
            padding: Padding::To { height: 6, width: 8, fill: 7 },
            ..LoadOptions::default()
        };
        let set = ten().prepared(&options).unwrap();
        assert_eq!((set.height(), set.width(), set.channels(), set.len()), (6, 8, 3, 10));
        assert_eq!(set.image(0)[..3], [7, 7, 7]);
        assert_eq!((set.content_size(), set.subset(0..3).content_size()), ((4, 4), (4, 4)));
        assert_eq!(ten().content_size(), (2, 3));
        assert_eq!(set.source_sizes(), Some(&BTreeMap::from([((2, 3), 10)])));
        assert_eq!((set.labels(), set.classes()), (ten().labels(), 5));
    }

    #[test]
    fn transforms_of_burn_take_it() {
        let set = ten();
        let direct = Dataset::get(&set, 3).unwrap();
        assert_eq!((direct.pixels.as_slice(), direct.label), (set.image(3), Some(3)));
        assert_eq!(Dataset::iter(&set).count(), 10);

        let shuffled = ShuffledDataset::new(set.clone(), 1);
        let mut seen: Vec<Vec<u8>> = shuffled.iter().map(|item| item.unwrap().pixels).collect();
        assert_ne!(seen[0..10], (0..10).map(|index| set.image(index).to_vec()).collect::<Vec<_>>());
        seen.sort();
        assert_eq!(seen, (0..10).map(|index| set.image(index).to_vec()).collect::<Vec<_>>());

        let halves = PartialDataset::split(set.clone(), 2);
        assert_eq!(halves[1].len(), 5);
        assert_eq!(halves[1].get(0).unwrap().pixels, set.image(5));

        let sampler = SamplerDataset::with_replacement(set.clone(), 25);
        assert_eq!(sampler.len(), 25);

        struct Label;
        impl burn_dataset::transform::Mapper<Item, u32> for Label {
            fn map(&self, item: &Item) -> u32 {
                item.label.unwrap()
            }
        }
        let labels = MapperDataset::new(ComposedDataset::new(vec![set.clone(), set]), Label);
        assert_eq!(labels.get(13).unwrap(), 3);
    }
}
