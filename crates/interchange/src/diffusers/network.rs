//! The configuration of a `UNet2DModel`.

use serde::de::DeserializeOwned;
use serde_json::Value;
use train::ImageSize;
use unet::{
    ActivationKind, ClassEmbedding, DownBlock, MidBlock, ResampleKind, TimeEmbeddingKind, TimeScaleShift, Unet2dConfig,
    UpBlock,
};

use super::keys::Keys;
use crate::{Account, InterchangeError};

/// Labels of a network that does not say how many classes it has.
const ASSUMED_CLASSES: usize = 1000;

/// The network, and the size of its images if it is there. Missing keys have the defaults of the class.
pub fn read(mut keys: Keys, account: &mut Account) -> Result<(Unet2dConfig, Option<(usize, usize)>), InterchangeError> {
    let class: String = keys.get("_class_name", "UNet2DModel".to_owned())?;
    if class != "UNet2DModel" {
        return Err(keys.error("_class_name", format!("the class {class} has no twin here; UNet2DModel has one")));
    }
    let size = keys.optional::<ImageSize>("sample_size")?.map(ImageSize::sides);
    let channels = keys.get("in_channels", 3)?;
    let class_embed_type = keys.optional::<ClassEmbedding>("class_embed_type")?.unwrap_or(ClassEmbedding::Table);
    let defaults = ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"];
    let down_block_types = blocks::<DownBlock>(&mut keys, "down_block_types", &defaults)?;
    let defaults = ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"];
    let up_block_types = blocks::<UpBlock>(&mut keys, "up_block_types", &defaults)?;
    let config = Unet2dConfig {
        channels,
        learned_variance: has_learned_variance(&mut keys, channels)?,
        classes: classes(&mut keys, class_embed_type, account)?,
        block_out_channels: keys.get("block_out_channels", vec![224, 448, 672, 896])?,
        down_block_types,
        mid_block_type: middle(&mut keys)?,
        up_block_types,
        layers_per_block: keys.get("layers_per_block", 2)?,
        add_attention: keys.get("add_attention", true)?,
        attention_head_dim: keys.get("attention_head_dim", Some(8))?,
        attn_norm_num_groups: keys.optional("attn_norm_num_groups")?,
        norm_num_groups: keys.get("norm_num_groups", 32)?,
        norm_eps: keys.get("norm_eps", 1e-5)?,
        act_fn: keys.get("act_fn", ActivationKind::Silu)?,
        resnet_time_scale_shift: keys.get("resnet_time_scale_shift", TimeScaleShift::Default)?,
        downsample_padding: keys.get("downsample_padding", 1)?,
        downsample_type: keys.get("downsample_type", ResampleKind::Conv)?,
        upsample_type: keys.get("upsample_type", ResampleKind::Conv)?,
        mid_block_scale_factor: keys.get("mid_block_scale_factor", 1.0)?,
        time_embedding_type: keys.get("time_embedding_type", TimeEmbeddingKind::Positional)?,
        // diffusers takes 0 as not given
        time_embedding_dim: keys.optional("time_embedding_dim")?.filter(|dim| *dim != 0),
        flip_sin_to_cos: keys.get("flip_sin_to_cos", true)?,
        freq_shift: keys.get("freq_shift", 0.0)?,
        num_train_timesteps: keys.optional("num_train_timesteps")?,
        class_embed_type,
        center_input_sample: keys.get("center_input_sample", false)?,
        dropout: keys.get("dropout", 0.0)?,
    };
    config.validate().map_err(|error| InterchangeError::File {
        path: keys.path().to_owned(),
        reason: format!("this network is not possible: {error}"),
    })?;
    if config.time_embedding_type == TimeEmbeddingKind::Fourier {
        account.not_used.push(
            "nothing keeps t above 0, which time_embedding_type = \"fourier\" divides by: samples of a chain that visits t = 0 are not \
             finite, in diffusers, too"
                .to_owned(),
        );
    }
    let levels = config.block_out_channels.len();
    account.used.push(format!("config.json: a UNet2DModel of {levels} levels, {} parameters", config.parameters()));
    keys.account_for_rest(account);
    Ok((config, size))
}

/// The types of the levels. Early versions wrote `UNetRes` before them.
fn blocks<T: DeserializeOwned>(keys: &mut Keys, key: &str, defaults: &[&str]) -> Result<Vec<T>, InterchangeError> {
    let names: Vec<String> = keys.get(key, defaults.iter().map(|name| (*name).to_owned()).collect())?;
    let block = |name: &String| {
        let short = name.strip_prefix("UNetRes").unwrap_or(name);
        serde_json::from_value(Value::from(short))
            .map_err(|error| keys.error(key, format!("the block type {name} has no twin here ({error})")))
    };
    names.iter().map(block).collect()
}

fn middle(keys: &mut Keys) -> Result<MidBlock, InterchangeError> {
    match keys.get("mid_block_type", Some("UNetMidBlock2D".to_owned()))?.as_deref() {
        None => Ok(MidBlock::Nothing),
        Some("UNetMidBlock2D") => Ok(MidBlock::Plain),
        Some(name) => {
            Err(keys.error("mid_block_type", format!("{name} has no twin here; UNetMidBlock2D and null have one")))
        }
    }
}

fn has_learned_variance(keys: &mut Keys, channels: usize) -> Result<bool, InterchangeError> {
    let out_channels: usize = keys.get("out_channels", 3)?;
    match out_channels {
        same if same == channels => Ok(false),
        twice if Some(twice) == channels.checked_mul(2) => Ok(true),
        other => {
            let reason = format!(
                "{other} channels of the output with in_channels = {channels}: as many have a twin here, and twice as many, whose \
                 second half is the variance"
            );
            Err(keys.error("out_channels", reason))
        }
    }
}

fn classes(keys: &mut Keys, kind: ClassEmbedding, account: &mut Account) -> Result<usize, InterchangeError> {
    let count: Option<usize> = keys.optional("num_class_embeds")?;
    match kind {
        ClassEmbedding::Table => {
            if let Some(count) = count {
                account.used.push(format!(
                    "num_class_embeds: {count} classes; the null class, which diffusers has not, adds nothing to the embedding of t"
                ));
            }
            Ok(count.unwrap_or(0))
        }
        ClassEmbedding::Timestep => {
            let classes = count.unwrap_or(ASSUMED_CLASSES);
            if count.is_none() {
                account.assumed.push(format!("{classes} classes: class_embed_type = \"timestep\" takes any number"));
            }
            Ok(classes)
        }
        ClassEmbedding::Identity => {
            account.not_used.push(
                "class_embed_type = \"identity\" takes vectors, and there are labels only: the network gets the vector 0".to_owned(),
            );
            Ok(0)
        }
    }
}
