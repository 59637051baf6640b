//! The raw values of pictures: the part of their range that is used, and its stretching from black to white.

use image::DynamicImage;
use serde::{Deserialize, Serialize};

use crate::range::{Extremes, Range};
use crate::transform::Value;

/// The extremes of the values of pictures, for each range that they were read in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Levels(Vec<(Range, Extremes)>);

impl Levels {
    /// The extremes of the colors of an image; of one of floating-point numbers none.
    pub fn of_image(image: &DynamicImage) -> Self {
        match image {
            DynamicImage::ImageLuma8(image) => Self::of_values(Range::BYTES, image, 1, 1),
            DynamicImage::ImageLumaA8(image) => Self::of_values(Range::BYTES, image, 2, 1),
            DynamicImage::ImageRgb8(image) => Self::of_values(Range::BYTES, image, 3, 3),
            DynamicImage::ImageRgba8(image) => Self::of_values(Range::BYTES, image, 4, 3),
            DynamicImage::ImageLuma16(image) => Self::of_values(Range::WORDS, image, 1, 1),
            DynamicImage::ImageLumaA16(image) => Self::of_values(Range::WORDS, image, 2, 1),
            DynamicImage::ImageRgb16(image) => Self::of_values(Range::WORDS, image, 3, 3),
            DynamicImage::ImageRgba16(image) => Self::of_values(Range::WORDS, image, 4, 3),
            _ => Self::default(),
        }
    }

    /// The extremes of the first `colors` of each `channels` values.
    pub fn of_values<T: Copy + Ord + Into<f64>>(range: Range, values: &[T], channels: usize, colors: usize) -> Self {
        let Some(&first) = values.first() else { return Self(Vec::new()) };
        let (mut least, mut greatest) = (first, first);
        for pixel in values.chunks_exact(channels) {
            for &value in &pixel[..colors] {
                (least, greatest) = (least.min(value), greatest.max(value));
            }
        }
        let count = (values.len() / channels * colors) as u64;
        let extremes = Extremes { least: least.into(), greatest: greatest.into(), count };
        Self(vec![(range, extremes)])
    }

    /// The same extremes of values that are read in another range.
    pub fn within(mut self, range: Range) -> Self {
        self.0.iter_mut().for_each(|(other, _)| *other = range);
        self
    }

    /// Adds those of other pictures.
    pub fn add(&mut self, other: &Self) {
        for (range, found) in &other.0 {
            match self.0.iter_mut().find(|(same, _)| same == range) {
                Some((_, all)) => *all = all.and(*found),
                None => self.0.push((*range, *found)),
            }
        }
    }

    /// What the account says about them: the use of `given`, the range of the options, else a range that is hardly used.
    pub fn sentences(&self, given: Option<Range>) -> Vec<String> {
        self.0.iter().filter_map(|(range, found)| sentence(*range, *found, given)).collect()
    }
}

impl From<(Range, Extremes)> for Levels {
    fn from(of_range: (Range, Extremes)) -> Self {
        Self(vec![of_range])
    }
}

fn sentence(range: Range, found: Extremes, given: Option<Range>) -> Option<String> {
    let (Range { low, high }, Extremes { least, greatest, .. }) = (range, found);
    if Some(range) == given {
        let clamped = if least < low || greatest > high { "; those beyond were clamped" } else { "" };
        return Some(format!(
            "values from {low} to {high} were taken as black to white (`data.range`), of values from {least} to {greatest}{clamped}"
        ));
    }
    if !found.hardly_use(range) {
        return None;
    }
    let look = if greatest < low + (high - low) / 4.0 {
        "so that pictures are nearly black"
    } else if least > high - (high - low) / 4.0 {
        "so that pictures are nearly white"
    } else {
        "so that pictures have hardly any contrast"
    };
    let [from, to] = found.proposal(range);
    Some(format!(
        "the range of values is hardly used: they run from {least} to {greatest} of {low} to {high}, {look}; \
         `data.range = [{from}, {to}]` stretches them from black to white"
    ))
}

