//! A run: a training with its directory.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use data::ImageSet;
use files::{Action, FileError, create_folder};
use serde_json::json;

use crate::{
    config::Config,
    difference::{Change, changes, difference},
    divergence::Divergence,
    error::TrainError,
    evaluation::Evaluation,
    non_finite::NonFiniteStep,
    run_files::RunFiles,
    trainer::{StepReport, Trainer},
};

/// An event of a run, for its observer.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was done.
    Step {
        /// Its result.
        report: StepReport,
        /// Whether it is logged.
        log: bool,
        /// Images per second since this process began.
        images_per_second: f64,
    },
    /// Samples are about to be drawn.
    Sampling,
    /// A grid of samples was written.
    Grid(&'a Path),
    /// The training state was written.
    Saved(&'a Path),
    /// The held-out loss was measured.
    Evaluated(&'a Evaluation),
    /// The weights were not finite: the run went back to a checkpoint, and skips the step that broke them.
    WentBack {
        /// The diagnosis.
        non_finite: &'a NonFiniteStep,
        /// The step of the checkpoint.
        to_step: u64,
    },
}

/// The answer of an observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Continue.
    Continue,
    /// Save and stop after this step.
    Stop,
}

/// A callback that sees the events of a run and may stop it.
pub type Observer<'a> = dyn FnMut(Event<'_>) -> Control + 'a;

/// The end of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether all steps were done; otherwise the observer stopped it.
    pub finished: bool,
    /// Steps done in all.
    pub steps: u64,
    /// Mean loss of the last steps (up to 100) of this process; NaN if it did none.
    pub loss: f64,
    /// Seconds of this process.
    pub seconds: f64,
    /// The signs that a finished run diverged; None if it went well, and on other ranks than 0.
    pub divergence: Option<Divergence>,
}

/// A trainer with its run directory.
pub struct Run {
    /// The trainer.
    pub trainer: Trainer,
    /// The directory.
    pub files: RunFiles,
    /// Images that are not trained on, for the held-out loss; None for no held-out loss.
    pub held_out: Option<ImageSet>,
    /// Lines about the machine and the program, for the report.
    pub environment: Vec<String>,
    /// Checkpoints that could not be read when the run was resumed, with the errors.
    pub passed_over: Vec<(PathBuf, TrainError)>,
    /// What differs from the configuration of earlier steps; also a line of the run's history.
    pub changes: Vec<Change>,
    /// Whether the previous process was killed while it trained: by a power cut, or by the system, which ran out of memory.
    pub ended_abruptly: bool,
    /// Locked while this process has the run; one byte long while it trains, which a killed process leaves behind.
    pub(crate) lock: Option<File>,
}

impl Run {
    /// Starts in a directory that does not exist or is empty. In a group only rank 0 creates it and writes to it.
    ///
    /// # Errors
    /// [`TrainError::RunDirectory`] if it is not empty, or a file: nothing is overwritten.
    pub fn create(trainer: Trainer, directory: &Path) -> Result<Self, TrainError> {
        let files = RunFiles { directory: directory.to_owned() };
        if !trainer.group.is_main() {
            return Ok(Self::new(trainer, files, None, Vec::new()));
        }
        Self::check_is_new(directory)?;
        create_folder(&directory.join("samples"))?;
        let lock = files.lock()?;
        files.write_config(trainer.config())?;
        Ok(Self::new(trainer, files, lock, Vec::new()))
    }

    /// Refuses a directory that is not empty, or a file.
    pub(crate) fn check_is_new(directory: &Path) -> Result<(), TrainError> {
        let refuse = |reason: &str| TrainError::RunDirectory { path: directory.to_owned(), reason: reason.to_owned() };
        if !directory.exists() {
            return Ok(());
        }
        if !directory.is_dir() {
            return Err(refuse("it is a file; name another directory with --run"));
        }
        let entries = fs::read_dir(directory).map_err(|source| FileError::new(Action::List, directory, source))?;
        if entries.count() > 0 {
            return Err(refuse("it is not empty; go on with --resume, or name another directory with --run"));
        }
        Ok(())
    }

    fn new(trainer: Trainer, files: RunFiles, lock: Option<File>, passed_over: Vec<(PathBuf, TrainError)>) -> Self {
        let ended_abruptly =
            lock.as_ref().and_then(|file| file.metadata().ok()).is_some_and(|metadata| metadata.len() > 0);
        Self {
            trainer,
            files,
            held_out: None,
            environment: Vec::new(),
            passed_over,
            changes: Vec::new(),
            ended_abruptly,
            lock,
        }
    }

