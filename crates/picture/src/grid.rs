//! Grids of pictures.

use crate::pixels::{all_alike, check_colors};
use crate::{PictureError, Pixels, text};

/// The color of gaps and empty cells.
const GAP: u8 = 255;

/// Places `images`, all of one shape, in rows of `columns` from left to right, top to bottom.
///
/// Each pixel becomes a square of `scale` x `scale` pixels. Between neighbors lie `gap` white pixels, which are not scaled;
/// there is no outer border. Empty cells of the last row are white; fewer images than `columns` make one shorter row.
///
/// The result is `rows * height * scale + (rows - 1) * gap` pixels high, as wide by the same rule, and has the channels of
/// the images.
///
/// ```
/// use picture::{Pixels, grid};
///
/// let digits = vec![Pixels::filled(28, 28, &[0])?; 5];
/// let picture = grid(&digits, 3, 2, 2)?;
/// assert_eq!((picture.height(), picture.width()), (2 * 56 + 2, 3 * 56 + 2 * 2));
/// # Ok::<(), picture::PictureError>(())
/// ```
///
/// # Errors
/// No images, images of different shapes or without colors ([`PictureError::Channels`]), `columns` or `scale` of 0, or a result of more than 2^30 values.
pub fn grid(images: &[Pixels], columns: usize, gap: usize, scale: usize) -> Result<Pixels, PictureError> {
    let first = all_alike(images, "images")?;
    check_colors(first.channels())?;
    for (what, value) in [("the number of columns", columns), ("the scale", scale)] {
        if value == 0 {
            return Err(PictureError::Zero { what });
        }
    }
    let columns = columns.min(images.len());
    let rows = images.len().div_ceil(columns);
    let side = |count: usize, pixels: usize| {
        count.saturating_mul(pixels.saturating_mul(scale)).saturating_add((count - 1).saturating_mul(gap))
    };
    let (height, width) = (side(rows, first.height()), side(columns, first.width()));
    let mut picture = Pixels::filled(height, width, &[GAP; 4][..first.channels()])?;
    let (row_step, column_step) = (first.height() * scale + gap, first.width() * scale + gap);
    for (index, image) in images.iter().enumerate() {
        picture.paste(&image.enlarged(scale)?, index / columns * row_step, index % columns * column_step);
    }
    Ok(picture)
}

/// Places `frames`, all of one shape, in a single row from left to right: [`grid`] with one column per frame.
///
/// # Errors
/// As [`grid`].
pub fn strip(frames: &[Pixels], gap: usize, scale: usize) -> Result<Pixels, PictureError> {
    grid(frames, frames.len().max(1), gap, scale)
}

/// A [`grid`] with a label to the left of each row, such as its class.
///
/// `labels` has one text per row, drawn right-aligned in black on white, at two fifths of a row's height and between 9
/// and 22 pixels per em. The result is as high as the grid, and wider by the widest label and margins.
///
/// # Errors
/// As [`grid`]; and [`PictureError::Labels`] if there is not one label per row.
pub fn labeled_grid(
    images: &[Pixels],
    columns: usize,
    gap: usize,
    scale: usize,
    labels: &[impl AsRef<str>],
) -> Result<Pixels, PictureError> {
    let plain = grid(images, columns, gap, scale)?;
    let rows = images.len().div_ceil(columns.min(images.len()));
    if labels.len() != rows {
        return Err(PictureError::Labels { rows, labels: labels.len() });
    }
    let row_height = images[0].height() * scale;
    let em = (row_height as f64 * 0.4).clamp(9.0, 22.0);
    let margin = (em / 2.0).ceil() as usize;
    let texts: Vec<Pixels> =
        labels.iter().map(|label| text::label(label.as_ref(), em, row_height)).collect::<Result<_, _>>()?;
    let widest = texts.iter().map(Pixels::width).max().unwrap_or(0);
    let left = widest + 2 * margin;

    let width = plain.width().saturating_add(left);
    let mut picture = Pixels::filled(plain.height(), width, &[GAP; 4][..plain.channels()])?;
    for (row, label) in texts.iter().enumerate() {
        let place = margin + widest - label.width();
        picture.paste(&with_channels(label, plain.channels())?, row * (row_height + gap), place);
    }
    picture.paste(&plain, 0, left);
    Ok(picture)
}

