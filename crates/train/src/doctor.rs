//! Problems of a training, found before it starts.

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    time::Instant,
};

use burn::tensor::{DType, Device};
use data::{
    ImageSet,
    memory::{available_bytes, peak_bytes},
};
use schedule::{Objective, Schedule};
use serde::Serialize;

use crate::{
    config::{Config, MixedPrecision},
    error::TrainError,
    trainer::Trainer,
};

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Information.
    Note,
    /// The training will run, with worse results than it could have.
    Warning,
    /// The training will fail, or its result will be useless.
    Problem,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// A property of a configuration or its data that affects the training, and what to do about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// The finding with its figures, and what to do.
    pub text: String,
    /// Everything that it is about, a line each, such as all files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
}

impl Finding {
    /// A finding without items.
    pub fn new(severity: Severity, text: String) -> Self {
        Self { severity, text, items: Vec::new() }
    }
}

fn note(text: String) -> Finding {
    Finding::new(Severity::Note, text)
}

fn warning(text: String) -> Finding {
    Finding::new(Severity::Warning, text)
}

/// Classes with fewer images than this are hardly learned.
const FEW_IMAGES: usize = 10;
/// A class that is rarer than another by this factor is drawn worse.
const IMBALANCE: f64 = 10.0;
/// A crop that loses more than this share of an image on average is reported.
const CROPPED_SHARE: f64 = 0.2;
/// With more passes over the data than this a network may memorize it.
const MANY_PASSES: f64 = 200.0;

/// Checks the images: copies, sizes, what a crop loses, classes, passes over the data.
pub fn check_data(config: &Config, images: &ImageSet) -> Vec<Finding> {
    let checks = [check_copies, check_sizes, check_classes, check_passes];
    checks.iter().flat_map(|check| check(config, images)).collect()
}

fn check_copies(_: &Config, images: &ImageSet) -> Vec<Finding> {
    let total = images.len();
    let mut seen: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut copies = Vec::new();
    for index in 0..total {
        let mut hasher = DefaultHasher::new();
        images.image(index).hash(&mut hasher);
        let alike = seen.entry(hasher.finish()).or_default();
        match alike.iter().find(|other| images.image(**other) == images.image(index)) {
            Some(other) => copies.push((*other, index)),
            None => alike.push(index),
        }
    }
    let name = |index: usize| images.title(index).unwrap_or_else(|| format!("image {index}"));
    let Some((first, second)) = copies.first() else { return Vec::new() };
    let severity = if copies.len() * 20 > total { Severity::Warning } else { Severity::Note };
    let text = format!(
        "{} of {total} images are copies of others (the first: {} of {}); images that occur often are memorized, so delete the copies",
        copies.len(),
        name(*second),
        name(*first)
    );
    let items =
        copies.iter().map(|(first, second)| format!("{} is a copy of {}", name(*second), name(*first))).collect();
    vec![Finding { severity, text, items }]
}

fn check_sizes(config: &Config, images: &ImageSet) -> Vec<Finding> {
    let (Some(sizes), Some(target)) = (images.source_sizes(), config.data.image_size) else { return Vec::new() };
    let mut found = Vec::new();
    let (height, width) = target.sides();
    let count: usize = sizes.values().sum();
    let kept = |size: &(usize, usize)| {
        let (of_target, of_image) = (height as f64 / width as f64, size.0 as f64 / size.1 as f64);
        of_target.min(of_image) / of_target.max(of_image)
    };
    let lost =
        sizes.iter().map(|(size, images)| (1.0 - kept(size)) * *images as f64).sum::<f64>() / count.max(1) as f64;
    if lost > CROPPED_SHARE {
        found.push(warning(format!(
            "the center crop loses {:.0} % of an image on average; crop the images yourself if their borders matter",
            100.0 * lost
        )));
    }
    let smaller: usize = sizes.iter().filter(|((h, w), _)| *h < height || *w < width).map(|(_, images)| images).sum();
    if smaller > 0 {
        let side = if height == width { height.to_string() } else { format!("[{height}, {width}]") };
        found.push(warning(format!(
            "{smaller} of {count} images are smaller than data.image_size = {side} and are enlarged, which the network learns; use a \
             smaller size or larger images"
        )));
    }
    found
}

