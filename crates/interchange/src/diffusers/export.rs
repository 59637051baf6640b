//! A model as a folder of diffusers.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use checkpoint::{Header, ImageFormat, Model, SamplerKind, file::encode};
use sampler::Variance;
use schedule::{BetaSchedule, Objective, Spacing};
use serde_json::{Map, Value, json};
use unet::{ClassEmbedding, MidBlock, NetworkConfig, Unet2dConfig};

use super::lucid;
use crate::{Account, InterchangeError};

/// The version of diffusers whose format this is.
const VERSION: &str = "0.39.0";
/// The file of the weights.
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

/// Writes a model as a folder that diffusers loads, and says what of it the folder has.
///
/// A [`Unet2d`](unet::Unet2d) becomes a `DDPMPipeline` (or `DDIMPipeline`) of a `UNet2DModel`. lucidrains' U-Net has no twin in
/// diffusers: it becomes a pipeline with its own code in PyTorch beside it, which
/// `DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)` loads. The folder is whole or
/// not there.
///
/// # Errors
/// [`InterchangeError::NoTwin`] for an objective that diffusers' schedulers do not know; [`InterchangeError::File`] if the folder
/// is there and not empty, or cannot be written.
pub fn export(model: &Model, folder: &Path) -> Result<Account, InterchangeError> {
    check_free(folder)?;
    let header = &model.header;
    let mut account = Account::default();
    let (scheduler_class, scheduler) = scheduler(header, &mut account)?;
    let mut files = Files::default();
    let (pipeline, network) = match &header.unet {
        NetworkConfig::Unet2d(config) => {
            files.json("unet/config.json", network(config, header.image));
            account.used.push(format!("the network, a UNet2DModel of {} parameters", config.parameters()));
            if config.classes > 0 {
                account.not_used.push(
                    "diffusers' pipelines pass no labels: call pipeline.unet with class_labels; the null class has no twin".to_owned(),
                );
            }
            let pipeline = if scheduler_class == "DDIMScheduler" { "DDIMPipeline" } else { "DDPMPipeline" };
            (json!(pipeline), json!(["diffusers", "UNet2DModel"]))
        }
        NetworkConfig::Unet(config) => {
            lucid::describe(header, config, &mut files, &mut account);
            (json!(["pipeline", "DiffusePipeline"]), json!(["modeling", "DiffuseUnet"]))
        }
    };
    let mut index = json!({
        "_class_name": pipeline,
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", scheduler_class],
        "unet": network,
    });
    if header.unet.as_unet().is_some() {
        let (image, sampling) = (header.image, &header.sampling);
        let is_padded = (image.height, image.width) != (image.content_height, image.content_width);
        index["crop"] = json!(is_padded.then_some([image.content_height, image.content_width]));
        index["steps"] = json!(sampling.steps);
        index["eta"] = json!(sampling.eta);
    }
    files.json("model_index.json", index);
    files.json("scheduler/scheduler_config.json", Value::Object(scheduler));
    // diffusers asks for this entry
    let weights = encode(&folder.join(WEIGHTS), "format", "pt".to_owned(), &model.unet.state_dict())?;
    files.add(WEIGHTS, weights);
    say_what_is_lost(header, &mut account);
    files::write_folder(folder, files.0)?;
    Ok(account)
}

/// What a header says besides network and scheduler.
fn say_what_is_lost(header: &Header, account: &mut Account) {
    let (image, sampling) = (header.image, &header.sampling);
    let has_own_pipeline = header.unet.as_unet().is_some();
    let mut lost = |line: String| account.not_used.push(line);
    if !has_own_pipeline && (image.height, image.width) != (image.content_height, image.content_width) {
        lost(format!(
            "samples have the padding of the data: crop the {}x{} in their middle",
            image.content_height, image.content_width
        ));
    }
    if image.bits == 16 {
        lost("16 bits: diffusers' pictures have 8; output_type=\"np\" gives all digits".to_owned());
    }
    if !header.classes.is_empty() {
        lost("the names of the classes".to_owned());
    }
    if sampling.guidance != 1.0 {
        let advice =
            if has_own_pipeline { "give guidance_scale" } else { "diffusers' unconditional pipelines do not guide" };
        lost(format!("sampling.guidance = {}: {advice}", sampling.guidance));
    }
}

/// The configuration of a network.
fn network(config: &Unet2dConfig, image: ImageFormat) -> Value {
    let size = if image.height == image.width { json!(image.height) } else { json!([image.height, image.width]) };
    // the names of the blocks are those of the configuration
    let mut keys = match serde_json::to_value(config) {
        Ok(Value::Object(keys)) => keys,
        other => unreachable!("a configuration is a table: {other:?}"),
    };
    for ours in ["channels", "learned_variance", "classes"] {
        keys.remove(ours);
    }
    let classes = (config.classes > 0).then_some(config.classes);
    let class_embed_type = match config.class_embed_type {
        ClassEmbedding::Table => Value::Null,
        // without classes the network has no such embedding
        ClassEmbedding::Timestep if classes.is_none() => Value::Null,
        ClassEmbedding::Timestep => json!("timestep"),
        ClassEmbedding::Identity => json!("identity"),
    };
    let others = json!({
        "_class_name": "UNet2DModel",
        "_diffusers_version": VERSION,
        "sample_size": size,
        "in_channels": config.channels,
        "out_channels": config.out_dim(),
        "num_class_embeds": classes,
        "class_embed_type": class_embed_type,
        "attention_head_dim": config.attention_head_dim,
        "attn_norm_num_groups": config.attn_norm_num_groups,
        "time_embedding_dim": config.time_embedding_dim,
        "num_train_timesteps": config.num_train_timesteps,
        "mid_block_type": if config.mid_block_type == MidBlock::Plain { json!("UNetMidBlock2D") } else { Value::Null },
    });
    if let Value::Object(others) = others {
        keys.extend(others);
    }
    Value::Object(keys)
}

