//! Writes a file of lucidrains' library.

use std::path::Path;

use burn::tensor::TensorData;
use checkpoint::{Header, Model};
use schedule::{BetaSchedule, LossWeight, Objective};
use train::{Config, NamedTensors, SavedState};
use unet::{AttentionKind, UnetConfig};

use super::{VERSION, diffusion::buffers, network::parameter_order};
use crate::{
    Account, InterchangeError,
    torch_file::{Value, write},
};

/// Writes a file that `Trainer.load` reads, whose entries `model` and `ema` are state dicts of `GaussianDiffusion` and of ema-pytorch's
/// `EMA`. The account has the lines of Python that make the objects.
///
/// With the state of a run and its configuration, the weights in training, Adam's moments and the steps are those of the run;
/// without, both copies of the weights are the model's, and the optimizer begins.
///
/// # Errors
/// [`InterchangeError::NoTwin`] for what lucidrains' library does not have, [`InterchangeError::File`] if the file cannot be written.
pub fn export(
    model: &Model,
    training: Option<(&SavedState, &Config)>,
    path: &Path,
) -> Result<Account, InterchangeError> {
    let header = &model.header;
    let unet = check(header)?;
    let schedule = header.schedule.build().map_err(|error| no_twin(error.to_string()))?;
    let loss_weight = training.map_or(LossWeight::Snr, |(_, config)| config.diffusion.loss_weight);
    let buffers = buffers(&schedule, header.objective, loss_weight);
    let average = model.unet.state_dict();
    let (state, config) = training.unzip();
    let online = state.map_or(&average, |state| &state.weights);
    let average = state.map_or(&average, |state| &state.average);
    let diffusion = |prefix: &str, weights: &NamedTensors| -> Vec<(String, Value)> {
        let buffers = buffers.iter().map(|(name, data)| (format!("{prefix}{name}"), data.clone()));
        let weights = in_order(weights).map(|(name, data)| (format!("{prefix}model.{name}"), data.clone()));
        buffers.chain(weights).map(|(name, data)| (name, Value::Tensor(data))).collect()
    };
    let scalar = |data: TensorData| Value::Tensor(data);
    let ema_step = state.map_or(0, |state| state.ema_step as i64);
    let mut ema = vec![
        ("initted".to_owned(), scalar(TensorData::new(vec![state.is_none() || ema_step > 0], Vec::<usize>::new()))),
        ("step".to_owned(), scalar(TensorData::new(vec![ema_step], Vec::<usize>::new()))),
    ];
    ema.extend(diffusion("online_model.", online));
    ema.extend(diffusion("ema_model.", average));
    let content = Value::dict([
        ("step", Value::Int(state.map_or(0, |state| state.step as i64))),
        ("model", Value::dict(diffusion("", online))),
        ("opt", optimizer(online, state, config)),
        ("ema", Value::dict(ema)),
        ("scaler", Value::None),
        ("version", Value::Text(VERSION.to_owned())),
    ]);
    write(path, &content)?;
    Ok(account((header, unet), training, loss_weight))
}

/// Named tensors in the order of `Module.parameters()`.
fn in_order(tensors: &NamedTensors) -> impl Iterator<Item = &(String, TensorData)> {
    let order = parameter_order(tensors.iter().map(|(name, _)| name.clone()).collect());
    order.into_iter().filter_map(|name| tensors.iter().find(|(other, _)| *other == name))
}

/// The state dict of `torch.optim.Adam`.
fn optimizer(parameters: &NamedTensors, state: Option<&SavedState>, config: Option<&Config>) -> Value {
    let settings = config.map(|config| config.training.clone()).unwrap_or_default();
    let count = parameters.len() as i64;
    let group = Value::dict([
        ("lr", Value::Float(settings.learning_rate)),
        ("betas", Value::Tuple(settings.betas.map(Value::Float).to_vec())),
        ("eps", Value::Float(settings.epsilon)),
        ("weight_decay", Value::Float(settings.weight_decay)),
        ("amsgrad", Value::Bool(false)),
        ("maximize", Value::Bool(false)),
        ("foreach", Value::None),
        ("capturable", Value::Bool(false)),
        ("differentiable", Value::Bool(false)),
        ("fused", Value::None),
        ("decoupled_weight_decay", Value::Bool(false)),
        ("params", Value::List((0..count).map(Value::Int).collect())),
    ]);
    let of_parameter = |state: &SavedState| {
        let steps = TensorData::new(vec![state.optimizer_steps as f32], Vec::<usize>::new());
        let moments = in_order(&state.first_moment).zip(in_order(&state.second_moment));
        let entries = moments.enumerate().map(|(number, ((_, mean), (_, square)))| {
            let entry = Value::dict([
                ("step", Value::Tensor(steps.clone())),
                ("exp_avg", Value::Tensor(mean.clone())),
                ("exp_avg_sq", Value::Tensor(square.clone())),
            ]);
            (Value::Int(number as i64), entry)
        });
        entries.collect()
    };
    let moments = state.filter(|state| state.optimizer_steps > 0).map(of_parameter).unwrap_or_default();
    Value::dict([("state", Value::Dict(moments)), ("param_groups", Value::List(vec![group]))])
}

