//! Animated GIF files.

use std::path::Path;

use gif::{Encoder, Frame, Repeat};

use crate::pixels::{all_alike, check_colors};
use crate::{PictureError, Pixels};

/// The effort for the palette of a frame of more than 256 colors: 1 is best, 30 is fastest.
const PALETTE_SPEED: i32 = 5;

/// Encodes the pictures as a GIF file that repeats without end.
///
/// `frames` have one shape. Each is shown for `delay` hundredths of a second, the last for `last_delay`; viewers take
/// delays under 2 as 10. Gray frames and RGB frames of at most 256 colors are exact; others are reduced to the best
/// 256 colors of the frame. RGBA is laid over white.
///
/// # Errors
/// No frames, frames of different shapes, or frames of more than 65,535 pixels in one direction.
pub fn to_gif(frames: &[Pixels], delay: u16, last_delay: u16) -> Result<Vec<u8>, PictureError> {
    let first = all_alike(frames, "frames")?;
    check_colors(first.channels())?;
    let (Ok(width), Ok(height)) = (u16::try_from(first.width()), u16::try_from(first.height())) else {
        return Err(PictureError::TooLarge {
            what: "the GIF",
            width: first.width(),
            height: first.height(),
            limit: "65535 in one direction",
        });
    };
    let grays: Vec<u8> = if first.channels() == 1 { (0..=255).flat_map(|gray| [gray; 3]).collect() } else { vec![] };
    let failed = |error: gif::EncodingError| PictureError::Encode { format: "GIF", reason: error.to_string() };

    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height, &grays).map_err(failed)?;
    encoder.set_repeat(Repeat::Infinite).map_err(failed)?;
    for (index, picture) in frames.iter().enumerate() {
        let mut frame = if picture.channels() == 1 {
            Frame::from_indexed_pixels(width, height, picture.data(), None)
        } else {
            Frame::from_rgb_speed(width, height, picture.to_rgb().data(), PALETTE_SPEED)
        };
        frame.delay = if index + 1 == frames.len() { last_delay } else { delay };
        encoder.write_frame(&frame).map_err(failed)?;
    }
    drop(encoder); // writes the trailer
    Ok(bytes)
}

/// Writes the pictures to `path` as a GIF file, whole or not at all; an existing file is replaced.
///
/// `delay` and `last_delay` are in hundredths of a second, see [`to_gif`].
///
/// # Errors
/// As [`to_gif`]; and [`PictureError::File`] where the file cannot be written.
pub fn save_gif(frames: &[Pixels], path: impl AsRef<Path>, delay: u16, last_delay: u16) -> Result<(), PictureError> {
    Ok(files::write_atomically(path.as_ref(), &to_gif(frames, delay, last_delay)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::AnimationDecoder;
    use image::codecs::gif::GifDecoder;
    use std::io::Cursor;

    /// The frames as RGB, and the delays in milliseconds.
    fn read(bytes: Vec<u8>) -> (Vec<Vec<u8>>, Vec<u32>) {
        let frames = GifDecoder::new(Cursor::new(bytes)).unwrap().into_frames().collect_frames().unwrap();
        let delays = frames.iter().map(|frame| frame.delay().numer_denom_ms().0).collect();
        let pixels = frames
            .into_iter()
            .map(|frame| image::DynamicImage::ImageRgba8(frame.into_buffer()).into_rgb8().into_raw())
            .collect();
        (pixels, delays)
    }

    #[test]
    fn gray_frames_are_read_back_exactly() {
        let frames: Vec<Pixels> = (0..3)
            .map(|shift| {
                let data = (0..256).map(|index| (index * (2 * shift + 1) + 11 * shift) as u8).collect();
                Pixels::new(16, 16, 1, data).unwrap()
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain.gif");
        save_gif(&frames, &path, 5, 120).unwrap();
        let (pixels, delays) = read(std::fs::read(&path).unwrap());
        assert_eq!(delays, [50, 50, 1200]);
        let expected: Vec<Vec<u8>> = frames.iter().map(|frame| frame.to_rgb().into_data()).collect();
        assert_eq!(pixels, expected);
    }

    #[test]
    fn few_colors_are_kept_and_many_stay_near() {
        let few = Pixels::new(1, 3, 3, vec![255, 0, 0, 1, 2, 3, 0, 200, 100]).unwrap();
        assert_eq!(read(to_gif(std::slice::from_ref(&few), 2, 2).unwrap()).0, [few.data()]);

        let smooth = (0..64 * 64).flat_map(|index| [(index % 64 * 4) as u8, (index / 64 * 4) as u8, 128]).collect();
        let many = Pixels::new(64, 64, 3, smooth).unwrap();
        let (pixels, _) = read(to_gif(std::slice::from_ref(&many), 2, 2).unwrap());
        let error: f64 =
            pixels[0].iter().zip(many.data()).map(|(read, drawn)| f64::from(read.abs_diff(*drawn))).sum::<f64>()
                / many.data().len() as f64;
        assert!(error < 6.0, "mean error {error} of 255");
        assert!(error > 0.0, "4096 colors cannot be exact");
    }

    #[test]
    fn wrong_frames_are_errors() {
        assert!(to_gif(&[], 2, 2).unwrap_err().to_string().contains("no frames"));
        let frames = [Pixels::filled(2, 2, &[0]).unwrap(), Pixels::filled(2, 3, &[0]).unwrap()];
        let message = to_gif(&frames, 2, 2).unwrap_err().to_string();
        assert!(message.contains("picture 1 is 2x3x1") && message.contains("picture 0 is 2x2x1"), "{message}");
        let wide = Pixels::filled(1, 65_536, &[0]).unwrap();
        assert!(to_gif(&[wide], 2, 2).unwrap_err().to_string().contains("more than 65535"));
    }
}
