//! Errors of this crate.

use crate::chart::MIN_SIZE;

/// A picture or a file that cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The number of values is not the product of the three sizes.
    #[error(
        "a picture of height {height}, width {width} and {channels} channels has {expected} values, but {actual} were \
         given; pass exactly height * width * channels values"
    )]
    Length {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Values per pixel.
        channels: usize,
        /// `height * width * channels`.
        expected: usize,
        /// The number of values given.
        actual: usize,
    },

    /// A number of channels out of range.
    #[error("a picture has 1 to {most} channels, not {channels}")]
    TooManyChannels {
        /// The number of channels.
        channels: usize,
        /// The most that a picture may have.
        most: usize,
    },

    /// A channel that a picture lacks.
    #[error("there is no channel {channel} to show: the picture has {channels}, counted from 0")]
    NoChannel {
        /// The channel.
        channel: usize,
        /// The number of channels.
        channels: usize,
    },

    /// A number of channels other than 1, 3 and 4.
    #[error(
        "a PNG or GIF has 1 (gray), 3 (RGB) or 4 (RGBA) channels, not {channels}; choose three to show, or write npz, which \
         keeps all"
    )]
    Channels {
        /// The number of channels.
        channels: usize,
    },

    /// A size or count of zero.
    #[error("{what} is 0; it must be at least 1")]
    Zero {
        /// The size or count.
        what: &'static str,
    },

    /// An empty list.
    #[error("there is nothing to draw: no {what} given; pass at least one")]
    Empty {
        /// The missing elements, in the plural.
        what: &'static str,
    },

    /// Pictures of different shapes where one is needed.
    #[error(
        "picture {index} is {actual} (height x width x channels), but picture 0 is {expected}; all must be of one shape"
    )]
    ShapeMismatch {
        /// Index of the first picture that differs from picture 0.
        index: usize,
        /// Its shape, `HxWxC`.
        actual: String,
        /// The shape of picture 0, `HxWxC`.
        expected: String,
    },

    /// The number of labels is not the number of rows.
    #[error("{labels} row labels were given for a grid of {rows} rows; pass one per row")]
    Labels {
        /// Rows of the grid.
        rows: usize,
        /// Labels given.
        labels: usize,
    },

    /// A result that is larger than the format or this crate allows.
    #[error("{what} would be {width} x {height} pixels, more than {limit}; use fewer pictures or a smaller size")]
    TooLarge {
        /// The kind of result.
        what: &'static str,
        /// Width in pixels (saturated at the largest `usize`).
        width: usize,
        /// Height in pixels (saturated at the largest `usize`).
        height: usize,
        /// The limit, in words.
        limit: &'static str,
    },

    /// A chart that is too small for its text.
    #[error(
        "the chart \"{title}\" is {width} x {height} pixels; its text needs at least {} x {}",
        MIN_SIZE.0, MIN_SIZE.1
    )]
    TooSmall {
        /// Title of the chart.
        title: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },

    /// A series without a point that can be drawn.
    #[error(
        "series \"{series}\" of the chart \"{title}\" has no point to draw ({points} given; points that are not finite{} \
         are left out); leave the series out or check its values",
        if *.log_y { ", and those at or below 0 on a logarithmic axis," } else { "" }
    )]
    NoPoints {
        /// Title of the chart.
        title: String,
        /// Name of the series.
        series: String,
        /// Number of points, all of which are left out.
        points: usize,
        /// Whether the y axis is logarithmic.
        log_y: bool,
    },

    /// A file that cannot be written; no part of it is left behind.
    #[error(transparent)]
    File(#[from] files::FileError),

    /// A failure of an encoder.
    #[error("the {format} encoder failed: {reason}; this is a bug of this program, please report it")]
    Encode {
        /// `PNG` or `GIF`.
        format: &'static str,
        /// The encoder's reason.
        reason: String,
    },

    /// A failure of the plotting library.
    #[error("drawing failed: {reason}; this is a bug of this program, please report it")]
    Draw {
        /// The library's reason.
        reason: String,
    },
}
