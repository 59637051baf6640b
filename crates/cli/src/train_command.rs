//! `diffuse train`.

use std::{
    fmt::Display,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use anyhow::{Context, anyhow, bail};
use burn::{module::Module, tensor::Device};
use clap::Args;
use data::{DataError, ImageSet, LoadOptions, Loaded, Split};
use indicatif::{ProgressBar, ProgressStyle};
use parallel::{Placement, ProcessGroup};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use train::{
    Change, Config, Control, Event, Mean, MixedPrecision, Outcome, Run, RunFiles, TrainError, Trainer, check_start,
    doctor::{Finding, Severity, check_data, check_schedule},
};

use crate::{
    DIVERGED, INTERRUPTED,
    arguments::{CommonArguments, ConfigArguments},
    config_layers::check_channels,
    print_result,
    read_data::open_data,
};

/// Folder of runs without `--run`.
const RUNS: &str = "runs";

/// Note on a run whose last process ended without saving.
const ENDED_ABRUPTLY: &str = "the process that trained here before ended without saving. If it was not a power cut, the system may have \
     killed it because the memory ran out: then lower training.batch_size and raise training.gradient_accumulate_every as much, or set \
     training.gradient_checkpointing = true";

#[derive(Args)]
pub struct TrainArguments {
    #[command(flatten)]
    layers: ConfigArguments,
    /// The run directory; runs/PRESET-N if not given
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Go on with the run in --run, or with the latest
    #[arg(long)]
    resume: bool,
    /// Check everything and print the configuration, but do not train
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: CommonArguments,
}

/// Trains alone, or as one of the ranks that mpirun started, of which only rank 0 prints and writes.
pub fn run(arguments: TrainArguments) -> anyhow::Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    let group = parallel::start(&stop)?;
    match run_in_group(&arguments, &group, &stop) {
        Ok(code) => {
            group.finalize()?;
            Ok(code)
        }
        // other ranks learn of it when this process ends
        Err(error) if group.is_main() => Err(error),
        Err(error) => Err(error.context(format!("rank {}", group.rank()))),
    }
}

