//! The axes of an array of images.

use super::Array;
use crate::decode::Header;
use crate::numbers::NumberType;
use crate::transform::check_channels;

/// Channels at most: a longer axis is one of pixels.
const MOST_CHANNELS: u64 = 64;

/// A picture that lies in an array by itself has sides of at least this many pixels: smaller ones come in numbers.
const LEAST_SIDE: u64 = 8;

/// The layout of an array of images.
pub(super) struct Layout {
    pub count: usize,
    pub header: Header,
    /// Whether the channels come before the rows.
    pub planar: bool,
    pub numbers: NumberType,
    /// The values between neighbors along the images, rows, columns and channels, where each image is not contiguous.
    pub strides: Option<[usize; 4]>,
    /// What was decided about axes that are ambiguous.
    pub decision: Option<String>,
}

/// The axes of images, rows, columns and channels in a shape.
struct Axes {
    images: Option<usize>,
    rows: usize,
    columns: usize,
    channels: Option<usize>,
    decision: Option<String>,
}

impl Axes {
    /// `[count, …]`
    fn several(rows: usize, columns: usize, channels: Option<usize>) -> Self {
        Self { images: Some(0), rows, columns, channels, decision: None }
    }

    fn said(self, decision: impl Into<String>) -> Self {
        Self { decision: Some(decision.into()), ..self }
    }

    /// The axes of a shape; `labels` is the number of labels beside it, if there are any.
    fn of(shape: &[u64], labels: Option<u64>) -> Result<Self, String> {
        match *shape {
            [height, width] => {
                if !is_picture(height, width) || labels.is_some_and(|labels| labels == height && labels > 1) {
                    return Err(flat(height, width));
                }
                let axes = Self { images: None, rows: 0, columns: 1, channels: None, decision: None };
                Ok(axes.said("the array is one picture, [height, width]"))
            }
            [height, width, channels @ (1 | 3 | 4)]
                if height.min(width) >= LEAST_SIDE && labels.is_none_or(|labels| labels != height) =>
            {
                let axes = Self { images: None, rows: 0, columns: 1, channels: Some(2), decision: None };
                Ok(axes.said(format!("the array is one picture, [height, width, {channels} channels]")))
            }
            [count @ (3 | 4), height, width] if labels.is_none() && height.min(width) >= LEAST_SIDE => {
                Ok(Self::several(1, 2, None).said(format!(
                    "the array holds {count} gray pictures, [count, height, width]; for one of {count} channels, save `x[None]`"
                )))
            }
            [_, _, _] => Ok(Self::several(1, 2, None)),
            [_, second, third, last] => Self::with_channels(second, third, last),
            _ => Err(format!(
                "has the shape {shape:?}; images are [count, height, width], or that with channels in the last or second place"
            )),
        }
    }

    /// `[count, height, width, channels]` or `[count, channels, height, width]`: 1, 3 or 4 channels are the surest, then those
    /// that leave square pictures, then the shorter axis.
    fn with_channels(second: u64, third: u64, last: u64) -> Result<Self, String> {
        let is_usual = |side: u64| matches!(side, 1 | 3 | 4);
        let may_be = |side: u64| (1..=MOST_CHANNELS).contains(&side);
        let (is_last, is_ambiguous) = match (is_usual(last), is_usual(second)) {
            (true, other) => (true, other && last != 1),
            (false, true) => (false, false),
            _ if !(may_be(last) || may_be(second)) => {
                return Err(format!(
                    "has the shape [count, {second}, {third}, {last}], in which neither the second nor the last place has up to \
                     {MOST_CHANNELS} channels"
                ));
            }
            _ if may_be(last) != may_be(second) => (may_be(last), false),
            _ if (second == third) != (third == last) => (second == third, true),
            _ => (last <= second, true),
        };
        let axes = if is_last { Self::several(1, 2, Some(3)) } else { Self::several(2, 3, Some(1)) };
        if !is_ambiguous {
            return Ok(axes);
        }
        let (place, order) =
            if is_last { ("last", "height, width, channels") } else { ("second", "channels, height, width") };
        Ok(axes.said(format!(
            "channels were taken to be in the {place} place of [count, {second}, {third}, {last}], [count, {order}]; if they \
             are not, save `numpy.moveaxis(x, 1, -1)` or its inverse, with 1, 3 or 4 channels last"
        )))
    }
}

/// Whether a matrix of this size may be a picture, and is no table of flat ones.
fn is_picture(height: u64, width: u64) -> bool {
    let is_square = |area: u64| area.isqrt().pow(2) == area && area.isqrt() >= LEAST_SIDE;
    let is_flat = height != width && (is_square(width) || (width.is_multiple_of(3) && is_square(width / 3)));
    let (short, long) = (height.min(width), height.max(width));
    short >= LEAST_SIDE && long / short <= 8 && !is_flat
}

