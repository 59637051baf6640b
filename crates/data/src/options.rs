//! The options of reading: the `[data]` section of a configuration.

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::transform;

/// The options of reading images; the default leaves them unchanged.
///
/// They are applied in this order: `limit`, `range`, `channels`, `size`, `padding`.
///
/// ```
/// let options: data::LoadOptions = toml::from_str(
///     "size = [28, 28]\nchannels = 1\npadding = { to = { height = 32, width = 32, fill = 0 } }",
/// )?;
/// assert_eq!(options.size, Some((28, 28)));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadOptions {
    /// Target (height, width), each in `1..=16384`: the short side is resized to it and the long side cropped at the
    /// center. `None` keeps the size, which must then be that of all images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<(usize, usize)>,
    /// 1 (gray), 3 (RGB) or 4 (RGBA); another number, up to 64, must be that of the images. `None` keeps the channels that carry
    /// something: color where an image has it, alpha where at least half of the files have it, and all bands without colors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// A border around each image, after resizing.
    pub padding: Padding,
    /// Leave out images that cannot be read instead of failing; [`Loaded::skipped`](crate::Loaded::skipped) names them.
    pub skip_unreadable: bool,
    /// Take at most this many images, spread evenly over the data, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The split, where the data has several.
    pub split: Split,
    /// Where the classes of images come from.
    #[serde(alias = "ignore_classes")]
    pub class_from: ClassFrom,
    /// Keep 16 bits where images have them; else they are rounded to bytes.
    pub sixteen_bits: bool,
    /// The lowest and the highest value of the source, finite, which become black and white; values beyond are clamped. `None`
    /// is the range of bytes or 16 bits, and for other numbers the usual one (0 to 1, -1 to 1, 0 to 255) that holds all values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// The column of images in a table (Parquet), or their array in a file of several (npz); `None` finds it automatically.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_column: Option<String>,
    /// The column of labels in a table (Parquet, CSV, JSON lines), or their array (npz); `None` finds it
    /// automatically.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
}

/// A border around images, for networks that halve them several times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Padding {
    /// No border.
    #[default]
    None,
    /// The image is centered in one of this size.
    To {
        /// Rows with the border, at least those of the image.
        height: usize,
        /// Columns with the border, at least those of the image.
        width: usize,
        /// The value of the border in every channel, 0 to 255.
        #[serde(default)]
        fill: u8,
    },
    /// The image is centered in the smallest one whose sides are multiples of a number.
    Multiple {
        /// The divisor of both sides, at least 1.
        of: usize,
        /// The value of the border in every channel, 0 to 255.
        #[serde(default)]
        fill: u8,
    },
}

impl Padding {
    /// The (height, width) of an image of this size with its border; with [`Self::To`] it may be smaller than the image.
    pub(crate) fn around(self, (height, width): (usize, usize)) -> (usize, usize) {
        match self {
            Self::None => (height, width),
            Self::To { height, width, .. } => (height, width),
            Self::Multiple { of, .. } => (height.next_multiple_of(of.max(1)), width.next_multiple_of(of.max(1))),
        }
    }

    pub(crate) fn fill(self) -> u8 {
        match self {
            Self::None => 0,
            Self::To { fill, .. } | Self::Multiple { fill, .. } => fill,
        }
    }
}

/// Where the classes of images come from. For `ignore_classes`, the key of earlier versions, `true` is `none` and `false` is
/// `auto`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", from = "ClassFromValue")]
pub enum ClassFrom {
    /// Labels of the file or of a table, else sub-folders.
    #[default]
    Auto,
    /// The first sub-folder in which images differ, even beside a table.
    Folder,
    /// The part of the file name before the first `_`, as in improved-diffusion's data sets.
    Prefix,
    /// No classes.
    None,
}

/// [`ClassFrom`] as it may be written.
#[derive(Deserialize)]
#[serde(untagged, expecting = "auto, folder, prefix or none")]
enum ClassFromValue {
    IgnoreClasses(bool),
    Name(ClassFromName),
}

/// The names of [`ClassFrom`].
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClassFromName {
    Auto,
    Folder,
    Prefix,
    None,
}

impl From<ClassFromValue> for ClassFrom {
    fn from(value: ClassFromValue) -> Self {
        match value {
            ClassFromValue::IgnoreClasses(true) | ClassFromValue::Name(ClassFromName::None) => Self::None,
            ClassFromValue::IgnoreClasses(false) | ClassFromValue::Name(ClassFromName::Auto) => Self::Auto,
            ClassFromValue::Name(ClassFromName::Folder) => Self::Folder,
            ClassFromValue::Name(ClassFromName::Prefix) => Self::Prefix,
        }
    }
}

