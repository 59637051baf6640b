//! Grids, strips, GIFs and line charts from plain arrays.
//!
//! A picture is [`Pixels`]: `u8` values with a height, a width and 1, 3 or 4 channels, made from bytes or from the
//! `[-1, 1]` floats of a model. [`grid`], [`strip`] and [`labeled_grid`] place many side by side; [`to_png`] and [`to_gif`]
//! encode them, [`save_png`] and [`save_gif`] write files. [`LineChart`] and [`Panels`] draw curves as SVG and PNG. The font
//! of PNG charts and labels is embedded, so that pictures are equal on every system.
//!
//! Files appear whole or not at all, and equal input gives equal bytes.
//!
//! ```
//! use picture::{LineChart, Pixels, grid, save_gif, save_png};
//!
//! let folder = tempfile::tempdir()?;
//!
//! // 6 gray images of 4 x 4, in [-1, 1]
//! let values: Vec<f32> = (0..6 * 16).map(|index| index as f32 / 48.0 - 1.0).collect();
//! let images = Pixels::from_nchw(4, 4, 1, &values)?;
//!
//! let picture = grid(&images, 3, 2, 8)?; // 3 columns, gaps of 2 pixels, enlarged 8 times
//! assert_eq!((picture.height(), picture.width()), (2 * 32 + 2, 3 * 32 + 2 * 2));
//! save_png(&picture, folder.path().join("grid.png"))?;
//! save_gif(&images, folder.path().join("chain.gif"), 5, 100)?; // 0.05 s per frame, 1 s for the last
//!
//! LineChart::new("Loss", "step", "mean squared error")
//!     .with_series("training", [(1.0, 0.9), (2.0, 0.4), (3.0, 0.3)])
//!     .save_svg(folder.path().join("loss.svg"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod animation;
mod chart;
mod deep;
mod error;
mod grid;
mod pixels;
mod png;
mod text;

pub use animation::{save_gif, to_gif};
pub use chart::{LineChart, PNG_DENSITY, Panels, Series};
pub use deep::{DeepPixels, save_png_sixteen_bits, to_png_sixteen_bits};
pub use error::PictureError;
pub use grid::{grid, labeled_grid, strip};
pub use pixels::Pixels;
pub use png::{save_png, to_png};
