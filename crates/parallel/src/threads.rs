//! Process groups of threads: tests of several ranks need no MPI.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::{GroupError, ProcessGroup};

/// The state of the collective operation that is going on.
#[derive(Debug, Default)]
struct Exchange {
    /// The value of each rank, until all have arrived.
    given: Vec<Option<Vec<u8>>>,
    /// All values, from then on until every rank has read them.
    all: Option<Arc<Vec<Vec<u8>>>>,
    /// The number of ranks that have read them.
    taken: usize,
    /// Whether a rank has ended.
    is_one_gone: bool,
}

#[derive(Debug)]
struct Shared {
    exchange: Mutex<Exchange>,
    changed: Condvar,
}

/// A rank that is a thread. When it is dropped, collective operations of the others fail with [`GroupError::Gone`].
#[derive(Debug)]
pub struct ThreadRank {
    rank: usize,
    size: usize,
    shared: Arc<Shared>,
}

/// The ranks of a group of `size`, each to be moved to its own thread.
pub fn threads(size: usize) -> Vec<ThreadRank> {
    let exchange = Mutex::new(Exchange { given: vec![None; size], ..Exchange::default() });
    let shared = Arc::new(Shared { exchange, changed: Condvar::new() });
    (0..size).map(|rank| ThreadRank { rank, size, shared: Arc::clone(&shared) }).collect()
}

impl ThreadRank {
    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.shared.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, exchange: MutexGuard<'a, Exchange>) -> MutexGuard<'a, Exchange> {
        self.shared.changed.wait(exchange).unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProcessGroup for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, values: Vec<f32>) -> Result<Vec<f32>, GroupError> {
        let all = self.all_gather(values.iter().flat_map(|value| value.to_le_bytes()).collect())?;
        let mut sum = vec![0f32; values.len()];
        for bytes in all {
            for (sum, value) in sum.iter_mut().zip(bytes.chunks_exact(4)) {
                *sum += f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
            }
        }
        Ok(sum)
    }

    fn all_gather(&self, value: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        let mut exchange = self.exchange();
        // the previous operation may not be over for all ranks
        while exchange.all.is_some() {
            exchange = self.wait(exchange);
        }
        exchange.given[self.rank] = Some(value);
        if exchange.given.iter().all(Option::is_some) {
            exchange.all = Some(Arc::new(exchange.given.iter_mut().filter_map(Option::take).collect()));
            self.shared.changed.notify_all();
        }
        let all = loop {
            match &exchange.all {
                Some(all) => break Arc::clone(all),
                None if exchange.is_one_gone => return Err(GroupError::Gone { size: self.size }),
                None => exchange = self.wait(exchange),
            }
        };
        exchange.taken += 1;
        if exchange.taken == self.size {
            (exchange.all, exchange.taken) = (None, 0);
            self.shared.changed.notify_all();
        }
        drop(exchange);
        Ok(all.to_vec())
    }

    fn broadcast(&self, value: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        let given = if self.is_main() { value } else { Vec::new() };
        Ok(self.all_gather(given)?.swap_remove(0))
    }
}

impl Drop for ThreadRank {
    fn drop(&mut self) {
        self.exchange().is_one_gone = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of `each` on every rank of a group.
    fn on_all<T: Send>(size: usize, each: impl Fn(ThreadRank) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let each = &each;
            let running: Vec<_> = threads(size).into_iter().map(|rank| scope.spawn(move || each(rank))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn a_thousand_exchanges_stay_in_step() {
        let found = on_all(4, |group| {
            for round in 0..1000u32 {
                let mine = (group.rank() as u32 + round).to_le_bytes().to_vec();
                let all = group.all_gather(mine).unwrap();
                let expected: Vec<Vec<u8>> = (0..4u32).map(|rank| (rank + round).to_le_bytes().to_vec()).collect();
                assert_eq!(all, expected, "round {round}");
            }
            let first = group.broadcast(vec![group.rank() as u8; 3 + group.rank()]).unwrap();
            (first, group.any(group.rank() == 2).unwrap(), group.any(false).unwrap())
        });
        assert_eq!(found, vec![(vec![0, 0, 0], true, false); 4]);
    }

    #[test]
    fn the_sum_is_taken_in_the_order_of_ranks() {
        // in f32 the order shows: (1e8 + 1) - 1e8 is 0, (1e8 - 1e8) + 1 is not
        let values = [1e8f32, 1.0, -1e8];
        let sums = on_all(3, |group| group.all_reduce(vec![values[group.rank()], 2.0]).unwrap());
        assert_eq!(sums, vec![vec![0.0, 6.0]; 3]);
    }

    #[test]
    fn a_rank_that_ends_fails_the_others() {
        let found = on_all(3, |group| {
            let together = group.barrier();
            if group.rank() == 1 {
                return together;
            }
            group.barrier()
        });
        let gone = Err(GroupError::Gone { size: 3 });
        assert_eq!(found, [gone.clone(), Ok(()), gone]);
    }
}
