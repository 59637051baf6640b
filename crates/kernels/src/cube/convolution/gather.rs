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
