//! A step shared by the ranks of a group: each computes its share of every micro-batch, and what comes of it is summed.
//!
//! Positions are global in a run, and everything random of a sample follows from its position, so the samples that are seen
//! are the same whatever the number of ranks.

use std::{fs, io::Write, path::Path, sync::Arc};

use burn::tensor::{Tensor, TensorData};
use files::{Action, FileError};
use parallel::ProcessGroup;

use crate::{
    config::Config,
    error::TrainError,
    parameters::{Gradients, flat_parameters},
    run::differences,
    trainer::Trainer,
};

/// What the samples of a step come to, on one rank or on all, but for the gradients.
#[derive(Debug, Default)]
pub(crate) struct StepSums {
    /// The mean loss, or a rank's share of it.
    pub(crate) loss: f64,
    /// Those of the samples.
    pub(crate) losses: Vec<SampleLoss>,
}

/// The loss of one sample of a step, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SampleLoss {
    pub(crate) micro_batch: u64,
    /// The quartile of the timesteps.
    pub(crate) quartile: usize,
    /// Its timestep, where its level is that of one.
    pub(crate) timestep: Option<usize>,
    pub(crate) loss: f64,
}

impl SampleLoss {
    /// Words of 64 bits.
    const WORDS: usize = 4;

    fn to_words(self) -> [u64; Self::WORDS] {
        let timestep = self.timestep.map_or(u64::MAX, |timestep| timestep as u64);
        [self.micro_batch, self.quartile as u64, timestep, self.loss.to_bits()]
    }

    fn of_words(words: &[u64]) -> Option<Self> {
        let [micro_batch, quartile, timestep, loss] = *words else { return None };
        let timestep = (timestep != u64::MAX).then_some(timestep as usize);
        Some(Self { micro_batch, quartile: quartile as usize, timestep, loss: f64::from_bits(loss) })
    }
}

impl StepSums {
    /// The sum over the ranks; losses of samples come in the order in which one rank alone has them. It is the same on all ranks
    /// in every bit, so what follows from it they all do alike, such as to skip the step.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if the others do not answer; nothing of the trainer was changed then.
    pub(crate) fn over(self, group: &dyn ProcessGroup) -> Result<Self, TrainError> {
        if group.world_size() == 1 {
            return Ok(self);
        }
        let mut mine = vec![self.loss.to_bits()];
        mine.extend(self.losses.iter().flat_map(|sample| sample.to_words()));
        let mine = mine.into_iter().flat_map(u64::to_le_bytes).collect();
        let mut sums = Self::default();
        for bytes in group.all_gather(mine)? {
            let words: Vec<u64> = bytes
                .chunks_exact(8)
                .map(|word| word.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
                .collect();
            let Some((loss, samples)) = words.split_first() else { continue };
            sums.loss += f64::from_bits(*loss);
            sums.losses.extend(samples.chunks_exact(SampleLoss::WORDS).filter_map(SampleLoss::of_words));
        }
        // within a micro-batch ranks come in the order of their samples
        sums.losses.sort_by_key(|sample| sample.micro_batch);
        Ok(sums)
    }
}

/// Some gradients, in one message.
pub(crate) fn sum_gradients(gradients: Gradients, group: &dyn ProcessGroup) -> Result<Gradients, TrainError> {
    if group.world_size() == 1 {
        return Ok(gradients);
    }
    let lengths: Vec<Option<usize>> =
        gradients.iter().map(|gradient| gradient.as_ref().map(|gradient| gradient.dims()[0])).collect();
    let device = gradients.iter().flatten().next().map(Tensor::device);
    let mut values = Vec::with_capacity(lengths.iter().flatten().sum());
    for gradient in gradients.into_iter().flatten() {
        let data = gradient.into_data();
        match data.as_slice::<f32>() {
            Ok(slice) => values.extend_from_slice(slice),
            Err(_) => values.extend(data.iter::<f32>()),
        }
    }
    let sums = group.all_reduce(values)?;
    let Some(device) = device else { return Ok(lengths.into_iter().map(|_| None).collect()) };
    let mut rest = sums.as_slice();
    let mut next = |length: usize| {
        let (one, others) = rest.split_at(length);
        rest = others;
        Tensor::from_data(TensorData::new(one.to_vec(), [length]), &device)
    };
    Ok(lengths.into_iter().map(|length| length.map(&mut next)).collect())
}

impl Trainer {
    /// The same trainer as one rank of a group, which all ranks become together. The configuration's batch is that of the whole
    /// group; each rank computes its share of it.
    ///
    /// # Errors
    /// [`TrainError::TooManyRanks`] if there are more ranks than images in a batch, [`TrainError::OtherRank`] if the
    /// configuration or the images of a rank are not those of rank 0.
    pub fn distributed(mut self, group: Arc<dyn ProcessGroup>) -> Result<Self, TrainError> {
        let (ranks, batch_size) = (group.world_size(), self.config.training.batch_size);
        if ranks > batch_size {
            return Err(TrainError::TooManyRanks { ranks, batch_size });
        }
        if ranks > 1 {
            let config = toml::to_string(&self.config).unwrap_or_default();
            let of_the_first = group.broadcast(config.into_bytes())?;
            let difference = match toml::from_str::<Config>(&String::from_utf8_lossy(&of_the_first)) {
                Ok(first) => differences(&first, &self.config, ["on rank 0", "there"]),
                Err(error) => format!("  the configuration of rank 0 cannot be read: {error}\n"),
            };
            check_same(&*group, difference)?;
        }
        self.group = group;
        Ok(self)
    }

