//! A run: the loop around the trainer, and the directory that it keeps.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use checkpoint::{Request, generate};
use data::{ImageSet, memory::resident_bytes};
use files::{Action, FileError, create_folder, write_atomically};
use noise::Noise;
use picture::{Pixels, grid, save_png};

use crate::{
    config::{Config, RateSchedule, TrainingConfig},
    error::TrainError,
    evaluation::{Evaluation, QUARTILES},
    events::EventFile,
    post_hoc::Snapshot,
    quartiles::QuartileMean,
    report::write_report,
    trainer::{StepReport, Trainer},
};

/// Names of the files in a run directory.
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

    fn write_config(&self, config: &Config) -> Result<(), TrainError> {
        let refuse = |error: toml::ser::Error| TrainError::RunDirectory {
            path: self.directory.clone(),
            reason: error.to_string(),
        };
        Ok(write_atomically(&self.config(), toml::to_string(config).map_err(refuse)?.as_bytes())?)
    }

    /// One JSON object a line, every `training.log_every` steps: `step`, `loss` (of that step, weighted), `gradient_norm`,
    /// `learning_rate`, `images_per_second`, `memory_bytes` (where the system tells), `trouble` (of a step that was skipped), and
    /// `quartiles`: of the samples of all steps since the line before, for each quartile of the timesteps, the least noise first,
    /// `mean` and standard `error` of their losses and their `count`, or null where there was none.
    pub fn metrics(&self) -> PathBuf {
        self.directory.join("metrics.jsonl")
    }
    /// Held-out losses, one JSON object a line.
    pub fn evaluations(&self) -> PathBuf {
        self.directory.join("evaluations.jsonl")
    }
    /// TensorBoard's event files.
    pub fn events(&self) -> PathBuf {
        self.directory.join("tensorboard")
    }
    /// One page on the run.
    pub fn report(&self) -> PathBuf {
        self.directory.join("report.html")
    }
    /// Training states: what a restart needs.
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
        // where versions before 0.2 kept it
        let before = self.directory.join("state.safetensors");
        if before.exists() {
            found.push((0, before));
        }
        found.sort_by(|a, b| b.cmp(a));
        found
    }
    /// The model with the least held-out loss.
    pub fn best_model(&self) -> PathBuf {
        self.directory.join("best.safetensors")
    }
    /// Locked by the process that trains here.
    fn lock(&self) -> PathBuf {
        self.directory.join(".lock")
    }
    /// What sampling needs.
    pub fn model(&self) -> PathBuf {
        self.directory.join("model.safetensors")
    }
    /// The last grid of samples.
    pub fn grid(&self) -> PathBuf {
        self.directory.join("samples.png")
    }
    /// Snapshots of the averages whose length is chosen later.
    pub fn averages(&self) -> PathBuf {
        self.directory.join("averages")
    }
    /// The grid after a step.
    pub fn grid_at(&self, step: u64) -> PathBuf {
        self.directory.join("samples").join(format!("step-{step:07}.png"))
    }
}

/// What happens in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was done; images per second over the last ones.
    Step {
        /// What it did.
        report: StepReport,
        /// Whether it is one to print.
        log: bool,
        /// Images each second since this process began.
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
    /// The weights are not finite: the run goes back to a checkpoint, and leaves out the step that broke them.
    WentBack {
        /// What was found.
        non_finite: &'a crate::NonFiniteStep,
        /// The step of the checkpoint.
        to_step: u64,
    },
}

/// What the observer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Save and stop after this step.
    Stop,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether all steps were done; otherwise the observer stopped it.
    pub finished: bool,
    /// Steps done in all.
    pub steps: u64,
    /// Mean loss of the last steps (up to 100); NaN if none was done.
    pub loss: f64,
    /// Seconds of this process.
    pub seconds: f64,
}