/// Class and configuration of the scheduler.
fn scheduler(header: &Header, account: &mut Account) -> Result<(&'static str, Map<String, Value>), InterchangeError> {
    let (schedule, sampling) = (&header.schedule, &header.sampling);
    let no_twin = |reason: String| InterchangeError::NoTwin { reason };
    let prediction = match header.objective {
        Objective::Epsilon => "epsilon",
        Objective::X0 => "sample",
        Objective::V => "v_prediction",
        other => {
            return Err(no_twin(format!(
                "the objective {other} has no twin in diffusers' DDPM and DDIM schedulers: those of epsilon, x0 and v have"
            )));
        }
    };
    let mut keys = Map::new();
    let mut betas = |name: &str, start: f64, end: f64| {
        keys.extend(
            [("beta_schedule", json!(name)), ("beta_start", json!(start)), ("beta_end", json!(end))].map(owned),
        );
    };
    match schedule.family {
        BetaSchedule::LinearUnscaled { beta_start, beta_end } => betas("linear", beta_start, beta_end),
        BetaSchedule::Linear { beta_start, beta_end } => {
            let scale = 1000.0 / schedule.timesteps as f64;
            betas("linear", scale * beta_start, scale * beta_end);
        }
        BetaSchedule::ScaledLinear { beta_start, beta_end } | BetaSchedule::Quadratic { beta_start, beta_end } => {
            betas("scaled_linear", beta_start, beta_end);
        }
        BetaSchedule::Constant { beta } => betas("linear", beta, beta),
        BetaSchedule::Cosine { s: 0.008 } => betas("squaredcos_cap_v2", 0.0001, 0.02),
        _ => {
            let betas = schedule.family.betas(schedule.timesteps).map_err(|error| no_twin(error.to_string()))?;
            keys.insert("trained_betas".to_owned(), json!(betas));
        }
    }
    account.used.push(format!("{} timesteps of {} betas, {prediction}", schedule.timesteps, schedule.family.name()));
    let is_ddpm = sampling.sampler == SamplerKind::Ddpm;
    if !is_ddpm && sampling.sampler != SamplerKind::Ddim {
        account.not_used.push(format!(
            "sampling.sampler = {}: diffusers' unconditional pipelines run DDPM and DDIM; the folder has DDIM",
            sampling.sampler
        ));
    }
    if sampling.sampler == SamplerKind::Ddim && sampling.clip && header.unet.as_unet().is_none() {
        account.not_used.push(
            "epsilon follows the clipped x_0 here: call the pipeline with use_clipped_model_output=True for the same samples".to_owned(),
        );
    }
    let class = if is_ddpm { "DDPMScheduler" } else { "DDIMScheduler" };
    keys.extend(
        [
            ("_class_name", json!(class)),
            ("_diffusers_version", json!(VERSION)),
            ("num_train_timesteps", json!(schedule.timesteps)),
            ("prediction_type", json!(prediction)),
            ("clip_sample", json!(sampling.clip)),
            ("clip_sample_range", json!(1.0)),
            ("rescale_betas_zero_snr", json!(schedule.zero_terminal_snr)),
            ("steps_offset", json!(0)),
            ("timestep_spacing", json!(spacing(sampling.spacing, account))),
        ]
        .map(owned),
    );
    if is_ddpm {
        let variance = match sampling.variance {
            Variance::Posterior => "fixed_small",
            Variance::Beta => "fixed_large",
            Variance::Learned => "learned_range",
        };
        keys.insert("variance_type".to_owned(), json!(variance));
    }
    account
        .assumed
        .push(format!("the number of steps is an argument of the pipeline: num_inference_steps={}", sampling.steps));
    Ok((class, keys))
}

fn owned((key, value): (&str, Value)) -> (String, Value) {
    (key.to_owned(), value)
}

/// The spacing's name in diffusers, or that of the nearest.
fn spacing(spacing: Spacing, account: &mut Account) -> &'static str {
    let (name, is_same) = match spacing {
        Spacing::Leading => ("leading", true),
        Spacing::Trailing => ("trailing", true),
        Spacing::Linspace => ("linspace", true),
        _ => ("trailing", false),
    };
    if !is_same {
        account
            .not_used
            .push(format!("sampling.spacing = {spacing}: the folder has {name}, which begins at the same timestep"));
    }
    name
}

/// The files of a folder, in memory.
#[derive(Default)]
pub struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    pub fn add(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push((PathBuf::from(name), bytes.into()));
    }

    pub fn json(&mut self, name: &str, value: Value) {
        self.add(name, format!("{value:#}\n"));
    }
}

/// Refuses a folder with content, before long work.
pub fn check_free(folder: &Path) -> Result<(), InterchangeError> {
    let refuse = |reason: String| Err(InterchangeError::File { path: folder.to_owned(), reason });
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => refuse("the folder is not empty; name another one, or delete it".to_owned()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => refuse(format!("cannot be used as a folder: {error}")),
    }
}
