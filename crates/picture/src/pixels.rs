//! Pictures in memory.

use crate::PictureError;

/// The largest number of values of a picture, 1 GiB: a larger one is a mistake.
const MAX_LENGTH: usize = 1 << 30;

/// The most channels of a picture.
const MAX_CHANNELS: usize = 64;

/// A picture in memory: `u8` values in the order height, width, channels; 1 channel is gray, 3 are RGB, 4 are RGBA. Other
/// numbers of channels, up to 64, have no colors: [`Pixels::shown`] chooses three to draw.
///
/// ```
/// use picture::Pixels;
///
/// let gray = Pixels::new(1, 2, 1, vec![0, 255])?;
/// assert_eq!((gray.height(), gray.width(), gray.channels()), (1, 2, 1));
///
/// // The range of a diffusion model: [-1, 1], channels first.
/// let sample = Pixels::from_chw(1, 2, 3, &[-1.0, 1.0, 0.0, 0.0, 9.0, -9.0])?;
/// assert_eq!(sample.data(), &[0, 128, 255, 255, 128, 0]);
/// # Ok::<(), picture::PictureError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels {
    height: usize,
    width: usize,
    channels: usize,
    data: Vec<u8>,
}

impl Pixels {
    /// A picture of `height` x `width` pixels from `data` in the order height, width, channels.
    ///
    /// # Errors
    /// A size of 0, more than 64 channels, or `data` whose length is not `height * width * channels`.
    pub fn new(height: usize, width: usize, channels: usize, data: Vec<u8>) -> Result<Self, PictureError> {
        let expected = checked_length("the picture", height, width, channels)?;
        if data.len() != expected {
            return Err(PictureError::Length { height, width, channels, expected, actual: data.len() });
        }
        Ok(Self { height, width, channels, data })
    }

    /// A picture of one color; `color` holds one value per channel.
    ///
    /// # Errors
    /// A size of 0, a color of another length, or a picture of more than 2^30 values.
    pub fn filled(height: usize, width: usize, color: &[u8]) -> Result<Self, PictureError> {
        let length = checked_length("the picture", height, width, color.len())?;
        let data = color.iter().copied().cycle().take(length).collect();
        Self::new(height, width, color.len(), data)
    }

    /// A picture from `values` in `[-1, 1]`, in the order channels, height, width. Each value becomes
    /// `round((value + 1) * 127.5)`, clamped to `[0, 255]`; a NaN becomes 0.
    ///
    /// # Errors
    /// As [`Pixels::new`].
    pub fn from_chw(height: usize, width: usize, channels: usize, values: &[f32]) -> Result<Self, PictureError> {
        let expected = checked_length("the picture", height, width, channels)?;
        if values.len() != expected {
            return Err(PictureError::Length { height, width, channels, expected, actual: values.len() });
        }
        let plane = height * width;
        let mut data = vec![0; expected];
        for (index, value) in values.iter().enumerate() {
            let (channel, place) = (index / plane, index % plane);
            data[place * channels + channel] = unit_to_byte(*value);
        }
        Self::new(height, width, channels, data)
    }

