//! Images in the format of a model.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use checkpoint::ImageFormat;
use data::{ImageSet, LoadOptions, Padding};

use crate::read_data::ColumnArguments;

/// Options that read images in the format of those that a model was trained on.
pub fn load_options(image: ImageFormat, columns: &ColumnArguments) -> LoadOptions {
    let is_padded = (image.height, image.width) != (image.content_height, image.content_width);
    LoadOptions {
        size: Some((image.content_height, image.content_width)),
        channels: Some(image.channels),
        padding: if is_padded {
            Padding::To { height: image.height, width: image.width, fill: 0 }
        } else {
            Padding::None
        },
        sixteen_bits: image.bits == 16,
        image_column: columns.image_column.clone(),
        label_column: columns.label_column.clone(),
        range: columns.range,
        ..LoadOptions::default()
    }
}

/// Images `[batch, channels, height, width]` in [-1, 1].
pub fn batch(images: &ImageSet, range: Range<usize>, device: &Device) -> Tensor<4> {
    let shape = [range.len(), images.channels(), images.height(), images.width()];
    let values = images.batch(range.map(|index| (index, false)));
    Tensor::from_data(TensorData::new(values, shape), device)
}