fn check_classes(config: &Config, images: &ImageSet) -> Vec<Finding> {
    let is_conditional = config.training.class_labels;
    let Some(labels) = images.labels() else {
        let text = "training.class_labels = true, but the data has no labels: the model will have no classes";
        return if is_conditional { vec![warning(text.to_owned())] } else { Vec::new() };
    };
    let mut counts = vec![0usize; images.classes()];
    labels.iter().for_each(|label| counts[*label as usize] += 1);
    let extremes =
        (0..counts.len()).min_by_key(|class| counts[*class]).zip((0..counts.len()).max_by_key(|class| counts[*class]));
    if !is_conditional && counts.len() > 1 {
        return vec![note(format!(
            "the data has {} classes that are not used; training.class_labels = true makes a model that draws a class of choice and can be \
             guided",
            counts.len()
        ))];
    }
    let Some((rare, common)) = extremes.filter(|_| is_conditional) else { return Vec::new() };
    let name = |class: usize| images.class_names().map_or_else(|| class.to_string(), |names| names[class].clone());
    let (few, many) = (counts[rare], counts[common]);
    if few < FEW_IMAGES {
        let text =
            format!("the class `{}` has {few} images, too few to be learned: add some, or leave it out", name(rare));
        vec![warning(text)]
    } else if many as f64 > IMBALANCE * few as f64 {
        vec![warning(format!(
            "the class `{}` has {many} images and `{}` only {few}: the rare class will be drawn worse; add images of it",
            name(common),
            name(rare)
        ))]
    } else {
        Vec::new()
    }
}

fn check_passes(config: &Config, images: &ImageSet) -> Vec<Finding> {
    let (training, total) = (&config.training, images.len());
    let drawn = training.steps as f64 * (training.batch_size * training.gradient_accumulate_every) as f64;
    let passes = drawn / total.max(1) as f64;
    let mut found = Vec::new();
    let batch = training.batch_size * training.gradient_accumulate_every;
    if batch > total {
        found.push(warning(format!("a batch of {batch} is larger than the {total} images, which it repeats")));
    }
    if passes < 1.0 {
        found.push(warning(format!(
            "{drawn} images will be drawn of {total}: not every image is seen; train for more training.steps"
        )));
    } else if passes > MANY_PASSES {
        found.push(note(format!(
            "each image is seen {passes:.0} times: check whether the held-out loss rises while that of trained images falls \
             (memorization)"
        )));
    }
    found
}

/// Checks the schedule: the signal at its end, its number of timesteps, and objectives that do not go with it.
pub fn check_schedule(config: &Config, schedule: &Schedule) -> Vec<Finding> {
    let mut found = Vec::new();
    let (timesteps, objective) = (schedule.timesteps(), config.diffusion.objective);
    let last = schedule.level(timesteps - 1);
    if last.alpha_bar == 0.0 && objective == Objective::Epsilon {
        let text = "the last timestep is pure noise (zero_terminal_snr), where a prediction of epsilon has no information about the image: \
                    set diffusion.objective = \"v\""
            .to_owned();
        found.push(Finding::new(Severity::Problem, text));
    } else if objective == Objective::Epsilon && last.signal_scale() < 1e-3 {
        found.push(note(format!(
            "at the last timestep errors of epsilon are multiplied by {:.0} in x_0; samplers that clip x_0 tolerate it, others need \
             diffusion.objective = \"v\"",
            last.sigma()
        )));
    }
    if last.signal_scale() > 0.05 {
        found.push(warning(format!(
            "at the last timestep {:.1} % of the image is left, but sampling starts from pure noise: samples will tend to a medium \
             brightness. Use more timesteps, another beta schedule, or diffusion.zero_terminal_snr = true with the objective v",
            100.0 * last.signal_scale()
        )));
    }
    if timesteps < 50 {
        found.push(warning(format!(
            "diffusion.timesteps = {timesteps} is coarse: papers use 1000, and sampling can take fewer steps than that"
        )));
    }
    found
}