fn no_twin(reason: impl Into<String>) -> InterchangeError {
    InterchangeError::NoTwin { reason: reason.into() }
}

/// The network, if lucidrains' library has all that the model needs.
fn check(header: &Header) -> Result<&UnetConfig, InterchangeError> {
    let Header { unet, image, objective, schedule, .. } = header;
    let refuse =
        |what: String, instead: &str| Err(no_twin(format!("denoising-diffusion-pytorch has no {what}; {instead}")));
    let other_format = "export to another format";
    let Some(unet) = unet.as_unet() else {
        return refuse("UNet2DModel, which is diffusers'".to_owned(), "use --to diffusers");
    };
    if unet.patch_size > 1 {
        return refuse(format!("patches (unet.patch_size = {})", unet.patch_size), "train with unet.patch_size = 1");
    }
    if unet.classes > 0 {
        let what = format!("labels of {} classes in this form", unet.classes);
        return refuse(what, "train with training.class_labels = false");
    }
    if (0..unet.dim_mults.len()).any(|level| unet.attention_of(level) == AttentionKind::Off) {
        return refuse("level without attention".to_owned(), "train with unet.attention of \"linear\" and \"full\"");
    }
    if unet.learned_sinusoidal_cond || unet.random_fourier_features {
        return refuse(
            "GaussianDiffusion with Fourier features of t".to_owned(),
            "train with the sinusoidal embedding",
        );
    }
    if !matches!(objective, Objective::Epsilon | Objective::X0 | Objective::V) {
        return refuse(format!("objective {objective}"), "train with diffusion.objective epsilon, x0 or v");
    }
    if schedule.zero_terminal_snr {
        return refuse(
            "schedule that ends in pure noise, by which its sampler divides".to_owned(),
            "train with diffusion.zero_terminal_snr = false",
        );
    }
    if unet.learned_variance && (unet.self_condition || *objective != Objective::Epsilon) {
        let what = format!("learned variance with objective {objective}, or with self-conditioning");
        return refuse(what, "train with diffusion.objective = \"epsilon\" and without unet.self_condition");
    }
    let plain_out_dim = unet.channels * if unet.learned_variance { 2 } else { 1 };
    if unet.out_dim() != plain_out_dim {
        let what = format!("GaussianDiffusion of {} output channels for images of {}", unet.out_dim(), unet.channels);
        return refuse(what, other_format);
    }
    if (image.content_height, image.content_width) != (image.height, image.width) {
        return Err(no_twin(format!(
            "the images of this model are padded from {}x{} to {}x{}, and denoising-diffusion-pytorch would not crop them back; train \
             with images of a size that the network takes (data.image_size)",
            image.content_height, image.content_width, image.height, image.width
        )));
    }
    Ok(unet)
}

