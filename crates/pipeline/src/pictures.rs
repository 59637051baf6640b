//! Tensors of images as pictures, and the grid of samples.

use burn::tensor::Tensor;
use checkpoint::ImageFormat;
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

/// A batch of images of a model as pictures to look at: of channels without colors, those of `preview_channels`.
///
/// # Errors
/// As [`pictures()`], and [`PictureError::NoChannel`].
pub fn previews(images: Tensor<4>, format: &ImageFormat) -> Result<Vec<Pixels>, PictureError> {
    let pictures = pictures(images)?;
    match format.preview_channels {
        Some(channels) => pictures.iter().map(|picture| picture.shown(channels)).collect(),
        None => Ok(pictures),
    }
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
    fn three_channels_of_several_are_shown() {
        let device = burn::tensor::Device::flex();
        let image = Tensor::<1>::from_data([-1.0, -0.5, 0.0, 0.5, 1.0], &device).reshape([1, 5, 1, 1]);
        let format = ImageFormat { preview_channels: Some([4, 0, 2]), ..ImageFormat::new(5, 1, 1) };
        assert_eq!(previews(image.clone(), &format).unwrap()[0].data(), [255, 0, 128]);
        assert_eq!(previews(image.clone(), &ImageFormat::new(5, 1, 1)).unwrap()[0].data(), [0, 64, 128]);
        assert_eq!(pictures(image.clone()).unwrap()[0].channels(), 5);
        let error = previews(image, &ImageFormat { preview_channels: Some([0, 1, 5]), ..format }).unwrap_err();
        assert!(error.to_string().contains("no channel 5"), "{error}");
    }

    #[test]
    fn a_class_has_a_row_and_without_classes_a_grid_is_about_square() {
        assert_eq!((grid_columns(100, 10), grid_columns(25, 0), grid_columns(26, 0)), (10, 5, 6));
        assert_eq!((grid_columns(3, 10), grid_columns(0, 0)), (1, 1));
    }
}
