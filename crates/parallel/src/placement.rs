//! The placement of ranks on machines and cores.

use std::collections::BTreeSet;

use crate::{GroupError, ProcessGroup};

/// The place of a rank on its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its rank among those of its machine, from 0.
    pub local_rank: usize,
    /// The number of ranks on its machine.
    pub local_size: usize,
    /// The number of machines of the group.
    pub machines: usize,
    /// Threads to compute with, at least 1: its share of the cores that it may use.
    pub threads: usize,
}

/// The placement of this rank; a collective operation.
///
/// # Errors
/// As the operations of [`ProcessGroup`].
pub fn placement(group: &dyn ProcessGroup) -> Result<Placement, GroupError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let all = group.all_gather(format!("{}\n{}", machine(), allowed_cores()).into_bytes())?;
    Ok(place(&all, group.rank(), cores))
}

/// The placement of `rank`, from a text of each rank: its machine, a new line, the cores that it may use.
fn place(all: &[Vec<u8>], rank: usize, cores: usize) -> Placement {
    let machine = |said: &[u8]| said.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec();
    let on_same = |other: &&Vec<u8>| machine(other) == machine(&all[rank]);
    // a launcher may bind ranks to cores of their own; otherwise they share all
    let sharing = all.iter().filter(|other| **other == all[rank]).count();
    let machines: BTreeSet<Vec<u8>> = all.iter().map(|other| machine(other)).collect();
    Placement {
        local_rank: all[..rank].iter().filter(on_same).count(),
        local_size: all.iter().filter(on_same).count(),
        machines: machines.len(),
        threads: (cores / sharing.max(1)).max(1),
    }
}

/// The name of this machine; empty if unknown, as if all ranks were on one.
fn machine() -> String {
    let read =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    read.map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// The cores that this process may run on, in the system's notation; empty if unknown.
fn allowed_cores() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.map(|cores| cores.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SingleProcess;

    #[test]
    fn cores_are_shared_by_ranks_with_the_same_cores() {
        let said = |lines: &[&str]| -> Vec<Vec<u8>> { lines.iter().map(|line| line.as_bytes().to_vec()).collect() };
        // two machines, free to use all of their 8 cores
        let all = said(&["one\n0-7", "one\n0-7", "two\n0-7", "one\n0-7"]);
        let expected = [(0, 3, 2), (1, 3, 2), (0, 1, 8), (2, 3, 2)];
        for (rank, (local_rank, local_size, threads)) in expected.into_iter().enumerate() {
            assert_eq!(place(&all, rank, 8), Placement { local_rank, local_size, machines: 2, threads });
        }
        // bound to cores of their own
        let all = said(&["one\n0", "one\n1"]);
        assert_eq!(place(&all, 1, 1), Placement { local_rank: 1, local_size: 2, machines: 1, threads: 1 });
        // more ranks than cores
        let all = said(&["one\n0-1"; 3]);
        assert_eq!(place(&all, 2, 2), Placement { local_rank: 2, local_size: 3, machines: 1, threads: 1 });
    }

    #[test]
    fn a_single_process_has_the_machine() {
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!(
            placement(&SingleProcess),
            Ok(Placement { local_rank: 0, local_size: 1, machines: 1, threads: cores })
        );
    }
}
