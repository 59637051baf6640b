//! One training step, and the state that it changes.

use std::{collections::BTreeSet, panic::resume_unwind, sync::Arc};

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Device, FloatDType, Int, Tensor, TensorData},
};
use checkpoint::{Header, Model};
use data::{ImageSet, memory::available_bytes, order::Order};
use noise::{
    Noise, NoiseLevel, Prediction, Purpose, forward::q_sample, network_input, network_times, target,
    variational::variational_terms,
};
use parallel::{ProcessGroup, SingleProcess, shard};
use schedule::{LevelDistribution, Schedule};
use unet::{Condition, Unet};

use crate::{
    config::{Config, MixedPrecision},
    ema::Ema,
    error::TrainError,
    immiscible::assign_noise,
    importance::ImportanceSampler,
    non_finite::{MAX_SKIPPED, NonFiniteSample, NonFiniteStep, SKIP_WINDOW},
    optimizer::{Adam, AdamConfig},
    parameters::{Gradients, add, clip_by_global_norm, flat_gradients, flat_parameters, map_flat},
    post_hoc::PowerAverages,
    quartiles::{QuartileLosses, quartile_of},
    rate::learning_rate,
    reduction::{SampleLoss, StepSums, sum_gradients},
};

/// What a step did.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Number of the step, from 1.
    pub step: u64,
    /// Weighted loss, the mean over the whole batch.
    pub loss: f64,
    /// Norm of the whole gradient before clipping.
    pub gradient_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Why the step was skipped: nothing but its number changed.
    pub non_finite: Option<Box<NonFiniteStep>>,
}

/// The noise level of a training sample.
#[derive(Clone, Copy, Debug)]
struct LevelDraw {
    level: NoiseLevel,
    /// Its timestep, where the level is that of one.
    timestep: Option<usize>,
    /// What the loss is multiplied by because some timesteps are drawn more often than others.
    importance: f64,
}

/// Some samples of a step, up to their noise.
struct Batch {
    /// Where they lie in the run.
    positions: Vec<u64>,
    /// The first position of their micro-batch.
    first: u64,
    /// Whose noise each sample has; its own, but for immiscible noise.
    noise_positions: Vec<u64>,
    draws: Vec<LevelDraw>,
    /// `[batch, channels, height, width]`
    x_0: Tensor<4>,
    /// `[batch]`
    labels: Option<Tensor<1, Int>>,
}

/// What a part of a micro-batch adds to a step.
struct Part {
    /// Its share of the mean loss.
    loss: f64,
    gradients: Gradients,
    /// Level and loss of each sample, before it is weighted by how often its timestep is drawn.
    losses: Vec<(LevelDraw, f64)>,
}

/// Network, optimizer and average, and the data they learn from.
pub struct Trainer {
    pub(crate) config: Config,
    pub(crate) images: ImageSet,
    pub(crate) schedule: Schedule,
    pub(crate) noise: Noise,
    order: Order,
    device: Device,
    pub(crate) step: u64,
    /// Some but for the moment in which the optimizer has it.
    pub(crate) unet: Option<Unet>,
    pub(crate) optimizer: Adam,
    pub(crate) ema: Ema,
    pub(crate) post_hoc: PowerAverages,
    /// None where every timestep is drawn equally often, or none is.
    pub(crate) importance: Option<ImportanceSampler>,
    /// Steps that are not taken, because they led to numbers that are not finite.
    pub(crate) skipped: BTreeSet<u64>,
    /// The least held-out loss so far, and its step.
    pub(crate) best: Option<(u64, f64)>,
    /// Losses of the samples of steps that were taken since the last line of `metrics.jsonl`.
    pub(crate) quartiles: QuartileLosses,
    /// Those that share the work.
    pub(crate) group: Arc<dyn ProcessGroup>,
}

