//! A run: the loop around the trainer, and the directory that it keeps.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use checkpoint::{Request, generate};
use files::{Action, FileError, create_folder, write_atomically};
use noise::Noise;
use picture::{Pixels, grid, save_png};

use crate::{
    config::Config,
    error::TrainError,
    post_hoc::Snapshot,
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
    /// One JSON object a line.
    pub fn metrics(&self) -> PathBuf {
        self.directory.join("metrics.jsonl")
    }
    /// What a restart needs.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state.safetensors")
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
}

impl Run {
    /// Starts in a directory that does not exist yet or is empty.
    ///
    /// # Errors
    /// [`TrainError::RunDirectory`] if it holds something or is a file: nothing is overwritten.
    pub fn create(trainer: Trainer, directory: &Path) -> Result<Self, TrainError> {
        let refuse = |reason: String| TrainError::RunDirectory { path: directory.to_owned(), reason };
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
        let files = RunFiles { directory: directory.to_owned() };
        create_folder(&directory.join("samples"))?;
        let config = toml::to_string(trainer.config()).map_err(|error| refuse(error.to_string()))?;
        write_atomically(&files.config(), config.as_bytes())?;
        Ok(Self { trainer, files })
    }

    /// Goes on with the run in a directory; the trainer is one that was made from the same configuration.
    ///
    /// # Errors
    /// [`TrainError::OtherConfiguration`] if it was not, [`TrainError::RunDirectory`] if there is no run.
    pub fn resume(mut trainer: Trainer, directory: &Path) -> Result<Self, TrainError> {
        let files = RunFiles { directory: directory.to_owned() };
        let kept = Self::config_of(directory)?;
        let difference = difference(&kept, trainer.config());
        if !difference.is_empty() {
            return Err(TrainError::OtherConfiguration { path: directory.to_owned(), difference });
        }
        if files.state().exists() {
            trainer.load_state(&files.state())?;
        }
        // lines of steps that are done again
        if let Ok(text) = fs::read_to_string(files.metrics()) {
            let kept: String = text
                .lines()
                .filter(|line| {
                    serde_json::from_str::<serde_json::Value>(line)
                        .is_ok_and(|value| value["step"].as_u64().is_some_and(|step| step <= trainer.steps_done()))
                })
                .map(|line| format!("{line}\n"))
                .collect();
            write_atomically(&files.metrics(), kept.as_bytes())?;
        }
        Ok(Self { trainer, files })
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
    /// # Errors
    /// [`TrainError`]; what was saved before stays.
    pub fn train(&mut self, observe: &mut dyn FnMut(Event<'_>) -> Control) -> Result<Outcome, TrainError> {
        let start = Instant::now();
        let first = self.trainer.steps_done();
        let training = self.trainer.config().training.clone();
        let images_in_step = (training.batch_size * training.gradient_accumulate_every) as f64;
        let every = |every: u64, step: u64| every > 0 && step.is_multiple_of(every);
        let mut recent = std::collections::VecDeque::new();
        let mut stopped = false;
        while self.trainer.steps_done() < training.steps && !stopped {
            let report = self.trainer.step()?;
            let step = report.step;
            recent.push_back(report.loss);
            if recent.len() > 100 {
                recent.pop_front();
            }
            let log = every(training.log_every, step) || step == training.steps;
            let images_per_second = (step - first) as f64 * images_in_step / start.elapsed().as_secs_f64();
            if log {
                self.append_metrics(&report, images_per_second)?;
            }
            if every(training.post_hoc_ema.snapshot_every, step) || step == training.steps {
                self.save_averages(step)?;
            }
            stopped = observe(Event::Step { report, log, images_per_second }) == Control::Stop;
            if every(training.checkpoint_every, step) && step < training.steps && !stopped {
                self.trainer.save_state(&self.files.state())?;
                observe(Event::Saved(&self.files.state()));
            }
            if every(training.sample_every, step) && step < training.steps && !stopped {
                observe(Event::Sampling);
                let path = self.files.grid_at(step);
                self.draw_grid(&path)?;
                observe(Event::Grid(&path));
            }
        }
        let finished = self.trainer.steps_done() >= training.steps;
        // the model first: it is refused if it is not finite, and then the last good state stays
        self.trainer.model().save(&self.files.model())?;
        self.trainer.save_state(&self.files.state())?;
        observe(Event::Saved(&self.files.state()));
        if finished {
            observe(Event::Sampling);
            self.draw_grid(&self.files.grid())?;
            observe(Event::Grid(&self.files.grid()));
        }
        Ok(Outcome {
            finished,
            steps: self.trainer.steps_done(),
            loss: recent.iter().sum::<f64>() / recent.len() as f64,
            seconds: start.elapsed().as_secs_f64(),
        })
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

    fn append_metrics(&self, report: &StepReport, images_per_second: f64) -> Result<(), TrainError> {
        let path = self.files.metrics();
        let line = serde_json::json!({
            "step": report.step,
            "loss": report.loss,
            "gradient_norm": report.gradient_norm,
            "learning_rate": report.learning_rate,
            "images_per_second": images_per_second,
        });
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{line}"))
            .map_err(|source| FileError::new(Action::Write, &path, source).into())
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

/// The keys in which two configurations differ, apart from those that do not change what a step does.
fn difference(kept: &Config, asked: &Config) -> String {
    let harmless = |config: &Config| {
        let mut config = config.clone();
        let training = &mut config.training;
        (training.log_every, training.sample_every, training.checkpoint_every) = (0, 0, 0);
        // how often does not matter, whether does
        training.post_hoc_ema.snapshot_every = training.post_hoc_ema.snapshot_every.min(1);
        config.sampling = Default::default();
        toml::Value::try_from(&config).unwrap_or(toml::Value::Boolean(false))
    };
    let mut lines = String::new();
    compare("", Some(&harmless(kept)), Some(&harmless(asked)), &mut lines);
    lines
}

fn compare(key: &str, kept: Option<&toml::Value>, asked: Option<&toml::Value>, lines: &mut String) {
    if kept == asked {
        return;
    }
    if let (Some(toml::Value::Table(kept)), Some(toml::Value::Table(asked))) = (kept, asked) {
        let names: std::collections::BTreeSet<&String> = kept.keys().chain(asked.keys()).collect();
        for name in names {
            let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            compare(&path, kept.get(name), asked.get(name), lines);
        }
        return;
    }
    let show = |value: Option<&toml::Value>| value.map_or("not set".to_owned(), ToString::to_string);
    lines.push_str(&format!("  {key}: {} in the run, {} now\n", show(kept), show(asked)));
}