/// The values of an image of 8 or 16 bits in 1, 3 or 4 channels, stretched from `range` to black and white; alpha is not.
///
/// # Errors
/// The reason why the image cannot be in this range.
pub(crate) fn stretched<V: Value>(image: DynamicImage, channels: usize, range: Range) -> Result<Vec<V>, String> {
    let sixteen_bits = image.color().bytes_per_pixel() > image.color().channel_count();
    let own = if sixteen_bits { Range::WORDS } else { Range::BYTES };
    check_depth(own, range)?;
    // an 8-bit value as 16 bits is its 257-fold
    let scale = if sixteen_bits { 1.0 } else { 257.0 };
    let is_alpha = |at: usize| channels == 4 && at % 4 == 3;
    let values = u16::of_image(image, channels).into_iter().enumerate().map(|(at, value)| {
        if is_alpha(at) { Range::WORDS.value(value.into()) } else { range.value(f64::from(value) / scale) }
    });
    Ok(values.collect())
}

/// Refuses a range that pictures with values in `own` use less than a quarter of: it is that of other pictures.
///
/// # Errors
/// The reason.
pub(crate) fn check_depth(own: Range, range: Range) -> Result<(), String> {
    let Range { low, high } = range;
    if own.high - low >= (high - low) / 4.0 {
        return Ok(());
    }
    Err(format!(
        "its values end at {}, so that `data.range = [{low}, {high}]` would make it nearly black; convert all pictures to one \
         depth",
        own.high
    ))
}

#[cfg(test)]
mod tests {
    use image::{ImageBuffer, Luma, LumaA, Rgba};

    use super::*;

    fn deep(values: Vec<u16>) -> DynamicImage {
        ImageBuffer::<Luma<u16>, _>::from_raw(values.len() as u32, 1, values).unwrap().into()
    }

    #[test]
    fn twelve_bits_in_sixteen_are_noticed_and_stretched() {
        let image = deep((0..300).map(|at| at * 8).collect());
        let mut levels = Levels::of_image(&image);
        levels.add(&Levels::of_image(&deep(vec![2500, 4])));
        let sentences = levels.sentences(None);
        assert_eq!(sentences.len(), 1);
        let expected = "from 0 to 2500 of 0 to 65535, so that pictures are nearly black; `data.range = [0, 4095]`";
        assert!(sentences[0].contains(expected), "{sentences:?}");
        let range = Range { low: 0.0, high: 4095.0 };
        assert_eq!(stretched::<u8>(deep(vec![0, 4095, 2048, 9999]), 1, range).unwrap(), [0, 255, 128, 255]);
        assert_eq!(stretched::<u16>(deep(vec![0, 4095]), 1, range).unwrap(), [0, 65535]);
        // a picture of 8 bits among them is not made black
        let bytes = DynamicImage::new_luma8(2, 2);
        assert!(stretched::<u8>(bytes, 1, range).unwrap_err().contains("end at 255"));
    }

    #[test]
    fn alpha_is_neither_looked_at_nor_stretched() {
        let masks = ImageBuffer::<LumaA<u8>, _>::from_fn(20, 20, |x, _| LumaA([(x % 10) as u8, 255]));
        let levels = Levels::of_image(&masks.into());
        assert!(levels.sentences(None)[0].contains("`data.range = [0, 9]`"), "{levels:?}");
        let image = ImageBuffer::<Rgba<u8>, _>::from_raw(1, 1, vec![9, 3, 0, 77]).unwrap();
        let range = Range { low: 0.0, high: 9.0 };
        assert_eq!(stretched::<u8>(image.into(), 4, range).unwrap(), [255, 85, 0, 77]);
    }

    #[test]
    fn a_given_range_is_said_with_what_it_clamps() {
        let range = Range { low: 0.0, high: 100.0 };
        let levels = Levels::from((range, Extremes::of([-5.0, 50.0, 120.0]).unwrap()));
        let sentence = levels.sentences(Some(range)).remove(0);
        assert!(sentence.contains("of values from -5 to 120; those beyond were clamped"), "{sentence}");
    }
}
