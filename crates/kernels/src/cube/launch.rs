//! Tensors and sizes of launches.

use burn::{
    backend::TensorMetadata,
    tensor::{DType, Shape},
};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{CubeCount, ir::ElemType, prelude::BufferArg};

/// Elements at a multiple of which a tensor may begin within a buffer: 256 bytes, the strictest rule of a GPU, of the
/// smallest number format.
const ALIGNMENT: usize = 128;

/// The tensor row-major without gaps: itself, or a copy.
pub(crate) fn contiguous(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// All tensors row-major without gaps.
pub(crate) fn all_contiguous(tensors: Vec<CubeTensor>) -> Vec<CubeTensor> {
    tensors.into_iter().map(contiguous).collect()
}

/// A tensor of any values beside `like`, row-major without gaps.
pub(crate) fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    let shape = shape.into();
    let handle = like.client.empty(shape.num_elements() * dtype.size());
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, handle, dtype)
}

/// A tensor of the shape and number format of `like`.
pub(crate) fn empty_like(like: &CubeTensor) -> CubeTensor {
    empty(like, like.shape(), like.dtype)
}

/// The element at which the second of two tensors in one buffer begins, if the first has `length`.
pub(crate) fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// A part of a flat tensor, from element `start`, a multiple of what [`aligned`] returns, with its own shape: no copy.
pub(crate) fn part(of: &CubeTensor, start: usize, shape: impl Into<Shape>) -> CubeTensor {
    let (shape, size) = (shape.into(), of.dtype.size());
    let behind = of.meta.num_elements() - start - shape.num_elements();
    let handle = of.handle.clone().offset_start((start * size) as u64).offset_end((behind * size) as u64);
    CubeTensor::new_contiguous(of.client.clone(), of.device.clone(), shape, handle, of.dtype)
}

/// The tensor with another shape of as many elements; it is contiguous.
pub(crate) fn reshaped(tensor: CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    CubeTensor::new_contiguous(tensor.client, tensor.device, shape.into(), tensor.handle, tensor.dtype)
}

/// The number format as CubeCL names it.
pub(crate) fn element(dtype: DType) -> ElemType {
    burn::backend::cubecl::dtype_to_storage_type(dtype)
}

/// The tensor as an argument of a kernel.
pub(crate) fn argument(tensor: &CubeTensor) -> BufferArg {
    tensor.clone().into_buffer_arg()
}

/// The most cubes along one axis of a launch that every GPU permits.
const MOST: usize = 65_535;

/// `count` cubes along as many axes as it needs; a kernel compares `CUBE_POS` with the count.
pub(crate) fn cubes(count: usize) -> CubeCount {
    let rows = count.div_ceil(MOST).max(1);
    CubeCount::Static(count.div_ceil(rows) as u32, rows as u32, 1)
}
