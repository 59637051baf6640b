//! The configuration of a `Unet` from the names and shapes of its tensors.

use unet::{AttentionKind, UnetConfig};

use super::ImportOptions;
use crate::{Account, InterchangeError, source::Source};

/// The tensor that every `Unet` of lucidrains has, and no other network of that library.
pub(super) const STEM: &str = "init_conv.weight";

/// The modules of a `Unet`, in the order in which its constructor makes them.
const MODULES: [&str; 9] =
    ["init_conv", "time_mlp", "downs", "ups", "mid_block1", "mid_attn", "mid_block2", "final_res_block", "final_conv"];

/// Levels of a network at most.
const MOST_LEVELS: usize = 16;

/// The tensors of one network in a file.
#[derive(Clone, Copy)]
pub(super) struct Tensors<'a> {
    pub(super) source: &'a Source,
    /// Of all its names, as in `ema.ema_model.model.`.
    pub(super) prefix: &'a str,
}

impl Tensors<'_> {
    pub(super) fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn has(&self, name: &str) -> bool {
        self.source.shape(&self.full_name(name)).is_some()
    }

    pub(super) fn error(&self, name: &str, reason: impl Into<String>) -> InterchangeError {
        self.source.key_error(self.full_name(name), reason)
    }

    /// The shape of a tensor of `N` dimensions, none of which is 0.
    fn shape<const N: usize>(&self, name: &str) -> Result<[usize; N], InterchangeError> {
        let missing = || self.error(name, "it is missing, and lucidrains' Unet has it; is the file whole?");
        let shape = self.source.shape(&self.full_name(name)).ok_or_else(missing)?;
        <[usize; N]>::try_from(shape).ok().filter(|sides| sides.iter().all(|&side| side > 0)).ok_or_else(|| {
            self.error(name, format!("it has the shape {shape:?}, expected {N} dimensions: this is another network"))
        })
    }
}

/// Refuses networks of the same library and others that are no `Unet` of 2.3.4, by a name that they have.
pub(super) fn refuse_others(source: &Source, names: &[String]) -> Result<(), InterchangeError> {
    let has = |part: &str| names.iter().find(|name| name.contains(part));
    let known = [
        ("null_classes_emb", "a Unet of classifier_free_guidance, whose classes enter every block"),
        ("to_time_emb", "a KarrasUnet"),
        ("log_snr.", "a diffusion with a learned noise schedule"),
        ("vit.layers", "a UViT of simple_diffusion"),
        (".fn.fn.", "a Unet of an earlier version of denoising-diffusion-pytorch"),
        (".block1.norm.weight", "a Unet of an earlier version of denoising-diffusion-pytorch, with group norm"),
        ("net.init_conv.weight", "of ElucidatedDiffusion, whose network takes other times"),
    ];
    for (part, what) in known {
        if let Some(name) = has(part) {
            let reason = format!("it is {what}, which has no twin here; train a Unet with GaussianDiffusion of 2.3.4");
            return Err(source.key_error(name.clone(), reason));
        }
    }
    Ok(())
}

/// The configuration of the network, with what was assumed.
pub(super) fn config(
    tensors: Tensors<'_>,
    options: &ImportOptions,
    account: &mut Account,
) -> Result<UnetConfig, InterchangeError> {
    let [init_dim, input, kernel, _] = match tensors.source.shape(&tensors.full_name(STEM)) {
        Some([_, _, _]) => {
            return Err(tensors.error(STEM, "it has three dimensions: a network of sequences (Unet1D), not of images"));
        }
        _ => tensors.shape::<4>(STEM)?,
    };
    if kernel != 7 {
        return Err(tensors.error(STEM, format!("its kernel has {kernel} pixels, that of lucidrains' Unet has 7")));
    }
    let [time_dim, features] = tensors.shape("time_mlp.1.weight")?;
    let dim = time_dim / 4;
    let [out_dim, ..] = tensors.shape::<4>("final_conv.weight")?;
    let (channels, self_condition, learned_variance) = channels(tensors, options, input, out_dim)?;
    let plain_out_dim = channels * if learned_variance { 2 } else { 1 };

    let levels =
        (0..=MOST_LEVELS).take_while(|level| tensors.has(&format!("downs.{level}.0.block1.proj.weight"))).count();
    if levels == 0 || levels > MOST_LEVELS {
        return Err(tensors.error("downs", format!("it has {levels} levels, expected 1 to {MOST_LEVELS}")));
    }
    let mut dim_mults = Vec::new();
    for level in 0..levels {
        let name = format!("downs.{level}.3.{}weight", if level + 1 < levels { "1." } else { "" });
        let [width, ..] = tensors.shape::<4>(&name)?;
        if dim == 0 || !width.is_multiple_of(dim) {
            let reason =
                format!("it has {width} channels, no multiple of dim = {dim} (a quarter of time_mlp.1.weight)");
            return Err(tensors.error(&name, reason));
        }
        dim_mults.push(width / dim);
    }
    let attention = (0..levels).map(|level| attention_of(tensors, level)).collect();
    let [_, heads, _, head_dim] = tensors.shape("mid_attn.mem_kv")?;

    let fourier = tensors.source.shape(&tensors.full_name("time_mlp.0.weights")).map(|_| ());
    let random = fourier.is_some() && options.random_fourier_features;
    if fourier.is_none() {
        account.assumed.push(format!(
            "sinusoidal_pos_emb_theta {}, which the tensors do not say (--theta)",
            options.sinusoidal_pos_emb_theta
        ));
    } else {
        let kind = if random { "random" } else { "learned" };
        account
            .assumed
            .push(format!("the Fourier features of t are {kind}, which changes training alone (--random-fourier)"));
    }
    let config = UnetConfig {
        dim,
        init_dim: (init_dim != dim).then_some(init_dim),
        out_dim: (out_dim != plain_out_dim).then_some(out_dim),
        dim_mults,
        channels,
        attention,
        attention_heads: heads,
        attention_head_dim: head_dim,
        self_condition,
        learned_variance,
        learned_sinusoidal_cond: fourier.is_some() && !random,
        random_fourier_features: random,
        learned_sinusoidal_dim: if fourier.is_some() { features.saturating_sub(1) } else { 16 },
        sinusoidal_pos_emb_theta: options.sinusoidal_pos_emb_theta,
        ..UnetConfig::default()
    };
    let config = with_usual_attention(config);
    config
        .validate()
        .map_err(|error| tensors.source.file_error(format!("its network is not possible here: {error}")))?;
    Ok(config)
}

