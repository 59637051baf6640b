//! The stage `pointers`: whether another library of CUDA, as cuDNN, could work on CubeCL's tensors, in CubeCL's order.
//!
//! Such a library computes at addresses, on a stream of its own. CubeCL shows the address of a tensor (`Client::get_resource`) but
//! not its stream; both use the primary context of the device, whose events (`cuCtxRecordEvent`, `cuCtxWaitEvent`, CUDA 12.5) order
//! all its streams. Two parts try that: what CubeCL has queued is read by the other stream, and what the other stream has queued is
//! read by CubeCL. In both the work before takes so long that a missing order shows.

use super::Session;

#[cfg(not(feature = "cuda"))]
pub fn run(session: &Session) -> anyhow::Result<()> {
    session.skipped("pointers", "this program is not built for CUDA")
}

#[cfg(feature = "cuda")]
pub fn run(session: &Session) -> anyhow::Result<()> {
    use serde_json::json;

    if !session.device.starts_with("cuda") {
        return session.skipped("pointers", "the device is not one of CUDA");
    }
    match session.part.as_deref() {
        Some("from CubeCL") => session.judged("from CubeCL", probe::from_cubecl(session)?, json!({})),
        Some(_) => session.judged("to CubeCL", probe::to_cubecl(session)?, json!({})),
        // a missing function of the driver ends the process
        None => ["from CubeCL", "to CubeCL"].iter().try_for_each(|part| {
            let ended = super::worker::run(&mut session.worker(part)?, session.left(), true)?;
            match ended.failure() {
                Some(message) => session.failed(part, &message),
                None => Ok(()),
            }
        }),
    }
}

#[cfg(feature = "cuda")]
#[expect(unsafe_code, reason = "calls of the driver, at addresses that CubeCL has given for as long as they are used")]
mod probe {
    use burn::{
        backend::DispatchTensorKind,
        tensor::{DType, Device, Tensor},
    };
    use burn_cubecl::tensor::CubeTensor;
    use cubecl::cuda::CudaRuntime;
    use cubecl_runtime::runtime::Runtime;
    use cudarc::driver::{
        result::{ctx, device, event, init, memcpy_dtoh_async, memset_d8_async, primary_ctx, stream},
        sys::{CUcontext, CUevent, CUevent_flags, CUevent_wait_flags, CUstream, cuCtxRecordEvent, cuCtxWaitEvent},
    };

    use super::Session;

    /// Side of the matrices; their product takes some milliseconds.
    const SIDE: usize = 4096;
    /// A byte, and the number whose four bytes it is.
    const BYTE: u8 = 0x3f;
    const NUMBER: f32 = f32::from_bits(0x3f3f_3f3f);

    /// The context that CubeCL uses, a stream of our own and an event.
    fn prepare() -> anyhow::Result<(CUcontext, CUstream, CUevent)> {
        init()?;
        // SAFETY: the device is the first one; its primary context is CubeCL's, and stays
        unsafe {
            let context = primary_ctx::retain(device::get(0)?)?;
            ctx::set_current(context)?;
            let own = stream::create(stream::StreamKind::NonBlocking)?;
            Ok((context, own, event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?))
        }
    }

    /// The address of a contiguous tensor.
    fn address(tensor: &CubeTensor) -> anyhow::Result<u64> {
        let resource = tensor.client.get_resource::<<CudaRuntime as Runtime>::Server>(tensor.handle.clone());
        Ok(resource.map_err(|error| anyhow::anyhow!("{error}"))?.resource().ptr)
    }

    fn primitive(tensor: Tensor<2>) -> CubeTensor {
        match tensor.into_dispatch().kind {
            DispatchTensorKind::Cube(tensor) => tensor.float(),
            _ => unreachable!("the device is one of CUDA"),
        }
    }

    /// Eight products that CubeCL queues, whose elements are all 1.
    fn slow_ones(device: &Device) -> Tensor<2> {
        let matrix = Tensor::<2>::full([SIDE, SIDE], 1.0 / SIDE as f64, (device, DType::F32));
        (0..8).fold(Tensor::ones([SIDE, SIDE], (device, DType::F32)), |product, _| product.matmul(matrix.clone()))
    }

    /// The other stream reads what CubeCL has queued; the fault, if there is one.
    pub fn from_cubecl(session: &Session) -> anyhow::Result<Option<String>> {
        let device = session.open()?;
        let ones = slow_ones(&device);
        let (context, own, event) = prepare()?;
        let source = address(&primitive(ones.clone()))?;
        let mut values = vec![0f32; SIDE];
        // SAFETY: `ones` keeps the memory at `source`, of more than `SIDE` numbers, until the stream is done
        unsafe {
            cuCtxRecordEvent(context, event).result()?;
            stream::wait_event(own, event, CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT)?;
            memcpy_dtoh_async(&mut values, source, own)?;
            stream::synchronize(own)?;
        }
        let wrong = values.iter().filter(|value| (**value - 1.0).abs() > 0.01).count();
        drop(ones);
        Ok((wrong > 0).then(|| format!("{wrong} of {SIDE} numbers were read before CubeCL had written them")))
    }

    /// CubeCL reads what the other stream has queued; the fault, if there is one.
    pub fn to_cubecl(session: &Session) -> anyhow::Result<Option<String>> {
        let device = session.open()?;
        let target = Tensor::<2>::zeros([SIDE, SIDE], (&device, DType::F32));
        device.sync()?;
        let (context, own, event) = prepare()?;
        let (start, length) = (address(&primitive(target.clone()))?, 4 * SIDE * SIDE);
        // SAFETY: `target` keeps the memory of this length at `start`
        unsafe {
            // long enough that a reader which does not wait comes too early
            for round in 0..200 {
                memset_d8_async(start, if round == 199 { BYTE } else { 0 }, length, own)?;
            }
            event::record(event, own)?;
            cuCtxWaitEvent(context, event).result()?;
        }
        let values: Vec<f32> = (target * 1.0).into_data().iter::<f32>().collect();
        let wrong = values.iter().filter(|value| **value != NUMBER).count();
        Ok((wrong > 0).then(|| format!("CubeCL read {wrong} of {} numbers before they were written", values.len())))
    }
}