impl Trainer {
    /// Builds the network with weights that follow from the seed. Channels and classes come from the images.
    ///
    /// # Errors
    /// [`TrainError`] names the key of the configuration that is not possible.
    pub fn new(config: Config, images: ImageSet, device: &Device) -> Result<Self, TrainError> {
        // before the images are looked at, which takes longer, and then with what follows from them
        config.validate()?;
        let config = config.resolved(&images);
        config.validate()?;
        if images.is_empty() {
            return Err(TrainError::NoImages { name: images.name().to_owned() });
        }
        config.unet.check_image_size(images.height(), images.width())?;
        check_precision(config.training.mixed_precision, device)?;
        check_memory(&config, &images, device)?;
        let mut device = device.clone().autodiff();
        if config.training.gradient_checkpointing {
            device = device.gradient_checkpointing();
        }
        let schedule = config.diffusion.schedule.build()?;
        let noise = Noise::new(config.training.seed);
        let weights = noise.stream(Purpose::Weights);
        let unet = config.unet.init(&device)?.initialize(
            |parameter, out| weights.normal(parameter, 0, out),
            |parameter, out| weights.uniform(parameter, 0, out),
        );
        Ok(Self {
            order: Order::new(images.len(), config.training.seed),
            optimizer: Adam::new(AdamConfig::from(&config.training), &unet),
            ema: Ema::new(config.training.ema, &unet),
            post_hoc: PowerAverages::new(&config.training.post_hoc_ema, &unet),
            importance: config.diffusion.importance_sampling.then(|| ImportanceSampler::new(schedule.timesteps())),
            config,
            images,
            schedule,
            noise,
            device,
            step: 0,
            skipped: BTreeSet::new(),
            best: None,
            quartiles: QuartileLosses::default(),
            group: Arc::new(SingleProcess),
            unet: Some(unet),
        })
    }

    /// The configuration, with what followed from the images filled in.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// The network in training.
    pub fn unet(&self) -> &Unet {
        match &self.unet {
            Some(unet) => unet,
            None => unreachable!("only a step takes it, and gives it back"),
        }
    }

    /// The averaged network with everything that sampling needs.
    pub fn model(&self) -> Model {
        Model { unet: self.ema.unet(self.unet()), header: self.header() }
    }

    /// The averages of `training.post_hoc_ema` with their relative widths, as models; none unless snapshots are asked for.
    pub fn power_averages(&self) -> impl Iterator<Item = (f64, Model)> {
        self.post_hoc.widths.iter().zip(&self.post_hoc.averages).map(|(width, average)| {
            let unet = map_flat(self.unet().valid(), |index, _| average[index].clone());
            (*width, Model { unet, header: self.header() })
        })
    }

    /// The ranks that share the work; one alone, but for [`Trainer::distributed`] others.
    pub fn group(&self) -> &dyn ProcessGroup {
        &*self.group
    }

    fn header(&self) -> Header {
        self.config.header(&self.images)
    }

    /// One step: algorithm 1 of the DDPM paper, over all micro-batches, then clipping, Adam and the average.
    ///
    /// A step whose loss or gradient is not finite is skipped: its number counts, and nothing else changes; the report says
    /// what is known of it.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] if that was the fourth such step within a hundred; [`TrainError::BrokenWeights`] if the weights
    /// are not finite themselves; [`TrainError::Ranks`] if other ranks do not answer. Then nothing was changed.
    pub fn step(&mut self) -> Result<StepReport, TrainError> {
        let training = &self.config.training;
        let (micro_batches, batch_size) = (training.gradient_accumulate_every, training.batch_size);
        let learning_rate = learning_rate(training, self.step);
        let largest_norm = training.max_gradient_norm;
        let (mut gradients, mut loss, mut losses) = (None::<Gradients>, 0.0, Vec::new());
        let start = self.step * (micro_batches * batch_size) as u64;
        for micro_batch in 0..micro_batches as u64 {
            let start = start + micro_batch * batch_size as u64;
            let positions: Vec<u64> = (start..start + batch_size as u64).collect();
            for part in self.parts(&positions) {
                loss += part.loss / micro_batches as f64;
                gradients = Some(add(gradients, part.gradients));
                losses.extend(part.losses.into_iter().map(|(draw, loss)| {
                    let quartile = quartile_of(draw.level, &self.schedule);
                    SampleLoss { micro_batch, quartile, timestep: draw.timestep, loss }
                }));
            }
        }
        let mut gradients = sum_gradients(gradients.unwrap_or_default(), &*self.group)?;
        let StepSums { loss, losses } = StepSums { loss, losses }.over(&*self.group)?;
        if micro_batches > 1 {
            let mean = |gradient: Tensor<1>| gradient / micro_batches as f64;
            gradients = gradients.into_iter().map(|gradient| gradient.map(mean)).collect();
        }
        let (gradient_norm, clip) = clip_by_global_norm(&gradients, largest_norm);
        let mut report = StepReport { step: self.step + 1, loss, gradient_norm, learning_rate, non_finite: None };
        if !(loss.is_finite() && gradient_norm.is_finite()) {
            let positions: Vec<u64> = (start..start + (micro_batches * batch_size) as u64).collect();
            let non_finite = self.diagnose(&report, &gradients, &positions);
            if non_finite.has_broken_weights() {
                return Err(TrainError::BrokenWeights { non_finite: Box::new(non_finite) });
            }
            self.skip(report.step, &non_finite)?;
            report.non_finite = Some(Box::new(non_finite));
        }
        if self.skipped.contains(&report.step) {
            self.step += 1;
            return Ok(report);
        }
        let (optimizer, average) = (&mut self.optimizer, self.ema.next());
        self.unet = self.unet.take().map(|unet| optimizer.step(unet, gradients, clip, learning_rate, average));
        self.step += 1;
        if let Some(unet) = &self.unet {
            self.post_hoc.update(self.step, unet);
        }
        if let Some(importance) = &mut self.importance {
            let drawn = losses.iter().filter_map(|sample| Some((sample.timestep?, sample.loss)));
            importance.observe(&drawn.collect::<Vec<_>>());
        }
        for SampleLoss { quartile, loss, .. } in losses {
            self.quartiles.observe(quartile, loss);
        }
        Ok(report)
    }

