//! What can go wrong between ranks.

/// A group that does not come about, or falls apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The build has no MPI.
    #[error(
        "{launcher} started {size} processes that are to train together, and this build cannot: build it with MPI, as in \
         `cargo build --package cli --features mpi` (Debian: libopenmpi-dev openmpi-bin libclang-dev), or start it once, \
         without {launcher}"
    )]
    NotBuilt {
        /// What started the process.
        launcher: &'static str,
        /// How many processes it started.
        size: usize,
    },
    /// MPI and what started the processes do not belong together.
    #[error(
        "{launcher} started {expected} processes, and MPI knows of {found}: it is not the launcher of the MPI library that this \
         program was built with. Use the library's own mpirun, or `srun --mpi=pmix`"
    )]
    OtherLauncher {
        /// What started the process.
        launcher: &'static str,
        /// How many processes it started.
        expected: usize,
        /// How many MPI knows of.
        found: usize,
    },
    /// MPI does not start.
    #[error("MPI does not start: {reason}")]
    NotStarted {
        /// Why not.
        reason: String,
    },
    /// A rank has ended.
    #[error("another of the {size} ranks has ended")]
    Gone {
        /// Ranks in the group.
        size: usize,
    },
    /// This process was told to stop, and waited for the others in vain.
    #[error(
        "told to stop, this rank waited {milliseconds} ms for the others ({size} in all): one of them has died, or is not done with \
         its share yet"
    )]
    Unanswered {
        /// Ranks in the group.
        size: usize,
        /// How long it waited.
        milliseconds: u128,
    },
}