/// A trainer with its run directory.
pub struct Run {
    /// The trainer.
    pub trainer: Trainer,
    /// The directory.
    pub files: RunFiles,
    /// Images that are not trained on, for the held-out loss; None for no such loss.
    pub held_out: Option<ImageSet>,
    /// Lines on the machine and the program, for the report.
    pub environment: Vec<String>,
    /// Checkpoints that could not be read when the run was resumed, and why.
    pub passed_over: Vec<(PathBuf, TrainError)>,
    /// Whether the process that trained here before ended without a word: by a power cut, or because it was killed, as systems do when
    /// the memory runs out.
    pub ended_abruptly: bool,
    /// Held as long as this process trains here; a byte long while it does, so that one who was killed leaves that behind.
    lock: Option<File>,
}

impl Run {
    /// Starts in a directory that does not exist yet or is empty. In a group of several ranks only rank 0 makes it, or writes
    /// to it later.
    ///
    /// # Errors
    /// [`TrainError::RunDirectory`] if it holds something or is a file: nothing is overwritten.
    pub fn create(trainer: Trainer, directory: &Path) -> Result<Self, TrainError> {
        let refuse = |reason: String| TrainError::RunDirectory { path: directory.to_owned(), reason };
        let files = RunFiles { directory: directory.to_owned() };
        if !trainer.group.is_main() {
            return Ok(Self::new(trainer, files, None, Vec::new()));
        }
        if directory.exists() {
            if !directory.is_dir() {
                return Err(refuse("it is a file; name another directory with --run".to_owned()));
            }
            let entries = fs::read_dir(directory).map_err(|source| FileError::new(Action::List, directory, source))?;
            if entries.count() > 0 {
                let reason = "it is not empty; go on with --resume, or name another directory with --run";
                return Err(refuse(reason.to_owned()));
            }
        }
        create_folder(&directory.join("samples"))?;
        let lock = lock(&files)?;
        files.write_config(trainer.config())?;
        Ok(Self::new(trainer, files, lock, Vec::new()))
    }

    fn new(trainer: Trainer, files: RunFiles, lock: Option<File>, passed_over: Vec<(PathBuf, TrainError)>) -> Self {
        let ended_abruptly =
            lock.as_ref().and_then(|file| file.metadata().ok()).is_some_and(|metadata| metadata.len() > 0);
        Self { trainer, files, held_out: None, environment: Vec::new(), passed_over, ended_abruptly, lock }
    }