    /// Marks a step as one that is not taken, now or when it comes again.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] if there are too many of them lately.
    pub(crate) fn skip(&mut self, step: u64, non_finite: &NonFiniteStep) -> Result<(), TrainError> {
        self.skipped.insert(step);
        let lately = self.skipped.range(step.saturating_sub(SKIP_WINDOW)..).count();
        if lately > MAX_SKIPPED {
            return Err(TrainError::Diverged { non_finite: Box::new(non_finite.clone()), lately });
        }
        Ok(())
    }

    /// What is not finite in a step: weights, gradients, samples.
    fn diagnose(&mut self, report: &StepReport, gradients: &Gradients, positions: &[u64]) -> NonFiniteStep {
        let is_finite = |tensor: &Tensor<1>| tensor.to_data().iter::<f32>().all(f32::is_finite);
        let names = self.unet().parameter_names();
        let weights = flat_parameters(self.unet());
        let broken_weights = names.iter().zip(&weights).filter(|(_, tensor)| !is_finite(tensor));
        let weights: Vec<String> = broken_weights.map(|(name, _)| name.clone()).collect();
        let broken_gradients =
            names.iter().zip(gradients).filter(|(_, gradient)| gradient.as_ref().is_some_and(|g| !is_finite(g)));
        let gradients = broken_gradients.map(|(name, _)| name.clone()).collect();
        let mut samples = Vec::new();
        // with broken weights every sample is: nothing to learn from naming them
        for positions in positions.chunks(self.config.training.batch_size).filter(|_| weights.is_empty()) {
            let noise_positions = self.noise_positions(positions);
            let batch = self.batch(positions, &noise_positions, positions[0]);
            let draws = batch.draws.clone();
            let losses = self.losses(self.unet(), batch).inner().into_data();
            for ((position, draw), loss) in positions.iter().zip(draws).zip(losses.iter::<f64>()) {
                if !loss.is_finite() {
                    let image = self.order.at(*position);
                    let (timestep, sigma) = (draw.level.timestep, draw.level.sigma());
                    samples.push(NonFiniteSample { image, timestep, sigma });
                }
            }
        }
        let StepReport { step, loss, gradient_norm, learning_rate, .. } = *report;
        NonFiniteStep { step, loss, gradient_norm, learning_rate, samples, weights, gradients }
    }

    /// This rank's share of a micro-batch, cut into its share of `parallel_parts`. Each part has its share of the mean loss, so that
    /// the sum over parts and ranks is that of the whole; the sum is always taken in the same order.
    fn batches(&mut self, positions: &[u64]) -> Vec<Batch> {
        let mine = shard(positions.len(), self.group.rank(), self.group.world_size());
        let size = mine.len().div_ceil(self.config.training.parallel_parts.div_ceil(self.group.world_size()).max(1));
        // noise is assigned within the micro-batch, whoever computes it
        let noise_positions = self.noise_positions(positions);
        let parts = positions[mine.clone()].chunks(size).zip(noise_positions[mine].chunks(size));
        parts.map(|(part, noise_positions)| self.batch(part, noise_positions, positions[0])).collect()
    }

