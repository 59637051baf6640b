//! Pictures of 16 bits per value.

use std::path::Path;

use image::ExtendedColorType;

use crate::{
    PictureError,
    pixels::{check_colors, checked_length},
    png::encode,
};

/// A picture in memory: values of 16 bits in the order height, width, channels; 1 channel is gray, 3 are RGB, 4 are RGBA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeepPixels {
    height: usize,
    width: usize,
    channels: usize,
    data: Vec<u16>,
}

impl DeepPixels {
    /// The pictures of a batch, from `values` in `[-1, 1]` in the order image, channels, height, width. Each value becomes
    /// `round((value + 1) * 32767.5)`, clamped to `[0, 65535]`; a NaN becomes 0.
    ///
    /// # Errors
    /// A size of 0, more than 64 channels, or `values` that are not a whole number of images.
    pub fn from_nchw(height: usize, width: usize, channels: usize, values: &[f32]) -> Result<Vec<Self>, PictureError> {
        let expected = checked_length("the picture", height, width, channels)?;
        let picture = |image: &[f32]| {
            if image.len() != expected {
                return Err(PictureError::Length { height, width, channels, expected, actual: image.len() });
            }
            let plane = height * width;
            let value =
                |at: usize| ((f64::from(image[at % channels * plane + at / channels]) + 1.0) * 32767.5).round() as u16;
            Ok(Self { height, width, channels, data: (0..expected).map(value).collect() })
        };
        values.chunks(expected).map(picture).collect()
    }

    /// The values, in the order height, width, channels.
    pub fn data(&self) -> &[u16] {
        &self.data
    }
}

/// Encodes the picture as a PNG file of 16 bits per channel, without loss; equal pictures give equal bytes.
///
/// # Errors
/// [`PictureError::Channels`], and a picture of more than 2^32 - 1 pixels in one direction.
pub fn to_png_sixteen_bits(picture: &DeepPixels) -> Result<Vec<u8>, PictureError> {
    check_colors(picture.channels)?;
    let color = match picture.channels {
        1 => ExtendedColorType::L16,
        3 => ExtendedColorType::Rgb16,
        _ => ExtendedColorType::Rgba16,
    };
    let data: Vec<u8> = picture.data.iter().flat_map(|value| value.to_ne_bytes()).collect();
    encode(picture.height, picture.width, &data, color)
}

/// Writes the picture to `path` as a PNG file, whole or not at all; an existing file is replaced.
///
/// # Errors
/// As [`to_png_sixteen_bits`]; and [`PictureError::File`] where the file cannot be written.
pub fn save_png_sixteen_bits(picture: &DeepPixels, path: impl AsRef<Path>) -> Result<(), PictureError> {
    Ok(files::write_atomically(path.as_ref(), &to_png_sixteen_bits(picture)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_written_and_read_back() {
        let values = [-1.0, 1.0, 0.0, -9.0, f32::NAN, 0.5];
        let pictures = DeepPixels::from_nchw(1, 2, 3, &values).unwrap();
        assert_eq!(pictures[0].data(), [0, 32768, 0, 65535, 0, 49151]);
        for channels in [1, 3, 4] {
            let values: Vec<f32> = (0..5 * 7 * channels).map(|at| at as f32 / 70.0 - 1.0).collect();
            let picture = DeepPixels::from_nchw(5, 7, channels, &values).unwrap().remove(0);
            let read = image::load_from_memory(&to_png_sixteen_bits(&picture).unwrap()).unwrap();
            let read = match channels {
                1 => read.as_luma16().unwrap().as_raw().clone(),
                3 => read.as_rgb16().unwrap().as_raw().clone(),
                _ => read.as_rgba16().unwrap().as_raw().clone(),
            };
            assert_eq!(read, picture.data());
        }
        assert!(DeepPixels::from_nchw(1, 2, 3, &[0.0; 7]).is_err());
        assert!(DeepPixels::from_nchw(1, 2, 65, &[0.0; 130]).is_err());
        let pair = DeepPixels::from_nchw(1, 2, 2, &[0.0; 4]).unwrap();
        assert!(to_png_sixteen_bits(&pair[0]).unwrap_err().to_string().contains("npz"));
    }
}
