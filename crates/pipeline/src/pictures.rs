//! Tensors of images as pictures, and the grid of samples.

use burn::tensor::Tensor;
use picture::{PictureError, Pixels, grid};

/// A batch of images as 8-bit pictures.
///
/// # Shapes
/// - `images`: `[count, channels, height, width]` in [-1, 1]
///
/// # Errors
/// [`PictureError`] if a picture cannot have this number of channels.
pub fn pictures(images: Tensor<4>) -> Result<Vec<Pixels>, PictureError> {
    let [_, channels, height, width] = images.dims();
    Pixels::from_nchw(height, width, channels, &images.into_data().iter::<f32>().collect::<Vec<f32>>())
}

/// Columns of a grid of `count` samples: one row for each class if the classes come evenly ([`Request::even`](crate::Request::even)),
/// about a square without classes (`classes = 0`).
pub fn grid_columns(count: usize, classes: usize) -> usize {
    let columns = if classes > 0 { count.div_ceil(classes) } else { (count as f64).sqrt().ceil() as usize };
    columns.max(1)
}

/// The grid of samples that a run ends with: [`grid_columns`], two pixels between samples, small images enlarged.
///
/// # Errors
/// As [`grid`].
pub fn sample_grid(pictures: &[Pixels], columns: usize) -> Result<Pixels, PictureError> {
    grid(pictures, columns, 2, pictures.first().map_or(1, Pixels::display_scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_has_a_row_and_without_classes_a_grid_is_about_square() {
        assert_eq!((grid_columns(100, 10), grid_columns(25, 0), grid_columns(26, 0)), (10, 5, 6));
        assert_eq!((grid_columns(3, 10), grid_columns(0, 0)), (1, 1));
    }
}