    /// Loss and gradients of the parts of a micro-batch, which are computed at the same time.
    fn parts(&mut self, positions: &[u64]) -> Vec<Part> {
        let batches = self.batches(positions);
        at_the_same_time(batches, |batch| self.part(batch, positions.len()))
    }

    /// Loss and gradients of some of the `of` samples of a micro-batch.
    fn part(&self, batch: Batch, of: usize) -> Part {
        let share = batch.positions.len() as f64 / of as f64;
        let draws = batch.draws.clone();
        // leaves of its own: graphs of different threads must not meet
        let unet = map_flat(self.unet().clone(), |_, value| value);
        let losses = self.losses(&unet, batch);
        let of_each = losses.clone().inner();
        let losses = match self.importance {
            None => losses,
            Some(_) => {
                let importance: Vec<f32> = draws.iter().map(|draw| draw.importance as f32).collect();
                losses * Tensor::from_data(TensorData::new(importance, [draws.len()]), &self.device)
            }
        };
        let loss = losses.mean() * share;
        let value = f64::from(loss.clone().inner().into_scalar::<f32>());
        let losses = draws.into_iter().zip(of_each.into_data().iter::<f64>()).collect();
        let precision = Precision::new(self.config.training.mixed_precision);
        let gradients = precision.unscaled(flat_gradients(&unet, &precision.scaled(loss).backward()));
        Part { loss: value, gradients, losses }
    }

    /// Whose noise each sample of a micro-batch has.
    fn noise_positions(&mut self, positions: &[u64]) -> Vec<u64> {
        if !self.config.diffusion.immiscible_noise {
            return positions.to_vec();
        }
        let x_0 = self.images_at(positions);
        let epsilon = self.epsilon(positions, &self.device.clone().inner());
        let order = assign_noise(&x_0, &epsilon.into_data().iter::<f32>().collect::<Vec<_>>(), positions.len());
        order.into_iter().map(|index| positions[index]).collect()
    }

    /// The noise at these positions of the run.
    fn epsilon(&self, positions: &[u64], device: &Device) -> Tensor<4> {
        let image = [self.images.channels(), self.images.height(), self.images.width()];
        let strength = self.config.diffusion.offset_noise_strength;
        self.noise.stream(Purpose::Epsilon).offset_images(positions, 0, image, strength, device)
    }

    /// The noise level of the sample at a position of the run.
    fn level(&self, position: u64) -> LevelDraw {
        let (schedule, stream) = (&self.schedule, self.noise.stream(Purpose::Timesteps));
        let at = |t: usize, importance| LevelDraw { level: schedule.level(t), timestep: Some(t), importance };
        let uniform = || {
            let mut value = [0f32];
            stream.uniform(position, 0, &mut value);
            f64::from(value[0])
        };
        let diffusion = &self.config.diffusion;
        match (&self.importance, diffusion.level_distribution.of(diffusion.objective)) {
            (Some(importance), _) => {
                let (t, weight) = importance.draw(uniform());
                at(t, weight)
            }
            (None, LevelDistribution::Own | LevelDistribution::Uniform) => {
                at(stream.below(position, 0, schedule.timesteps() as u64) as usize, 1.0)
            }
            (None, distribution) => {
                let mut normal = [0f32];
                stream.normal(position, 1, &mut normal);
                let level = distribution.level(schedule, uniform(), f64::from(normal[0]));
                LevelDraw { level, timestep: None, importance: 1.0 }
            }
        }
    }