    /// The pictures of a batch, from `values` in `[-1, 1]` in the order image, channels, height, width.
    ///
    /// # Errors
    /// As [`Pixels::new`], and [`PictureError::Length`] if `values` is not a whole number of images.
    pub fn from_nchw(height: usize, width: usize, channels: usize, values: &[f32]) -> Result<Vec<Self>, PictureError> {
        let length = checked_length("the picture", height, width, channels)?;
        values.chunks(length).map(|image| Self::from_chw(height, width, channels, image)).collect()
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values per pixel: 1 (gray), 3 (RGB), 4 (RGBA), or another number.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The values, `[0, 255]`, in the order height, width, channels.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The values, `[0, 255]`, in the order height, width, channels.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// The values of the pixel in `row` and `column`, one per channel, or `None` outside of the picture.
    pub fn pixel(&self, row: usize, column: usize) -> Option<&[u8]> {
        if row >= self.height || column >= self.width {
            return None;
        }
        let start = (row * self.width + column) * self.channels;
        self.data.get(start..start + self.channels)
    }

    /// The factor that enlarges a small picture for a screen: to about 64 rows, at most 4 times.
    pub fn display_scale(&self) -> usize {
        (64 / self.height.max(1)).clamp(1, 4)
    }

    /// The picture with each pixel as a square of `scale` x `scale` equal pixels.
    ///
    /// # Errors
    /// A `scale` of 0, or a result of more than 2^30 values.
    pub fn enlarged(&self, scale: usize) -> Result<Self, PictureError> {
        if scale == 0 {
            return Err(PictureError::Zero { what: "the scale" });
        }
        let (height, width) = (self.height.saturating_mul(scale), self.width.saturating_mul(scale));
        let mut data = Vec::with_capacity(checked_length("the enlarged picture", height, width, self.channels)?);
        for row in self.data.chunks_exact(self.width * self.channels) {
            let start = data.len();
            for pixel in row.chunks_exact(self.channels) {
                for _ in 0..scale {
                    data.extend_from_slice(pixel);
                }
            }
            let wide = start..data.len();
            for _ in 1..scale {
                data.extend_from_within(wide.clone());
            }
        }
        Self::new(height, width, self.channels, data)
    }

    /// The picture in RGB: gray is repeated three times, RGBA is laid over white.
    pub fn to_rgb(&self) -> Self {
        let data = match self.channels {
            1 => self.data.iter().flat_map(|&gray| [gray; 3]).collect(),
            4 => self.data.chunks_exact(4).flat_map(over_white).collect(),
            _ => self.data.clone(),
        };
        Self { height: self.height, width: self.width, channels: 3, data }
    }

    /// The picture in RGB with these channels as red, green and blue.
    ///
    /// # Errors
    /// [`PictureError::NoChannel`] for a channel that the picture lacks.
    pub fn shown(&self, channels: [usize; 3]) -> Result<Self, PictureError> {
        if let Some(&channel) = channels.iter().find(|&&channel| channel >= self.channels) {
            return Err(PictureError::NoChannel { channel, channels: self.channels });
        }
        let colors = self.data.chunks_exact(self.channels).flat_map(|pixel| channels.map(|channel| pixel[channel]));
        Self::new(self.height, self.width, 3, colors.collect())
    }

    /// Copies `other`, of the same number of channels, into this picture with its top left corner at `row`, `column`.
    /// A part outside of this picture is cut off.
    pub(crate) fn paste(&mut self, other: &Self, row: usize, column: usize) {
        debug_assert_eq!(self.channels, other.channels);
        let columns = other.width.min(self.width.saturating_sub(column)) * self.channels;
        for line in 0..other.height.min(self.height.saturating_sub(row)) {
            let from = line * other.width * self.channels;
            let to = ((row + line) * self.width + column) * self.channels;
            self.data[to..to + columns].copy_from_slice(&other.data[from..from + columns]);
        }
    }

    /// The shape for messages: `HxWxC`.
    pub(crate) fn shape(&self) -> String {
        format!("{}x{}x{}", self.height, self.width, self.channels)
    }
}

impl std::fmt::Debug for Pixels {
    /// Writes the shape only.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Pixels({})", self.shape())
    }
}

/// Returns the first of `pictures`, which must all have its shape. `what` names them in the error.
pub(crate) fn all_alike<'pictures>(
    pictures: &'pictures [Pixels],
    what: &'static str,
) -> Result<&'pictures Pixels, PictureError> {
    let first = pictures.first().ok_or(PictureError::Empty { what })?;
    for (index, picture) in pictures.iter().enumerate() {
        if picture.shape() != first.shape() {
            return Err(PictureError::ShapeMismatch { index, actual: picture.shape(), expected: first.shape() });
        }
    }
    Ok(first)
}

/// Returns the number of values of a picture of this size, or an error if there cannot be one.
pub(crate) fn checked_length(
    what: &'static str,
    height: usize,
    width: usize,
    channels: usize,
) -> Result<usize, PictureError> {
    if !(1..=MAX_CHANNELS).contains(&channels) {
        return Err(PictureError::TooManyChannels { channels, most: MAX_CHANNELS });
    }
    for (what, size) in [("the height of a picture", height), ("the width of a picture", width)] {
        if size == 0 {
            return Err(PictureError::Zero { what });
        }
    }
    height
        .checked_mul(width)
        .and_then(|area| area.checked_mul(channels))
        .filter(|&length| length <= MAX_LENGTH)
        .ok_or(PictureError::TooLarge { what, width, height, limit: "2^30 values" })
}

/// Refuses channels that are no colors.
pub(crate) fn check_colors(channels: usize) -> Result<(), PictureError> {
    if matches!(channels, 1 | 3 | 4) { Ok(()) } else { Err(PictureError::Channels { channels }) }
}

/// Maps `[-1, 1]` to `[0, 255]`; the cast saturates and makes NaN 0.
fn unit_to_byte(value: f32) -> u8 {
    ((value + 1.0) * 127.5).round() as u8
}