    /// Goes on with the run in a directory, from its newest checkpoint that can be read; the trainer is one that was made from
    /// the same configuration. What may differ of it is in the run's `config.toml` from then on. In a group of several ranks only
    /// rank 0 reads the directory, and tells the others; how many ranks did the steps so far does not matter.
    ///
    /// # Errors
    /// [`TrainError::OtherConfiguration`] if it was not, or if the run's `config.toml` is not that of its checkpoints any more;
    /// [`TrainError::RunDirectory`] if there is no run.
    pub fn resume(mut trainer: Trainer, directory: &Path) -> Result<Self, TrainError> {
        let files = RunFiles { directory: directory.to_owned() };
        if !trainer.group.is_main() {
            trainer.load_state_of_the_first(None)?;
            return Ok(Self::new(trainer, files, None, Vec::new()));
        }
        let kept = Self::config_of(directory)?;
        let difference = difference(&kept, trainer.config());
        if !difference.is_empty() {
            return Err(TrainError::OtherConfiguration { path: directory.to_owned(), difference });
        }
        let lock = lock(&files)?;
        let (mut passed_over, mut resumed) = (Vec::new(), None);
        for (_, path) in files.all_checkpoints() {
            match trainer.load_state(&path) {
                Ok(()) => {
                    resumed = Some(path);
                    break;
                }
                // nothing is wrong with the file
                Err(error @ TrainError::OtherConfiguration { .. }) => return Err(error),
                Err(error) => passed_over.push((path, error)),
            }
        }
        if resumed.is_none() && !passed_over.is_empty() {
            // to begin anew would throw away what may still be saved by hand
            return Err(passed_over.swap_remove(0).1);
        }
        trainer.load_state_of_the_first(resumed.as_deref())?;
        // what was changed stays so the next time
        if kept != *trainer.config() {
            files.write_config(trainer.config())?;
        }
        for path in [files.metrics(), files.evaluations()] {
            drop_lines_after(&path, trainer.steps_done())?;
        }
        Ok(Self::new(trainer, files, lock, passed_over))
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

    /// Trains to the last step, or until the observer stops it; saves the state and the model; draws the last grid.
    ///
    /// In a group of several ranks each has an observer, any of which stops all; events other than steps are rank 0's alone.
    ///
    /// # Errors
    /// [`TrainError`]; what was saved before stays. [`TrainError::LostRanks`] if other ranks do not answer any more: the state
    /// after the last whole step is saved then.
    pub fn train(&mut self, observe: &mut dyn FnMut(Event<'_>) -> Control) -> Result<Outcome, TrainError> {
        // a mark that cannot be made only means that nothing will be said
        let mark = |lock: &Option<File>, length| drop(lock.as_ref().map(|file| file.set_len(length)));
        mark(&self.lock, 1);
        let outcome = match self.train_to_the_end(observe) {
            Err(TrainError::Ranks(source)) if self.trainer.group.is_main() => {
                self.save_checkpoint()?;
                Err(TrainError::LostRanks { source, step: self.trainer.steps_done() })
            }
            result => result,
        };
        mark(&self.lock, 0);
        outcome
    }

    fn train_to_the_end(&mut self, observe: &mut dyn FnMut(Event<'_>) -> Control) -> Result<Outcome, TrainError> {
        let is_main = self.trainer.group.is_main();
        let start = Instant::now();
        let first = self.trainer.steps_done();
        let training = self.trainer.config().training.clone();
        let images_in_step = (training.batch_size * training.gradient_accumulate_every) as f64;
        let every = |every: u64, step: u64| every > 0 && step.is_multiple_of(every);
        let mut recent = std::collections::VecDeque::new();
        let mut stopped = false;
        let mut events = if is_main { Some(EventFile::create(&self.files.events())?) } else { None };
        while self.trainer.steps_done() < training.steps && !stopped {
            let report = match self.trainer.step() {
                Err(TrainError::BrokenWeights { non_finite }) => {
                    let to_step = self.go_back(&non_finite)?;
                    if is_main {
                        observe(Event::WentBack { non_finite: &non_finite, to_step });
                    }
                    continue;
                }
                report => report?,
            };
            let (step, was_taken) = (report.step, report.non_finite.is_none());
            if was_taken {
                recent.push_back(report.loss);
            }
            if recent.len() > 100 {
                recent.pop_front();
            }
            let last = step == training.steps;
            let log = every(training.log_every, step) || last || !was_taken;
            let images_per_second =
                (step.saturating_sub(first)) as f64 * images_in_step / start.elapsed().as_secs_f64();
            // all ranks begin anew, and one writes
            let quartiles = if log { std::mem::take(&mut self.trainer.quartiles).means() } else { Default::default() };
            if let (true, Some(events)) = (log, &mut events) {
                self.append_metrics(&report, images_per_second, &quartiles)?;
                let mut values = vec![
                    ("loss/step", report.loss),
                    ("gradient_norm", report.gradient_norm),
                    ("learning_rate", report.learning_rate),
                    ("images_per_second", images_per_second),
                ];
                let names = ["loss/quartile_1", "loss/quartile_2", "loss/quartile_3", "loss/quartile_4"];
                values.extend(names.iter().zip(quartiles).filter_map(|(name, one)| Some((*name, one?.mean.mean))));
                events.scalars(step, &values)?;
            }
            if is_main && (every(training.post_hoc_ema.snapshot_every, step) || last) {
                self.save_averages(step)?;
            }
            if training.evaluate_every > 0
                && (every(training.evaluate_every, step) || last)
                && let Some(events) = &mut events
                && let Some(evaluation) = self.evaluate(events)?
            {
                observe(Event::Evaluated(&evaluation));
            }
            let stop = observe(Event::Step { report, log, images_per_second }) == Control::Stop;
            stopped = self.trainer.group.any(stop)?;
            let save = every(training.checkpoint_every, step) || last || stopped;
            if save {
                self.trainer.check_same_weights()?;
            }
            if is_main && save && !last && !stopped {
                let path = self.save_checkpoint()?;
                observe(Event::Saved(&path));
            }
            if is_main && every(training.sample_every, step) && !last && !stopped {
                observe(Event::Sampling);
                let path = self.files.grid_at(step);
                self.draw_grid(&path)?;
                observe(Event::Grid(&path));
                write_report(&self.files, &self.environment)?;
            }
        }
        let finished = self.trainer.steps_done() >= training.steps;
        let outcome = Outcome {
            finished,
            steps: self.trainer.steps_done(),
            loss: recent.iter().sum::<f64>() / recent.len() as f64,
            seconds: start.elapsed().as_secs_f64(),
        };
        if !is_main {
            return Ok(outcome);
        }
        // the model first: it is refused if it is not finite, and then the last good state stays
        self.trainer.model().save(&self.files.model())?;
        let path = self.save_checkpoint()?;
        observe(Event::Saved(&path));
        if finished {
            observe(Event::Sampling);
            self.draw_grid(&self.files.grid())?;
            observe(Event::Grid(&self.files.grid()));
        }
        write_report(&self.files, &self.environment)?;
        Ok(Outcome { seconds: start.elapsed().as_secs_f64(), ..outcome })
    }

    /// Writes the training state, and deletes those that are too old.
    fn save_checkpoint(&self) -> Result<PathBuf, TrainError> {
        create_folder(&self.files.checkpoints())?;
        let path = self.files.checkpoint_at(self.trainer.steps_done());
        self.trainer.save_state(&path)?;
        for (_, old) in self.files.all_checkpoints().into_iter().skip(self.trainer.config().training.keep_checkpoints) {
            match fs::remove_file(&old) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(FileError::new(Action::Write, &old, source).into());
                }
                _ => {}
            }
        }
        Ok(path)
    }

    /// Back to the newest checkpoint that can be read, with the step before the trouble marked as one that is not taken: its
    /// update broke the weights. Gives the step of the checkpoint.
    fn go_back(&mut self, non_finite: &crate::NonFiniteStep) -> Result<u64, TrainError> {
        // the checkpoint knows nothing of the steps that were marked after it
        let marked = self.trainer.skipped.clone();
        let is_main = self.trainer.group.is_main();
        let mut all = if is_main { self.files.all_checkpoints() } else { Vec::new() }.into_iter();
        let loaded = all.find_map(|(_, path)| self.trainer.load_state(&path).ok().map(|()| path));
        if !self.trainer.load_state_of_the_first(loaded.as_deref())? {
            return Err(TrainError::BrokenWeights { non_finite: Box::new(non_finite.clone()) });
        }
        self.trainer.skipped.extend(marked);
        self.trainer.skip(non_finite.step - 1, non_finite)?;
        let step = self.trainer.steps_done();
        let lines = [self.files.metrics(), self.files.evaluations()];
        for path in lines.iter().filter(|_| is_main) {
            drop_lines_after(path, step)?;
        }
        Ok(step)
    }

    /// Measures the held-out loss, writes it down, and keeps the model if it is the best so far.
    fn evaluate(&mut self, events: &mut EventFile) -> Result<Option<Evaluation>, TrainError> {
        let Some(held_out) = &self.held_out else { return Ok(None) };
        let evaluation = self.trainer.evaluate(held_out);
        let line = serde_json::to_value(evaluation).unwrap_or_default();
        append_line(&self.files.evaluations(), &line)?;
        let mut values =
            vec![("loss/held_out", evaluation.held_out.all.mean), ("loss/trained_on", evaluation.training.all.mean)];
        let names = ["loss/held_out_1", "loss/held_out_2", "loss/held_out_3", "loss/held_out_4"];
        values.extend((0..QUARTILES).map(|quartile| (names[quartile], evaluation.held_out.quartiles[quartile].mean)));
        events.scalars(evaluation.step, &values)?;
        let loss = evaluation.held_out.all.mean;
        if loss.is_finite() && self.trainer.best.is_none_or(|(_, best)| loss < best) {
            self.trainer.model().save(&self.files.best_model())?;
            self.trainer.best = Some((evaluation.step, loss));
        }
        Ok(Some(evaluation))
    }

    /// Writes the averages of `training.post_hoc_ema`, each as a model of its own.
    fn save_averages(&self, step: u64) -> Result<(), TrainError> {
        for (width, model) in self.trainer.power_averages() {
            let folder = self.files.averages();
            create_folder(&folder)?;
            model.save(&folder.join(Snapshot { step, width }.file_name()))?;
        }
        Ok(())
    }

    /// Draws the samples of the configuration from the averaged weights: a row for each class, where there are classes.
    fn draw_grid(&self, path: &Path) -> Result<(), TrainError> {
        let model = self.trainer.model();
        let (count, classes) = (self.trainer.config().sampling.count, model.header.unet.classes);
        let columns = if classes > 0 { count.div_ceil(classes) } else { (count as f64).sqrt().ceil() as usize };
        let noise = Noise::new(self.trainer.config().training.seed);
        let images = generate(&model, &Request::even(count, classes), &noise, &mut |_| ())?;
        let pictures = pictures(images)?;
        let scale = pictures.first().map_or(1, Pixels::display_scale);
        Ok(save_png(&grid(&pictures, columns.max(1), 2, scale)?, path)?)
    }

    fn append_metrics(
        &self,
        report: &StepReport,
        images_per_second: f64,
        quartiles: &[Option<QuartileMean>; QUARTILES],
    ) -> Result<(), TrainError> {
        let mut line = serde_json::json!({
            "step": report.step,
            "loss": report.loss,
            "gradient_norm": report.gradient_norm,
            "learning_rate": report.learning_rate,
            "images_per_second": images_per_second,
            "quartiles": quartiles,
        });
        if let Some(memory) = resident_bytes() {
            line["memory_bytes"] = memory.into();
        }
        if let Some(non_finite) = &report.non_finite {
            line["non_finite"] = non_finite.to_string().into();
        }
        append_line(&self.files.metrics(), &line)
    }
}

/// Appends one line.
fn append_line(path: &Path, line: &serde_json::Value) -> Result<(), TrainError> {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        .map_err(|source| FileError::new(Action::Write, path, source).into())
}

/// Keeps the lines of steps up to this one: those after it are done again, and the last may be cut off.
fn drop_lines_after(path: &Path, step: u64) -> Result<(), TrainError> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(()) };
    let is_done = |line: &&str| {
        serde_json::from_str::<serde_json::Value>(line)
            .is_ok_and(|value| value["step"].as_u64().is_some_and(|other| other <= step))
    };
    let kept: String = text.lines().filter(is_done).map(|line| format!("{line}\n")).collect();
    Ok(write_atomically(path, kept.as_bytes())?)
}

