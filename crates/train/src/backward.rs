//! The gradients of a step: computed part by part on threads and ranks, and summed.
//!
//! The sums are taken in a fixed order (parts of a micro-batch, micro-batches, ranks), so that they do not depend on which part is
//! computed first.

use burn::tensor::{Tensor, TensorData};
use kernels::parts::compute_parts;
use parallel::{ProcessGroup, shard};
use unet::Network;

use crate::{
    batch::Sample,
    error::TrainError,
    parameters::{Gradients, add, flat_gradients, map_flat},
    precision::Precision,
};

/// Splits micro-batches among ranks and threads.
pub(crate) struct Backward<'a> {
    pub(crate) group: &'a dyn ProcessGroup,
    /// Parts of a micro-batch over all ranks, each computed by its own thread.
    pub(crate) parallel_parts: usize,
    pub(crate) precision: Precision,
    /// The parameters in the lower format, flat, where the last step has left them.
    pub(crate) lowered: Option<&'a [Tensor<1>]>,
}

/// The sums of a step over the parts of this rank, on the device.
pub(crate) struct Sums {
    /// The gradient of the mean loss, times the loss scale and the number of micro-batches.
    pub(crate) gradients: Gradients,
    /// The losses of each part.
    losses: Vec<Losses>,
    /// The factor of the gradients.
    pub(crate) scale: f64,
    /// The part of it that is the factor of the loss.
    pub(crate) loss_scale: f64,
}

/// The losses of one part of a micro-batch.
struct Losses {
    /// Its share of the mean loss, `[1]`.
    loss: Tensor<1>,
    /// The loss of each sample without its importance weight.
    sample_losses: Tensor<1>,
}

/// The losses of a step over all ranks, with the same bits on each.
pub(crate) struct StepLosses {
    /// The mean loss.
    pub(crate) loss: f64,
    /// The loss of each sample without its importance weight, in the order of the samples.
    pub(crate) sample_losses: Vec<f64>,
}

impl Sums {
    /// The mean loss, `[1]`, and the loss of each sample, on the device.
    pub(crate) fn losses(&self, micro_batches: usize) -> [Tensor<1>; 2] {
        let loss = self.losses.iter().map(|part| part.loss.clone()).reduce(|sum, loss| sum + loss);
        let of_samples = self.losses.iter().map(|part| part.sample_losses.clone()).collect();
        let loss = loss.unwrap_or_else(|| unreachable!("a step has samples"));
        [if micro_batches == 1 { loss } else { loss / micro_batches as f64 }, Tensor::cat(of_samples, 0)]
    }
}