/// Channels of the images, and whether the network takes an earlier prediction and gives a variance.
fn channels(
    tensors: Tensors<'_>,
    options: &ImportOptions,
    input: usize,
    output: usize,
) -> Result<(usize, bool, bool), InterchangeError> {
    if let Some(channels) = options.channels {
        if input != channels && input != 2 * channels {
            let reason =
                format!("it takes {input} channels, which are neither {channels} (--channels) nor twice as many");
            return Err(tensors.error(STEM, reason));
        }
        return Ok((channels, input == 2 * channels, output == 2 * channels));
    }
    match (input, output) {
        _ if input == output => Ok((input, false, false)),
        _ if input == 2 * output => Ok((output, true, false)),
        _ if 2 * input == output => Ok((input, false, true)),
        _ => {
            let reason = format!(
                "it gives {output} channels, and the network takes {input}: name the channels of the images with --channels"
            );
            Err(tensors.error("final_conv.weight", reason))
        }
    }
}

/// The attention of a level: linear attention has a norm behind it.
fn attention_of(tensors: Tensors<'_>, level: usize) -> AttentionKind {
    if !tensors.has(&format!("downs.{level}.2.to_qkv.weight")) {
        AttentionKind::Off
    } else if tensors.has(&format!("downs.{level}.2.to_out.1.g")) {
        AttentionKind::Linear
    } else {
        AttentionKind::Full
    }
}

/// The same network with an empty list where its attention is lucidrains' default.
fn with_usual_attention(config: UnetConfig) -> UnetConfig {
    let usual = UnetConfig { attention: Vec::new(), ..config.clone() };
    let is_usual = (0..config.dim_mults.len()).all(|level| usual.attention_of(level) == config.attention_of(level));
    if is_usual { usual } else { config }
}

/// Refuses heads that differ between levels, which [`UnetConfig`] cannot say.
pub(super) fn check_heads(tensors: Tensors<'_>, config: &UnetConfig) -> Result<(), InterchangeError> {
    let expected = [config.attention_heads, config.attention_head_dim];
    for side in ["downs", "ups"] {
        for number in 0..config.dim_mults.len() {
            // the levels up are numbered from the innermost
            let level = if side == "ups" { config.dim_mults.len() - 1 - number } else { number };
            let name = format!("{side}.{number}.2.mem_kv");
            let heads = match config.attention_of(level) {
                AttentionKind::Off => continue,
                AttentionKind::Linear => tensors.shape(&name).map(|[_, heads, head_dim, _]| [heads, head_dim]),
                AttentionKind::Full => tensors.shape(&name).map(|[_, heads, _, head_dim]| [heads, head_dim]),
            }?;
            if heads != expected {
                let reason = format!(
                    "it has {} heads of {} channels, and mid_attn {} of {}: levels of different heads (attn_heads, \
                     attn_dim_head as tuples) have no twin here",
                    heads[0], heads[1], expected[0], expected[1]
                );
                return Err(tensors.error(&name, reason));
            }
        }
    }
    Ok(())
}

/// The names of a `Unet`'s parameters in the order of `Module.parameters()`, by which its optimizer numbers them.
///
/// It is the order in which lucidrains' constructor makes the modules, and in each of them parameters before modules.
pub(super) fn parameter_order(mut names: Vec<String>) -> Vec<String> {
    let module = |name: &str| {
        let first = name.split('.').next().unwrap_or_default();
        MODULES.iter().position(|module| *module == first)
    };
    names.sort_by_key(|name| module(name));
    // in an attention, `mem_kv` is a parameter of its own, before the norm
    for index in 1..names.len() {
        let attention = names[index].strip_suffix("mem_kv");
        if attention.is_some_and(|attention| names[index - 1].strip_prefix(attention) == Some("norm.g")) {
            names.swap(index - 1, index);
        }
    }
    names
}

/// Whether the first part of a name, without its prefix, is that of a module of a `Unet`.
pub(super) fn is_of_unet(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    MODULES.contains(&first)
}
