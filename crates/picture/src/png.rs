//! PNG files.

use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use crate::{PictureError, Pixels, pixels::check_colors};

/// Encodes the picture as a PNG file of 8 bits per channel, without loss; equal pictures give equal bytes.
///
/// # Errors
/// [`PictureError::Channels`], and a picture of more than 2^32 - 1 pixels in one direction.
pub fn to_png(picture: &Pixels) -> Result<Vec<u8>, PictureError> {
    check_colors(picture.channels())?;
    let color = match picture.channels() {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => ExtendedColorType::Rgba8,
    };
    encode(picture.height(), picture.width(), picture.data(), color)
}

/// Encodes `data`, values as `color` says in native byte order, as a PNG file.
pub(crate) fn encode(
    height: usize,
    width: usize,
    data: &[u8],
    color: ExtendedColorType,
) -> Result<Vec<u8>, PictureError> {
    let (Ok(columns), Ok(rows)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(PictureError::TooLarge { what: "the PNG", width, height, limit: "2^32 - 1 in one direction" });
    };
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
        .write_image(data, columns, rows, color)
        .map_err(|error| PictureError::Encode { format: "PNG", reason: error.to_string() })?;
    Ok(bytes)
}

/// Writes the picture to `path` as a PNG file, whole or not at all; an existing file is replaced.
///
/// # Errors
/// As [`to_png`]; and [`PictureError::File`] where the file cannot be written.
pub fn save_png(picture: &Pixels, path: impl AsRef<Path>) -> Result<(), PictureError> {
    Ok(files::write_atomically(path.as_ref(), &to_png(picture)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_read_back_exactly() {
        let folder = tempfile::tempdir().unwrap();
        for channels in [1, 3, 4] {
            let data: Vec<u8> = (0..5 * 7 * channels).map(|index| (index * 37 % 256) as u8).collect();
            let picture = Pixels::new(5, 7, channels, data).unwrap();
            let path = folder.path().join(format!("{channels}.png"));
            save_png(&picture, &path).unwrap();
            let read = image::open(&path).unwrap();
            assert_eq!((read.height(), read.width(), read.color().channel_count()), (5, 7, channels as u8));
            assert_eq!(read.as_bytes(), picture.data());
            assert_eq!(std::fs::read(&path).unwrap(), to_png(&picture).unwrap());
        }
    }

    #[test]
    fn an_error_names_the_file() {
        let picture = Pixels::filled(1, 1, &[0]).unwrap();
        let message = save_png(&picture, "no/such/folder/picture.png").unwrap_err().to_string();
        assert!(message.contains("no/such/folder/picture.png"), "{message}");
    }
}
