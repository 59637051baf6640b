//! Parts of a batch that are computed at the same time.

use burn::tensor::Device;

/// `compute` of every part, in their order; `device` has their tensors.
///
/// On the CPU each part has its own share of the threads, which rayon's global pool would hand to whichever part asks first:
/// no operation of one part waits for one of another, and with as many parts as threads no operation wakes a thread. On other
/// devices the parts are computed one after another, on this thread.
///
/// # Panics
/// Like `compute`.
pub fn compute_parts<P: Send, R: Send>(device: &Device, parts: Vec<P>, compute: impl Fn(P) -> R + Sync) -> Vec<R> {
    #[cfg(feature = "flex")]
    if crate::is_in_main_memory(device) {
        let (pools, compute) = (shares::pools(parts.len()), &compute);
        return std::thread::scope(|scope| {
            let parts = parts.into_iter().zip(&*pools);
            let threads: Vec<_> =
                parts.map(|(part, pool)| scope.spawn(move || pool.install(|| compute(part)))).collect();
            let result = |thread: std::thread::ScopedJoinHandle<R>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(result).collect()
        });
    }
    let _ = device;
    parts.into_iter().map(compute).collect()
}

/// `compute` on one of the threads that native operations on `device` are computed by: many short operations, one after
/// another, then wake the other threads once, and do not wait for them.
///
/// `compute` must not wait for another thread that calls this.
///
/// # Panics
/// Like `compute`.
pub fn compute_among_threads<R: Send>(device: &Device, compute: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "flex")]
    if crate::is_in_main_memory(device) {
        return rayon::scope(|_| compute());
    }
    let _ = device;
    compute()
}

#[cfg(feature = "flex")]
mod shares {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex, PoisonError},
    };

    use rayon::{ThreadPool, ThreadPoolBuilder};

    /// A pool for each part.
    type Pools = Arc<[ThreadPool]>;

    /// The pools by the number of parts and of threads. They stay, since their threads keep the memory that kernels work in.
    static POOLS: Mutex<BTreeMap<(usize, usize), Pools>> = Mutex::new(BTreeMap::new());

    /// A pool for each of `parts` parts, which share the threads of the current pool evenly; at least one thread each.
    pub(super) fn pools(parts: usize) -> Pools {
        let all = rayon::current_num_threads();
        let threads = |part: usize| (all / parts + usize::from(part < all % parts)).max(1);
        let pool = |part| ThreadPoolBuilder::new().num_threads(threads(part)).build().expect("threads can be started");
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(pools.entry((parts, all)).or_insert_with(|| (0..parts).map(pool).collect()))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_their_order_and_share_the_threads() {
        let all = rayon::current_num_threads();
        for count in [0, 1, 2, 3, 40] {
            let results = compute_parts(&Device::flex(), (0..count).collect(), |part| {
                // the part that is started first ends last
                std::thread::sleep(std::time::Duration::from_millis(10 * u64::from(part < 2) * (2 - part)));
                (part, rayon::current_num_threads())
            });
            let share = |part| (all / count as usize + usize::from((part as usize) < all % count as usize)).max(1);
            assert_eq!(results, (0..count).map(|part| (part, share(part))).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panic_of_a_part_is_that_of_the_caller() {
        let parts = || compute_parts(&Device::flex(), vec![0, 1], |part| assert!(part == 0, "of part {part}"));
        let message = std::panic::catch_unwind(parts).expect_err("a panic");
        assert_eq!(message.downcast_ref::<String>().map(String::as_str), Some("of part 1"));
        // the threads go on
        assert_eq!(compute_parts(&Device::flex(), vec![2, 3], |part| part + 1), [3, 4]);
    }

    #[test]
    fn short_operations_find_themselves_among_the_threads() {
        let before = rayon::current_thread_index();
        let (during, threads) =
            compute_among_threads(&Device::flex(), || (rayon::current_thread_index(), rayon::current_num_threads()));
        assert!(before.is_none() && during.is_some(), "{before:?}, {during:?}");
        assert_eq!(threads, rayon::current_num_threads());
    }
}