    /// Goes on, in a group, from the state that rank 0 has just read from the file at this path, if there was one; says whether
    /// there was. Only rank 0 needs to reach the file.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if the others do not answer; as [`Trainer::load_state`].
    pub(crate) fn load_state_of_the_first(&mut self, path: Option<&Path>) -> Result<bool, TrainError> {
        if self.group.world_size() == 1 {
            return Ok(path.is_some());
        }
        let bytes = match path {
            Some(path) => fs::read(path).map_err(|source| FileError::new(Action::Read, path, source))?,
            None => Vec::new(),
        };
        let bytes = self.group.broadcast(bytes)?;
        if !bytes.is_empty() && !self.group.is_main() {
            let copy = std::env::temp_dir().join("the training state of rank 0");
            let copied = tempfile::NamedTempFile::new().and_then(|mut file| file.write_all(&bytes).map(|()| file));
            let file = copied.map_err(|source| FileError::new(Action::Write, &copy, source))?;
            self.load_state(file.path())?;
        }
        Ok(!bytes.is_empty())
    }

    /// Looks whether all ranks still have the same weights: they do the same with the same gradients, but the arithmetic of
    /// different machines can differ in the last bits.
    ///
    /// # Errors
    /// [`TrainError::OtherRank`] names the first that has not.
    pub(crate) fn check_same_weights(&self) -> Result<(), TrainError> {
        if self.group.world_size() == 1 {
            return Ok(());
        }
        let mut sum = 0;
        for tensor in flat_parameters(self.unet()) {
            let bytes: Vec<u8> = tensor.into_data().iter::<f32>().flat_map(f32::to_le_bytes).collect();
            sum = crc32c::crc32c_append(sum, &bytes);
        }
        let all = self.group.all_gather(sum.to_le_bytes().to_vec())?;
        match all.iter().position(|other| *other != all[0]) {
            None => Ok(()),
            Some(rank) => Err(TrainError::OtherRank {
                rank,
                difference: format!(
                    "  the weights after step {}: its processor rounds differently; use machines of one kind, or \
                     KERNELS_INSTRUCTION_SET=avx2 on all\n",
                    self.step
                ),
            }),
        }
    }
}

/// An error on all ranks if one of them differs from the first; `mine` is empty where this one does not.
fn check_same(group: &dyn ProcessGroup, mine: String) -> Result<(), TrainError> {
    let all = group.all_gather(mine.into_bytes())?;
    match all.iter().position(|difference| !difference.is_empty()) {
        None => Ok(()),
        Some(rank) => {
            let difference = String::from_utf8_lossy(&all[rank]).into_owned();
            Err(TrainError::OtherRank { rank, difference })
        }
    }
}
