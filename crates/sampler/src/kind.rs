//! All samplers under one roof, for those who choose by name.

use burn::tensor::Tensor;
use noise::Noise;
use schedule::NoiseLevel;
use serde::{Deserialize, Serialize};

use crate::{
    DdimOptions, DdpmOptions, DeisOptions, Denoiser, DpmSolverOptions, EdmOptions, EulerAncestralOptions, Observer,
    PndmOptions, SamplerError, ThirdOrder, UniPcOptions, Variance, ddim, ddpm, deis, dpm_solver_plus_plus,
    edm_stochastic, euler, euler_ancestral, heun, pndm, unipc,
};

/// Which sampler, by the name that files and command lines have for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// [`ddpm`]: ancestral sampling.
    Ddpm,
    /// [`ddim`].
    #[default]
    Ddim,
    /// [`euler`].
    Euler,
    /// [`euler_ancestral`].
    EulerAncestral,
    /// [`heun`].
    Heun,
    /// [`edm_stochastic`].
    Edm,
    /// [`dpm_solver_plus_plus`] of second order.
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m,
    /// [`dpm_solver_plus_plus`] of third order ([`ThirdOrder::Exact`]).
    #[serde(rename = "dpmpp_3m")]
    Dpmpp3m,
    /// [`dpm_solver_plus_plus`] of second order as an SDE.
    #[serde(rename = "dpmpp_2m_sde")]
    Dpmpp2mSde,
    /// [`dpm_solver_plus_plus`] of third order ([`ThirdOrder::Exact`]) as an SDE.
    #[serde(rename = "dpmpp_3m_sde")]
    Dpmpp3mSde,
    /// [`unipc`] of second order.
    Unipc,
    /// [`deis`] of second order.
    Deis,
    /// [`pndm`] without Runge-Kutta steps.
    Pndm,
}

/// What the samplers differ in, as far as a name leaves it open.
#[derive(Clone, Debug, PartialEq)]
pub struct KindOptions {
    /// [`DdimOptions::eta`].
    pub eta: f64,
    /// [`EdmOptions::churn`].
    pub churn: f64,
    /// [`DdpmOptions::variance`].
    pub variance: Variance,
    /// x_0 is clipped to ± this; None leaves it as it is.
    pub clip: Option<f64>,
    /// Which image of the seed each one in the batch is; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl SamplerKind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Ddpm,
        Self::Ddim,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Edm,
        Self::Dpmpp2m,
        Self::Dpmpp3m,
        Self::Dpmpp2mSde,
        Self::Dpmpp3mSde,
        Self::Unipc,
        Self::Deis,
        Self::Pndm,
    ];

    /// Its name: `ddpm`, `dpmpp_2m_sde`, …
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler_ancestral",
            Self::Heun => "heun",
            Self::Edm => "edm",
            Self::Dpmpp2m => "dpmpp_2m",
            Self::Dpmpp3m => "dpmpp_3m",
            Self::Dpmpp2mSde => "dpmpp_2m_sde",
            Self::Dpmpp3mSde => "dpmpp_3m_sde",
            Self::Unipc => "unipc",
            Self::Deis => "deis",
            Self::Pndm => "pndm",
        }
    }

    /// How often a run of `steps` steps to clean data asks the denoiser.
    pub const fn nfe(self, steps: usize) -> usize {
        match self {
            Self::Heun | Self::Edm => (2 * steps).saturating_sub(1),
            Self::Pndm if steps > 1 => steps + 1,
            _ => steps,
        }
    }

    /// Walks from `x_t` at `levels[0]` to the last of `levels` and returns the image there. `level_at` is what
    /// [`edm_stochastic`] asks for levels between them.
    ///
    /// # Errors
    /// Those of the sampler.
    #[expect(clippy::too_many_arguments, reason = "what one or another of the samplers takes")]
    pub fn sample(
        self,
        denoiser: &dyn Denoiser,
        x_t: Tensor<4>,
        levels: &[NoiseLevel],
        level_at: &dyn Fn(f64) -> NoiseLevel,
        options: KindOptions,
        noise: &Noise,
        observe: &mut Observer,
    ) -> Result<Tensor<4>, SamplerError> {
        let KindOptions { eta, churn, variance, clip, noise_indices } = options;
        let dpm_solver = |order: usize, eta: f64, noise_indices: Option<Vec<u64>>| DpmSolverOptions {
            order,
            eta,
            third_order: ThirdOrder::Exact,
            clip,
            noise_indices,
            ..DpmSolverOptions::default()
        };
        match self {
            Self::Ddpm => ddpm(denoiser, x_t, levels, DdpmOptions { variance, clip, noise_indices }, noise, observe),
            Self::Ddim => ddim(denoiser, x_t, levels, DdimOptions { eta, clip, noise_indices }, noise, observe),
            Self::Euler => euler(denoiser, x_t, levels, clip, observe),
            Self::EulerAncestral => {
                let options = EulerAncestralOptions { clip, noise_indices, ..EulerAncestralOptions::default() };
                euler_ancestral(denoiser, x_t, levels, options, noise, observe)
            }
            Self::Heun => heun(denoiser, x_t, levels, clip, observe),
            Self::Edm => {
                let options = EdmOptions { churn, clip, noise_indices, ..EdmOptions::default() };
                edm_stochastic(denoiser, x_t, levels, level_at, options, noise, observe)
            }
            Self::Dpmpp2m => {
                dpm_solver_plus_plus(denoiser, x_t, levels, dpm_solver(2, 0.0, noise_indices), noise, observe)
            }
            Self::Dpmpp3m => {
                dpm_solver_plus_plus(denoiser, x_t, levels, dpm_solver(3, 0.0, noise_indices), noise, observe)
            }
            Self::Dpmpp2mSde => {
                dpm_solver_plus_plus(denoiser, x_t, levels, dpm_solver(2, 1.0, noise_indices), noise, observe)
            }
            Self::Dpmpp3mSde => {
                dpm_solver_plus_plus(denoiser, x_t, levels, dpm_solver(3, 1.0, noise_indices), noise, observe)
            }
            Self::Unipc => unipc(denoiser, x_t, levels, UniPcOptions { clip, ..UniPcOptions::default() }, observe),
            Self::Deis => deis(denoiser, x_t, levels, DeisOptions { clip, ..DeisOptions::default() }, observe),
            Self::Pndm => pndm(denoiser, x_t, levels, PndmOptions { midpoints: None, clip }, observe),
        }
    }
}

impl core::fmt::Display for SamplerKind {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.pad(self.name())
    }
}

impl core::str::FromStr for SamplerKind {
    type Err = String;

    /// The error names all samplers.
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{name}` is not a sampler: use one of {names}")
        })
    }
}
