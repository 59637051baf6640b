//! A profile of the native operations: a clock around each, which runs during [`record`].

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

static IS_ON: AtomicBool = AtomicBool::new(false);
static ENTRIES: Mutex<BTreeMap<String, Entry>> = Mutex::new(BTreeMap::new());

/// The calls of one operation on inputs of one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The operation, `forward` or `backward`, and the shapes of its inputs.
    pub name: String,
    /// Number of calls.
    pub calls: u64,
    /// Time of all calls.
    pub time: Duration,
}

/// Runs `function` and returns the native operations that ran meanwhile in all threads, the longest first.
pub fn record<R>(function: impl FnOnce() -> R) -> (R, Vec<Entry>) {
    let entries = || ENTRIES.lock().unwrap_or_else(PoisonError::into_inner);
    entries().clear();
    IS_ON.store(true, Ordering::SeqCst);
    let result = function();
    IS_ON.store(false, Ordering::SeqCst);
    let mut found: Vec<Entry> = std::mem::take(&mut *entries()).into_values().collect();
    found.sort_by_key(|entry| std::cmp::Reverse(entry.time));
    (result, found)
}

/// Runs `function`, timed under `name` during [`record`].
#[cfg(feature = "flex")]
pub(crate) fn time<R>(name: impl FnOnce() -> String, function: impl FnOnce() -> R) -> R {
    if !IS_ON.load(Ordering::Relaxed) {
        return function();
    }
    let start = Instant::now();
    let result = function();
    let (time, name) = (start.elapsed(), name());
    let mut entries = ENTRIES.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = entries.entry(name.clone()).or_insert(Entry { name, calls: 0, time: Duration::ZERO });
    (entry.calls, entry.time) = (entry.calls + 1, entry.time + time);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_during_a_recording_are_counted() {
        time(|| "before".to_owned(), || ());
        let (result, entries) = record(|| {
            time(|| "short".to_owned(), || ());
            time(|| "short".to_owned(), || ());
            time(|| "long".to_owned(), || std::thread::sleep(Duration::from_millis(5)));
            7
        });
        // other tests may run operations at the same time
        let ours: Vec<&Entry> =
            entries.iter().filter(|entry| ["short", "long", "before"].contains(&entry.name.as_str())).collect();
        assert_eq!(result, 7);
        assert_eq!(ours.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["long", "short"]);
        assert!(ours[0].time >= Duration::from_millis(5) && (ours[0].calls, ours[1].calls) == (1, 2));
    }
}