/// An RGBA pixel laid over white, as RGB.
fn over_white(pixel: &[u8]) -> [u8; 3] {
    let alpha = u32::from(pixel[3]);
    [0, 1, 2].map(|channel| ((u32::from(pixel[channel]) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_unit_range_is_rounded_and_clamped() {
        let cases = [
            (-1.0, 0),
            (1.0, 255),
            (0.0, 128), // 127.5, half away from zero
            (-0.0, 128),
            (2.0 / 255.0 - 1.0, 1),
            (253.0 / 127.5 - 1.0, 253),
            (-1.7, 0),
            (1.01, 255),
            (f32::NEG_INFINITY, 0),
            (f32::INFINITY, 255),
            (f32::NAN, 0),
        ];
        for (value, byte) in cases {
            assert_eq!(unit_to_byte(value), byte, "{value}");
        }
    }

    #[test]
    fn channels_first_becomes_channels_last() {
        // 1 x 2, planes R = (-1, 1), G = (1, -1), B = (0, 0)
        let picture = Pixels::from_chw(1, 2, 3, &[-1.0, 1.0, 1.0, -1.0, 0.0, 0.0]).unwrap();
        assert_eq!(picture.data(), [0, 255, 128, 255, 0, 128]);
        assert_eq!(picture.pixel(0, 1), Some(&[255, 0, 128][..]));
        assert_eq!(picture.pixel(0, 2), None);
        assert_eq!(picture.pixel(1, 0), None);
    }

    #[test]
    fn pictures_of_many_channels_show_three() {
        let picture = Pixels::new(1, 2, 5, (0..10).collect()).unwrap();
        assert_eq!(picture.shown([4, 0, 1]).unwrap(), Pixels::new(1, 2, 3, vec![4, 0, 1, 9, 5, 6]).unwrap());
        assert!(picture.shown([0, 1, 5]).unwrap_err().to_string().contains("no channel 5"));
        for error in [
            crate::to_png(&picture).unwrap_err(),
            crate::grid(std::slice::from_ref(&picture), 1, 0, 1).unwrap_err(),
            crate::to_gif(&[picture], 2, 2).unwrap_err(),
        ] {
            assert!(error.to_string().contains("not 5; choose three to show, or write npz"), "{error}");
        }
    }

    #[test]
    fn a_batch_is_cut_into_pictures() {
        let values = [-1.0, 1.0, 1.0, -1.0];
        let batch = Pixels::from_nchw(2, 1, 1, &values).unwrap();
        assert_eq!(batch.len(), 2);
        assert_eq!(batch[0].data(), [0, 255]);
        assert_eq!(batch[1].data(), [255, 0]);
        let error = Pixels::from_nchw(2, 1, 1, &values[..3]).unwrap_err();
        assert!(matches!(error, PictureError::Length { expected: 2, actual: 1, .. }), "{error}");
    }

    #[test]
    fn wrong_sizes_are_errors_with_their_numbers() {
        let message = |height, width, channels, length| {
            Pixels::new(height, width, channels, vec![0; length]).unwrap_err().to_string()
        };
        assert!(message(2, 3, 1, 5).contains("has 6 values, but 5 were given"));
        assert!(message(2, 3, 65, 390).contains("not 65"));
        assert!(message(0, 3, 1, 0).contains("the height of a picture is 0"));
        assert!(message(3, 0, 1, 0).contains("the width of a picture is 0"));
        assert!(message(usize::MAX, 2, 3, 0).contains("more than 2^30 values"));
        assert!(message(1 << 16, 1 << 15, 1, 0).contains("more than 2^30 values"));
        assert!(Pixels::from_chw(2, 2, 1, &[0.0; 3]).unwrap_err().to_string().contains("has 4 values, but 3"));
    }

    #[test]
    fn enlarging_repeats_pixels() {
        let picture = Pixels::new(1, 2, 3, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let large = picture.enlarged(2).unwrap();
        assert_eq!((large.height(), large.width(), large.channels()), (2, 4, 3));
        let row = [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6];
        assert_eq!(large.data(), [row, row].concat());
        assert!(picture.enlarged(0).unwrap_err().to_string().contains("the scale is 0"));
        assert!(matches!(picture.enlarged(usize::MAX), Err(PictureError::TooLarge { .. })));
    }

    #[test]
    fn rgb_of_gray_and_of_transparency() {
        assert_eq!(Pixels::new(1, 1, 1, vec![7]).unwrap().to_rgb().data(), [7, 7, 7]);
        let transparent = Pixels::new(1, 3, 4, vec![9, 9, 9, 0, 10, 20, 30, 255, 0, 100, 255, 51]).unwrap();
        assert_eq!(transparent.to_rgb().data(), [255, 255, 255, 10, 20, 30, 204, 224, 255]);
        assert_eq!(format!("{transparent:?}"), "Pixels(1x3x4)");
    }

    proptest! {
        /// Every byte survives the way to [-1, 1] and back.
        #[test]
        fn bytes_round_trip(bytes in prop::collection::vec(any::<u8>(), 12)) {
            let floats: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
            let picture = Pixels::from_chw(3, 4, 1, &floats).unwrap();
            prop_assert_eq!(picture.data(), &bytes[..]);
        }
    }
}
