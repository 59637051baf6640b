//! The number of frames of a picture that may be an animation.

use std::io::{BufRead, Seek};

use image::ImageFormat;

/// The frames of an animated GIF, WebP or PNG, counted without decoding them; 1 of any other picture, and of one that cannot be
/// read, whose decoder says why.
pub(crate) fn frames(input: impl BufRead + Seek, format: Option<ImageFormat>) -> usize {
    match format {
        Some(ImageFormat::Gif) => frames_of_gif(input),
        Some(ImageFormat::WebP) => {
            image_webp::WebPDecoder::new(input).map_or(1, |webp| webp.num_frames() as usize).max(1)
        }
        Some(ImageFormat::Png) => {
            let Ok(png) = png::Decoder::new(input).read_info() else { return 1 };
            png.info().animation_control().map_or(1, |control| control.num_frames as usize)
        }
        _ => 1,
    }
}

fn frames_of_gif(input: impl BufRead) -> usize {
    let mut options = gif::DecodeOptions::new();
    options.skip_frame_decoding(true);
    let Ok(mut gif) = options.read_info(input) else { return 1 };
    let mut count = 0;
    while let Ok(Some(_)) = gif.next_frame_info() {
        count += 1;
    }
    count.max(1)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::testing::{animated_gif, animated_png, animated_webp, gray};

    #[test]
    fn frames_are_counted() {
        for count in [1, 2, 5] {
            assert_eq!(frames(Cursor::new(animated_gif(count)), Some(ImageFormat::Gif)), count);
            assert_eq!(frames(Cursor::new(animated_png(count)), Some(ImageFormat::Png)), count);
            assert_eq!(frames(Cursor::new(animated_webp(count)), Some(ImageFormat::WebP)), count);
        }
        assert_eq!(frames(Cursor::new(gray(2, 2, 1)), Some(ImageFormat::Png)), 1);
        for format in [ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Png, ImageFormat::Jpeg] {
            assert_eq!(frames(Cursor::new(b"GIF89a"), Some(format)), 1);
        }
    }
}