    /// The loss of each sample, `[batch]`: noise, predict, compare.
    fn losses(&self, unet: &Unet, batch: Batch) -> Tensor<1> {
        let Batch { positions, first, noise_positions, draws, x_0, labels } = batch;
        let channels = x_0.dims()[1];
        let diffusion = &self.config.diffusion;
        let levels: Vec<NoiseLevel> = draws.iter().map(|draw| draw.level).collect();
        let weight = |level: &NoiseLevel| diffusion.loss_weight.weight(*level, diffusion.objective);
        let weights: Vec<f64> = levels.iter().map(weight).collect();
        let epsilon = self.epsilon(&noise_positions, &self.device);
        let x_t = q_sample(x_0.clone(), epsilon.clone(), &levels);
        let target = target(diffusion.objective, x_0.clone(), epsilon, &levels);

        let t = network_times(diffusion.objective, &levels, &self.device);
        let input = network_input(diffusion.objective, x_t.clone(), &levels);
        let self_condition = self.estimate(&x_t, &input, &t, &levels, labels.clone(), first);
        let precision = Precision::new(self.config.training.mixed_precision);
        let (masks, probability) = (self.noise.stream(Purpose::Dropout), self.config.unet.dropout);
        let device = &self.device;
        let dropout = |layer: usize, shape: [usize; 4]| {
            let mut mask = vec![0f32; shape.iter().product()];
            // of each sample its own, so that it does not matter which others are computed with it
            for (position, mask) in positions.iter().zip(mask.chunks_exact_mut(shape[1..].iter().product())) {
                masks.uniform(*position, layer as u64, mask);
            }
            let kept = (1.0 / (1.0 - probability)) as f32;
            mask.iter_mut().for_each(|value| *value = if f64::from(*value) < probability { 0.0 } else { kept });
            precision.lower(Tensor::<4>::from_data(TensorData::new(mask, shape), device))
        };
        let condition = Condition {
            labels,
            self_condition: self_condition.map(|estimate| precision.lower(estimate)),
            dropout: if probability > 0.0 { Some(&dropout) } else { None },
        };
        let output = match precision.dtype {
            None => unet.forward(input, t, condition),
            Some(_) => {
                let lowered = precision.lower_module(unet.clone());
                lowered.forward(precision.lower(input), t, condition).cast(FloatDType::F32)
            }
        };
        let prediction = output.clone().narrow(1, 0, channels);
        let losses = diffusion.loss.weighted_per_sample(prediction.clone(), target, &weights);
        let timesteps: Option<Vec<usize>> = draws.iter().map(|draw| draw.timestep).collect();
        match (self.config.unet.learned_variance && diffusion.variational_weight > 0.0, timesteps) {
            // the hybrid loss: the bound teaches the variance alone, by way of a mean that is left as it is
            (true, Some(timesteps)) => {
                let variance = output.narrow(1, channels, channels);
                let estimate =
                    Prediction::from_output(diffusion.objective, prediction.detach(), x_t.clone(), &levels).x_0;
                let terms = variational_terms(&self.schedule, &timesteps, x_0, x_t, estimate, variance);
                losses + terms * (diffusion.variational_weight * self.schedule.timesteps() as f64)
            }
            _ => losses,
        }
    }

    /// The images at these positions, `[batch, channels, height, width]`.
    fn images_at(&mut self, positions: &[u64]) -> Vec<f32> {
        let images = &self.images;
        let mut pixels = vec![0f32; positions.len() * images.image_len()];
        for (position, out) in positions.iter().zip(pixels.chunks_exact_mut(images.image_len())) {
            let flip = self.config.data.horizontal_flip && self.noise.stream(Purpose::Flips).chance(*position, 0, 0.5);
            images.write_chw_f32(self.order.at(*position), flip, out);
        }
        pixels
    }

    /// Images, levels and labels at these positions; a label is dropped as often as `label_dropout` says.
    fn batch(&mut self, positions: &[u64], noise_positions: &[u64], first: u64) -> Batch {
        let pixels = self.images_at(positions);
        let images = &self.images;
        let shape = [positions.len(), images.channels(), images.height(), images.width()];
        let mut labels = Vec::with_capacity(positions.len());
        for position in positions {
            let index = self.order.at(*position);
            let null = self.config.unet.classes;
            let dropped =
                self.noise.stream(Purpose::LabelDropout).chance(*position, 0, self.config.training.label_dropout);
            let label = images.label(index).map(|label| label as usize).filter(|_| !dropped);
            labels.push(label.unwrap_or(null) as i64);
        }
        let labels = (self.config.unet.classes > 0)
            .then(|| Tensor::from_data(TensorData::new(labels, [positions.len()]), &self.device));
        Batch {
            positions: positions.to_vec(),
            first,
            noise_positions: noise_positions.to_vec(),
            draws: positions.iter().map(|position| self.level(*position)).collect(),
            x_0: Tensor::from_data(TensorData::new(pixels, shape), &self.device),
            labels,
        }
    }

