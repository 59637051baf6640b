//! The operations as burn operations: one backend method for all of them.

use std::sync::Arc;

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, DispatchDevice, DispatchTensor,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, tensor::FloatTensor,
    },
    tensor::{DType, Device, Tensor},
};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};

use crate::cube::convolution::tensor_cores;
use crate::graph::{Differentiable, Shared, record_first};

/// Whether the device is one that CubeCL compiles for.
pub(crate) fn is_gpu(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Cube(_))
}

/// Whether the device has tensor cores for a number format.
pub(crate) fn has_tensor_cores(device: &Device, dtype: DType) -> bool {
    match device.clone().inner().as_dispatch() {
        DispatchDevice::Cube(device) => tensor_cores::compute_in(&device.client(), dtype),
        #[allow(unreachable_patterns, reason = "there may be other backends in the build")]
        _ => false,
    }
}

/// Whether the operations can work on this tensor: f32, bf16 or f16 on a GPU.
pub(crate) fn is_on_gpu<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.dtype(), DType::F32 | DType::BF16 | DType::F16) && is_gpu(&x.device())
}

/// Runs an operation on one to four tensors that are all on a GPU ([`is_on_gpu`]).
pub(crate) fn apply<const D: usize>(
    operation: impl Differentiable<CubeBackend>,
    inputs: Vec<DispatchTensor>,
) -> Tensor<D> {
    let [first, second, third, fourth] = core::array::from_fn(|index| inputs.get(index).unwrap_or(&inputs[0]).clone());
    let (operation, count) = (Arc::new(operation), inputs.len());
    Tensor::from_dispatch(<Dispatch as GpuBackend>::on_gpu(operation, count, first, second, third, fourth))
}

/// The method that burn routes to the backend of the tensors.
#[backend_extension(Cube, Autodiff)]
pub(crate) trait GpuBackend: Backend {
    /// The operation on the first `count` of the tensors.
    fn on_gpu(
        operation: Shared<CubeBackend>,
        count: usize,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        fourth: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl GpuBackend for CubeBackend {
    fn on_gpu(
        operation: Shared<Self>,
        count: usize,
        first: CubeTensor,
        second: CubeTensor,
        third: CubeTensor,
        fourth: CubeTensor,
    ) -> CubeTensor {
        operation.forward([first, second, third, fourth].into_iter().take(count).collect()).0
    }
}

impl<C: CheckpointStrategy> GpuBackend for Autodiff<CubeBackend, C> {
    fn on_gpu(
        operation: Shared<CubeBackend>,
        count: usize,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        fourth: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        record_first::<CubeBackend, C>(operation, count, [first, second, third, fourth])
    }
}
