//! Processes with a time limit.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread::spawn,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::measurement::print;

/// The longest message of a failure that is reported.
const MESSAGE: usize = 400;

/// A process that has ended.
pub struct Ended {
    /// None if its time was up.
    pub status: Option<ExitStatus>,
    /// The lines of its standard output, each with the seconds from the start to its arrival.
    pub lines: Vec<(f64, String)>,
    /// Its error output.
    pub errors: String,
    /// The seconds that it ran.
    pub seconds: f64,
}

/// The time that a process may take.
#[derive(Clone, Copy)]
pub struct Limit {
    /// In all.
    pub total: Duration,
    /// From one line to the next.
    pub line: Duration,
}

impl From<Duration> for Limit {
    fn from(total: Duration) -> Self {
        Self { total, line: total }
    }
}

/// Runs a process until it ends or its time is up. Its output is kept; with `shown`, it also appears as it comes.
pub fn run(command: &mut Command, limit: impl Into<Limit>, shown: bool) -> anyhow::Result<Ended> {
    let (limit, started) = (limit.into(), Instant::now());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let (sender, receiver) = channel();
    spawn(move || {
        for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok) {
            if sender.send((started.elapsed().as_secs_f64(), line)).is_err() {
                break;
            }
        }
    });
    let errors = spawn(move || {
        let mut bytes = Vec::new();
        errors.into_iter().for_each(|mut errors| drop(errors.read_to_end(&mut bytes)));
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let mut lines = Vec::new();
    let in_time = loop {
        let left = limit.total.saturating_sub(started.elapsed());
        match receiver.recv_timeout(left.min(limit.line)) {
            Ok((seconds, line)) => {
                if shown {
                    print(&line)?;
                }
                lines.push((seconds, line));
            }
            Err(RecvTimeoutError::Timeout) => break false,
            Err(RecvTimeoutError::Disconnected) => break true,
        }
    };
    if !in_time {
        child.kill().context("cannot end a process")?;
    }
    let status = child.wait().context("cannot wait for a process")?;
    let errors = errors.join().unwrap_or_default();
    eprint!("{errors}");
    Ok(Ended { status: in_time.then_some(status), lines, errors, seconds: started.elapsed().as_secs_f64() })
}

impl Ended {
    /// The reason why it did not end well.
    pub fn failure(&self) -> Option<String> {
        match self.status {
            None => Some(format!("stopped after {:.0} s: its time was up", self.seconds)),
            Some(status) if status.success() => None,
            Some(status) => Some(format!("ended with {status}: {}", reason(&self.errors))),
        }
    }
}

/// The part of an error output that says most: the first panic with its message, or the last line.
pub fn reason(errors: &str) -> String {
    let mut lines = errors.lines().skip_while(|line| !line.contains("panicked at"));
    let reason = match lines.next() {
        Some(panic) => format!("{panic} {}", lines.take(3).collect::<Vec<_>>().join(" ")),
        None => errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it printed no error").to_owned(),
    };
    shortened(&reason)
}

/// The beginning of a message, on one line.
pub fn shortened(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str, limit: Limit) -> Ended {
        run(Command::new("sh").args(["-c", line]), limit, false).expect("sh")
    }

    #[test]
    fn lines_and_ends_are_reported() {
        let minute = Duration::from_secs(60).into();
        let fine = shell("echo one; echo two", minute);
        assert_eq!(fine.failure(), None);
        assert_eq!(fine.lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        let failed = shell("echo 'note: nothing'>&2; echo 'error: no memory' >&2; exit 1", minute).failure();
        assert!(
            failed.as_ref().is_some_and(|text| text.contains('1') && text.ends_with("error: no memory")),
            "{failed:?}"
        );
        let killed = shell("kill -9 $$", minute).failure();
        assert!(killed.as_ref().is_some_and(|text| text.contains("signal")), "{killed:?}");
    }

    #[test]
    fn a_process_that_is_silent_too_long_is_stopped() {
        let limit = Limit { total: Duration::from_secs(60), line: Duration::from_millis(300) };
        let ended = shell("echo one; exec sleep 50", limit);
        assert_eq!((ended.lines.len(), ended.status), (1, None));
        assert!(ended.seconds < 30.0 && ended.failure().is_some_and(|text| text.contains("time was up")));
    }

    #[test]
    fn the_reason_is_the_panic_or_the_last_line() {
        let panic = "note\nthread 'main' (7) panicked at a.rs:1:2:\nthe message\nnote: run with RUST_BACKTRACE\n";
        assert!(reason(panic).starts_with("thread 'main' (7) panicked at a.rs:1:2: the message"));
        assert_eq!(reason("a\nb\n\n"), "b");
        assert_eq!(shortened(&"é".repeat(MESSAGE + 1)).chars().count(), MESSAGE + 1);
    }
}
