//! Collective operations between ranks: processes on one machine or many, or threads of one process.
//!
//! A [`ProcessGroup`] is one rank's handle on its group. [`SingleProcess`] is a group of one, [`threads`] makes a group of
//! threads, and with the feature `mpi` [`start`] joins the processes that `mpirun` or `srun` launched.
//!
//! ```
//! use parallel::{ProcessGroup, threads};
//!
//! let sums: Vec<Vec<f32>> = std::thread::scope(|scope| {
//!     let ranks = threads(3).into_iter();
//!     let running: Vec<_> = ranks.map(|rank| scope.spawn(move || rank.all_reduce(vec![rank.rank() as f32, 1.0]))).collect();
//!     running.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Result<_, _>>()
//! })?;
//! assert_eq!(sums, vec![vec![3.0, 3.0]; 3]);
//! # Ok::<(), parallel::GroupError>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod launcher;
#[cfg(feature = "mpi")]
mod mpi;
mod placement;
mod threads;

use std::fmt::Debug;

pub use error::GroupError;
pub use launcher::{Launch, PATIENCE, PATIENCE_OF_OTHERS, launched, start};
pub use placement::{Placement, placement};
pub use threads::{ThreadRank, threads};

/// One rank's handle on its group. All ranks call the same methods in the same order; each call returns once all ranks have made it.
/// The operations are those of MPI and of `torch.distributed`.
///
/// # Errors
/// Every collective operation fails with [`GroupError::Gone`] if a rank has ended, and with [`GroupError::Unanswered`] if this
/// process was told to stop and the other ranks do not answer. The group cannot be used after an error.
pub trait ProcessGroup: Debug + Send + Sync {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks, at least 1.
    fn world_size(&self) -> usize;

    /// The elementwise sum of all ranks' `values`, which have the same length on every rank. The result has the same bits on
    /// every rank, and again when a group of the same size sums the same values.
    fn all_reduce(&self, values: Vec<f32>) -> Result<Vec<f32>, GroupError>;

    /// The `value` of each rank, in the order of the ranks; lengths may differ.
    fn all_gather(&self, value: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError>;

    /// The `value` of rank 0; those of other ranks are ignored.
    fn broadcast(&self, value: Vec<u8>) -> Result<Vec<u8>, GroupError>;

    /// Leaves the group once all ranks do. A rank that ends with an error leaves without it, which the others see as
    /// [`GroupError::Gone`].
    fn finalize(&self) -> Result<(), GroupError> {
        Ok(())
    }

    /// Whether this is rank 0, which writes files and prints.
    fn is_main(&self) -> bool {
        self.rank() == 0
    }

    /// Whether `flag` is set on any rank: an all-reduce with logical or.
    fn any(&self, flag: bool) -> Result<bool, GroupError> {
        Ok(self.all_gather(vec![u8::from(flag)])?.concat().contains(&1))
    }

    /// Returns once all ranks have called it.
    fn barrier(&self) -> Result<(), GroupError> {
        self.all_gather(Vec::new()).map(drop)
    }
}

/// The shard of `count` items that belongs to `rank`: a contiguous range, at most one longer than that of any other rank.
pub fn shard(count: usize, rank: usize, world_size: usize) -> std::ops::Range<usize> {
    count * rank / world_size..count * (rank + 1) / world_size
}

/// A group of one.
#[derive(Clone, Copy, Debug)]
pub struct SingleProcess;

impl ProcessGroup for SingleProcess {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce(&self, values: Vec<f32>) -> Result<Vec<f32>, GroupError> {
        Ok(values)
    }

    fn all_gather(&self, value: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        Ok(vec![value])
    }

    fn broadcast(&self, value: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_whole_and_fair() {
        for (count, size) in [(8, 1), (8, 2), (8, 3), (5, 4), (3, 3), (2, 5)] {
            let shards: Vec<_> = (0..size).map(|rank| shard(count, rank, size)).collect();
            assert!(shards.iter().cloned().flatten().eq(0..count), "{shards:?}");
            let lengths = || shards.iter().map(std::ops::Range::len);
            assert!(lengths().max() <= lengths().min().map(|least| least + 1), "{shards:?}");
        }
    }

    #[test]
    fn a_single_process_keeps_its_values() {
        assert_eq!(SingleProcess.all_reduce(vec![1.5]), Ok(vec![1.5]));
        assert_eq!(SingleProcess.all_gather(vec![7]), Ok(vec![vec![7]]));
        assert_eq!(SingleProcess.broadcast(vec![7]), Ok(vec![7]));
        assert_eq!((SingleProcess.any(true), SingleProcess.any(false)), (Ok(true), Ok(false)));
    }
}
