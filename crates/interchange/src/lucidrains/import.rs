//! Reads a file of lucidrains' library.

use std::path::Path;

use burn::tensor::{Device, TensorData};
use checkpoint::{Header, ImageFormat, Model, SamplerKind, SamplingConfig};
use sampler::Variance;
use schedule::LossWeight;
use unet::{Unet, UnetConfig};

use super::{
    ImportOptions, Parameters, Training,
    diffusion::{self, Diffusion},
    network::{self, STEM, Tensors},
    training,
};
use crate::{Account, InterchangeError, source::Source};

/// A side of the images where nothing says it.
const USUAL_SIDE: usize = 32;

/// A model of lucidrains' library.
#[derive(Debug)]
pub struct Imported {
    /// The model.
    pub model: Model,
    /// What was used, what was not, and what was assumed.
    pub account: Account,
    /// The state of the training, where [`ImportOptions::training`] asks for it.
    pub training: Option<Training>,
}

/// Reads a model: a file of `Trainer.save`, or a state dict of `GaussianDiffusion`, of `Unet`, or of ema-pytorch's `EMA` around one of
/// them.
///
/// # Errors
/// [`InterchangeError`] names the file, the key and what to do, where the file is damaged, of another network, or lacks something.
pub fn import(path: &Path, options: &ImportOptions, device: &Device) -> Result<Imported, InterchangeError> {
    let source = Source::open(path)?;
    if let Source::Safetensors(file) = &source
        && file.entry("diffuse").is_some()
    {
        return Err(source.file_error("it is a model of this program already: use it as it is"));
    }
    let names = source.names();
    network::refuse_others(&source, &names)?;
    let mut account = Account::default();
    let prefixes = Prefixes::find(&source, &names)?;
    let prefix = prefixes.choose(options.raw, &mut account);
    let tensors = Tensors { source: &source, prefix };

    let config = network::config(tensors, options, &mut account)?;
    check_size(&source, &config)?;
    network::check_heads(tensors, &config)?;
    let unet = config.init(device).map_err(|error| source.file_error(error.to_string()))?;
    let parameters = parameters(tensors, &unet, &names)?;
    let unet = load(tensors, unet, &parameters)?;
    account.used.push(format!(
        "{} parameters of a Unet: dim {}, dim_mults {:?}, {} channels",
        config.parameters(),
        config.dim,
        config.dim_mults,
        config.channels
    ));

    let buffers = buffers_of(&source, prefix);
    let diffusion = diffusion::read(&source, buffers.as_deref(), options, &mut account)?;
    let header = header(&source, &config, &diffusion, options, &mut account)?;
    let training = if options.training {
        Some(training::read(&source, &prefixes, &unet, diffusion.loss_weight, &mut account)?)
    } else {
        say_unused(&source, &names, &mut account);
        if diffusion.loss_weight != LossWeight::Snr {
            account.not_used.push(format!("the loss weight {}, which sampling does not need", diffusion.loss_weight));
        }
        None
    };
    Ok(Imported { model: Model { unet: unet.into(), header }, account, training })
}

/// The prefixes of the networks in a file.
pub(super) struct Prefixes {
    /// That of the weights in training.
    pub(super) online: Option<String>,
    /// That of their average.
    pub(super) average: Option<String>,
    /// Those of other networks.
    others: Vec<String>,
}

impl Prefixes {
    fn find(source: &Source, names: &[String]) -> Result<Self, InterchangeError> {
        let mut all: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(STEM)).collect();
        if all.is_empty() {
            let (count, first) = (names.len(), names.first().map_or("none", String::as_str));
            return Err(source.key_error(
                STEM,
                format!(
                    "no name of the {count} tensors (the first: {first}) ends with it, as in a Unet of denoising-diffusion-pytorch: \
                     it is another network, or a file of the optimizer alone"
                ),
            ));
        }
        // the shortest name is that of the file's own network; a copy of it lies in `ema`
        all.sort_by_key(|prefix| (prefix.contains("online_model."), prefix.len()));
        let average = all.iter().find(|prefix| prefix.contains("ema_model.")).map(ToString::to_string);
        let online = all.iter().find(|prefix| !prefix.contains("ema_model.")).map(ToString::to_string);
        let is_other = |prefix: &&str| {
            let is_taken = [&online, &average].into_iter().flatten().any(|taken| taken == prefix);
            // the copy of the weights in training that ema-pytorch keeps
            !is_taken && !prefix.contains("online_model.")
        };
        let others = all.iter().copied().filter(is_other).map(str::to_owned).collect();
        Ok(Self { online, average, others })
    }

    /// The prefix of the weights to take: their average, unless there is none or `raw` asks for the others.
    fn choose(&self, raw: bool, account: &mut Account) -> &str {
        let (chosen, other, what) = match (&self.average, &self.online) {
            (Some(average), online) if !raw || online.is_none() => (average, online.as_ref(), "averaged weights (EMA)"),
            (average, Some(online)) => (online, average.as_ref(), "weights in training"),
            (_, None) => unreachable!("`find` returns one of them"),
        };
        account.used.push(format!("{what}: `{chosen}*`"));
        for other in &self.others {
            account.not_used.push(format!("`{other}*`, another network; save it alone to import it"));
        }
        match other {
            Some(other) => {
                let option = if raw { "without --raw" } else { "with --raw" };
                account.not_used.push(format!("`{other}*`, the other copy of the weights: {option}"));
            }
            None if raw && self.online.is_none() => {
                account.assumed.push("the average, as the file has no other weights".to_owned());
            }
            None if self.average.is_none() => {
                account.assumed.push("these weights are those to sample with, as the file has no average".to_owned());
            }
            None => {}
        }
        chosen
    }
}

