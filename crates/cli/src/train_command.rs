//! `diffuse train`.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use anyhow::{Context, anyhow};
use burn::module::Module;
use clap::Args;
use data::{DataError, ImageSet, LoadOptions, Loaded, Split};
use indicatif::{ProgressBar, ProgressStyle};
use parallel::{Placement, ProcessGroup};
use train::{
    Config, Control, Event, Mean, Run, RunFiles, TrainError, Trainer,
    doctor::{Finding, Severity, check_data, check_schedule},
};

use crate::{Ended, UsageError, config_layers::Layers, print_result, read_data::open_data};

/// Where runs go.
const RUNS: &str = "runs";

/// What is said where the last process left no word.
const ENDED_ABRUPTLY: &str = "the process that trained here before ended without saving. If it was not a power cut, the system may have \
     killed it because the memory ran out: then lower training.batch_size and raise training.gradient_accumulate_every as much, or set \
     training.gradient_checkpointing = true";

/// What a configuration is made of.
#[derive(Args)]
pub struct ConfigArguments {
    /// Where the configuration begins: digits, mnist, fashion-mnist, cifar10 or article
    #[arg(long, default_value = "digits")]
    pub preset: String,
    /// A TOML file over the preset
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One value over both, as in training.learning_rate=1e-3
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A dataset's name, a file or a folder (data.path)
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// training.steps
    #[arg(long)]
    steps: Option<u64>,
    /// training.batch_size
    #[arg(long)]
    batch_size: Option<u64>,
    /// training.seed
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Args)]
pub struct TrainArguments {
    #[command(flatten)]
    layers: ConfigArguments,
    /// The run directory; runs/PRESET-N if not given
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// flex (the CPU), wgpu, vulkan, metal, cuda, rocm, or cuda:1 for the second
    #[arg(long)]
    device: Option<String>,
    /// Go on with the run in --run, or with the latest
    #[arg(long)]
    resume: bool,
    /// Check everything and print the configuration, but do not train
    #[arg(long)]
    dry_run: bool,
    /// End with one JSON object on standard output
    #[arg(long)]
    json: bool,
}

impl ConfigArguments {
    /// The layers that the user laid over others.
    pub fn lay_over(&self, mut layers: Layers) -> anyhow::Result<Layers> {
        if let Some(path) = &self.config {
            layers.file(path)?;
        }
        for assignment in &self.set {
            layers.set(assignment)?;
        }
        if let Some(path) = &self.data {
            layers.value("data.path", path.clone().into(), "--data")?;
        }
        let numbers = [
            ("training.steps", "--steps", self.steps),
            ("training.batch_size", "--batch-size", self.batch_size),
            ("training.seed", "--seed", self.seed),
        ];
        for (key, flag, number) in numbers {
            if let Some(number) = number {
                let number = i64::try_from(number)
                    .map_err(|_| UsageError(format!("{flag} {number} is too large: at most {}", i64::MAX)))?;
                layers.value(key, number.into(), flag)?;
            }
        }
        Ok(layers)
    }
}

/// Trains alone, or as one of the ranks that mpirun started: then only rank 0 speaks and writes.
pub fn run(arguments: TrainArguments) -> anyhow::Result<Ended> {
    let stop = Arc::new(AtomicBool::new(false));
    let group = parallel::start(&stop)?;
    let ended = run_in_group(&arguments, &group, &stop);
    match ended {
        Ok(ended) => {
            group.finalize()?;
            Ok(ended)
        }
        // the others learn of it when this process ends
        Err(error) if group.is_main() => Err(error),
        Err(error) => Err(error.context(format!("rank {}", group.rank()))),
    }
}

