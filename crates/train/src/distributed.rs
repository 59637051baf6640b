//! A training on several ranks.
//!
//! Each rank computes its shard of every micro-batch ([`backward`](crate::backward)). Everything random about a sample follows from
//! its position in the run, so the samples are the same for any number of ranks.

use std::{fs, io::Write, path::Path, sync::Arc};

use files::{Action, FileError};
use parallel::ProcessGroup;

use crate::{
    config::Config, difference::differences, error::TrainError, parameters::flat_parameters, trainer::Trainer,
};

impl Trainer {
    /// Joins a group, which all its ranks do together. `training.batch_size` is the batch of the whole group, of which each rank
    /// computes its shard.
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
            let main = group.broadcast(config.into_bytes())?;
            let difference = match toml::from_str::<Config>(&String::from_utf8_lossy(&main)) {
                Ok(main) => differences(&main, &self.config, ["on rank 0", "there"]),
                Err(error) => format!("  the configuration of rank 0 cannot be read: {error}\n"),
            };
            check_same(&*group, difference)?;
        }
        self.group = group;
        Ok(self)
    }

    /// Brings every rank of the group to the state that rank 0 has just read from the file at `path`; returns whether there was
    /// one. Only rank 0 reads the file.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if the others do not answer; as [`Trainer::load_state`].
    pub(crate) fn broadcast_state(&mut self, path: Option<&Path>) -> Result<bool, TrainError> {
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

    /// Checks that all ranks have the same weights: the arithmetic of different processors can differ in the last bits.
    ///
    /// # Errors
    /// [`TrainError::OtherRank`] names the first rank that has not.
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
                    self.state.step
                ),
            }),
        }
    }
}

/// An error on all ranks if one of them differs from rank 0; `difference` is empty on a rank that does not.
fn check_same(group: &dyn ProcessGroup, difference: String) -> Result<(), TrainError> {
    let all = group.all_gather(difference.into_bytes())?;
    match all.iter().position(|difference| !difference.is_empty()) {
        None => Ok(()),
        Some(rank) => {
            let difference = String::from_utf8_lossy(&all[rank]).into_owned();
            Err(TrainError::OtherRank { rank, difference })
        }
    }
}