/// Locks a run directory for this process; None where the file system knows no locks.
fn lock(files: &RunFiles) -> Result<Option<File>, TrainError> {
    let path = files.lock();
    let opened = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|source| FileError::new(Action::Write, &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(TrainError::RunDirectory {
            path: files.directory.clone(),
            reason: "another process is training in it; wait for it, stop it, or name another directory with --run"
                .to_owned(),
        }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// A batch of images `[count, channels, height, width]` in [-1, 1] as pictures.
///
/// # Errors
/// [`TrainError::Picture`] if a picture cannot have so many channels.
pub fn pictures(images: burn::tensor::Tensor<4>) -> Result<Vec<Pixels>, TrainError> {
    let [_, channels, height, width] = images.dims();
    let values: Vec<f32> = images.into_data().iter::<f32>().collect();
    Ok(Pixels::from_nchw(height, width, channels, &values)?)
}

/// The key that says which images a run learns from.
const CONTENT_HASH: &str = "data.content_hash";

/// The keys in which two configurations differ, apart from those that do not change what a step does, or by rounding only.
pub(crate) fn difference(kept: &Config, asked: &Config) -> String {
    let harmless = |config: &Config| {
        let mut config = config.clone();
        let training = &mut config.training;
        (training.log_every, training.sample_every, training.checkpoint_every) = (0, 0, 0);
        training.keep_checkpoints = 1;
        // how often does not matter, whether does: images are held out for it
        training.evaluate_every = training.evaluate_every.min(1);
        training.post_hoc_ema.snapshot_every = training.post_hoc_ema.snapshot_every.min(1);
        config.sampling = Default::default();
        config
    };
    let mut kept = kept.clone();
    let (old, new) = (&mut kept.data, &asked.data);
    // runs of earlier versions do not say it
    if old.content_hash.is_none() {
        old.content_hash = new.content_hash.clone();
    } else if old.content_hash == new.content_hash {
        // the same images, wherever they lie now
        old.path = new.path.clone();
        (old.image_column, old.label_column) = (new.image_column.clone(), new.label_column.clone());
        old.skip_unreadable = new.skip_unreadable;
    }
    let (old, new) = (&mut kept.training, &asked.training);
    // longer, where no step depends on how many there will be
    if (old.rate_schedule, new.rate_schedule) == (RateSchedule::Constant, RateSchedule::Constant) {
        old.steps = new.steps;
    }
    // the same samples in a step, and rounding apart the same step, in less memory
    old.gradient_checkpointing = new.gradient_checkpointing;
    let images_in_step =
        |training: &TrainingConfig| training.batch_size.checked_mul(training.gradient_accumulate_every);
    if images_in_step(old) == images_in_step(new) {
        (old.batch_size, old.gradient_accumulate_every) = (new.batch_size, new.gradient_accumulate_every);
    }
    differences(&harmless(&kept), &harmless(asked), ["in the run", "now"])
}

/// The keys in which two values differ, a line each; `whose` says where each of the values stands.
pub(crate) fn differences<T: serde::Serialize>(one: &T, other: &T, whose: [&str; 2]) -> String {
    let value = |config: &T| toml::Value::try_from(config).ok();
    let mut lines = String::new();
    compare("", value(one).as_ref(), value(other).as_ref(), whose, &mut lines);
    lines
}

fn compare(key: &str, kept: Option<&toml::Value>, asked: Option<&toml::Value>, whose: [&str; 2], lines: &mut String) {
    if kept == asked {
        return;
    }
    if let (Some(toml::Value::Table(kept)), Some(toml::Value::Table(asked))) = (kept, asked) {
        let names: std::collections::BTreeSet<&String> = kept.keys().chain(asked.keys()).collect();
        for name in names {
            let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            compare(&path, kept.get(name), asked.get(name), whose, lines);
        }
        return;
    }
    let show = |value: Option<&toml::Value>| value.map_or("not set".to_owned(), ToString::to_string);
    let [one, other] = whose;
    let what = if key == CONTENT_HASH { " the images are others:" } else { "" };
    lines.push_str(&format!("  {key}:{what} {} {one}, {} {other}\n", show(kept), show(asked)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::map_flat;
    use burn::tensor::Device;

    fn small() -> Trainer {
        let mut config = Config::preset("digits").unwrap();
        (config.unet.dim, config.unet.dim_mults, config.unet.attention) = (8, vec![1], Vec::new());
        config.data.limit = Some(40);
        let training = &mut config.training;
        (training.batch_size, training.steps, training.parallel_parts) = (4, 8, 1);
        (training.checkpoint_every, training.log_every) = (2, 1);
        (config.sampling.steps, config.sampling.count) = (2, 10);
        let images = data::open("mnist-5k", &config.load_options()).unwrap().images;
        Trainer::new(config, images, &Device::flex()).unwrap()
    }

    fn poison(trainer: &mut Trainer) {
        trainer.unet = trainer
            .unet
            .take()
            .map(|unet| map_flat(unet, |index, value| if index == 3 { value * f32::NAN } else { value }));
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
        assert_eq!(run.trainer.skipped.iter().copied().collect::<Vec<_>>(), [5]);
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
        assert_eq!(run.trainer.skipped.iter().copied().collect::<Vec<_>>(), [5, 7]);

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
