//! Process groups over MPI: `cargo test --workspace --features mpi --test mpi`. This test starts itself with `mpirun`.
#![cfg(feature = "mpi")]

use std::{
    process::Command,
    sync::{Arc, atomic::AtomicBool},
};

use parallel::ProcessGroup;

/// Set in the processes that `mpirun` starts.
const WITHIN: &str = "PARALLEL_TEST_WITHIN_MPIRUN";

#[test]
fn operations_over_mpi_have_the_results_of_threads() {
    if std::env::var_os(WITHIN).is_none() {
        let test = std::env::current_exe().expect("the path of this test");
        let output = Command::new("mpirun")
            .args(["--allow-run-as-root", "--oversubscribe", "-n", "3"])
            .arg(test)
            .args(["--exact", "operations_over_mpi_have_the_results_of_threads", "--nocapture"])
            .env(WITHIN, "1")
            .output()
            .expect("mpirun is installed (Debian: openmpi-bin)");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(text(&output.stdout).matches("1 passed").count(), 3, "{}", text(&output.stdout));
        return;
    }
    let group = parallel::start(&Arc::new(AtomicBool::new(false))).expect("a group");
    let (over_mpi, rank) = (operations(&*group), group.rank());
    assert_eq!(group.world_size(), 3);
    let on_threads = std::thread::scope(|scope| {
        let ranks = parallel::threads(3).into_iter();
        let running: Vec<_> = ranks.map(|rank| scope.spawn(move || operations(&rank))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).nth(rank)
    });
    assert_eq!(Some(over_mpi), on_threads);
    group.finalize().expect("all finish");
}

/// The results of collective operations.
#[derive(Debug, Default, PartialEq)]
struct Results {
    sums: Vec<Vec<f32>>,
    gathered: Vec<Vec<Vec<u8>>>,
    broadcasts: Vec<Vec<u8>>,
    flags: Vec<bool>,
}

/// Collective operations on long, short and empty values.
fn operations(group: &dyn ProcessGroup) -> Results {
    let mut all = Results::default();
    for round in 0..20 {
        // whole numbers, whose sums are exact in any order
        let values = (0..round * round * 1000).map(|index| (index % 1000 + group.rank() * round) as f32).collect();
        all.sums.push(group.all_reduce(values).expect("a sum"));
        all.gathered.push(group.all_gather(vec![round as u8; group.rank() * round]).expect("all"));
        all.broadcasts.push(group.broadcast(vec![group.rank() as u8; 5 * round + group.rank()]).expect("the first's"));
        all.flags.push(group.any(group.rank() == round % 4).expect("flags"));
    }
    all
}