fn run_in_group(
    arguments: &TrainArguments,
    group: &Arc<dyn ProcessGroup>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<ExitCode> {
    let rank = Rank::start(arguments.common.device.as_deref(), group)?;
    let mut resumed = None;
    if arguments.resume {
        resumed = Some(rank.broadcast(|| directory_to_resume(arguments.run.as_deref()))?);
    }
    let (config, channels) = rank.config(&arguments.layers, resumed.as_deref())?;
    let data = match rank.open_data(&config) {
        Err(error) if resumed.is_some() && matches!(error.downcast_ref(), Some(DataError::NoSuchData { .. })) => {
            let advice = "the data of the run is not there; if it lies elsewhere now, name the place with --data";
            return Err(error.context(advice));
        }
        data => data?,
    };
    check_channels(channels.as_ref(), data.images.channels())?;
    let build = if resumed.is_some() { Trainer::to_resume } else { Trainer::new };
    let trainer = build(config, data.images.clone(), &rank.device)?.distributed(Arc::clone(group))?;
    rank.describe(&trainer, &data)?;
    if arguments.dry_run {
        if group.is_main() {
            print_result(toml::to_string(trainer.config())?)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let is_resumed = resumed.is_some();
    let mut run = match (resumed, &arguments.run) {
        (Some(directory), _) => Run::resume(trainer, &directory)?,
        (None, Some(directory)) => Run::create(trainer, directory)?,
        (None, None) => Run::create(trainer, &rank.broadcast(|| next_directory(arguments.layers.preset()))?)?,
    };
    run.held_out = data.held_out;
    run.environment = environment(&rank.device_name, &**group);
    if is_resumed {
        rank.describe_start(&run.trainer);
    }
    rank.describe_run(&run);
    if is_resumed && rank.broadcast(|| Ok(run.is_complete()))? {
        if group.is_main() {
            report_complete(arguments, &run)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    stop_on_signals(stop, group.is_main())?;
    let outcome = rank.train(&mut run, stop)?;
    if !outcome.finished {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if group.is_main() {
        report(arguments, &run.files, &outcome)?;
    }
    Ok(outcome.divergence.map_or(ExitCode::SUCCESS, |_| ExitCode::from(DIVERGED)))
}

/// This process among those that train together.
struct Rank {
    group: Arc<dyn ProcessGroup>,
    placement: Placement,
    device_name: String,
    device: Device,
}

/// The images of a run.
struct RunData {
    images: ImageSet,
    held_out: Option<ImageSet>,
    /// Where they were read from.
    source: String,
}

impl Rank {
    /// Opens the device of this rank and, of several ranks, limits its threads.
    fn start(device: Option<&str>, group: &Arc<dyn ProcessGroup>) -> anyhow::Result<Self> {
        let placement = parallel::placement(&**group)?;
        let (device_name, device) = device::open_for_rank(device, placement.local_rank)?;
        if group.world_size() > 1 && std::env::var_os("RAYON_NUM_THREADS").is_none() {
            rayon::ThreadPoolBuilder::new().num_threads(placement.threads).build_global()?;
        }
        Ok(Self { group: Arc::clone(group), placement, device_name, device })
    }

    /// Writes a line to the error output, on rank 0.
    fn log(&self, text: impl Display) {
        if self.group.is_main() {
            eprintln!("{text}");
        }
    }

    /// Returns on every rank the value that `make` returns on rank 0.
    fn broadcast<V: Serialize + DeserializeOwned>(
        &self,
        make: impl FnOnce() -> anyhow::Result<V>,
    ) -> anyhow::Result<V> {
        if self.group.world_size() == 1 {
            return make();
        }
        let value = if self.group.is_main() { serde_json::to_vec(&make()?)? } else { Vec::new() };
        Ok(serde_json::from_slice(&self.group.broadcast(value)?)?)
    }

    /// The configuration of a run that is resumed, or else of the preset, with the layers over it; and the channels that were set,
    /// with their source.
    fn config(
        &self,
        arguments: &ConfigArguments,
        resumed: Option<&Path>,
    ) -> anyhow::Result<(Config, Option<(i64, String)>)> {
        let Some(directory) = resumed else {
            let layers = arguments.layers()?;
            let channels = layers.channels.clone();
            let mut config = layers.resolve()?;
            config.data.path = absolute_data(&config.data.path, None);
            config.training.from = config.training.from.map(absolute);
            return Ok((config, channels));
        };
        let kept = self.broadcast(|| Ok(toml::to_string(&Run::config_of(directory)?)?))?;
        let kept: Config = toml::from_str(&kept)?;
        let layers = arguments.layers_over_run(&kept)?;
        let channels = layers.channels.clone();
        let mut config = layers.resolve()?;
        if config.training.from != kept.training.from {
            config.training.from = config.training.from.map(absolute);
        }
        // a run without a hash is known by the path alone
        if kept.data.content_hash.is_some() {
            let of_run = (config.data.path == kept.data.path).then_some(directory);
            config.data.path = absolute_data(&config.data.path, of_run);
        }
        Ok((config, channels))
    }

    /// Opens the images that are trained on and those that are held out. Rank 0 decodes them first, then the first rank of
    /// every other machine, which may have a cache of its own; the others find them in a cache.
    fn open_data(&self, config: &Config) -> anyhow::Result<RunData> {
        let turn = match (self.group.rank(), self.placement.local_rank) {
            (0, _) => 0,
            (_, 0) => 1,
            _ => 2,
        };
        for _ in 0..turn {
            self.group.barrier()?;
        }
        let loaded = self.open(config, &config.load_options())?;
        let (images, held_out) = self.split(config, loaded.images)?;
        for _ in turn..2 {
            self.group.barrier()?;
        }
        for (path, reason) in &loaded.skipped {
            self.log(format_args!("warning: left out {}: {reason}", path.display()));
        }
        for line in loaded.account.lines() {
            self.log(format_args!("data        {line}"));
        }
        let doubts: Vec<String> = loaded.account.doubts().map(|doubt| format!("  {doubt}")).collect();
        if !doubts.is_empty() && !config.data.accept_left_out {
            bail!(
                "a part of {} would not be used:\n{}\nif that is meant, set `data.accept_left_out = true`",
                loaded.source,
                doubts.join("\n")
            );
        }
        Ok(RunData { images, held_out, source: loaded.source })
    }

    /// Opens the data, on rank 0 with a progress bar.
    fn open(&self, config: &Config, options: &LoadOptions) -> Result<Loaded, DataError> {
        let path = &config.data.path;
        if self.group.is_main() { open_data(path, options) } else { data::open(path, options) }
    }

    /// Splits off the images that are held out: the test part of a dataset that has one, else some of the images, spread evenly;
    /// at most a tenth.
    fn split(&self, config: &Config, images: ImageSet) -> anyhow::Result<(ImageSet, Option<ImageSet>)> {
        let count = config.data.held_out.min(images.len() / 10);
        // a loss needs at least one image for each quartile of the timesteps
        if count < train::QUARTILES || config.training.evaluate_every == 0 {
            return Ok((images, None));
        }
        let shape = |images: &ImageSet| (images.channels(), images.height(), images.width(), images.classes());
        let is_alike = |test: &ImageSet| shape(test) == shape(&images) && test.class_names() == images.class_names();
        // most files have no parts, and would be opened whole
        let path = Path::new(&config.data.path);
        let has_parts = |extension: &std::ffi::OsStr| extension == "zip" || extension == "npz";
        if !path.is_file() || path.extension().is_some_and(has_parts) {
            let channels = Some(images.channels());
            let options = LoadOptions { split: Split::Test, limit: Some(count), channels, ..config.load_options() };
            match self.open(config, &options) {
                Ok(test) if is_alike(&test.images) => return Ok((images, Some(test.images))),
                Ok(test) => self.log(format_args!(
                    "note: {} has images of another size or other classes, so that some of the training images are held out",
                    test.source
                )),
                Err(error) if error.is_missing_split() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let total = images.len();
        let is_held_out = |index: &usize| (index + 1) * count / total > index * count / total;
        let held_out = images.subset((0..total).filter(is_held_out));
        Ok((images.subset((0..total).filter(|index| !is_held_out(index))), Some(held_out)))
    }

    /// Prints the device, the data and the network, and the problems that `diffuse doctor` reports at length.
    fn describe(&self, trainer: &Trainer, data: &RunData) -> anyhow::Result<()> {
        let (config, images) = (trainer.config(), &data.images);
        self.log(format_args!("device      {}", self.device_name));
        if let Some(numbers) = numbers(trainer) {
            self.log(format_args!("numbers     {numbers}"));
        }
        let Placement { local_size, threads, .. } = self.placement;
        if self.group.world_size() > 1 {
            let ranks = self.group.world_size();
            self.log(format_args!("ranks       {ranks}, {local_size} on this machine; {threads} thread(s) here"));
        }
        let (height, width) = images.content_size();
        let is_padded = (height, width) != (images.height(), images.width());
        let border =
            if is_padded { format!(" padded to {}x{}", images.height(), images.width()) } else { String::new() };
        let depth = if images.sixteen_bits() { " of 16 bits" } else { "" };
        let classes = config.unet.classes();
        let classes = if classes > 0 { format!(", {classes} classes") } else { String::new() };
        self.log(format_args!(
            "data        {} ({}): {} images, {height}x{width}{border}, {} channel(s){depth}{classes}",
            images.name(),
            data.source,
            images.len(),
            images.channels()
        ));
        if let Some(held_out) = &data.held_out {
            let (count, name) = (held_out.len(), held_out.name());
            self.log(format_args!("held out    {count} images of {name}, for the held-out loss"));
        }
        self.log(format_args!("parameters  {}", trainer.unet().num_params()));
        self.describe_start(trainer);
        let training = &config.training;
        if !training.freeze.is_empty() {
            let parts: Vec<&str> = training.freeze.iter().map(|part| part.name()).collect();
            self.log(format_args!("frozen      {}: {} parameters", parts.join(", "), trainer.frozen_parameters()));
        }
        let images_in_step = training.batch_size * training.gradient_accumulate_every;
        self.log(format_args!("steps       {} of {images_in_step} images", training.steps));
        let mut findings = check_data(config, images);
        findings.extend(check_schedule(config, &config.diffusion.schedule.build()?));
        findings.extend(check_start(config, images, trainer.start()));
        for Finding { severity, text, .. } in findings.iter().filter(|finding| finding.severity != Severity::Note) {
            self.log(format_args!("{severity}: {text}"));
        }
        Ok(())
    }

    /// Prints which weights come from the model of `training.from`, if it was read.
    fn describe_start(&self, trainer: &Trainer) {
        for (label, text) in trainer.start().iter().flat_map(|start| start.lines()) {
            self.log(format_args!("{label:<11} {text}"));
        }
    }

    /// Prints where the run is and, if it is resumed, what happened to it.
    fn describe_run(&self, run: &Run) {
        for (path, error) in &run.passed_over {
            self.log(format_args!("warning: passed over the checkpoint {}: {error}", path.display()));
        }
        if run.ended_abruptly {
            self.log(format_args!("note: {ENDED_ABRUPTLY}"));
        }
        self.log(format_args!("run         {}", run.files.directory.display()));
        for Change { key, before, now } in &run.changes {
            self.log(format_args!("changed     {key}: {before} in the run, {now} now"));
        }
        if run.trainer.steps_done() > 0 {
            self.log(format_args!("going on after step {}", run.trainer.steps_done()));
        }
    }

    /// Trains to the end, or until `stop` is set; rank 0 shows the progress.
    fn train(&self, run: &mut Run, stop: &AtomicBool) -> anyhow::Result<Outcome> {
        let steps = run.trainer.config().training.steps;
        let is_main = self.group.is_main();
        let bar = if is_main { progress(steps, run.trainer.steps_done())? } else { ProgressBar::hidden() };
        let outcome = run.train(&mut |event| {
            if is_main {
                show(&event, &bar, steps);
            }
            if stop.load(Ordering::SeqCst) { Control::Stop } else { Control::Continue }
        });
        bar.finish_and_clear();
        let directory = run.files.directory.display();
        let go_on = format!("go on with: diffuse train --resume --run {directory}");
        if let Err(TrainError::LostRanks { .. }) = &outcome {
            eprintln!("{go_on}");
        }
        let outcome = outcome.with_context(|| format!("the run in {directory} stopped"))?;
        if !outcome.finished {
            self.log(format_args!("stopped after step {} of {steps}; {go_on}", outcome.steps));
        }
        Ok(outcome)
    }
}

/// Sets `stop` at the first signal to end, and ends the process at the second.
fn stop_on_signals(stop: &Arc<AtomicBool>, is_main: bool) -> anyhow::Result<()> {
    let stop = Arc::clone(stop);
    let handler = move || {
        if stop.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED.into());
        }
        if is_main {
            eprintln!("\nstopping after this step, and saving the state (again: stop at once, without saving)");
        }
    };
    ctrlc::set_handler(handler).context("cannot listen for Ctrl-C")
}

/// Prints the result of a training.
fn report(arguments: &TrainArguments, files: &RunFiles, outcome: &Outcome) -> anyhow::Result<()> {
    let Outcome { steps, seconds, loss, divergence, .. } = outcome;
    if loss.is_nan() {
        // an earlier process ended before it wrote all files
        eprintln!("{steps} steps were done before; the files of the end are written");
    } else {
        eprintln!("{steps} steps in {seconds:.1} s, loss {loss:.5}");
    }
    if let Some(divergence) = divergence {
        eprintln!("warning: {divergence}");
    }
    let mut json = result_of(files);
    (json["steps"], json["seconds"], json["loss"]) = ((*steps).into(), (*seconds).into(), (*loss).into());
    if let Some(divergence) = divergence {
        json["divergence"] = divergence.to_string().into();
    }
    arguments.common.print(json, lines_of(files))
}

/// Says that a resumed run is complete, and prints its files.
fn report_complete(arguments: &TrainArguments, run: &Run) -> anyhow::Result<()> {
    let (done, files) = (run.trainer.steps_done(), &run.files);
    eprintln!(
        "nothing to do: all {done} steps of this run are done, and nothing was changed; for more: diffuse train --resume --run {} \
         --steps STEPS, with more than {done}",
        files.directory.display()
    );
    let mut json = result_of(files);
    (json["steps"], json["seconds"], json["loss"]) = (done.into(), 0.0.into(), Value::Null);
    arguments.common.print(json, lines_of(files))
}

/// The files of a run that is at its end.
fn result_of(files: &RunFiles) -> Value {
    json!({ "run": files.directory, "model": files.model(), "grid": files.grid() })
}

fn lines_of(files: &RunFiles) -> String {
    let (run, model, grid) = (files.directory.display(), files.model(), files.grid());
    format!("run    {run}\nmodel  {}\ngrid   {}", model.display(), grid.display())
}

/// The path of data from the root on, so that the run can be resumed in any folder; a known name, and a path that does not exist,
/// unchanged. A relative path of a run, which earlier versions kept, is also looked for in the folders around the run.
pub(crate) fn absolute_data(given: &str, run: Option<&Path>) -> String {
    if given.is_empty() || data::manifest::find(given).is_some() {
        return given.to_owned();
    }
    let run = run.and_then(|run| run.canonicalize().ok());
    let around = run.iter().flat_map(|run| run.ancestors().skip(1)).map(|folder| folder.join(given));
    let found = std::iter::once(PathBuf::from(given)).chain(around).find(|path| path.exists());
    let absolute = found.and_then(|path| std::path::absolute(path).ok()?.into_os_string().into_string().ok());
    absolute.unwrap_or_else(|| given.to_owned())
}

/// A path from the root on; unchanged where that is not possible.
fn absolute(path: String) -> String {
    let absolute = std::path::absolute(&path).ok().and_then(|path| path.into_os_string().into_string().ok());
    absolute.unwrap_or(path)
}

/// Lines of the report about the computer and the program.
fn environment(device: &str, group: &dyn ProcessGroup) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |cores| cores.to_string());
    vec![
        format!("diffuse {}", env!("CARGO_PKG_VERSION")),
        format!("{} on {}, {cores} cores", std::env::consts::OS, std::env::consts::ARCH),
        format!("device {device}, {} process(es)", group.world_size()),
        std::env::args().collect::<Vec<_>>().join(" "),
    ]
}

/// A bar on a terminal; hidden elsewhere, where [`show`] prints lines.
fn progress(steps: u64, done: u64) -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta} left")?;
    Ok(ProgressBar::new(steps).with_style(style).with_position(done))
}

/// Prints an event of a training.
fn show(event: &Event, bar: &ProgressBar, steps: u64) {
    let print = |text: String| bar.suspend(|| eprintln!("{text}"));
    match event {
        Event::Step { report, log, images_per_second } => {
            bar.set_position(report.step);
            if let Some(non_finite) = &report.non_finite {
                print(format!("warning: this step is skipped: {non_finite}"));
                return;
            }
            bar.set_message(format!("loss {:.5} {images_per_second:.0} images/s", report.loss));
            if *log && bar.is_hidden() {
                eprintln!(
                    "step {}/{steps} loss {:.5} gradient norm {:.3} rate {:.2e} {images_per_second:.0} images/s",
                    report.step, report.loss, report.gradient_norm, report.learning_rate
                );
            }
        }
        Event::Sampling => bar.set_message("drawing samples"),
        Event::Grid(path) => print(format!("samples {}", path.display())),
        Event::Saved(_) => {}
        Event::Evaluated(evaluation) => {
            let [held_out, training] = [evaluation.held_out.all, evaluation.training.all]
                .map(|Mean { mean, error, .. }| format!("{mean:.5} ± {error:.5}"));
            print(format!("step {} held-out loss {held_out}, of trained images {training}", evaluation.step));
        }
        Event::WentBack { non_finite, to_step } => {
            bar.set_position(*to_step);
            print(format!(
                "warning: the weights are not finite, going back to the checkpoint of step {to_step}: {non_finite}"
            ));
        }
    }
}

/// The first `runs/NAME-N` that does not exist.
fn next_directory(name: &str) -> anyhow::Result<PathBuf> {
    (1..=u32::MAX)
        .map(|number| Path::new(RUNS).join(format!("{name}-{number}")))
        .find(|path| !path.exists())
        .ok_or_else(|| anyhow!("no name is left for a run in {RUNS}/"))
}

/// The directory of the run to resume: the one named, or the one that was saved last.
fn directory_to_resume(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(directory) = named {
        return Ok(directory.to_owned());
    }
    let saved = |path: &Path| -> Option<SystemTime> {
        let files = RunFiles { directory: path.to_owned() };
        let newest = files.all_checkpoints().into_iter().next().map_or(files.config(), |(_, path)| path);
        newest.metadata().ok()?.modified().ok()
    };
    std::fs::read_dir(RUNS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((saved(&entry.path())?, entry.path())))
        .max()
        .map(|(_, path)| path)
        .ok_or_else(|| anyhow!("there is no run in {RUNS}/ to go on with; name one with --run DIR"))
}

/// The number formats of a training on a GPU; None where everything is f32.
fn numbers(trainer: &Trainer) -> Option<&'static str> {
    match trainer.config().training.mixed_precision {
        MixedPrecision::Bf16 => Some("bf16, weights in f32"),
        MixedPrecision::F16 => Some("f16 with a loss scale, weights in f32"),
        MixedPrecision::No if trainer.uses_tf32() => {
            Some("f32, in convolutions TF32 (training.tf32 = false for f32 alone)")
        }
        MixedPrecision::No => None,
    }
}
