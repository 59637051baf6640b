//! Folders of diffusers' unconditional pipelines, as `DDPMPipeline.save_pretrained` writes them: `model_index.json`,
//! `unet/config.json` with its weights, `scheduler/scheduler_config.json`.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use interchange::diffusers::{ImportOptions, import};
//!
//! let (model, account) = import("ddpm-cifar10-32".as_ref(), &ImportOptions::default(), &Device::flex())?;
//! println!("{account}");
//! model.save("model.safetensors".as_ref())?;
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod export;
mod folder;
mod keys;
mod lucid;
mod network;
mod scheduler;
#[cfg(test)]
mod tests;
mod weights;

use std::path::Path;

use burn::tensor::Device;
use checkpoint::{Header, ImageFormat, Model};
use unet::{Network, Unet2dConfig};

pub use export::export;
pub use folder::is_folder;
#[cfg(feature = "hf")]
pub(crate) use weights::shards;

use self::{folder::Folder, keys::Keys, scheduler::Chain, weights::Weights};
use crate::{Account, InterchangeError};

/// What a folder may not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Height and width of the images, where `sample_size` of the network is not given; else they replace it.
    pub image_size: Option<(usize, usize)>,
}

/// Reads a folder as a model, and says what of it was used.
///
/// The folder is a pipeline or its `unet` alone; then the schedule is that of Ho et al. 2020. Weights may be safetensors or
/// pickles of PyTorch, whole or in shards, in f32, f16, bf16 or f64; pickles are read and never executed. Keys that the
/// configurations lack have the defaults of diffusers' classes.
///
/// # Errors
/// [`InterchangeError`] names the file, and the key, tensor or class that is missing, broken or has no twin here.
pub fn import(folder: &Path, options: &ImportOptions, device: &Device) -> Result<(Model, Account), InterchangeError> {
    let mut account = Account::default();
    let folder = Folder::open(folder, &mut account)?;
    let (config, size) = network::read(Keys::read(&folder.config)?, &mut account)?;
    let (height, width) = options.image_size.or(size).ok_or_else(|| InterchangeError::Key {
        path: folder.config.clone(),
        key: "sample_size".to_owned(),
        reason: "the size of the images is not given; name it with --image-size when importing".to_owned(),
    })?;
    let impossible = |error: unet::UnetError| InterchangeError::File {
        path: folder.config.clone(),
        reason: format!("this network is not possible: {error}"),
    };
    config.check_image_size(height, width).map_err(impossible)?;
    let chain = match &folder.scheduler {
        Some(path) => Chain::read(Keys::read(path)?, folder.pipeline.as_deref(), &config, &mut account)?,
        None => Chain::assumed(&config, &mut account),
    };
    let network = load(&folder, &config, device, &mut account)?;
    let image = ImageFormat::new(config.channels, height, width);
    let mut header = Header::new(config, image);
    chain.describe(&mut header);
    Ok((Model { unet: network, header }, account))
}

/// The network with the weights of the folder.
fn load(
    folder: &Folder,
    config: &Unet2dConfig,
    device: &Device,
    account: &mut Account,
) -> Result<Network, InterchangeError> {
    let mut weights = Weights::open(&folder.unet, account)?;
    let file = |reason: String| InterchangeError::File { path: folder.unet.clone(), reason };
    // the size of the network is checked against that of the files before it is allocated; an element has 2 bytes or more
    let (claimed, there) = (2 * config.parameters(), u128::from(weights.bytes()));
    if claimed > 16 * there + (1 << 20) {
        let channels = &config.block_out_channels;
        return Err(file(format!(
            "the network of config.json (block_out_channels {channels:?}) has at least {claimed} bytes of weights, which do not fit \
             the {there} of the files"
        )));
    }
    let network = config.init(device).map_err(|error| file(error.to_string()))?;
    let mut problem = None;
    let loaded = network.load_state_dict(|name| match weights.take(name) {
        Ok(data) => data,
        Err(error) => {
            problem.get_or_insert(error);
            None
        }
    });
    if let Some(problem) = problem {
        return Err(problem);
    }
    let network = loaded.map_err(|error| file(format!("the weights do not fit config.json: {error}")))?;
    let left = weights.left().map(|name| format!("the tensor `{name}`: the network has none of this name"));
    account.not_used.extend(left);
    Ok(network.into())
}
