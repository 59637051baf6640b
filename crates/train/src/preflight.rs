//! Checks that a run can start on its machine.

use burn::tensor::Device;
use data::{ImageSet, memory::available_bytes};

use crate::{config::Config, error::TrainError};

/// Copies of the parameters that a step holds at least: weights, gradients, two moments, EMA.
const COPIES: u128 = 5;

/// Refuses a network or a micro-batch that cannot fit into main memory; the system would kill the process without a message.
///
/// # Errors
/// [`TrainError::Memory`].
pub(crate) fn check_memory(config: &Config, images: &ImageSet, device: &Device) -> Result<(), TrainError> {
    let (parameters, batch_size) = (config.unet.parameters(), config.training.batch_size);
    let of_weights = COPIES * 4 * parameters;
    let of_images = if kernels::is_in_main_memory(device) {
        (4 * batch_size as u128).saturating_mul(config.unet.saved_activations(images.height(), images.width()))
    } else {
        0
    };
    let needed = of_weights.saturating_add(of_images);
    let Some(available) = available_bytes().filter(|available| needed > u128::from(*available)) else { return Ok(()) };
    let advice = if of_weights > u128::from(available) {
        format!("lower {}", config.unet.size_keys())
    } else {
        let keys = "lower training.batch_size and raise training.gradient_accumulate_every as much";
        format!("{keys}, or lower {}", config.unet.size_keys())
    };
    Err(TrainError::Memory { parameters, batch_size, needed, available, advice })
}
