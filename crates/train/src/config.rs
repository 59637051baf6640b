//! The configuration of a run.

use checkpoint::{Header, ImageFormat, SamplingConfig, format_version};
use data::{ClassFrom, ImageSet, LoadOptions, Padding};
use documented::DocumentedFields;
use noise::LossType;
use schedule::{LevelDistribution, LossWeight, Objective, ScheduleConfig};
use serde::{Deserialize, Serialize};
use unet::NetworkConfig;

use crate::{ema::EmaConfig, error::TrainError, freeze::Part, post_hoc::PostHocEmaConfig};

/// The presets, the default first.
pub const PRESETS: [&str; 5] = ["digits", "mnist", "fashion-mnist", "cifar10", "article"];

/// Everything that a run depends on: `config.toml` of its directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The images.
    pub data: DataConfig,
    /// The network.
    pub unet: NetworkConfig,
    /// Schedule, objective and loss.
    pub diffusion: DiffusionConfig,
    /// Optimizer and loop.
    pub training: TrainingConfig,
    /// Sampling.
    pub sampling: SamplingConfig,
}

/// The images: the table `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// A folder, a file, or the name of a known dataset.
    pub path: String,
    /// Side, or height and width as in `[64, 48]`, that images are resized (short side) and cropped (center) to; unchanged if not
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<ImageSize>,
    /// Side that images are then padded to, evenly, with black; the next size that the network supports if not given. Samples are
    /// cropped back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad_to: Option<usize>,
    /// 1 (gray), 3 (RGB) or 4 (RGBA); if not given, those of the images that carry something. Bands without colors are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// The channels that grids show as red, green and blue, counted from 0, where the channels have no colors (2, more than 4, or
    /// 4 without alpha); the first three if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview_channels: Option<[usize; 3]>,
    /// Keep the 16 bits of 16-bit images; samples are then written with 16 bits, too.
    pub sixteen_bits: bool,
    /// The lowest and the highest value of the source, as in `[0, 4095]`, which become black and white; values beyond are clamped.
    /// If not given, the range of 8 or 16 bits, and for other numbers the usual one (0 to 1, -1 to 1, 0 to 255) that holds all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// The column of a Parquet file, or array of an `.npz`, with the images; detected if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_column: Option<String>,
    /// The column of a Parquet file, of `metadata.csv` or `metadata.jsonl`, or array of an `.npz`, with the labels; detected if not
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// Where classes come from: "auto" (labels or a table, else sub-folders), "folder", "prefix" (the part of the file name before
    /// the first `_`) or "none".
    #[serde(alias = "ignore_classes")]
    pub class_from: ClassFrom,
    /// The most images that are used; all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Leave out images that cannot be read, instead of failing.
    pub skip_unreadable: bool,
    /// Train although more than a few pictures, or the labels, of the data are not used; the head of a run says what.
    pub accept_left_out: bool,
    /// The number of held-out images, whose loss is measured, at most a tenth of all; 0 for none. They are the test part of a dataset
    /// that has one, else images spread evenly over the data.
    pub held_out: usize,
    /// Flip images horizontally with probability 1/2. lucidrains' `augment_horizontal_flip`.
    pub horizontal_flip: bool,
    /// SHA-256 of the training images. A run fills it in, and continues with the same images only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<String>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            path: "mnist-5k".to_owned(),
            image_size: None,
            pad_to: None,
            channels: None,
            preview_channels: None,
            sixteen_bits: false,
            range: None,
            image_column: None,
            label_column: None,
            class_from: ClassFrom::Auto,
            limit: None,
            skip_unreadable: false,
            accept_left_out: false,
            held_out: 200,
            horizontal_flip: false,
            content_hash: None,
        }
    }
}

/// A height and a width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a side such as 64, or [height, width] such as [64, 48]")]
pub enum ImageSize {
    /// Equal height and width.
    Square(usize),
    /// Height and width.
    Sides([usize; 2]),
}

impl ImageSize {
    /// (height, width)
    pub fn sides(self) -> (usize, usize) {
        match self {
            Self::Square(side) => (side, side),
            Self::Sides([height, width]) => (height, width),
        }
    }
}

