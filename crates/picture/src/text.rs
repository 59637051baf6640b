//! Text in an embedded font: widths, and labels as pictures.

use std::sync::OnceLock;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, register_font};

use crate::{PictureError, Pixels};

/// The font of PNGs; see `assets/README.md`.
static FONT: &[u8] = include_bytes!("../assets/DejaVuSans-subset.ttf");

/// The font families that an SVG viewer tries, in this order. Verdana has the widths of DejaVu Sans.
const FAMILY: &str = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif";

/// Plotters' font size per em: DejaVu's ascent + descent.
const SIZE_PER_EM: f64 = 1.164;
/// The baseline below a top anchor, in em: plotters puts it half a font size below.
const BASELINE: f64 = SIZE_PER_EM / 2.0;
/// The height of capitals and digits, in em.
const CAPITAL: f64 = 0.729;

/// The embedded font at `em` pixels per em.
pub(crate) fn font(em: f64) -> FontDesc<'static> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    // if the font were broken, every use of it would return an error
    REGISTERED.get_or_init(|| register_font(FAMILY, FontStyle::Normal, FONT).is_ok());
    FontDesc::new(FontFamily::Name(FAMILY), em * SIZE_PER_EM, FontStyle::Normal)
}

/// The width of `text` at `em` pixels per em, in pixels.
pub(crate) fn width(text: &str, em: f64) -> f64 {
    // measured large, because plotters rounds to whole pixels
    let large = 64.0;
    let measured = font(large).box_size(text).map_or(0, |(width, _)| width);
    f64::from(measured) * em / large
}

/// The text without characters that break a line or an XML document.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .filter(|letter| !matches!(letter, '\u{FFFE}' | '\u{FFFF}'))
        .collect()
}

/// Draws `text` in black on white as a gray picture of `height` pixels, as wide as the text at `em` pixels per em and at
/// least 1. Capitals are centered vertically.
pub(crate) fn label(text: &str, em: f64, height: usize) -> Result<Pixels, PictureError> {
    /// Text is drawn this many times larger and averaged, because plotters rounds the places of letters to whole pixels.
    const FINE: u32 = 4;
    let text = printable(text);
    let wide = (width(&text, em).ceil() as usize).max(1);
    let large = Pixels::filled(height, wide, &[255, 255, 255])?.enlarged(FINE as usize)?;
    let size = (large.width() as u32, large.height() as u32);
    let mut buffer = large.into_data();
    {
        let fine_em = em * f64::from(FINE);
        let baseline = f64::from(size.1) / 2.0 + fine_em * CAPITAL / 2.0;
        let top = (baseline - fine_em * BASELINE).round() as i32;
        let style = font(fine_em).color(&BLACK).pos(Pos::new(HPos::Left, VPos::Top));
        let area = BitMapBackend::with_buffer(&mut buffer, size).into_drawing_area();
        let failed = |reason: String| PictureError::Draw { reason };
        area.draw_text(&text, &style, (0, top)).map_err(|error| failed(error.to_string()))?;
        area.present().map_err(|error| failed(error.to_string()))?;
    }
    let averaged = average(&buffer, size.0 as usize, size.1 as usize, FINE as usize);
    Pixels::new(height, wide, 1, averaged.chunks_exact(3).map(|rgb| rgb[0]).collect())
}

/// Averages squares of `factor` x `factor` pixels of an RGB buffer; `width` and `height` are multiples of `factor`.
pub(crate) fn average(buffer: &[u8], width: usize, height: usize, factor: usize) -> Vec<u8> {
    let (columns, rows) = (width / factor, height / factor);
    let area = (factor * factor) as u32;
    let mut averaged = Vec::with_capacity(columns * rows * 3);
    let mut sums = vec![0u32; columns * 3];
    for band in buffer.chunks_exact(width * 3 * factor) {
        sums.fill(0);
        for line in band.chunks_exact(width * 3) {
            for (sum, square) in sums.chunks_exact_mut(3).zip(line.chunks_exact(3 * factor)) {
                for pixel in square.chunks_exact(3) {
                    for channel in 0..3 {
                        sum[channel] += u32::from(pixel[channel]);
                    }
                }
            }
        }
        averaged.extend(sums.iter().map(|&sum| ((sum + area / 2) / area) as u8));
    }
    averaged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_embedded_font() {
        let (narrow, wide) = (width("iiii", 12.0), width("WWWW", 12.0));
        assert!(narrow > 5.0 && narrow * 2.0 < wide, "{narrow} and {wide}");
        assert!((width("WWWW", 24.0) - 2.0 * wide).abs() < 0.5);
        assert_eq!(width("", 12.0), 0.0);
    }

    #[test]
    fn a_label_is_dark_in_the_middle_and_white_around() {
        let picture = label("8", 20.0, 40).unwrap();
        assert_eq!((picture.height(), picture.channels()), (40, 1));
        let darkest = |rows: std::ops::Range<usize>| {
            rows.flat_map(|row| (0..picture.width()).map(move |column| (row, column)))
                .filter_map(|(row, column)| picture.pixel(row, column).map(|pixel| pixel[0]))
                .min()
                .unwrap()
        };
        assert!(darkest(13..27) < 60);
        assert_eq!(darkest(0..11), 255);
        assert_eq!(darkest(29..40), 255);
        assert_ne!(picture, label("0", 20.0, 40).unwrap());
        assert_eq!(label("", 20.0, 40).unwrap().width(), 1);
    }

    #[test]
    fn averages_are_rounded() {
        let gray = |values: [u8; 8]| values.iter().flat_map(|&value| [value; 3]).collect::<Vec<u8>>();
        assert_eq!(average(&gray([0, 255, 1, 1, 255, 255, 1, 0]), 4, 2, 2), [191, 191, 191, 1, 1, 1]);
    }
}
