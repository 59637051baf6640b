//! The files of a run directory.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use files::{Action, FileError, write_atomically};
use serde_json::Value;

use crate::{config::Config, error::TrainError};

/// The paths of a run directory.
#[derive(Clone, Debug)]
pub struct RunFiles {
    /// The directory.
    pub directory: PathBuf,
}

impl RunFiles {
    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    /// One JSON object a line, every `training.log_every` steps: `step`, `loss` (weighted, of that step), `gradient_norm`,
    /// `learning_rate`, `images_per_second`, `memory_bytes` (where the system reports it), `non_finite` (of a skipped step) and
    /// `quartiles`: for each quartile of the timesteps, the least noise first, the `mean`, standard `error` and `count` of the losses
    /// of all samples since the previous line, or null without samples.
    pub fn metrics(&self) -> PathBuf {
        self.directory.join("metrics.jsonl")
    }
    /// Changes of the configuration when the run was resumed, one JSON object a line: `step`, after which they hold, and `changes`,
    /// each with `key`, `before` and `now`.
    pub fn history(&self) -> PathBuf {
        self.directory.join("history.jsonl")
    }
    /// Held-out losses, one JSON object a line.
    pub fn evaluations(&self) -> PathBuf {
        self.directory.join("evaluations.jsonl")
    }
    /// The folder of TensorBoard's event files.
    pub fn events(&self) -> PathBuf {
        self.directory.join("tensorboard")
    }
    /// The report, one page.
    pub fn report(&self) -> PathBuf {
        self.directory.join("report.html")
    }
    /// The folder of training states.
    pub fn checkpoints(&self) -> PathBuf {
        self.directory.join("checkpoints")
    }
    /// The training state after a step.
    pub fn checkpoint_at(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{step:07}.safetensors"))
    }
    /// All training states with their steps, the newest first.
    pub fn all_checkpoints(&self) -> Vec<(u64, PathBuf)> {
        let step_of = |path: &Path| -> Option<u64> {
            path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()
        };
        let entries = fs::read_dir(self.checkpoints()).into_iter().flatten().flatten();
        let mut found: Vec<(u64, PathBuf)> =
            entries.filter_map(|entry| Some((step_of(&entry.path())?, entry.path()))).collect();
        // the place of earlier versions
        let before = self.directory.join("state.safetensors");
        if before.exists() {
            found.push((0, before));
        }
        found.sort_by(|a, b| b.cmp(a));
        found
    }
    /// The model of the least held-out loss.
    pub fn best_model(&self) -> PathBuf {
        self.directory.join("best.safetensors")
    }
    /// The model of the averaged weights.
    pub fn model(&self) -> PathBuf {
        self.directory.join("model.safetensors")
    }
    /// The grid of samples at the end.
    pub fn grid(&self) -> PathBuf {
        self.directory.join("samples.png")
    }
    /// The folder of snapshots for post-hoc EMA.
    pub fn averages(&self) -> PathBuf {
        self.directory.join("averages")
    }
    /// The grid of samples after a step.
    pub fn grid_at(&self, step: u64) -> PathBuf {
        self.directory.join("samples").join(format!("step-{step:07}.png"))
    }

    /// Writes `config.toml`.
    pub(crate) fn write_config(&self, config: &Config) -> Result<(), TrainError> {
        let refuse = |error: toml::ser::Error| TrainError::RunDirectory {
            path: self.directory.clone(),
            reason: error.to_string(),
        };
        Ok(write_atomically(&self.config(), toml::to_string(config).map_err(refuse)?.as_bytes())?)
    }

    /// Adds a line to the history, unless it is the last one: a run may be resumed twice from the same state.
    pub(crate) fn record(&self, line: &Value) -> Result<(), TrainError> {
        let text = fs::read_to_string(self.history()).unwrap_or_default();
        if text.lines().next_back().and_then(|last| serde_json::from_str(last).ok()).as_ref() == Some(line) {
            return Ok(());
        }
        append_line(&self.history(), line)
    }

    /// Deletes all training states but the newest `keep`.
    pub(crate) fn delete_old_checkpoints(&self, keep: usize) -> Result<(), TrainError> {
        for (_, old) in self.all_checkpoints().into_iter().skip(keep) {
            match fs::remove_file(&old) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::new(Action::Write, &old, source).into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Drops the lines of metrics and evaluations after a step: those steps are done again, and the last line may be cut off.
    pub(crate) fn drop_lines_after(&self, step: u64) -> Result<(), TrainError> {
        let is_done = |line: &&str| {
            serde_json::from_str::<Value>(line)
                .is_ok_and(|value| value["step"].as_u64().is_some_and(|other| other <= step))
        };
        for path in [self.metrics(), self.evaluations()] {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let kept: String = text.lines().filter(is_done).map(|line| format!("{line}\n")).collect();
            if kept != text {
                write_atomically(&path, kept.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Locks the directory for this process; None where the file system has no locks.
    pub(crate) fn lock(&self) -> Result<Option<File>, TrainError> {
        let path = self.directory.join(".lock");
        let opened = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|source| FileError::new(Action::Write, &path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(TrainError::RunDirectory {
                path: self.directory.clone(),
                reason: "another process is training in it; wait for it, stop it, or name another directory with --run"
                    .to_owned(),
            }),
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }
}

/// Appends a line to a file.
pub(crate) fn append_line(path: &Path, line: &Value) -> Result<(), TrainError> {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        .map_err(|source| FileError::new(Action::Write, path, source).into())
}