/// The prefix of the buffers of the `GaussianDiffusion` whose network has `prefix`; None if there are none.
fn buffers_of(source: &Source, prefix: &str) -> Option<String> {
    let prefix = prefix.strip_suffix("_orig_mod.").unwrap_or(prefix);
    let prefix = prefix.strip_suffix("model.")?;
    let has = |name| source.shape(&format!("{prefix}{name}")).is_some();
    ["betas", "alphas_cumprod", "loss_weight"].into_iter().any(has).then(|| prefix.to_owned())
}

/// Refuses a network that the file is too small for, before its memory is allocated.
fn check_size(source: &Source, config: &UnetConfig) -> Result<(), InterchangeError> {
    // half precision, and room for what the shapes of single tensors will name
    let (claimed, there) = (2 * config.parameters(), u128::from(source.length()));
    if claimed > 2 * there + (1 << 16) {
        return Err(source.file_error(format!(
            "its shapes are those of a network of {} parameters, which its {there} bytes cannot hold; save or copy it again",
            config.parameters()
        )));
    }
    Ok(())
}

/// All parameters of the network, in its order.
pub(super) fn parameters(tensors: Tensors<'_>, unet: &Unet, names: &[String]) -> Result<Parameters, InterchangeError> {
    let wanted = unet.parameter_names();
    let mut unknown = names.iter().filter_map(|name| name.strip_prefix(tensors.prefix)).filter(|name| {
        // the buffers of a diffusion whose own prefix is empty, and all else of a checkpoint, stand beside a bare network
        let is_of_network = network::is_of_unet(name);
        is_of_network && !wanted.iter().any(|wanted| wanted == name)
    });
    if let Some(name) = unknown.next() {
        let others = unknown.count();
        let reason = format!(
            "this network does not have it, nor {others} others: it is of another version or kind of Unet than that of {}, and would \
             give other images",
            super::VERSION
        );
        return Err(tensors.error(name, reason));
    }
    wanted.into_iter().map(|name| Ok((name.clone(), read(tensors, &name)?))).collect()
}

/// A parameter, of finite values.
fn read(tensors: Tensors<'_>, name: &str) -> Result<TensorData, InterchangeError> {
    let missing = || tensors.error(name, "it is missing, and this network needs it; is the file whole?");
    let data = tensors.source.tensor(&tensors.full_name(name))?.ok_or_else(missing)?;
    if !data.as_slice::<f32>().is_ok_and(|values| values.iter().all(|value| value.is_finite())) {
        return Err(
            tensors.error(name, "it has values that are not finite: the training went wrong; take an earlier file")
        );
    }
    Ok(data)
}

fn load(tensors: Tensors<'_>, unet: Unet, parameters: &Parameters) -> Result<Unet, InterchangeError> {
    let mut values = parameters.iter();
    unet.load_state_dict(|_| values.next().map(|(_, data)| data.clone())).map_err(|error| match error {
        unet::StateError::Shape { name, found, expected } => {
            let reason =
                format!("it has the shape {found:?}, and this network needs {expected:?}: it is another network");
            tensors.error(&name, reason)
        }
        other => tensors.source.file_error(other.to_string()),
    })
}

/// The header, with the sampling of lucidrains' `sample`.
fn header(
    source: &Source,
    config: &UnetConfig,
    diffusion: &Diffusion,
    options: &ImportOptions,
    account: &mut Account,
) -> Result<Header, InterchangeError> {
    let factor = config.downsample_factor();
    let (height, width) = options.image_size.unwrap_or_else(|| {
        let side = USUAL_SIDE.next_multiple_of(factor);
        account.assumed.push(format!("images of {side}x{side}, which no tensor says (--image-size)"));
        (side, side)
    });
    config.check_image_size(height, width).map_err(|error| source.file_error(error.to_string()))?;
    account.assumed.push("images in [-1, 1] (auto_normalize)".to_owned());
    let timesteps = diffusion.schedule.timesteps;
    let steps = options.sampling_timesteps.unwrap_or(timesteps);
    if !(1..=timesteps).contains(&steps) {
        return Err(source.file_error(format!("{steps} steps of sampling are not possible with {timesteps} timesteps")));
    }
    let sampler = if steps < timesteps { SamplerKind::Ddim } else { SamplerKind::Ddpm };
    account.assumed.push(format!(
        "sampling by {} in {steps} steps, x_0 clipped, as lucidrains' sample (--steps; diffuse sample --sampler, --steps)",
        if sampler == SamplerKind::Ddim { "DDIM" } else { "DDPM" }
    ));
    let variance = if config.learned_variance { Variance::Learned } else { Variance::Posterior };
    Ok(Header {
        schedule: diffusion.schedule.clone(),
        objective: diffusion.objective,
        sampling: SamplingConfig { sampler, steps, variance, ..SamplingConfig::default() },
        ..Header::new(config.clone(), ImageFormat::new(config.channels, height, width))
    })
}

/// Says what of a checkpoint was not used.
fn say_unused(source: &Source, names: &[String], account: &mut Account) {
    if names.iter().any(|name| name.starts_with("opt.state.")) {
        account.not_used.push("the state of the optimizer: with --optimizer".to_owned());
    }
    if let Source::Torch(file) = source {
        if let Some(step) = file.number(&["step"]).filter(|_| file.value(&["model"]).is_some()) {
            account.not_used.push(format!("the number of steps, {step}"));
        }
        if file.value(&["scaler", "scale"]).is_some() {
            account.not_used.push("the scale of the loss in mixed precision".to_owned());
        }
    }
}