/// A part of a published dataset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The training part: `train-…`, `data_batch_…`. Where a folder has only one part, that one.
    #[default]
    Train,
    /// The held-out part: `t10k-…`, `test_batch`.
    Test,
}

impl LoadOptions {
    /// Refuses values that are out of range.
    pub(crate) fn check(&self) -> Result<(), DataError> {
        if let Some(channels) = self.channels
            && transform::check_channels(channels).is_err()
        {
            let problem = format!("{channels} is not in 1..=64; 1 is gray, 3 RGB, 4 RGBA, any other keeps bands");
            return Err(DataError::bad_option("channels", problem));
        }
        if self.limit == Some(0) {
            return Err(DataError::bad_option("limit", "0 leaves no image; leave it out for all of them"));
        }
        if let Some([low, high]) = self.range
            && !(low.is_finite() && high.is_finite() && low < high)
        {
            let problem =
                format!("[{low}, {high}] is no range: expected the lowest value, then a higher one, both finite");
            return Err(DataError::bad_option("range", problem));
        }
        if let Some((height, width)) = self.size {
            transform::check_target("size", height, width)?;
        }
        if let Padding::To { height, width, .. } = self.padding {
            transform::check_target("padding", height, width)?;
        }
        if let Padding::Multiple { of, .. } = self.padding {
            transform::check_target("padding", of, of)?;
        }
        Ok(())
    }

    /// The (height, width) of images of size `source`, resized and padded.
    pub(crate) fn final_size(&self, source: (usize, usize)) -> Result<(usize, usize), DataError> {
        let (height, width) = self.size.unwrap_or(source);
        let (tall, wide) = self.padding.around((height, width));
        if self.padding != Padding::None {
            transform::check_target("padding", tall, wide)?;
        }
        if tall >= height && wide >= width {
            return Ok((tall, wide));
        }
        let problem = format!(
            "images of {height}x{width} cannot be padded to {tall}x{wide} (height x width); pad to at least their \
             size, or set a smaller `data.image_size`"
        );
        Err(DataError::bad_option("padding", problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_rounds_odd_sizes_up() {
        let multiple = |of| LoadOptions { padding: Padding::Multiple { of, fill: 0 }, ..LoadOptions::default() };
        assert_eq!(multiple(8).final_size((28, 33)).unwrap(), (32, 40));
        assert_eq!(multiple(8).final_size((32, 8)).unwrap(), (32, 8));
        assert_eq!(multiple(1).final_size((7, 5)).unwrap(), (7, 5));
        let resized = LoadOptions { size: Some((30, 10)), ..multiple(4) };
        assert_eq!(resized.final_size((7, 5)).unwrap(), (32, 12));
    }

    #[test]
    fn options_survive_toml() {
        let all = LoadOptions {
            size: Some((28, 30)),
            channels: Some(3),
            padding: Padding::To { height: 32, width: 32, fill: 5 },
            skip_unreadable: true,
            limit: Some(7),
            split: Split::Test,
            class_from: ClassFrom::Prefix,
            sixteen_bits: true,
            range: Some([-1024.0, 3071.5]),
            image_column: Some("img".into()),
            label_column: Some("fine_label".into()),
        };
        let multiple = LoadOptions { padding: Padding::Multiple { of: 8, fill: 3 }, ..LoadOptions::default() };
        for options in [all, multiple, LoadOptions::default()] {
            let text = toml::to_string(&options).unwrap();
            assert_eq!(toml::from_str::<LoadOptions>(&text).unwrap(), options, "{text}");
        }
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_errors() {
        assert_eq!(toml::from_str::<LoadOptions>("range = [0, 4095]").unwrap().range, Some([0.0, 4095.0]));
        assert!(toml::from_str::<LoadOptions>("sise = [1, 2]").unwrap_err().to_string().contains("sise"));
        for text in [
            "channels = 65",
            "channels = 0",
            "limit = 0",
            "range = [1.0, 1.0]",
            "range = [0.0, inf]",
            "range = [nan, 1.0]",
            "size = [0, 4]",
            "padding = { to = { height = 4, width = 99999 } }",
            "padding = { multiple = { of = 0 } }",
        ] {
            let options: LoadOptions = toml::from_str(text).unwrap();
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(text.split(' ').next().unwrap()), "{error}");
        }
        assert!(toml::from_str::<LoadOptions>("padding = { to = { height = 4, width = 4, fill = 256 } }").is_err());
    }
}