impl Backward<'_> {
    /// The sums over all micro-batches; `losses` returns the loss of each of some samples, `[samples]`. Nothing is read from the
    /// device.
    pub(crate) fn sums(
        &self,
        unet: &Network,
        micro_batches: &[Vec<Sample>],
        losses: impl Fn(&Network, &[Sample]) -> Tensor<1> + Sync,
    ) -> Sums {
        let (mut gradients, mut all_losses) = (None, Vec::new());
        for micro_batch in micro_batches {
            for (part, losses) in self.parts(unet, micro_batch, &losses) {
                gradients = Some(add(gradients, part));
                all_losses.push(losses);
            }
        }
        let loss_scale = self.precision.loss_scale();
        let scale = loss_scale * micro_batches.len() as f64;
        Sums { gradients: gradients.unwrap_or_default(), losses: all_losses, scale, loss_scale }
    }

    /// The gradients of the mean loss over all ranks, and the losses.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if other ranks do not answer.
    pub(crate) fn read(
        &self,
        sums: Sums,
        micro_batches: &[Vec<Sample>],
    ) -> Result<(Gradients, StepLosses), TrainError> {
        let count = micro_batches.len() as f64;
        let mut gradients = all_reduce(self.precision.unscaled(sums.gradients), self.group)?;
        if micro_batches.len() > 1 {
            let mean = |gradient: Tensor<1>| gradient / count;
            gradients = gradients.into_iter().map(|gradient| gradient.map(mean)).collect();
        }
        let (mut loss, mut sample_losses) = (0.0, Vec::new());
        for part in sums.losses {
            loss += f64::from(part.loss.into_scalar::<f32>()) / count;
            sample_losses.extend(part.sample_losses.into_data().iter::<f64>());
        }
        Ok((gradients, self.gather_losses(loss, &sample_losses, micro_batches)?))
    }

    /// This rank's shard of a micro-batch, in parts that are computed at the same time.
    fn parts(
        &self,
        unet: &Network,
        micro_batch: &[Sample],
        losses: &(impl Fn(&Network, &[Sample]) -> Tensor<1> + Sync),
    ) -> Vec<(Gradients, Losses)> {
        let shard = &micro_batch[shard(micro_batch.len(), self.group.rank(), self.group.world_size())];
        // a GPU is busy with one part, and two would queue twice as much
        let parts = if kernels::is_gpu(&unet.device()) { 1 } else { self.parallel_parts };
        let threads = parts.div_ceil(self.group.world_size()).max(1);
        let parts = shard.chunks(shard.len().div_ceil(threads)).collect();
        compute_parts(&unet.device(), parts, |samples| self.part(unet, samples, micro_batch.len(), losses))
    }

    /// Forward and backward pass of some samples of a micro-batch of `batch_size`.
    fn part(
        &self,
        unet: &Network,
        samples: &[Sample],
        batch_size: usize,
        losses: &impl Fn(&Network, &[Sample]) -> Tensor<1>,
    ) -> (Gradients, Losses) {
        // parameters as leaves of a graph of this thread: threads cannot share one
        let unet = map_flat(unet.clone(), |index, value| self.lowered.map_or(value, |lowered| lowered[index].clone()));
        let losses = losses(&unet, samples);
        let sample_losses = losses.clone().inner();
        let loss = importance_weighted(losses, samples).mean() * (samples.len() as f64 / batch_size as f64);
        let value = loss.clone().inner();
        let gradients = flat_gradients(&unet, &self.precision.scaled(loss).backward());
        (gradients, Losses { loss: value, sample_losses })
    }

    /// The mean loss and the losses of all samples of a step, from those of each rank.
    fn gather_losses(
        &self,
        loss: f64,
        sample_losses: &[f64],
        micro_batches: &[Vec<Sample>],
    ) -> Result<StepLosses, TrainError> {
        let world_size = self.group.world_size();
        let bytes = [&[loss], sample_losses].concat().into_iter().flat_map(f64::to_le_bytes).collect();
        let of_ranks = self.group.all_gather(bytes)?;
        let mut of_ranks: Vec<_> = of_ranks
            .iter()
            .map(|bytes| bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)))
            .collect();
        let loss = of_ranks.iter_mut().filter_map(Iterator::next).sum();
        let mut all_losses = Vec::new();
        for micro_batch in micro_batches {
            for (rank, losses) in of_ranks.iter_mut().enumerate() {
                all_losses.extend(losses.take(shard(micro_batch.len(), rank, world_size).len()));
            }
        }
        Ok(StepLosses { loss, sample_losses: all_losses })
    }
}

/// The losses times the importance weights of their samples, where some weight is not 1.
fn importance_weighted(losses: Tensor<1>, samples: &[Sample]) -> Tensor<1> {
    if samples.iter().all(|sample| sample.importance == 1.0) {
        return losses;
    }
    let weights: Vec<f32> = samples.iter().map(|sample| sample.importance as f32).collect();
    let weights = Tensor::from_data(TensorData::new(weights, [samples.len()]), &losses.device());
    losses * weights
}

/// Bytes of gradients in one message: a host copy of all gradients of a large network is avoided. PyTorch's
/// DistributedDataParallel has buckets of the same size (`bucket_cap_mb`).
const BUCKET: usize = 25 << 20;

/// The sum of the gradients of all ranks, in buckets of whole parameters.
fn all_reduce(gradients: Gradients, group: &dyn ProcessGroup) -> Result<Gradients, TrainError> {
    if group.world_size() == 1 {
        return Ok(gradients);
    }
    let mut sums = Gradients::with_capacity(gradients.len());
    let (mut bucket, mut bytes) = (Gradients::new(), 0);
    for gradient in gradients {
        bytes += gradient.as_ref().map_or(0, |gradient| 4 * gradient.dims()[0]);
        bucket.push(gradient);
        if bytes >= BUCKET {
            sums.extend(all_reduce_bucket(std::mem::take(&mut bucket), group)?);
            bytes = 0;
        }
    }
    if !bucket.is_empty() {
        sums.extend(all_reduce_bucket(bucket, group)?);
    }
    Ok(sums)
}

fn all_reduce_bucket(bucket: Gradients, group: &dyn ProcessGroup) -> Result<Gradients, TrainError> {
    let mut values = Vec::new();
    for gradient in bucket.iter().flatten() {
        values.extend(gradient.to_data().iter::<f32>());
    }
    let sums = group.all_reduce(values)?;
    let mut rest = sums.as_slice();
    let mut next = |gradient: Tensor<1>| {
        let (sum, others) = rest.split_at(gradient.dims()[0]);
        rest = others;
        Tensor::from_data(TensorData::new(sum.to_vec(), [sum.len()]), &gradient.device())
    };
    Ok(bucket.into_iter().map(|gradient| gradient.map(&mut next)).collect())
}
