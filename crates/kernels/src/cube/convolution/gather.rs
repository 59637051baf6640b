//! Where a product finds its factors: pixels of an image, at an offset that each tap of the kernel has.

use cubecl::prelude::*;

use crate::cube::convolution::Sizes;

/// The convolution whose product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Gather {
    pub kernel: usize,
    pub padding: usize,
    pub stride: usize,
    pub upsample: bool,
    /// Whether the product is that for the gradient of x.
    pub for_gradient: bool,
    /// Whether that gradient is one of patches that do not overlap: each column is a channel and a tap, and is written where
    /// it belongs.
    pub to_patches: bool,
}

impl Gather {
    pub(super) fn new(sizes: &Sizes, for_gradient: bool) -> Self {
        let options = sizes.options;
        let covers = options.stride == sizes.kernel && options.padding == 0 && !options.upsample;
        let to_patches = for_gradient && options.stride > 1 && covers;
        Self {
            kernel: sizes.kernel,
            padding: options.padding,
            stride: options.stride,
            upsample: options.upsample,
            for_gradient,
            to_patches,
        }
    }

    /// Taps of the sum: each pixel of x has four of the upsampled image.
    pub(super) fn taps(&self) -> usize {
        match self {
            Self { to_patches: true, .. } => 1,
            Self { for_gradient: true, upsample: true, .. } => 4 * self.kernel * self.kernel,
            _ => self.kernel * self.kernel,
        }
    }
}

/// The sizes of a product, as its kernel needs them.
#[derive(CubeLaunch, CubeType)]
pub(super) struct Geometry {
    pub rows: usize,
    pub columns: usize,
    /// Tiles along the columns.
    pub column_tiles: usize,
    /// Tiles in all, of all parts of a split sum.
    pub tiles: usize,
    /// Height and width of the image that rows (or the terms of a sum over pixels) count.
    pub height: usize,
    pub width: usize,
    /// Height, width and channels of the image that is read.
    pub source_height: usize,
    pub source_width: usize,
    pub channels: usize,
}

/// The offset of the source from the pixel for a tap, down, right, and the tap of the weight.
#[cube]
pub(super) fn offset(tap: usize, #[comptime] gather: Gather) -> (i32, i32, usize) {
    let kernel = comptime!(gather.kernel);
    let padding = comptime!(gather.padding as i32);
    let weight_tap = tap % comptime!(kernel * kernel);
    let mut down = (weight_tap / kernel) as i32 - padding;
    let mut right = (weight_tap % kernel) as i32 - padding;
    if comptime!(gather.for_gradient) {
        down = -down;
        right = -right;
        if comptime!(gather.upsample) {
            // the pixel of the upsampled square
            let pixel = tap / comptime!(kernel * kernel);
            down += (pixel / 2) as i32;
            right += (pixel % 2) as i32;
        }
    }
    (down, right, weight_tap)
}

/// The first element of the source pixel, and whether it is inside the image.
#[cube]
pub(super) fn source_pixel(
    image: usize,
    down: i32,
    right: i32,
    geometry: &Geometry,
    #[comptime] gather: Gather,
) -> (usize, bool) {
    let height = geometry.source_height as i32;
    let width = geometry.source_width as i32;
    if comptime!(gather.upsample && !gather.for_gradient) {
        let inside = down >= 0 && right >= 0 && down < 2 * height && right < 2 * width;
        let pixel =
            (image * geometry.source_height + (down / 2) as usize) * geometry.source_width + (right / 2) as usize;
        (pixel * geometry.channels, inside)
    } else if comptime!(gather.for_gradient && gather.stride > 1 && !gather.to_patches) {
        let stride = comptime!(gather.stride as i32);
        let on_grid = down % stride == 0 && right % stride == 0;
        let inside = down >= 0 && right >= 0 && down / stride < height && right / stride < width && on_grid;
        let row = image * geometry.source_height + (down / stride) as usize;
        ((row * geometry.source_width + (right / stride) as usize) * geometry.channels, inside)
    } else {
        let inside = down >= 0 && right >= 0 && down < height && right < width;
        let pixel = (image * geometry.source_height + down as usize) * geometry.source_width + right as usize;
        (pixel * geometry.channels, inside)
    }
}

/// The factor between a pixel and its place in the source.
#[cube]
pub(super) fn spacing(#[comptime] gather: Gather) -> comptime_type!(usize) {
    comptime!(match gather {
        Gather { to_patches: true, .. } => 1,
        Gather { for_gradient: true, upsample: true, .. } => 2,
        Gather { for_gradient: true, .. } => 1,
        _ => gather.stride,
    })
}

/// Splits a sum over pixels into up to `wanted` parts of at least `least` pixels: the pixels of a part, a multiple of `depth`, and
/// the number of parts.
pub(super) fn split(pixels: usize, wanted: usize, least: usize, depth: usize) -> (usize, usize) {
    let parts = wanted.clamp(1, pixels.div_ceil(least));
    let pixels_of_part = pixels.div_ceil(parts).next_multiple_of(depth);
    (pixels_of_part, pixels.div_ceil(pixels_of_part))
}

/// [`Geometry`] on the host.
pub(super) struct Product {
    pub rows: usize,
    pub columns: usize,
    pub column_tiles: usize,
    pub tiles: usize,
    pub height: usize,
    pub width: usize,
    pub source_height: usize,
    pub source_width: usize,
    pub channels: usize,
}

impl Product {
    /// The product for y: rows are its pixels, columns its channels.
    pub fn of_y(sizes: &Sizes) -> Self {
        Self::new(sizes.pixels(), sizes.channels_out, sizes.output, sizes.input, sizes.channels_in)
    }

    /// The product for the gradient of x: rows are its pixels, columns its channels; of patches, rows are the pixels of y, and
    /// columns the channels and taps of x.
    pub fn of_x_gradient(sizes: &Sizes, gather: &Gather) -> Self {
        let (rows, columns, image) = if gather.to_patches {
            (sizes.pixels(), sizes.channels_in * sizes.kernel * sizes.kernel, sizes.output)
        } else {
            (sizes.batch * sizes.input[0] * sizes.input[1], sizes.channels_in, sizes.input)
        };
        Self::new(rows, columns, image, sizes.output, sizes.channels_out)
    }

    /// The product for the gradient of the weights: rows are channels of y, terms its pixels.
    pub fn of_weight_gradient(sizes: &Sizes, columns: usize) -> Self {
        Self::new(sizes.channels_out, columns, sizes.output, sizes.input, sizes.channels_in)
    }

    fn new(
        rows: usize,
        columns: usize,
        [height, width]: [usize; 2],
        [source_height, source_width]: [usize; 2],
        channels: usize,
    ) -> Self {
        Self { rows, columns, column_tiles: 1, tiles: 1, height, width, source_height, source_width, channels }
    }

    /// The product in tiles down and across, for each of `parts` of a split sum.
    pub fn in_tiles(self, [down, across]: [usize; 2], parts: usize) -> Self {
        Self { column_tiles: across, tiles: down * across * parts, ..self }
    }

    pub fn launch(&self) -> GeometryLaunch {
        GeometryLaunch::new(
            self.rows,
            self.columns,
            self.column_tiles,
            self.tiles,
            self.height,
            self.width,
            self.source_height,
            self.source_width,
            self.channels,
        )
    }
}