/// The words about a matrix that is no picture.
fn flat(count: u64, values: u64) -> String {
    let side = |channels: u64| Some((values / channels).isqrt()).filter(|side| side * side * channels == values);
    let shape = match (side(1), side(3)) {
        (Some(side), _) => format!("{count}, {side}, {side}"),
        (None, Some(side)) => format!("{count}, 3, {side}, {side}"),
        (None, None) => format!("{count}, height, width"),
    };
    format!(
        "has the shape [{count}, {values}], which is taken for {count} flat images: their heights and widths are not known; save \
         `x.reshape({shape})`, or `x[None]` if it is one picture"
    )
}

impl Layout {
    /// Bytes of an image.
    pub(super) fn image_bytes(&self) -> usize {
        self.header.height * self.header.width * self.header.channels * self.numbers.bytes()
    }
}

impl Array {
    /// The layout of an array of images, or the reason why it is none; `labels` is the number of labels beside it.
    pub(super) fn layout(&self, labels: Option<u64>) -> Result<Layout, String> {
        let Some(numbers) = self.numbers else {
            return Err(format!("holds {}; images are integers, floats or bool", self.type_name()));
        };
        let shape = &self.shape;
        if self.length == 0 {
            return Err(format!("holds no image: its shape is {shape:?}"));
        }
        let axes = Axes::of(shape, labels)?;
        let side = |axis: Option<usize>| {
            let side = axis.map_or(1, |axis| shape[axis]);
            usize::try_from(side).map_err(|_| format!("its shape {shape:?} is too large"))
        };
        let channels = side(axes.channels)?;
        check_channels(channels).map_err(|error| format!("has the shape {shape:?}: {error}"))?;
        let header = Header {
            height: side(Some(axes.rows))?,
            width: side(Some(axes.columns))?,
            channels,
            sixteen_bits: numbers.bytes() > 1,
        };
        // the product of all sides is that of the file
        let stride = |axis: Option<usize>| axis.map_or(0, |axis| shape[..axis].iter().product::<u64>() as usize);
        let of_axes = [axes.images, Some(axes.rows), Some(axes.columns), axes.channels];
        Ok(Layout {
            count: side(axes.images)?,
            header,
            planar: axes.channels.is_some_and(|channels| channels < axes.rows),
            numbers,
            strides: self.column_major.then(|| of_axes.map(stride)),
            decision: axes.decision,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of images, rows, columns and channels, and the decision.
    fn axes(shape: &[u64], labels: Option<u64>) -> ([u64; 4], Option<String>) {
        let axes = Axes::of(shape, labels).unwrap();
        let side = |axis: Option<usize>| axis.map_or(1, |axis| shape[axis]);
        ([axes.images, Some(axes.rows), Some(axes.columns), axes.channels].map(side), axes.decision)
    }

    #[test]
    fn channels_are_found_where_they_are() {
        for (shape, expected, is_said) in [
            ([8, 16, 20, 3], [8, 16, 20, 3], false),
            ([8, 1, 16, 20], [8, 16, 20, 1], false),
            ([4, 3, 16, 3], [4, 3, 16, 3], true),
            ([8, 16, 20, 12], [8, 16, 20, 12], true),
            ([8, 12, 16, 20], [8, 16, 20, 12], true),
            ([8, 12, 32, 32], [8, 32, 32, 12], true),
            ([8, 100, 90, 12], [8, 100, 90, 12], false),
            ([8, 12, 100, 90], [8, 100, 90, 12], false),
        ] {
            let (found, decision) = axes(&shape, None);
            assert_eq!((found, decision.is_some()), (expected, is_said), "{shape:?}");
        }
        assert!(Axes::of(&[8, 100, 100, 100], None).is_err() && Axes::of(&[8; 5], None).is_err());
    }

    #[test]
    fn one_picture_is_told_from_several() {
        assert_eq!(axes(&[16, 20, 3], None).0, [1, 16, 20, 3]);
        assert_eq!(axes(&[16, 20, 3], Some(16)).0, [16, 20, 3, 1]);
        assert_eq!(axes(&[16, 20], None).0, [1, 16, 20, 1]);
        let (found, decision) = axes(&[3, 16, 20], None);
        assert!(found == [3, 16, 20, 1] && decision.unwrap().contains("3 gray pictures"));
        assert_eq!(axes(&[1797, 8, 8], None), ([1797, 8, 8, 1], None));
        for (shape, labels, advice) in [
            ([8, 320], None, "`x.reshape(8, height, width)`"),
            ([1000, 784], None, "`x.reshape(1000, 28, 28)`"),
            ([5000, 3072], None, "`x.reshape(5000, 3, 32, 32)`"),
            ([20, 30], Some(20), "flat images"),
        ] {
            let problem = Axes::of(&shape, labels).err().unwrap();
            assert!(problem.contains(advice), "{problem}");
        }
    }
}