/// Schedule, objective and loss: the table `[diffusion]`, with the keys of the schedule (`family`, `timesteps`, `zero_terminal_snr`
/// and the parameters of the beta schedule).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
pub struct DiffusionConfig {
    /// `epsilon`, `x0`, `v`, `flow`, `edm` or `edm:SIGMA_DATA`.
    #[serde(default = "default_objective")]
    pub objective: Objective,
    /// `l1`, `l2` or `huber`. The article's `loss_type`.
    #[serde(default)]
    pub loss: LossType,
    /// `uniform`, `snr`, `min_snr` or `min_snr:3`.
    #[serde(default)]
    pub loss_weight: LossWeight,
    /// The distribution of noise levels: `own` (that of the objective's paper), `uniform`, `flow`, `log_normal` or `logit_normal`, the
    /// last two also as `log_normal:MEAN:DEVIATION`.
    #[serde(default)]
    pub level_distribution: LevelDistribution,
    /// Draw timesteps of large losses more often, with smaller weights.
    #[serde(default)]
    pub importance_sampling: bool,
    /// Weight of the variational bound in the hybrid loss, which trains `unet.learned_variance`, 0 or more. 0.001 in the paper.
    #[serde(default = "default_variational_weight")]
    pub variational_weight: f64,
    /// Assign the noise of a micro-batch to the images that are near it.
    #[serde(default)]
    pub immiscible_noise: bool,
    /// Strength of offset noise, 0 to 1; 0 for none.
    #[serde(default)]
    pub offset_noise_strength: f64,
    /// The noise schedule.
    // last: the keys that are not named above go to the beta schedule, which refuses unknown ones
    #[serde(flatten)]
    pub schedule: ScheduleConfig,
}

fn default_objective() -> Objective {
    Objective::V
}

/// Nichol and Dhariwal 2021 (arXiv:2102.09672), equation 16.
fn default_variational_weight() -> f64 {
    0.001
}

impl Default for DiffusionConfig {
    fn default() -> Self {
        Self {
            objective: default_objective(),
            loss: LossType::L2,
            loss_weight: LossWeight::default(),
            level_distribution: LevelDistribution::default(),
            importance_sampling: false,
            variational_weight: default_variational_weight(),
            immiscible_noise: false,
            offset_noise_strength: 0.0,
            schedule: ScheduleConfig::default(),
        }
    }
}

impl DiffusionConfig {
    /// Refuses combinations that are not possible.
    fn validate(&self, learned_variance: bool) -> Result<(), TrainError> {
        let distribution = self.level_distribution.of(self.objective);
        let between_timesteps = distribution != LevelDistribution::Uniform;
        let refuse = |what: String, advice| Err(TrainError::NotTogether { what, advice });
        let with = |key: &str| format!("{key} with diffusion.level_distribution = {distribution}");
        if between_timesteps && self.importance_sampling {
            return refuse(
                with("diffusion.importance_sampling = true"),
                "it counts the losses of whole timesteps; set diffusion.level_distribution = \"uniform\"",
            );
        }
        if between_timesteps && learned_variance && self.variational_weight > 0.0 {
            return refuse(
                with("unet.learned_variance = true"),
                "the bound that teaches it is that of whole timesteps; set diffusion.level_distribution = \"uniform\"",
            );
        }
        if matches!(self.objective, Objective::Edm { .. }) && self.schedule.zero_terminal_snr {
            return refuse(
                format!("diffusion.objective = {} with diffusion.zero_terminal_snr = true", self.objective),
                "it needs a finite sigma at every timestep; set diffusion.zero_terminal_snr = false",
            );
        }
        Ok(())
    }
}

/// The optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Kingma and Ba 2014; weight decay adds to the gradient.
    #[default]
    Adam,
    /// Loshchilov and Hutter 2017; weight decay shrinks the weights.
    Adamw,
}

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateSchedule {
    /// Constant.
    #[default]
    Constant,
    /// Half a cosine down to 0 at the last step.
    Cosine,
    /// A line down to 0 at the last step.
    Linear,
}

/// Number format of the forward and backward pass; weights, optimizer and loss stay in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MixedPrecision {
    /// f32 throughout.
    #[default]
    No,
    /// bfloat16.
    Bf16,
    /// Half precision, with the loss scaled.
    F16,
}

