//! Detection of `mpirun` and `srun`, and the group of this process.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use crate::{GroupError, ProcessGroup, SingleProcess};

/// The time that rank 0 waits for the others after it was asked to stop. Open MPI's mpirun kills a second later; the rest of that
/// second is for saving the state.
pub const PATIENCE: Duration = Duration::from_millis(400);

/// The time that other ranks wait: they have nothing to save, and rank 0 may be saving. A rank that ends with an error makes the
/// launcher end all.
pub const PATIENCE_OF_OTHERS: Duration = Duration::from_secs(60);

/// The launcher of this process and others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Its name.
    pub launcher: &'static str,
    /// The number of processes that it started.
    pub size: usize,
}

/// Environment variables with the number of processes, and their launchers.
const SIZES: [(&str, &str); 5] = [
    ("OMPI_COMM_WORLD_SIZE", "mpirun"),
    ("MV2_COMM_WORLD_SIZE", "mpirun"),
    ("PMI_SIZE", "mpirun"),
    ("PALS_SIZE", "mpiexec"),
    // not SLURM_NTASKS, which is set in a batch script before srun
    ("SLURM_STEP_NUM_TASKS", "srun"),
];

/// The launcher of this process, if it started more than one.
pub fn launched() -> Option<Launch> {
    launched_by(|name| std::env::var(name).ok())
}

fn launched_by(variable: impl Fn(&str) -> Option<String>) -> Option<Launch> {
    let launch = |(name, launcher): (&str, &'static str)| {
        let size = variable(name)?.trim().parse().ok()?;
        Some(Launch { launcher, size })
    };
    SIZES.into_iter().find_map(launch).filter(|launch| launch.size > 1)
}

/// Joins the processes that a launcher started with this one over MPI; a [`SingleProcess`] without a launcher.
///
/// While `is_asked_to_stop` is set, a rank waits for others at most [`PATIENCE`] or [`PATIENCE_OF_OTHERS`].
///
/// # Errors
/// [`GroupError`] if there are other processes and MPI is missing or fails.
pub fn start(is_asked_to_stop: &Arc<AtomicBool>) -> Result<Arc<dyn ProcessGroup>, GroupError> {
    match launched() {
        None => Ok(Arc::new(SingleProcess)),
        Some(launch) => start_mpi(launch, is_asked_to_stop),
    }
}

#[cfg(feature = "mpi")]
fn start_mpi(launch: Launch, is_asked_to_stop: &Arc<AtomicBool>) -> Result<Arc<dyn ProcessGroup>, GroupError> {
    Ok(Arc::new(crate::mpi::Mpi::start(launch, Arc::clone(is_asked_to_stop))?))
}

#[cfg(not(feature = "mpi"))]
fn start_mpi(Launch { launcher, size }: Launch, _: &Arc<AtomicBool>) -> Result<Arc<dyn ProcessGroup>, GroupError> {
    Err(GroupError::NotBuilt { launcher, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_known_by_their_variables() {
        let by = |variables: &[(&str, &str)]| {
            launched_by(|name| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(by(&[]), None);
        assert_eq!(by(&[("OMPI_COMM_WORLD_SIZE", "4")]), Some(Launch { launcher: "mpirun", size: 4 }));
        assert_eq!(by(&[("PMI_SIZE", "2")]), Some(Launch { launcher: "mpirun", size: 2 }));
        assert_eq!(by(&[("SLURM_STEP_NUM_TASKS", "8")]), Some(Launch { launcher: "srun", size: 8 }));
        // one process alone, a batch script, nonsense
        for variables in [("OMPI_COMM_WORLD_SIZE", "1"), ("SLURM_NTASKS", "4"), ("PMI_SIZE", "many")] {
            assert_eq!(by(&[variables]), None, "{variables:?}");
        }
    }
}
