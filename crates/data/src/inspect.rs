//! The summary of a dataset.

use rayon::prelude::*;
use serde::Serialize;

use crate::decode::words;
use crate::image_set::ImageSet;
use crate::transform::MOST_CHANNELS;

/// A summary of an [`ImageSet`]; see [`inspect`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The set's name.
    pub name: String,
    /// Number of images.
    pub count: usize,
    /// Rows of every image.
    pub height: usize,
    /// Columns of every image.
    pub width: usize,
    /// 1 (gray), 3 (RGB), 4 (RGBA), or another number up to 64.
    pub channels: usize,
    /// Bits of a value: 8 or 16.
    pub bits: usize,
    /// Name and number of images of each class, in order of the labels; empty without labels. The name of a class without a
    /// name is its label.
    pub classes: Vec<(String, usize)>,
    /// Mean of each channel, values scaled to `[0, 1]`.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel (over all pixels, not a sample of them), in the same scale.
    pub deviation: Vec<f64>,
    /// `((height, width), images)` before resizing, the most frequent first; empty where they are unknown.
    pub source_sizes: Vec<((usize, usize), usize)>,
}

/// Summarizes `images`. Sums are exact (integers), so that the result does not depend on the order of addition.
///
/// ```
/// let set = data::ImageSet::new("two", vec![0, 255, 255, 0], [2, 1, 2, 1], Some(vec![1, 1]), None)?;
/// let inspection = data::inspect(&set);
/// assert_eq!((inspection.mean[0], inspection.deviation[0]), (0.5, 0.5));
/// assert_eq!(inspection.classes, [("0".to_string(), 0), ("1".to_string(), 2)]);
/// # Ok::<(), data::DataError>(())
/// ```
pub fn inspect(images: &ImageSet) -> Inspection {
    let channels = images.channels();
    // a sum of squares of 2^47 bytes fits into u64, one of 16 bits needs more
    let sums = |mut sums: Vec<(u64, u128)>, index: usize| {
        let mut of_image = [(0u64, 0u64); MOST_CHANNELS];
        let mut add = |at: usize, value: u64| {
            let sum = &mut of_image[at % channels];
            *sum = (sum.0 + value, sum.1 + value * value);
        };
        let image = images.image(index);
        if images.sixteen_bits() {
            words(image).enumerate().for_each(|(at, word)| add(at, word.into()));
        } else {
            image.iter().enumerate().for_each(|(at, &byte)| add(at, byte.into()));
        }
        for (sum, of_image) in sums.iter_mut().zip(of_image) {
            *sum = (sum.0 + of_image.0, sum.1 + u128::from(of_image.1));
        }
        sums
    };
    let add = |left: Vec<(u64, u128)>, right: Vec<(u64, u128)>| {
        left.iter().zip(right).map(|(left, right)| (left.0 + right.0, left.1 + right.1)).collect()
    };
    let none = || vec![(0, 0); channels];
    let totals: Vec<(u64, u128)> = (0..images.len()).into_par_iter().fold(none, sums).reduce(none, add);
    let pixels = (images.len() * images.height() * images.width()).max(1) as f64;
    let most = if images.sixteen_bits() { 65535.0 } else { 255.0 };

    let mut counts = vec![0; images.classes()];
    for &label in images.labels().unwrap_or_default() {
        counts[label as usize] += 1;
    }
    let class_name = |class: usize| match images.class_names() {
        Some(names) => names[class].clone(),
        None => class.to_string(),
    };
    let mut source_sizes: Vec<_> =
        images.source_sizes().into_iter().flatten().map(|(&size, &count)| (size, count)).collect();
    source_sizes.sort_by_key(|&(size, count)| (std::cmp::Reverse(count), size));
    Inspection {
        name: images.name().to_string(),
        count: images.len(),
        height: images.height(),
        width: images.width(),
        channels,
        classes: counts.into_iter().enumerate().map(|(class, count)| (class_name(class), count)).collect(),
        bits: if images.sixteen_bits() { 16 } else { 8 },
        mean: totals.iter().map(|&(sum, _)| sum as f64 / pixels / most).collect(),
        deviation: totals
            .iter()
            .map(|&(sum, squares)| (squares as f64 / pixels - (sum as f64 / pixels).powi(2)).max(0.0).sqrt() / most)
            .collect(),
        source_sizes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_measured_apart() {
        let pixels = vec![0, 10, 255, 255, 10, 255];
        let set = ImageSet::new("rgb", pixels, [1, 1, 2, 3], None, None).unwrap();
        let inspection = inspect(&set);
        assert_eq!(inspection.mean, [0.5, 10.0 / 255.0, 1.0]);
        assert_eq!(inspection.deviation, [0.5, 0.0, 0.0]);
        assert!(inspection.classes.is_empty());
    }

    #[test]
    fn sixteen_bits_are_measured_in_the_same_scale() {
        let set = ImageSet::new_sixteen_bits("deep", &[0, 65535, 65535, 0], [1, 2, 2, 1], None, None).unwrap();
        let inspection = inspect(&set);
        assert_eq!((inspection.mean[0], inspection.deviation[0], inspection.bits), (0.5, 0.5, 16));
    }

    #[test]
    fn sixty_four_channels_are_measured() {
        let pixels = (0..2 * 64).map(|at| (at % 64) as u8 * 4).collect();
        let inspection = inspect(&ImageSet::new("bands", pixels, [2, 1, 1, 64], None, None).unwrap());
        assert_eq!((inspection.mean.len(), inspection.deviation.len(), inspection.channels), (64, 64, 64));
        assert_eq!((inspection.mean[63], inspection.deviation[63]), (252.0 / 255.0, 0.0));
    }

    #[test]
    fn subsets_and_names_count() {
        let names = Some(vec!["cat".to_string(), "dog".to_string()]);
        let set = ImageSet::new("pets", vec![1, 2, 3], [3, 1, 1, 1], Some(vec![0, 1, 1]), names).unwrap();
        let inspection = inspect(&set.subset(1..3));
        assert_eq!(inspection.classes, [("cat".to_string(), 0), ("dog".to_string(), 2)]);
        assert_eq!((inspection.count, inspection.mean[0]), (2, 2.5 / 255.0));
    }
}