/// Optimizer and loop: the table `[training]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// The model whose weights the training starts from: a model file, a run directory (its `model.safetensors`, the averaged
    /// weights), or a training state (its raw weights); random weights if not given. Network, schedule, objective and sampling are
    /// then those of the model unless they are set, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The parts of the network that are not trained, of `stem`, `time`, `labels`, `down`, `mid`, `up` and `head`.
    pub freeze: Vec<Part>,
    /// Optimizer steps. The article's `train_num_steps`.
    pub steps: u64,
    /// Images in a (micro-)batch, of all processes together. The article's `train_batch_size`.
    pub batch_size: usize,
    /// The number of micro-batches in a step. The article's `gradient_accumulate_every`.
    pub gradient_accumulate_every: usize,
    /// The number of parts of a micro-batch, each computed by its own thread: faster on a CPU with small networks. They are
    /// split among several processes. The result depends on this number in the last bits, and not on the number of cores.
    pub parallel_parts: usize,
    /// Highest learning rate. The article's `train_lr`.
    pub learning_rate: f64,
    /// The number of steps over which the rate rises from 0.
    pub warmup_steps: u64,
    /// `constant`, `cosine` or `linear`.
    pub rate_schedule: RateSchedule,
    /// `adam` or `adamw`.
    #[serde(alias = "optimiser")]
    pub optimizer: OptimizerKind,
    /// Decay of the running means of the gradient and of its square.
    pub betas: [f64; 2],
    /// Added to the denominator of the update.
    pub epsilon: f64,
    /// Weight decay; 0 for none.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient, to which it is clipped; 0 for no clipping. lucidrains' `max_grad_norm`.
    pub max_gradient_norm: f64,
    /// The average of the weights that samples are drawn from. The article's `ema_decay` is `ema.decay`.
    pub ema: EmaConfig,
    /// Averages of the weights whose length is chosen after the training.
    pub post_hoc_ema: PostHocEmaConfig,
    /// `no`, `bf16` or `f16`. The article's `amp`.
    pub mixed_precision: MixedPrecision,
    /// Whether f32 may be TF32 on the tensor cores of a GPU: convolutions round their factors to 10 bits of mantissa, as PyTorch's
    /// do by default. No other device and no other number format heeds it.
    pub tf32: bool,
    /// Recompute parts of the forward pass in the backward pass, to save memory.
    pub gradient_checkpointing: bool,
    /// Train with class labels, if the data has them.
    pub class_labels: bool,
    /// Probability that a label is replaced by the null class (classifier-free guidance).
    pub label_dropout: f64,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The number of steps between two lines of `metrics.jsonl` and of the terminal; 0 for none.
    pub log_every: u64,
    /// The number of steps between two grids of samples; 0 for one at the end only.
    pub sample_every: u64,
    /// The number of steps between two measurements of the held-out loss; 0 for none.
    pub evaluate_every: u64,
    /// The number of steps between two training states; 0 for one at the end only.
    pub checkpoint_every: u64,
    /// The number of training states that are kept, the newest ones, at least 1.
    pub keep_checkpoints: usize,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            from: None,
            freeze: Vec::new(),
            steps: 100_000,
            batch_size: 16,
            gradient_accumulate_every: 1,
            parallel_parts: 1,
            learning_rate: 1e-4,
            warmup_steps: 0,
            rate_schedule: RateSchedule::Constant,
            optimizer: OptimizerKind::Adam,
            betas: [0.9, 0.99],
            epsilon: 1e-8,
            weight_decay: 0.0,
            max_gradient_norm: 1.0,
            ema: EmaConfig::default(),
            post_hoc_ema: PostHocEmaConfig::default(),
            mixed_precision: MixedPrecision::No,
            tf32: true,
            gradient_checkpointing: false,
            class_labels: false,
            label_dropout: 0.1,
            seed: 0,
            log_every: 50,
            sample_every: 1000,
            evaluate_every: 500,
            checkpoint_every: 1000,
            keep_checkpoints: 2,
        }
    }
}

