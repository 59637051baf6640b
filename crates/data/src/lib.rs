//! Images for training: readers, transforms and a deterministic order, bytes (or 16 bits) on the host.
//!
//! [`open`] reads a dataset by its name or path (an IDX file or a folder of them, CIFAR batches or their archive, a folder,
//! zip or tar of images, shards of WebDataset, Parquet files, NumPy arrays) into an [`ImageSet`]: images of one size, with
//! labels where the data has them. [`fetch()`] downloads a known dataset, [`inspect()`] summarizes one, [`order`] is the order of the images in
//! training. Large datasets are decoded once, into a [`Cache`] that is mapped into memory.
//!
//! The crate has no tensors, devices or training. An [`ImageSet`] is a burn-dataset `Dataset`, so that burn's loaders and
//! transforms take it, and [`ImageSet::write_chw_f32`] fills a batch without any of them.
//!
//! ```
//! let options = data::LoadOptions { limit: Some(100), ..Default::default() };
//! let digits = data::open("mnist-5k", &options)?.images;
//! assert_eq!((digits.len(), digits.height(), digits.width(), digits.channels()), (100, 28, 28, 1));
//!
//! // the first batch of 8 in the order of seed 42, as [8, 1, 28, 28] numbers in [-1, 1]
//! let mut order = data::order::Order::new(digits.len(), 42);
//! let mut batch = vec![0.0; 8 * digits.image_len()];
//! for (position, image) in batch.chunks_exact_mut(digits.image_len()).enumerate() {
//!     digits.write_chw_f32(order.at(position as u64), false, image);
//! }
//! assert!(batch.iter().all(|value| (-1.0..=1.0).contains(value)));
//! # Ok::<(), data::DataError>(())
//! ```

// except where files of the cache are mapped into memory
#![deny(unsafe_code)]

mod account;
mod animation;
mod archive;
mod cache;
mod channels;
mod cifar;
mod classes;
mod collect;
mod column_names;
mod context;
mod dataset_json;
mod decode;
mod disk;
mod error;
pub mod fetch;
pub mod folder;
mod formats;
mod guard;
mod hash;
pub mod idx;
mod image_set;
pub mod inspect;
mod layout;
mod levels;
mod listing;
mod litter;
mod loaded;
pub mod manifest;
pub mod memory;
mod metadata;
mod numbers;
mod numpy;
mod open;
mod options;
pub mod order;
mod parquet;
mod parquet_columns;
mod parquet_pages;
mod pickle;
mod picture_names;
mod pixels;
mod places;
mod range;
mod recognize;
mod remark;
mod sheet;
mod stack;
mod tarred;
#[cfg(test)]
mod testing;
mod tiff;
mod titles;
pub mod transform;
mod tree;
mod webdataset;
mod zipped;

pub use account::{Account, LeftOut, Weight, weight_of_pictures};
pub use cache::{Cache, CacheEntry};
pub use context::{Progress, ReadContext, Stage};
pub use error::DataError;
pub use fetch::fetch;
pub use image_set::{ImageSet, Item, to_u8, to_unit_range};
pub use inspect::{Inspection, inspect};
pub use loaded::{Cached, Loaded};
pub use open::{open, open_in, open_with};
pub use options::{ClassFrom, LoadOptions, Padding, Split};
pub use places::Places;