    /// For self-conditioning: every second batch is told the network's own estimate of x_0 (Chen et al. 2022).
    fn estimate(
        &self,
        x_t: &Tensor<4>,
        input: &Tensor<4>,
        t: &Tensor<1>,
        levels: &[NoiseLevel],
        labels: Option<Tensor<1, Int>>,
        position: u64,
    ) -> Option<Tensor<4>> {
        let asked =
            self.config.unet.self_condition && self.noise.stream(Purpose::SelfConditioning).chance(position, 0, 0.5);
        asked.then(|| {
            let condition = Condition { labels: labels.map(Tensor::inner), ..Condition::default() };
            let x_t = x_t.clone().inner();
            let output = self.unet().valid().forward(input.clone().inner(), t.clone().inner(), condition);
            let output = output.narrow(1, 0, x_t.dims()[1]);
            let estimate = Prediction::from_output(self.config.diffusion.objective, output, x_t, levels).x_0;
            // back on the device of the graph, with its way of checkpointing
            Tensor::from_data(estimate.into_data(), &self.device)
        })
    }
}

/// What `each` makes of every batch, on a thread for each but the first.
fn at_the_same_time(batches: Vec<Batch>, each: impl Fn(Batch) -> Part + Sync) -> Vec<Part> {
    std::thread::scope(|scope| {
        let each = &each;
        let mut batches = batches.into_iter();
        let first = batches.next();
        let others: Vec<_> = batches.map(|batch| scope.spawn(move || each(batch))).collect();
        let others = others.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        first.map(each).into_iter().chain(others).collect()
    })
}

/// The number format of forward and backward pass.
#[derive(Clone, Copy)]
struct Precision {
    dtype: Option<FloatDType>,
    loss_scale: f64,
}

impl Precision {
    fn new(mixed: MixedPrecision) -> Self {
        match mixed {
            MixedPrecision::No => Self { dtype: None, loss_scale: 1.0 },
            MixedPrecision::Bf16 => Self { dtype: Some(FloatDType::BF16), loss_scale: 1.0 },
            // keeps small gradients above the smallest half-precision number
            MixedPrecision::F16 => Self { dtype: Some(FloatDType::F16), loss_scale: 1024.0 },
        }
    }

    /// The loss, whose gradients will be large enough for the number format.
    fn scaled(self, loss: Tensor<1>) -> Tensor<1> {
        if self.loss_scale == 1.0 { loss } else { loss * self.loss_scale }
    }

    /// The gradients of a loss that was not [scaled](Self::scaled), from those of one that was.
    fn unscaled(self, gradients: Gradients) -> Gradients {
        if self.loss_scale == 1.0 {
            return gradients;
        }
        gradients.into_iter().map(|gradient| gradient.map(|gradient| gradient / self.loss_scale)).collect()
    }

    fn lower<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        match self.dtype {
            Some(dtype) => tensor.cast(dtype),
            None => tensor,
        }
    }

    /// The network in the lower format, its parameters still part of the graph of the f32 ones.
    fn lower_module(self, unet: Unet) -> Unet {
        struct Lower(Precision);
        impl ModuleMapper for Lower {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| self.0.lower(tensor))
            }
        }
        unet.map(&mut Lower(self))
    }
}

/// Copies of the parameters that a step holds at least: weights, gradients, two moments, average.
const COPIES: u128 = 5;

/// A network that cannot fit into this machine's memory, or a micro-batch that cannot, is refused, before the system ends the process
/// without a word.
fn check_memory(config: &Config, images: &ImageSet, device: &Device) -> Result<(), TrainError> {
    let (parameters, batch_size) = (config.unet.parameters(), config.training.batch_size);
    let of_weights = COPIES * 4 * parameters;
    let of_images = match kernels::is_in_main_memory(device) {
        true => (4 * batch_size as u128).saturating_mul(config.unet.saved_activations(images.height(), images.width())),
        false => 0,
    };
    let needed = of_weights.saturating_add(of_images);
    match available_bytes() {
        Some(available) if needed > u128::from(available) => {
            let advice = match of_weights > u128::from(available) {
                true => "lower unet.dim or unet.dim_mults",
                false => {
                    "lower training.batch_size and raise training.gradient_accumulate_every as much, or lower unet.dim"
                }
            };
            Err(TrainError::Memory { parameters, batch_size, needed, available, advice })
        }
        _ => Ok(()),
    }
}

/// A device either computes in a number format, or the run is refused before it starts.
fn check_precision(mixed: MixedPrecision, device: &Device) -> Result<(), TrainError> {
    let (precision, dtype) = match mixed {
        MixedPrecision::No => return Ok(()),
        MixedPrecision::Bf16 => ("bf16", DType::BF16),
        MixedPrecision::F16 => ("f16", DType::F16),
    };
    if device.supports_dtype(dtype) {
        return Ok(());
    }
    Err(TrainError::Precision { precision, reason: format!("it does not compute in {dtype:?}") })
}