    /// Continues the run in a directory from its newest checkpoint that can be read, with a trainer of the same configuration
    /// ([`Trainer::to_resume`]; without a checkpoint it starts again, from the model of `training.from` if there is one);
    /// keys that may differ are then updated in `config.toml`, and the change is recorded in the history. Of a run that
    /// [is complete](Self::is_complete), nothing is changed. In a group only rank 0 reads the directory, and broadcasts the state;
    /// the number of ranks may differ from that of earlier steps.
    ///
    /// # Errors
    /// [`TrainError::OtherConfiguration`] if the configuration differs from that of `config.toml`, or of the checkpoint;
    /// [`TrainError::RunDirectory`] if there is no run; [`TrainError::StepsDone`] if more steps are done than the configuration has.
    pub fn resume(mut trainer: Trainer, directory: &Path) -> Result<Self, TrainError> {
        let files = RunFiles { directory: directory.to_owned() };
        if !trainer.group.is_main() {
            if !trainer.broadcast_state(None)? {
                trainer.start_from_model()?;
            }
            trainer.check_steps_done()?;
            return Ok(Self::new(trainer, files, None, Vec::new()));
        }
        let kept = Self::config_of(directory)?;
        let difference = difference(&kept, trainer.config());
        if !difference.is_empty() {
            return Err(TrainError::OtherConfiguration { path: directory.to_owned(), difference });
        }
        let lock = files.lock()?;
        let (mut passed_over, mut resumed, mut before) = (Vec::new(), None, kept.clone());
        for (_, path) in files.all_checkpoints() {
            match trainer.load_state_and_config(&path) {
                Ok(config) => {
                    // `config.toml` may have been changed by hand since
                    before = config.unwrap_or(before);
                    resumed = Some(path);
                    break;
                }
                // the file is fine
                Err(error @ TrainError::OtherConfiguration { .. }) => return Err(error),
                Err(error) => passed_over.push((path, error)),
            }
        }
        if resumed.is_none() && !passed_over.is_empty() {
            // a run that starts again would overwrite states that may be rescued by hand
            return Err(passed_over.swap_remove(0).1);
        }
        if !trainer.broadcast_state(resumed.as_deref())? {
            trainer.start_from_model()?;
        }
        trainer.check_steps_done()?;
        let mut run = Self::new(trainer, files, lock, passed_over);
        run.files.drop_lines_after(run.trainer.steps_done())?;
        if run.is_complete() {
            return Ok(run);
        }
        run.changes = changes(&before, run.trainer.config());
        if !run.changes.is_empty() {
            run.files.record(&json!({ "step": run.trainer.steps_done(), "changes": run.changes }))?;
        }
        if kept != *run.trainer.config() {
            run.files.write_config(run.trainer.config())?;
        }
        Ok(run)
    }

    /// Whether all steps are done, and the files of the end of the run are written. On other ranks than 0, whether all steps are
    /// done.
    pub fn is_complete(&self) -> bool {
        let is_done = self.trainer.steps_done() >= self.trainer.config().training.steps;
        let are_written = !self.ended_abruptly && self.files.model().exists() && self.files.grid().exists();
        is_done && (are_written || !self.trainer.group.is_main())
    }

    /// The configuration of the run in a directory.
    ///
    /// # Errors
    /// [`TrainError::RunDirectory`] if there is none, or it cannot be read.
    pub fn config_of(directory: &Path) -> Result<Config, TrainError> {
        let path = RunFiles { directory: directory.to_owned() }.config();
        let refuse = |reason: String| TrainError::RunDirectory { path: directory.to_owned(), reason };
        let text = fs::read_to_string(&path).map_err(|source| {
            refuse(format!("there is no run to go on with: {}", FileError::new(Action::Read, &path, source)))
        })?;
        toml::from_str(&text).map_err(|error| refuse(format!("{}: {error}", path.display())))
    }