/// Checks the number format: one that the device computes faster.
pub fn check_precision(config: &Config, device: &Device) -> Vec<Finding> {
    let formats = [("bf16", DType::BF16), ("f16", DType::F16)];
    let faster = formats.iter().find(|(_, dtype)| kernels::tensor_cores::compute_in(device, *dtype));
    match faster {
        Some((name, _)) if config.training.mixed_precision == MixedPrecision::No => vec![note(format!(
            "the device has tensor cores for {name}: training.mixed_precision = \"{name}\" takes about half the memory, and large \
             networks are faster"
        ))],
        _ => Vec::new(),
    }
}

/// Time and memory of a few steps, extrapolated to the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// Images in the steps that were timed.
    pub images: usize,
    /// Seconds of a whole step of the configuration.
    pub step_seconds: f64,
    /// Bytes for a whole micro-batch, of main memory or, on a GPU, of the device's; None where neither is reported.
    pub memory_bytes: Option<u64>,
    /// Bytes of main memory that this process may use; None on a GPU.
    pub available_bytes: Option<u64>,
    /// `training.batch_size` and `training.gradient_accumulate_every` of a micro-batch that fits, if the configuration's does not.
    pub proposal: Option<(usize, usize)>,
}

/// Takes a few steps with an eighth and a quarter of the micro-batch and extrapolates: memory is linear and time proportional in the
/// number of images.
///
/// # Errors
/// Those of [`Trainer::new`] and [`Trainer::step`].
pub fn measure(config: &Config, images: &ImageSet, device: &Device) -> Result<Measurement, TrainError> {
    let batch = config.training.batch_size;
    let (few, more) = ((batch / 8).max(1), (batch / 4).max(2).min(batch.max(1)));
    let on_gpu = kernels::is_gpu(device);
    let run = |size: usize| -> Result<(f64, Option<u64>), TrainError> {
        let mut config = config.clone();
        (config.training.batch_size, config.training.gradient_accumulate_every) = (size, 1);
        let mut trainer = Trainer::new(config, images.clone(), device)?;
        trainer.step()?;
        let started = Instant::now();
        trainer.step()?;
        trainer.step()?;
        let seconds = started.elapsed().as_secs_f64() / 2.0;
        // the device keeps what it has reserved
        let of_device = || device.memory_pool_usage().map(|usage| usage.bytes_reserved);
        Ok((seconds, if on_gpu { of_device() } else { peak_bytes() }))
    };
    let (_, memory_of_few) = run(few)?;
    let (seconds, memory_of_more) = run(more)?;
    let (mut memory_bytes, mut proposal) = (None, None);
    let available_bytes = if on_gpu { None } else { available_bytes() };
    if let (Some(small), Some(large)) = (memory_of_few, memory_of_more) {
        let for_each = large.saturating_sub(small) / (more - few).max(1) as u64;
        let of = |size: usize| large + for_each * size.saturating_sub(more) as u64;
        memory_bytes = Some(of(batch));
        let room = available_bytes.map(|free| free / 10 * 9);
        if let Some(room) = room.filter(|room| of(batch) > *room) {
            let fits =
                (0..=batch.ilog2()).map(|halvings| batch >> halvings).find(|size| *size >= 1 && of(*size) <= room);
            let accumulate = |size: usize| config.training.gradient_accumulate_every * batch.div_ceil(size);
            proposal = fits.map(|size| (size, accumulate(size)));
        }
    }
    let whole = (batch * config.training.gradient_accumulate_every) as f64 / more as f64;
    Ok(Measurement { images: more, step_seconds: seconds * whole, memory_bytes, available_bytes, proposal })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(count: usize, labels: Option<Vec<u32>>) -> ImageSet {
        // no copies: each image is its index in binary
        let pixels = (0..count).flat_map(|image| (0..16).map(move |bit| ((image >> bit) % 2) as u8)).collect();
        ImageSet::new("some", pixels, [count, 4, 4, 1], labels, None).unwrap()
    }

    fn texts(found: Vec<Finding>) -> String {
        found.into_iter().map(|one| format!("{}: {}\n", one.severity, one.text)).collect()
    }

    #[test]
    fn good_data_and_a_good_schedule_give_no_finding() {
        let mut config = Config::preset("digits").unwrap();
        config.training.steps = 100;
        let labels = (0..1000).map(|index| index % 10).collect();
        assert_eq!(check_data(&config, &images(1000, Some(labels))), []);
        let schedule = config.diffusion.schedule.build().unwrap();
        assert_eq!(check_schedule(&config, &schedule), []);
    }

    #[test]
    fn each_problem_of_the_data_is_found() {
        let mut config = Config::preset("digits").unwrap();
        config.training.steps = 1;
        let same = ImageSet::new("same", vec![7; 4 * 16], [4, 4, 4, 1], None, None).unwrap();
        let text = texts(check_data(&config, &same));
        assert!(text.contains("warning: 3 of 4 images are copies of others (the first: image 1 of image 0)"), "{text}");
        assert!(text.contains("no labels"), "{text}");
        assert_eq!(check_data(&config, &same)[0].items.last().unwrap(), "image 3 is a copy of image 0");
        config.training.steps = 1_000_000;
        assert!(texts(check_data(&config, &same)).contains("memorization"));
        assert!(texts(check_data(&config, &same)).contains("is larger than the 4 images"));
        config.training.steps = 1;
        let rare = images(100, Some((0..100).map(|index| u32::from(index < 3)).collect()));
        let text = texts(check_data(&config, &rare));
        assert!(text.contains("the class `1` has 3 images") && text.contains("not every image is seen"), "{text}");
        let uneven = images(300, Some((0..300).map(|index| u32::from(index < 20)).collect()));
        assert!(texts(check_data(&config, &uneven)).contains("the rare class"));
        config.training.class_labels = false;
        assert!(texts(check_data(&config, &uneven)).contains("2 classes that are not used"));
    }

    #[test]
    fn each_problem_of_a_schedule_is_found() {
        let found = |settings: &str, objective: Objective| {
            let mut config = Config::preset("digits").unwrap();
            config.diffusion.schedule = toml::from_str(settings).unwrap();
            config.diffusion.objective = objective;
            texts(check_schedule(&config, &config.diffusion.schedule.build().unwrap()))
        };
        assert!(found("family = 'scaled_linear'", Objective::V).contains("6.8 % of the image is left"));
        assert!(found("family = 'cosine'\ntimesteps = 20", Objective::V).contains("timesteps = 20 is coarse"));
        assert!(
            found("family = 'cosine'", Objective::Epsilon).starts_with("note: at the last timestep errors of epsilon")
        );
        let zero = found("family = 'cosine'\nzero_terminal_snr = true", Objective::Epsilon);
        assert!(zero.starts_with("problem: the last timestep is pure noise"), "{zero}");
    }

    #[test]
    fn a_measurement_is_of_the_whole_step() {
        let mut config = Config::preset("digits").unwrap();
        let unet = config.unet.as_unet_mut().expect("lucidrains' network");
        (unet.dim, unet.dim_mults, unet.attention) = (8, vec![1], Vec::new());
        (config.training.batch_size, config.training.parallel_parts) = (16, 1);
        config.training.gradient_accumulate_every = 2;
        let images = data::open("mnist-5k", &config.load_options()).unwrap().images;
        let measured = measure(&config, &images, &Device::flex()).unwrap();
        assert_eq!((measured.images, measured.proposal), (4, None));
        assert!(measured.step_seconds > 0.0, "{measured:?}");
    }
}