/// What was written, and how it is read.
fn account(
    (header, unet): (&Header, &UnetConfig),
    training: Option<(&SavedState, &Config)>,
    loss_weight: LossWeight,
) -> Account {
    let mut account = Account::default();
    let parameters = header.unet.parameters();
    account.used.push(match training {
        Some((state, _)) => {
            format!("{parameters} parameters, their average, Adam's moments, after step {}", state.step)
        }
        None => format!("{parameters} parameters, as weights and as average"),
    });
    account.used.push(format!("unet = {}", unet_call(unet)));
    account.used.push(format!("diffusion = {}", diffusion_call(header, loss_weight)));
    if training.is_none() {
        account.assumed.push("step 0 and a new optimizer, as a model file has none (name the run instead)".to_owned());
    }
    if !is_of_lucidrains(&header.schedule.family) {
        account.assumed.push(format!(
            "the betas of {}, which no beta_schedule there has, are buffers: load_state_dict brings them, whatever the constructor was \
             given",
            header.schedule.family
        ));
    }
    if loss_weight == LossWeight::Uniform && header.objective != Objective::Epsilon {
        account.assumed.push("the uniform weight of the loss is a buffer: load_state_dict brings it".to_owned());
    }
    if let Some((_, config)) = training {
        let ema = config.training.ema;
        account.not_used.push(format!(
            "settings that Trainer takes as arguments: ema_decay = {}, ema_update_every = {}, train_lr = {}, and others of config.toml",
            ema.decay, ema.update_every, config.training.learning_rate
        ));
    }
    account.not_used.push(format!(
        "the sampler ({}, {} steps): GaussianDiffusion takes sampling_timesteps",
        header.sampling.sampler, header.sampling.steps
    ));
    account
}

fn is_of_lucidrains(family: &BetaSchedule) -> bool {
    match family {
        BetaSchedule::Linear { beta_start, beta_end } => (*beta_start, *beta_end) == (0.0001, 0.02),
        BetaSchedule::Cosine { .. } | BetaSchedule::Sigmoid { .. } => true,
        _ => false,
    }
}

/// The call of Python that makes the network.
fn unet_call(config: &UnetConfig) -> String {
    let tuple = |items: Vec<String>| match items.as_slice() {
        [one] => format!("({one},)"),
        items => format!("({})", items.join(", ")),
    };
    let truth = |value: bool| if value { "True" } else { "False" };
    let mults = tuple(config.dim_mults.iter().map(ToString::to_string).collect());
    let levels = 0..config.dim_mults.len();
    let full = tuple(levels.map(|level| truth(config.attention_of(level) == AttentionKind::Full).to_owned()).collect());
    let mut call = format!(
        "Unet(dim = {}, dim_mults = {mults}, channels = {}, full_attn = {full}, attn_heads = {}, attn_dim_head = {}",
        config.dim, config.channels, config.attention_heads, config.attention_head_dim
    );
    if let Some(init_dim) = config.init_dim {
        call += &format!(", init_dim = {init_dim}");
    }
    if config.sinusoidal_pos_emb_theta != 10_000.0 {
        call += &format!(", sinusoidal_pos_emb_theta = {}", config.sinusoidal_pos_emb_theta);
    }
    if config.dropout > 0.0 {
        call += &format!(", dropout = {}", config.dropout);
    }
    for (name, value) in [("self_condition", config.self_condition), ("learned_variance", config.learned_variance)] {
        if value {
            call += &format!(", {name} = True");
        }
    }
    call + ")"
}

/// The call of Python that makes the diffusion.
fn diffusion_call(header: &Header, loss_weight: LossWeight) -> String {
    let class = if header.unet.learned_variance() { "LearnedGaussianDiffusion" } else { "GaussianDiffusion" };
    let objective = match header.objective {
        Objective::Epsilon => "pred_noise",
        Objective::X0 => "pred_x0",
        _ => "pred_v",
    };
    let (height, width) = (header.image.height, header.image.width);
    let timesteps = header.schedule.timesteps;
    let mut call = format!(
        "{class}(unet, image_size = ({height}, {width}), timesteps = {timesteps}, objective = '{objective}', beta_schedule = "
    );
    call += &match header.schedule.family {
        BetaSchedule::Linear { .. } => "'linear'".to_owned(),
        BetaSchedule::Cosine { s } if s != 0.008 => format!("'cosine', schedule_fn_kwargs = dict(s = {s})"),
        BetaSchedule::Sigmoid { start, end, tau } if (start, end, tau) != (-3.0, 3.0, 1.0) => {
            format!("'sigmoid', schedule_fn_kwargs = dict(start = {start}, end = {end}, tau = {tau})")
        }
        BetaSchedule::Sigmoid { .. } => "'sigmoid'".to_owned(),
        // any: the buffers of the file take its place
        _ => "'cosine'".to_owned(),
    };
    if let LossWeight::MinSnr { gamma } = loss_weight {
        call += &format!(", min_snr_loss_weight = True, min_snr_gamma = {gamma}");
    }
    call + ")"
}
