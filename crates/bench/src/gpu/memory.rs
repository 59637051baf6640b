//! The stage `memory`: a batch beyond the memory of the device ends in an error in words.

use std::process::ExitStatus;

use serde_json::json;
use train::MixedPrecision;

use super::{Session, rounded, worker};
use crate::step::{self, Case};

/// One activation of it, the keys and values of a linear attention, has 157 GB.
const BEYOND: Case = Case { name: "beyond", dim: 8, dim_mults: &[1, 2], channels: 1, side: 32, batch: 100_000 };

pub fn run(session: &Session) -> anyhow::Result<()> {
    if session.part.is_some() {
        let device = session.open()?;
        step::trainer(&BEYOND, MixedPrecision::No, true, &device)?.step()?;
        return Ok(());
    }
    let ended = worker::run(&mut session.worker("batch")?, session.left(), false)?;
    let failure = match ended.status {
        Some(status) => fault(status, &ended.errors),
        None => ended.failure(),
    };
    session.judged(
        "batch beyond the memory",
        failure,
        json!({ "seconds": rounded(ended.seconds), "message": worker::reason(&ended.errors) }),
    )
}

/// The fault of an end that is not an error in words with exit code 1.
fn fault(status: ExitStatus, errors: &str) -> Option<String> {
    if status.code() != Some(1) {
        return Some(format!("it ended with {status}, not with exit code 1"));
    }
    if errors.contains("panicked at") {
        return Some("it printed a panic".to_owned());
    }
    let in_words = errors.contains("error: the memory of the device does not suffice");
    (!in_words).then(|| "its error does not name the memory of the device".to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_an_error_in_words_with_exit_code_one_passes() {
        let [one, hundred, signal] = [1 << 8, 101 << 8, 9].map(ExitStatus::from_raw);
        let words = "error: the memory of the device does not suffice (Out of Memory)";
        assert_eq!(fault(one, words), None);
        assert!(fault(hundred, words).is_some() && fault(signal, words).is_some());
        assert!(fault(one, "error: something else").is_some());
        assert!(fault(one, &format!("thread 'a' panicked at b\n{words}")).is_some());
    }
}