/// The gray picture in 1, 3 or 4 channels, opaque.
fn with_channels(gray: &Pixels, channels: usize) -> Result<Pixels, PictureError> {
    let data = match channels {
        1 => gray.data().to_vec(),
        3 => gray.to_rgb().into_data(),
        _ => gray.data().iter().flat_map(|&value| [value, value, value, 255]).collect(),
    };
    Pixels::new(gray.height(), gray.width(), channels, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grays(values: &[u8]) -> Vec<Pixels> {
        values.iter().map(|&value| Pixels::filled(1, 1, &[value]).unwrap()).collect()
    }

    #[test]
    fn pixels_of_a_grid_are_exact() {
        let picture = grid(&grays(&[1, 2, 3]), 2, 1, 2).unwrap();
        assert_eq!((picture.height(), picture.width(), picture.channels()), (5, 5, 1));
        #[rustfmt::skip]
        let expected = [
            1, 1, 255, 2, 2,
            1, 1, 255, 2, 2,
            255, 255, 255, 255, 255,
            3, 3, 255, 255, 255,
            3, 3, 255, 255, 255,
        ];
        assert_eq!(picture.data(), expected);
    }

    #[test]
    fn pictures_keep_orientation_and_colors() {
        let image = Pixels::new(2, 1, 3, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let picture = grid(&[image.clone(), image], 2, 0, 1).unwrap();
        assert_eq!(picture.data(), [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6]);
    }

    #[test]
    fn a_strip_is_one_row_and_few_images_make_a_short_one() {
        let picture = strip(&grays(&[9, 8, 7]), 1, 1).unwrap();
        assert_eq!(picture.data(), [9, 255, 8, 255, 7]);
        assert_eq!(picture.height(), 1);
        assert_eq!(grid(&grays(&[9, 8]), 10, 1, 1).unwrap().data(), [9, 255, 8]);
        assert!(matches!(strip(&[], 1, 1), Err(PictureError::Empty { .. })));
    }

    #[test]
    fn wrong_arguments_are_errors() {
        let images = grays(&[1, 2]);
        assert!(grid(&[], 1, 0, 1).unwrap_err().to_string().contains("no images"));
        assert!(grid(&images, 0, 0, 1).unwrap_err().to_string().contains("the number of columns is 0"));
        assert!(grid(&images, 1, 0, 0).unwrap_err().to_string().contains("the scale is 0"));
        assert!(matches!(grid(&images, 2, usize::MAX, 1), Err(PictureError::TooLarge { .. })));
        assert!(matches!(grid(&images, 2, 0, usize::MAX), Err(PictureError::TooLarge { .. })));
        let mixed = [images[0].clone(), Pixels::filled(1, 1, &[1, 2, 3]).unwrap()];
        let message = grid(&mixed, 2, 0, 1).unwrap_err().to_string();
        assert!(message.contains("picture 1 is 1x1x3") && message.contains("picture 0 is 1x1x1"), "{message}");
    }

    #[test]
    fn labels_are_left_of_their_rows() {
        for channels in [1, 3, 4] {
            let images = vec![Pixels::filled(16, 16, &[10; 4][..channels]).unwrap(); 4];
            let plain = grid(&images, 2, 3, 2).unwrap();
            let picture = labeled_grid(&images, 2, 3, 2, &["", "long name"]).unwrap();
            assert_eq!((picture.height(), picture.channels()), (plain.height(), channels));
            let left = picture.width() - plain.width();
            let dark = |rows: std::ops::Range<usize>| {
                rows.flat_map(|row| (0..left).map(move |column| (row, column)))
                    .filter(|&(row, column)| picture.pixel(row, column).unwrap()[0] < 128)
                    .count()
            };
            assert_eq!(dark(0..35), 0, "the first label is empty");
            assert!(dark(35..67) > 50);
            for row in 0..plain.height() {
                for column in 0..plain.width() {
                    assert_eq!(picture.pixel(row, left + column), plain.pixel(row, column));
                }
            }
            if channels == 4 {
                assert!(picture.data().chunks(4).all(|pixel| pixel[3] == 255 || pixel[3] == 10));
            }
        }
        let images = grays(&[1, 2, 3]);
        let message = labeled_grid(&images, 2, 0, 1, &["only"]).unwrap_err().to_string();
        assert!(message.contains("1 row labels were given for a grid of 2 rows"), "{message}");
    }
}
