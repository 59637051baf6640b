//! Process groups over MPI, on one machine or many.
//!
//! All MPI calls are made by one thread of their own. A collective call that waits for a dead rank cannot be canceled, but the
//! thread that asked for it can stop waiting, save its state and end the process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use mpi::{
    Count, Threading,
    collective::SystemOperation,
    datatype::PartitionMut,
    environment::Universe,
    topology::SimpleCommunicator,
    traits::{Communicator, CommunicatorCollectives, Root},
};

use crate::{
    GroupError, ProcessGroup,
    launcher::{Launch, PATIENCE, PATIENCE_OF_OTHERS},
};

/// How often a waiting rank checks whether it was told to stop.
const LOOK: Duration = Duration::from_millis(20);
/// Elements of one call: MPI counts are 32 bits wide.
const LARGEST: usize = 1 << 26;

/// A collective operation for the thread that calls MPI, and the channel for its result.
enum Job {
    AllReduce(Vec<f32>, Sender<Vec<f32>>),
    AllGather(Vec<u8>, Sender<Vec<Vec<u8>>>),
    Broadcast(Vec<u8>, Sender<Vec<u8>>),
    Finalize(Sender<()>),
}

/// A group of processes that a launcher started.
#[derive(Debug)]
pub(crate) struct Mpi {
    rank: usize,
    size: usize,
    jobs: Sender<Job>,
    is_asked_to_stop: Arc<AtomicBool>,
}

impl Mpi {
    /// Initializes MPI, which learns of the other processes from the launcher.
    pub(crate) fn start(launch: Launch, is_asked_to_stop: Arc<AtomicBool>) -> Result<Self, GroupError> {
        let (jobs, todo) = channel();
        let (tell, told) = channel();
        let speak = move || match mpi::initialize_with_threading(Threading::Funneled) {
            None => drop(tell.send(Err("it was started before in this process".to_owned()))),
            Some((_, Threading::Single)) => {
                drop(tell.send(Err("the library does not allow programs with threads".to_owned())));
            }
            Some((universe, _)) => {
                let world = universe.world();
                let place = (world.rank() as usize, world.size() as usize);
                if tell.send(Ok(place)).is_ok() {
                    work(&world, &todo, universe);
                }
            }
        };
        let not_started = |reason: String| GroupError::NotStarted { reason };
        let thread = std::thread::Builder::new().name("mpi".to_owned()).spawn(speak);
        thread.map_err(|error| not_started(error.to_string()))?;
        let (rank, size) =
            told.recv().map_err(|_| not_started("its thread has ended".to_owned()))?.map_err(not_started)?;
        if size != launch.size {
            let Launch { launcher, size: expected } = launch;
            return Err(GroupError::OtherLauncher { launcher, expected, found: size });
        }
        Ok(Self { rank, size, jobs, is_asked_to_stop })
    }

    /// The result of a job, or an error if it does not come.
    fn ask<T>(&self, job: impl FnOnce(Sender<T>) -> Job) -> Result<T, GroupError> {
        let patience = if self.is_main() { PATIENCE } else { PATIENCE_OF_OTHERS };
        self.ask_patiently(job, patience)
    }

    fn ask_patiently<T>(&self, job: impl FnOnce(Sender<T>) -> Job, patience: Duration) -> Result<T, GroupError> {
        let gone = GroupError::Gone { size: self.size };
        let (answer, answered) = channel();
        self.jobs.send(job(answer)).map_err(|_| gone.clone())?;
        let mut told_at = None;
        loop {
            match answered.recv_timeout(LOOK) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(gone),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.is_asked_to_stop.load(Ordering::SeqCst) {
                let waited = told_at.get_or_insert_with(Instant::now).elapsed();
                if waited > patience {
                    return Err(GroupError::Unanswered { size: self.size, milliseconds: waited.as_millis() });
                }
            }
        }
    }
}

impl ProcessGroup for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, values: Vec<f32>) -> Result<Vec<f32>, GroupError> {
        self.ask(|answer| Job::AllReduce(values, answer))
    }

    fn all_gather(&self, value: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        self.ask(|answer| Job::AllGather(value, answer))
    }

    fn broadcast(&self, value: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        self.ask(|answer| Job::Broadcast(value, answer))
    }

    fn finalize(&self) -> Result<(), GroupError> {
        // rank 0 may be saving
        self.ask_patiently(Job::Finalize, PATIENCE_OF_OTHERS)
    }
}

/// Serves jobs until [`Job::Finalize`]. A caller may have stopped waiting, so sending a result may fail.
fn work(world: &SimpleCommunicator, todo: &Receiver<Job>, universe: Universe) {
    let mut kept = Vec::new();
    for job in todo {
        match job {
            Job::AllReduce(values, answer) => drop(answer.send(all_reduce(world, values, &mut kept))),
            Job::AllGather(mine, answer) => drop(answer.send(all_gather(world, &mine))),
            Job::Broadcast(bytes, answer) => drop(answer.send(broadcast(world, bytes))),
            Job::Finalize(answer) => {
                drop(universe);
                // the caller may have stopped waiting
                let _ = answer.send(());
                return;
            }
        }
    }
    // this rank ends with an error: MPI_Finalize would wait for the other ranks
    std::mem::forget(universe);
}

/// `kept` is a buffer that is reused from call to call.
fn all_reduce(world: &SimpleCommunicator, values: Vec<f32>, kept: &mut Vec<f32>) -> Vec<f32> {
    kept.resize(values.len(), 0.0);
    for (values, sums) in values.chunks(LARGEST).zip(kept.chunks_mut(LARGEST)) {
        world.all_reduce_into(values, sums, SystemOperation::sum());
    }
    std::mem::replace(kept, values)
}

fn all_gather(world: &SimpleCommunicator, mine: &[u8]) -> Vec<Vec<u8>> {
    let size = world.size() as usize;
    let mut lengths = vec![0u64; size];
    world.all_gather_into(&(mine.len() as u64), &mut lengths[..]);
    let mut all = vec![Vec::new(); size];
    let largest = LARGEST / size;
    for start in (0..lengths.iter().copied().max().unwrap_or(0) as usize).step_by(largest.max(1)) {
        let count = |length: usize| length.saturating_sub(start).min(largest);
        let counts: Vec<Count> = lengths.iter().map(|length| count(*length as usize) as Count).collect();
        let starts: Vec<Count> =
            counts.iter().scan(0, |sum, count| Some(std::mem::replace(sum, *sum + count))).collect();
        let mut bytes = vec![0u8; counts.iter().sum::<Count>() as usize];
        let mut parts = PartitionMut::new(&mut bytes[..], &counts[..], &starts[..]);
        let mine = &mine[start.min(mine.len())..][..count(mine.len())];
        world.all_gather_varcount_into(mine, &mut parts);
        for ((all, start), count) in all.iter_mut().zip(&starts).zip(&counts) {
            all.extend(&bytes[*start as usize..(*start + *count) as usize]);
        }
    }
    all
}

fn broadcast(world: &SimpleCommunicator, mut bytes: Vec<u8>) -> Vec<u8> {
    let first = world.process_at_rank(0);
    let mut length = bytes.len() as u64;
    first.broadcast_into(&mut length);
    bytes.resize(length as usize, 0);
    for part in bytes.chunks_mut(LARGEST) {
        first.broadcast_into(part);
    }
    bytes
}
