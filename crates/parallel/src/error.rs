//! Errors of process groups.

/// A group that cannot be joined, or lost a rank.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A build without MPI.
    #[error(
        "{launcher} started {size} processes that are to train together, and this build cannot: build it with MPI, as in \
         `cargo build --package cli --features mpi` (Debian: libopenmpi-dev openmpi-bin libclang-dev), or start it once, \
         without {launcher}"
    )]
    NotBuilt {
        /// The launcher.
        launcher: &'static str,
        /// The number of processes that it started.
        size: usize,
    },
    /// A launcher of another MPI library.
    #[error(
        "{launcher} started {expected} processes, and MPI knows of {found}: it is not the launcher of the MPI library that this \
         program was built with. Use the library's own mpirun, or `srun --mpi=pmix`"
    )]
    OtherLauncher {
        /// The launcher.
        launcher: &'static str,
        /// The number of processes that it started.
        expected: usize,
        /// The number of processes that MPI found.
        found: usize,
    },
    /// An MPI library that does not initialize.
    #[error("MPI does not start: {reason}")]
    NotStarted {
        /// The reason.
        reason: String,
    },
    /// A rank has ended.
    #[error("another of the {size} ranks has ended")]
    Gone {
        /// The number of ranks.
        size: usize,
    },
    /// This process was asked to stop while it waited for other ranks.
    #[error(
        "asked to stop, this rank waited {milliseconds} ms for the others ({size} in all): one of them has died, or has not finished \
         its shard"
    )]
    Unanswered {
        /// The number of ranks.
        size: usize,
        /// The time that it waited.
        milliseconds: u128,
    },
}