impl Config {
    /// A preset by its name: a file of `crates/train/presets`.
    ///
    /// # Errors
    /// [`TrainError::UnknownPreset`] lists the names.
    pub fn preset(name: &str) -> Result<Self, TrainError> {
        let text = match name {
            "digits" => include_str!("../presets/digits.toml"),
            "mnist" => include_str!("../presets/mnist.toml"),
            "fashion-mnist" => include_str!("../presets/fashion-mnist.toml"),
            "cifar10" => include_str!("../presets/cifar10.toml"),
            "article" => include_str!("../presets/article.toml"),
            _ => return Err(TrainError::UnknownPreset { name: name.to_owned() }),
        };
        Ok(toml::from_str(text).unwrap_or_else(|error| unreachable!("the preset {name}, which a test reads: {error}")))
    }

    /// The documentation of a key such as `training.steps`; None for an unknown key.
    pub fn field_docs(&self, key: &str) -> Option<&'static str> {
        let (table, name) = key.split_once('.')?;
        let found = match (table, name.split_once('.')) {
            ("data", None) => DataConfig::get_field_docs(name),
            ("unet", None) => return self.unet.field_docs(name),
            ("diffusion", None) => {
                DiffusionConfig::get_field_docs(name).or_else(|_| ScheduleConfig::get_field_docs(name))
            }
            ("training", None) => TrainingConfig::get_field_docs(name),
            ("training", Some(("ema", name))) => EmaConfig::get_field_docs(name),
            ("training", Some(("post_hoc_ema", name))) => PostHocEmaConfig::get_field_docs(name),
            ("sampling", None) => SamplingConfig::get_field_docs(name),
            _ => return None,
        };
        found.ok()
    }

    /// The options for crate `data`. Without `data.pad_to`, images are padded to a size that the network supports.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            size: self.data.image_size.map(ImageSize::sides),
            channels: self.data.channels,
            padding: match self.data.pad_to {
                Some(side) => Padding::To { height: side, width: side, fill: 0 },
                None => Padding::Multiple { of: self.unet.downsample_factor(), fill: 0 },
            },
            sixteen_bits: self.data.sixteen_bits,
            range: self.data.range,
            image_column: self.data.image_column.clone(),
            label_column: self.data.label_column.clone(),
            class_from: self.data.class_from,
            skip_unreadable: self.data.skip_unreadable,
            limit: self.data.limit,
            ..LoadOptions::default()
        }
    }

    /// Completes the configuration from the images: channels, number of classes, content hash.
    pub fn resolved(mut self, images: &ImageSet) -> Self {
        self.data.content_hash = Some(images.content_hash());
        self.unet.set_channels(images.channels());
        self.unet.set_classes(if self.training.class_labels { images.classes() } else { 0 });
        self
    }

    /// Checks every value, before any image is read.
    ///
    /// # Errors
    /// [`TrainError`] names the key, its value and the possible values.
    pub fn validate(&self) -> Result<(), TrainError> {
        let training = &self.training;
        let check = |key: &'static str, value: f64, good: bool, range: &'static str| {
            if good { Ok(()) } else { Err(TrainError::OutOfRange { key, value, range }) }
        };
        let count = |key, value: usize| check(key, value as f64, (1..=1 << 20).contains(&value), "1 to 1048576");
        let fraction = |key, value: f64| check(key, value, (0.0..1.0).contains(&value), "at least 0 and below 1");
        if let Some([low, high]) = self.data.range
            && !(low.is_finite() && high.is_finite() && low < high)
        {
            let what = format!("data.range = [{low}, {high}]");
            return Err(TrainError::NotTogether {
                what,
                advice: "the lowest value comes first, then a higher one, both finite",
            });
        }
        count("training.batch_size", training.batch_size)?;
        count("training.gradient_accumulate_every", training.gradient_accumulate_every)?;
        count("training.parallel_parts", training.parallel_parts)?;
        count("training.keep_checkpoints", training.keep_checkpoints)?;
        check("training.steps", training.steps as f64, training.steps > 0, "at least 1")?;
        let rate = training.learning_rate;
        check("training.learning_rate", rate, rate.is_finite() && rate > 0.0, "above 0")?;
        fraction("training.betas", training.betas[0])?;
        fraction("training.betas", training.betas[1])?;
        check("training.epsilon", training.epsilon, training.epsilon > 0.0, "above 0")?;
        let decay = training.weight_decay;
        check("training.weight_decay", decay, decay.is_finite() && decay >= 0.0, "0 or more")?;
        let norm = training.max_gradient_norm;
        check("training.max_gradient_norm", norm, norm >= 0.0, "0 (no clipping) or more")?;
        fraction("training.label_dropout", training.label_dropout)?;
        training.ema.validate()?;
        training.post_hoc_ema.validate()?;
        self.diffusion.validate(self.unet.learned_variance())?;
        let strength = self.diffusion.offset_noise_strength;
        check("diffusion.offset_noise_strength", strength, (0.0..=1.0).contains(&strength), "0 to 1")?;
        let weight = self.diffusion.variational_weight;
        check("diffusion.variational_weight", weight, weight.is_finite() && weight >= 0.0, "0 or more")?;
        let sampling = &self.sampling;
        count("sampling.batch_size", sampling.batch_size)?;
        count("sampling.parallel_parts", sampling.parallel_parts)?;
        check("sampling.eta", sampling.eta, sampling.eta.is_finite() && sampling.eta >= 0.0, "0 or more")?;
        check("sampling.guidance", sampling.guidance, sampling.guidance.is_finite(), "a finite number")?;
        check("sampling.count", sampling.count as f64, (1..=1 << 20).contains(&sampling.count), "1 to 1048576")?;
        self.unet.validate()?;
        let schedule = self.diffusion.schedule.build()?;
        schedule.levels(sampling.spacing, sampling.steps)?;
        if self.diffusion.objective == Objective::Epsilon && schedule.level(schedule.timesteps() - 1).alpha_bar == 0.0 {
            let family = self.diffusion.schedule.family.name();
            return Err(TrainError::NotTogether {
                what: format!(
                    "diffusion.objective = epsilon with a schedule ({family}) that ends in pure noise \
                     (diffusion.zero_terminal_snr)"
                ),
                advice: "sampling begins there, where the noise says nothing of the image, and would give black images; set \
                         diffusion.objective = \"v\" or diffusion.zero_terminal_snr = false",
            });
        }
        Ok(())
    }

    /// Checks `data.preview_channels` against the images.
    ///
    /// # Errors
    /// [`TrainError::NotTogether`] where the images have colors, or lack a channel.
    pub(crate) fn check_preview_channels(&self, images: &ImageSet) -> Result<(), TrainError> {
        let Some(channels) = self.data.preview_channels else { return Ok(()) };
        let what = format!("data.preview_channels = {channels:?} and images of {} channels", images.channels());
        if images.has_colors() {
            return Err(TrainError::NotTogether {
                what,
                advice: "leave it out: gray, RGB and RGBA are shown as they are",
            });
        }
        if channels.iter().any(|&channel| channel >= images.channels()) {
            return Err(TrainError::NotTogether { what, advice: "channels are counted from 0" });
        }
        Ok(())
    }

    /// The header of the model file that a run with these images writes.
    pub fn header(&self, images: &ImageSet) -> Header {
        let (content_height, content_width) = images.content_size();
        Header {
            format_version: format_version(&self.unet),
            unet: self.unet.clone(),
            schedule: self.diffusion.schedule.clone(),
            objective: self.diffusion.objective,
            image: ImageFormat {
                channels: images.channels(),
                height: images.height(),
                width: images.width(),
                content_height,
                content_width,
                bits: if images.sixteen_bits() { 16 } else { 8 },
                preview_channels: (!images.has_colors())
                    .then(|| self.data.preview_channels.unwrap_or(ImageFormat::first_channels(images.channels()))),
            },
            classes: match self.unet.classes() {
                0 => Vec::new(),
                _ => images.class_names().map(<[String]>::to_vec).unwrap_or_default(),
            },
            sampling: self.sampling.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_the_data_is_checked_and_passed_on() {
        let config =
            |range: &str| toml::from_str::<Config>(&format!("[data]\nrange = {range}")).expect("a configuration");
        let good = config("[0, 4095]");
        assert!(good.validate().is_ok());
        assert_eq!(good.load_options().range, Some([0.0, 4095.0]));
        for bad in ["[1, 1]", "[4095, 0]", "[0, inf]", "[nan, 1]"] {
            let error = config(bad).validate().expect_err(bad).to_string();
            assert!(error.contains("data.range = [") && error.contains("lowest value comes first"), "{error}");
        }
    }
}