fn run_in_group(
    arguments: &TrainArguments,
    group: &Arc<dyn ProcessGroup>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Ended> {
    // an impossible device is said before anything else is done
    let placement = parallel::placement(&**group)?;
    let (device_name, device) = device::open_for_rank(arguments.device.as_deref(), placement.local_rank)?;
    if group.world_size() > 1 && std::env::var_os("RAYON_NUM_THREADS").is_none() {
        rayon::ThreadPoolBuilder::new().num_threads(placement.threads).build_global()?;
    }
    let say = |text: std::fmt::Arguments<'_>| {
        if group.is_main() {
            eprintln!("{text}");
        }
    };
    let resumed = match (arguments.resume, group.is_main()) {
        (false, _) => None,
        (true, true) => Some(directory_to_resume(arguments.run.as_deref())?),
        (true, false) => Some(PathBuf::new()),
    };
    let resumed = resumed.map(|directory| broadcast_path(&**group, directory)).transpose()?;
    let config = match &resumed {
        Some(directory) => {
            let kept = if group.is_main() { Some(Run::config_of(directory)?) } else { None };
            let text = kept.map(|config| toml::to_string(&config)).transpose()?.unwrap_or_default();
            let kept: Config = toml::from_str(&String::from_utf8(group.broadcast(text.into_bytes())?)?)?;
            arguments.layers.lay_over(Layers::of(&kept, "the run")?)?
        }
        None => arguments.layers.lay_over(Layers::preset(&arguments.layers.preset)?)?,
    }
    .resolve()?;
    let open = |options: &LoadOptions| match group.is_main() {
        true => open_data(&config.data.path, options),
        false => data::open(&config.data.path, options),
    };
    // what rank 0 decodes the others find in the cache; other machines may have one of their own, and there one decodes for all
    let turn = match (group.is_main(), placement.local_rank) {
        (true, _) => 0,
        (false, 0) => 1,
        _ => 2,
    };
    for _ in 0..turn {
        group.barrier()?;
    }
    let loaded = open(&config.load_options())?;
    let skipped = loaded.skipped;
    let (images, held_out) = split(&config, loaded.images, &open, &say)?;
    for _ in turn..2 {
        group.barrier()?;
    }
    for (path, reason) in &skipped {
        say(format_args!("warning: left out {}: {reason}", path.display()));
    }
    let trainer = Trainer::new(config, images.clone(), &device)?.distributed(Arc::clone(group))?;
    let config = trainer.config().clone();
    let classes = if config.unet.classes > 0 { format!(", {} classes", config.unet.classes) } else { String::new() };
    say(format_args!("device      {device_name}"));
    if group.world_size() > 1 {
        let Placement { local_size, threads, .. } = placement;
        say(format_args!("ranks       {}, {local_size} on this machine; {threads} thread(s) here", group.world_size()));
    }
    let (content_height, content_width) = images.content_size();
    let border = match (content_height, content_width) == (images.height(), images.width()) {
        true => String::new(),
        false => format!(" padded to {}x{}", images.height(), images.width()),
    };
    say(format_args!(
        "data        {} ({}): {} images, {content_height}x{content_width}{border}, {} channel(s){}{classes}",
        images.name(),
        loaded.source,
        images.len(),
        images.channels(),
        if images.sixteen_bits() { " of 16 bits" } else { "" }
    ));
    if let Some(held_out) = &held_out {
        say(format_args!("held out    {} images of {}, for the held-out loss", held_out.len(), held_out.name()));
    }
    say(format_args!("parameters  {}", trainer.unet().num_params()));
    say(format_args!(
        "steps       {} of {} images",
        config.training.steps,
        config.training.batch_size * config.training.gradient_accumulate_every
    ));
    // in short, what `diffuse doctor` says at length
    let mut findings = check_data(&config, &images);
    findings.extend(check_schedule(&config, &config.diffusion.schedule.build()?));
    for Finding { severity, text } in findings.iter().filter(|finding| finding.severity != Severity::Note) {
        say(format_args!("{severity}: {text}"));
    }
    if arguments.dry_run {
        if group.is_main() {
            print_result(toml::to_string(&config)?)?;
        }
        return Ok(Ended::Done);
    }
    let mut run = match &resumed {
        Some(directory) => Run::resume(trainer, directory)?,
        None => {
            let directory = match &arguments.run {
                Some(directory) => directory.clone(),
                None => broadcast_path(&**group, next_directory(&arguments.layers.preset)?)?,
            };
            Run::create(trainer, &directory)?
        }
    };
    run.held_out = held_out;
    run.environment = environment(&device_name, &**group);
    for (path, error) in &run.passed_over {
        say(format_args!("warning: passed over the checkpoint {}: {error}", path.display()));
    }
    if run.ended_abruptly {
        say(format_args!("note: {ENDED_ABRUPTLY}"));
    }
    let directory = run.files.directory.clone();
    say(format_args!("run         {}", directory.display()));
    if run.trainer.steps_done() > 0 {
        say(format_args!("going on after step {}", run.trainer.steps_done()));
    }

    let (asked, is_main) = (Arc::clone(stop), group.is_main());
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        if is_main {
            eprintln!("\nstopping after this step; the state is being saved (once more: stop at once, without)");
        }
    })
    .context("cannot listen for Ctrl-C")?;

    let bar = if is_main { progress(config.training.steps, run.trainer.steps_done())? } else { ProgressBar::hidden() };
    let outcome = run.train(&mut |event| {
        if is_main {
            show(&event, &bar, config.training.steps);
        }
        if stop.load(Ordering::SeqCst) { Control::Stop } else { Control::Continue }
    });
    bar.finish_and_clear();
    let go_on = format!("go on with: diffuse train --resume --run {}", directory.display());
    if let Err(TrainError::LostRanks { .. }) = &outcome {
        eprintln!("{go_on}");
    }
    let outcome = outcome.with_context(|| format!("the run in {} stopped", directory.display()))?;
    if !outcome.finished {
        say(format_args!("stopped after step {} of {}; {go_on}", outcome.steps, config.training.steps));
        return Ok(Ended::Interrupted);
    }
    if !is_main {
        return Ok(Ended::Done);
    }
    eprintln!("{} steps in {:.1} s, loss {:.5}", outcome.steps, outcome.seconds, outcome.loss);
    if arguments.json {
        print_result(serde_json::json!({
            "run": directory,
            "model": run.files.model(),
            "grid": run.files.grid(),
            "steps": outcome.steps,
            "seconds": outcome.seconds,
            "loss": outcome.loss,
        }))?;
    } else {
        print_result(format_args!("run    {}", directory.display()))?;
        print_result(format_args!("model  {}", run.files.model().display()))?;
        print_result(format_args!("grid   {}", run.files.grid().display()))?;
    }
    Ok(Ended::Done)
}