    /// Writes the training state, and deletes those that are too old.
    pub(crate) fn save_checkpoint(&self) -> Result<PathBuf, TrainError> {
        create_folder(&self.files.checkpoints())?;
        let path = self.files.checkpoint_at(self.trainer.steps_done());
        self.trainer.save_state(&path)?;
        self.files.delete_old_checkpoints(self.trainer.config.training.keep_checkpoints)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::map_flat;
    use burn::tensor::Device;

    fn small() -> Trainer {
        let mut config = Config::preset("digits").unwrap();
        let unet = config.unet.as_unet_mut().expect("lucidrains' network");
        (unet.dim, unet.dim_mults, unet.attention) = (8, vec![1], Vec::new());
        config.data.limit = Some(40);
        let training = &mut config.training;
        (training.batch_size, training.steps, training.parallel_parts) = (4, 8, 1);
        (training.checkpoint_every, training.log_every) = (2, 1);
        (config.sampling.steps, config.sampling.count) = (2, 10);
        let images = data::open("mnist-5k", &config.load_options()).unwrap().images;
        Trainer::new(config, images, &Device::flex()).unwrap()
    }

    fn poison(trainer: &mut Trainer) {
        trainer
            .state
            .map_unet(|_, unet| map_flat(unet, |index, value| if index == 3 { value * f32::NAN } else { value }));
    }

    #[test]
    fn a_step_that_is_not_finite_is_skipped_and_said() {
        let weights = |trainer: &Trainer| trainer.unet().state_dict();
        let mut trainer = small();
        trainer.step().unwrap();
        let before = weights(&trainer);
        // noise without bounds: every sample of this batch is lost
        trainer.config.diffusion.offset_noise_strength = f64::INFINITY;
        let report = trainer.step().unwrap();
        let non_finite = report.non_finite.expect("a step that is not finite");
        assert_eq!((non_finite.step, non_finite.samples.len(), non_finite.weights.len()), (2, 4, 0));
        assert!(!non_finite.gradients.is_empty() && non_finite.to_string().contains("image "), "{non_finite}");
        assert_eq!(weights(&trainer), before);
        assert_eq!(trainer.steps_done(), 2);
        // the next batch is fine
        trainer.config.diffusion.offset_noise_strength = 0.0;
        assert_eq!(trainer.step().unwrap().non_finite, None);
        assert_ne!(weights(&trainer), before);
        // but not without end
        trainer.config.diffusion.offset_noise_strength = f64::INFINITY;
        trainer.step().unwrap();
        trainer.step().unwrap();
        let error = trainer.step().unwrap_err().to_string();
        assert!(error.contains("4 steps of the last hundred"), "{error}");
    }

    #[test]
    fn broken_weights_are_never_written_and_the_run_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::create(small(), &folder.path().join("run")).unwrap();
        let mut steps = 0;
        let stop_after = |most: u64, steps: &mut u64, event: &Event<'_>| {
            *steps += u64::from(matches!(event, Event::Step { .. }));
            if *steps == most { Control::Stop } else { Control::Continue }
        };
        run.train(&mut |event| stop_after(5, &mut steps, &event)).unwrap();
        // as if the update of step 5 had broken them
        fs::remove_file(run.files.checkpoint_at(5)).unwrap();
        poison(&mut run.trainer);
        let error = run.trainer.save_state(&folder.path().join("state")).unwrap_err().to_string();
        assert!(error.contains("not finite"), "{error}");

        let mut back = Vec::new();
        let outcome = run.train(&mut |event| {
            if let Event::WentBack { non_finite, to_step } = &event {
                back.push((non_finite.step, *to_step, non_finite.weights.len()));
            }
            Control::Continue
        });
        assert!(outcome.unwrap().finished);
        assert_eq!(back, [(6, 4, 1)]);
        assert_eq!(run.trainer.state.skipped.iter().copied().collect::<Vec<_>>(), [5]);
        let text = fs::read_to_string(run.files.metrics()).unwrap();
        assert_eq!(text.lines().count(), 8, "each step once: {text}");

        // a second time, from a checkpoint that knows nothing of the first: neither step is taken again
        let mut run = Run::create(small(), &folder.path().join("twice")).unwrap();
        run.trainer.config.training.keep_checkpoints = 8;
        for (most, after) in [(5, vec![5]), (3, vec![6, 7])] {
            let mut steps = 0;
            run.train(&mut |event| stop_after(most, &mut steps, &event)).unwrap();
            after.into_iter().for_each(|step| fs::remove_file(run.files.checkpoint_at(step)).unwrap());
            poison(&mut run.trainer);
        }
        assert!(run.train(&mut |_| Control::Continue).unwrap().finished);
        assert_eq!(run.trainer.state.skipped.iter().copied().collect::<Vec<_>>(), [5, 7]);

        // without a checkpoint there is no way back
        let mut run = Run::create(small(), &folder.path().join("other")).unwrap();
        poison(&mut run.trainer);
        let error = run.train(&mut |_| Control::Continue).unwrap_err().to_string();
        assert!(error.contains("no checkpoint to go back to") && error.contains("weights"), "{error}");
        assert!(!run.files.model().exists());
    }

    #[test]
    fn a_state_of_an_older_version_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("run");
        let mut run = Run::create(small(), &directory).unwrap();
        run.trainer.step().unwrap();
        run.trainer.save_state(&directory.join("state.safetensors")).unwrap();
        drop(run);
        let resumed = Run::resume(small(), &directory).unwrap();
        assert_eq!(resumed.trainer.steps_done(), 1);
        // and two processes do not share a directory
        let error = Run::resume(small(), &directory).err().unwrap().to_string();
        assert!(error.contains("another process"), "{error}");
    }
}
