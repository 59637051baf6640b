//! Ranks that compute together: processes on one machine or many, or threads, that each have a number and exchange
//! numbers with all the others at once.
//!
//! A [`Group`] is what one rank knows of the others. There is one that is [`alone`](Alone), one of [`threads`], and with the
//! feature `mpi` one of the processes that `mpirun` or `srun` started ([`start`]).
//!
//! ```
//! use parallel::{Group, threads};
//!
//! let sums: Vec<Vec<f32>> = std::thread::scope(|scope| {
//!     let ranks = threads(3).into_iter();
//!     let running: Vec<_> = ranks.map(|rank| scope.spawn(move || rank.sum(vec![rank.rank() as f32, 1.0]))).collect();
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

/// What one rank knows of its group. All ranks call the same methods in the same order; each returns when all have called it.
///
/// # Errors
/// Every method that exchanges something fails with [`GroupError::Gone`] if a rank has ended, and with
/// [`GroupError::Unanswered`] if this process was told to stop and the others do not answer; the group is of no use then.
pub trait Group: Debug + Send + Sync {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are, at least 1.
    fn size(&self) -> usize;

    /// The sum of all ranks' `values`, element by element; `values` is of the same length on all of them. The result has the
    /// same bits on every rank, and the same bits again when a group of the same size sums the same values.
    fn sum(&self, values: Vec<f32>) -> Result<Vec<f32>, GroupError>;

    /// What each rank gave, in the order of the ranks; lengths may differ.
    fn gather(&self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError>;

    /// What rank 0 gave; what the others give is not looked at.
    fn broadcast(&self, of_the_first: Vec<u8>) -> Result<Vec<u8>, GroupError>;

    /// Leaves in good order, when all ranks do. A rank that ends with an error does not: the others then learn that it is gone.
    fn finish(&self) -> Result<(), GroupError> {
        Ok(())
    }

    /// Whether this is rank 0, which writes files and speaks to the user.
    fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Whether any rank says so.
    fn any(&self, says: bool) -> Result<bool, GroupError> {
        Ok(self.gather(vec![u8::from(says)])?.concat().contains(&1))
    }
}

/// The share of `count` things that a rank has: neighbours, and at most one more than any other rank has.
pub fn share(count: usize, rank: usize, size: usize) -> std::ops::Range<usize> {
    count * rank / size..count * (rank + 1) / size
}

/// A group of one.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Group for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, values: Vec<f32>) -> Result<Vec<f32>, GroupError> {
        Ok(values)
    }

    fn gather(&self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        Ok(vec![mine])
    }

    fn broadcast(&self, of_the_first: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        Ok(of_the_first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_whole_and_fair() {
        for (count, size) in [(8, 1), (8, 2), (8, 3), (5, 4), (3, 3), (2, 5)] {
            let shares: Vec<_> = (0..size).map(|rank| share(count, rank, size)).collect();
            assert!(shares.iter().cloned().flatten().eq(0..count), "{shares:?}");
            let lengths = || shares.iter().map(std::ops::Range::len);
            assert!(lengths().max() <= lengths().min().map(|least| least + 1), "{shares:?}");
        }
    }

    #[test]
    fn one_alone_keeps_what_it_has() {
        assert_eq!(Alone.sum(vec![1.5]), Ok(vec![1.5]));
        assert_eq!(Alone.gather(vec![7]), Ok(vec![vec![7]]));
        assert_eq!(Alone.broadcast(vec![7]), Ok(vec![7]));
        assert_eq!((Alone.any(true), Alone.any(false)), (Ok(true), Ok(false)));
    }
}
