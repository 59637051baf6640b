//! Models of lucidrains' denoising-diffusion-pytorch (2.3.4), in and out.
//!
//! [`import()`] reads what `Trainer.save` writes, and state dicts of `GaussianDiffusion`, `LearnedGaussianDiffusion` and `Unet`, as `.pt`
//! or safetensors: the network follows from names and shapes, schedule and objective from the buffers. [`export()`] writes a file that
//! `Trainer.load` and `load_state_dict(strict=True)` accept.
//!
//! ```
//! use burn::tensor::Device;
//! use checkpoint::{Header, ImageFormat, Model};
//! use interchange::lucidrains::{ImportOptions, export, import};
//! use unet::UnetConfig;
//!
//! let device = Device::flex();
//! let unet = UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 1, ..UnetConfig::default() };
//! let header = Header::new(unet.clone(), ImageFormat::new(1, 16, 16));
//! let model = Model { unet: unet.init(&device)?.into(), header };
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("model-1.pt");
//! export(&model, None, &path)?;
//! let back = import(&path, &ImportOptions { image_size: Some((16, 16)), ..ImportOptions::default() }, &device)?;
//! assert_eq!(back.model.header.schedule, model.header.schedule);
//! assert_eq!(back.model.unet.state_dict(), model.unet.state_dict());
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod diffusion;
mod export;
mod import;
mod network;
mod training;

use burn::tensor::TensorData;
use schedule::{BetaSchedule, Objective};

pub use export::export;
pub use import::{Imported, import};
pub use training::Training;

/// The version of denoising-diffusion-pytorch whose files are read and written.
const VERSION: &str = "2.3.4";

/// What the tensors of a file do not say, and choices.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportOptions {
    /// Height and width of the images; if not given, 32 by 32, or the least size above it that the network takes.
    pub image_size: Option<(usize, usize)>,
    /// Take the weights in training, not their average.
    pub raw: bool,
    /// Channels of the images; if not given, what the network takes and gives decides.
    pub channels: Option<usize>,
    /// The objective, also against that of the file; if not given and not known from the file, v.
    pub objective: Option<Objective>,
    /// The beta schedule of a file without buffers; sigmoid if not given.
    pub beta_schedule: Option<BetaSchedule>,
    /// The timesteps of a file without buffers; 1000 if not given.
    pub timesteps: Option<usize>,
    /// Steps of sampling, lucidrains' `sampling_timesteps`: fewer than the timesteps are DDIM. All timesteps, by DDPM, if not given.
    pub sampling_timesteps: Option<usize>,
    /// The longest period of the sinusoidal embedding, `sinusoidal_pos_emb_theta`.
    pub sinusoidal_pos_emb_theta: f64,
    /// Whether Fourier features of t are random (and not trained) rather than learned.
    pub random_fourier_features: bool,
    /// Also read the state of the training: optimizer, averages and steps.
    pub training: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            image_size: None,
            raw: false,
            channels: None,
            objective: None,
            beta_schedule: None,
            timesteps: None,
            sampling_timesteps: None,
            sinusoidal_pos_emb_theta: 10_000.0,
            random_fourier_features: false,
            training: false,
        }
    }
}

/// Parameters by their names in the state dict, in the order of the network.
type Parameters = Vec<(String, TensorData)>;