/// The path that rank 0 gives.
fn broadcast_path(group: &dyn ProcessGroup, path: PathBuf) -> anyhow::Result<PathBuf> {
    if group.world_size() == 1 {
        return Ok(path);
    }
    let text = path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))?;
    Ok(PathBuf::from(String::from_utf8(group.broadcast(text.as_bytes().to_vec())?)?))
}

/// The images that are trained on, and those that are held out: the test part of a dataset that has one, else some of the
/// images, spread evenly; at most a tenth.
fn split(
    config: &Config,
    images: ImageSet,
    open: &dyn Fn(&LoadOptions) -> Result<Loaded, DataError>,
    say: &dyn Fn(std::fmt::Arguments<'_>),
) -> anyhow::Result<(ImageSet, Option<ImageSet>)> {
    let count = config.data.held_out.min(images.len() / 10);
    // fewer than one for each quartile of the timesteps say nothing
    if count < train::QUARTILES || config.training.evaluate_every == 0 {
        return Ok((images, None));
    }
    let options = LoadOptions { split: Split::Test, limit: Some(count), ..config.load_options() };
    let shape = |images: &ImageSet| (images.channels(), images.height(), images.width(), images.classes());
    let names = |images: &ImageSet| images.class_names().map(<[String]>::to_vec);
    // most files have no parts, and would be opened as what they are
    let path = Path::new(&config.data.path);
    let has_parts = |extension: &std::ffi::OsStr| extension == "zip" || extension == "npz";
    if !path.is_file() || path.extension().is_some_and(has_parts) {
        match open(&options) {
            Ok(test) if shape(&test.images) == shape(&images) && names(&test.images) == names(&images) => {
                return Ok((images, Some(test.images)));
            }
            Ok(test) => say(format_args!(
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

/// What a report says of machine and program.
fn environment(device: &str, group: &dyn ProcessGroup) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |cores| cores.to_string());
    vec![
        format!("diffuse {}", env!("CARGO_PKG_VERSION")),
        format!("{} on {}, {cores} cores", std::env::consts::OS, std::env::consts::ARCH),
        format!("device {device}, {} process(es)", group.world_size()),
        std::env::args().collect::<Vec<_>>().join(" "),
    ]
}

/// A bar on a terminal; elsewhere nothing, and [`show`] prints lines.
fn progress(steps: u64, done: u64) -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta} left")?;
    Ok(ProgressBar::new(steps).with_style(style).with_position(done))
}

fn show(event: &Event, bar: &ProgressBar, steps: u64) {
    let say = |text: String| if bar.is_hidden() { eprintln!("{text}") } else { bar.println(text) };
    match event {
        Event::Step { report, log, images_per_second } => {
            bar.set_position(report.step);
            if let Some(non_finite) = &report.non_finite {
                say(format!("warning: this step is skipped: {non_finite}"));
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
        Event::Grid(path) => say(format!("samples {}", path.display())),
        Event::Saved(_) => {}
        Event::Evaluated(evaluation) => {
            let (held_out, training) = (evaluation.held_out.all, evaluation.training.all);
            let text = |mean: Mean| format!("{:.5} ± {:.5}", mean.mean, mean.error);
            say(format!(
                "step {} held-out loss {}, of trained images {}",
                evaluation.step,
                text(held_out),
                text(training)
            ));
        }
        Event::WentBack { non_finite, to_step } => {
            bar.set_position(*to_step);
            say(format!(
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

/// The run that `--resume` means: the one named, or the one that was saved last.
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
