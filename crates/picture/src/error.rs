//! What can go wrong while a picture is made or written.

/// An error of this crate: what happened, to which value or file, and what to do about it.
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

    /// A number of channels that no picture format has.
    #[error("a picture has 1 (gray), 3 (RGB) or 4 (RGBA) channels, not {channels}; choose or mix channels first")]
    Channels {
        /// The number of channels asked for.
        channels: usize,
    },

    /// Something that must be at least one is zero.
    #[error("{what} is 0; it must be at least 1")]
    Zero {
        /// Which size or count.
        what: &'static str,
    },

    /// There is nothing to draw.
    #[error("there is nothing to draw: no {what} given; pass at least one")]
    Empty {
        /// What is missing.
        what: &'static str,
    },

    /// Pictures that must be alike are not.
    #[error(
        "picture {index} is {actual} (height x width x channels), but picture 0 is {expected}; all must be of one shape"
    )]
    ShapeMismatch {
        /// Position of the first picture that differs.
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

    /// The result would be larger than the format or reason allows.
    #[error("{what} would be {width} x {height} pixels, more than {limit}; use fewer pictures or a smaller size")]
    TooLarge {
        /// What was asked for.
        what: &'static str,
        /// Width in pixels (saturated at the largest `usize`).
        width: usize,
        /// Height in pixels (saturated at the largest `usize`).
        height: usize,
        /// The limit, in words.
        limit: &'static str,
    },

    /// A chart that is too small for its own text.
    #[error(
        "the chart \"{title}\" is {width} x {height} pixels; its text needs at least {least_width} x {least_height}"
    )]
    TooSmall {
        /// Title of the chart.
        title: String,
        /// Width asked for, in pixels.
        width: u32,
        /// Height asked for, in pixels.
        height: u32,
        /// Smallest width, in pixels.
        least_width: u32,
        /// Smallest height, in pixels.
        least_height: u32,
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
        /// Points given, all of which were left out.
        points: usize,
        /// Whether the y axis is logarithmic.
        log_y: bool,
    },

    /// A file could not be written; no partly written file is left behind.
    #[error(transparent)]
    File(#[from] files::FileError),

    /// An encoder refused the picture.
    #[error("the {format} encoder failed: {reason}; this is a fault of this program, please report it")]
    Encode {
        /// `PNG` or `GIF`.
        format: &'static str,
        /// The encoder's reason.
        reason: String,
    },

    /// The plotting library refused the chart.
    #[error("drawing \"{title}\" failed: {reason}; this is a fault of this program, please report it")]
    Draw {
        /// Title of the chart, or the label.
        title: String,
        /// The library's reason.
        reason: String,
    },
}
