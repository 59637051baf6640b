//! A choice among all samplers by name.

use burn::tensor::Tensor;
use noise::Noise;
use schedule::NoiseLevel;
use serde::de::{IntoDeserializer, value::Error};
use serde::{Deserialize, Serialize};

use crate::{
    DdimOptions, DdpmOptions, DeisOptions, Denoiser, DpmSolverOptions, EdmOptions, EulerAncestralOptions, Observer,
    PndmOptions, SamplerError, ThirdOrder, UniPcOptions, Variance, ddim, ddpm, deis, dpm_solver_plus_plus,
    edm_stochastic, euler, euler_ancestral, heun, pndm, unipc,
};

/// A sampler, by its name in files and on command lines: `ddpm`, `dpmpp_2m_sde`, ….
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

/// The options that a name does not determine.
#[derive(Clone, Debug, PartialEq)]
pub struct KindOptions {
    /// [`DdimOptions::eta`].
    pub eta: f64,
    /// [`EdmOptions::churn`].
    pub churn: f64,
    /// [`DdpmOptions::variance`].
    pub variance: Variance,
    /// x_0 is clipped to ± this; None leaves it unclipped.
    pub clip: Option<f64>,
    /// Noise index of each image; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl SamplerKind {
    /// All samplers.
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

    /// Number of evaluations (NFE) of the denoiser in a run of `steps` steps to clean data; guidance evaluates the network twice for
    /// each.
    pub const fn nfe(self, steps: usize) -> usize {
        match self {
            Self::Heun | Self::Edm => (2 * steps).saturating_sub(1),
            Self::Pndm if steps > 1 => steps + 1,
            _ => steps,
        }
    }

    /// Samples from `x_t` at `levels[0]` to the last of `levels`. [`edm_stochastic`] takes the levels between them from
    /// `level_at`.
    ///
    /// # Shapes
    /// - `x_t` and the result: `[batch, channels, height, width]`
    ///
    /// # Errors
    /// Those of the sampler.
    #[expect(clippy::too_many_arguments, reason = "the arguments of all samplers")]
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
            Self::Dpmpp2m | Self::Dpmpp3m | Self::Dpmpp2mSde | Self::Dpmpp3mSde => {
                let options = DpmSolverOptions {
                    order: if matches!(self, Self::Dpmpp3m | Self::Dpmpp3mSde) { 3 } else { 2 },
                    eta: if matches!(self, Self::Dpmpp2mSde | Self::Dpmpp3mSde) { 1.0 } else { 0.0 },
                    third_order: ThirdOrder::Exact,
                    clip,
                    noise_indices,
                    ..DpmSolverOptions::default()
                };
                dpm_solver_plus_plus(denoiser, x_t, levels, options, noise, observe)
            }
            Self::Unipc => unipc(denoiser, x_t, levels, UniPcOptions { clip, ..UniPcOptions::default() }, observe),
            Self::Deis => deis(denoiser, x_t, levels, DeisOptions { clip, ..DeisOptions::default() }, observe),
            Self::Pndm => pndm(denoiser, x_t, levels, PndmOptions { midpoints: None, clip }, observe),
        }
    }
}

impl core::fmt::Display for SamplerKind {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // serde writes the name of a unit variant
        self.serialize(formatter)
    }
}

impl core::str::FromStr for SamplerKind {
    type Err = String;

    /// The error lists the names of all samplers.
    fn from_str(name: &str) -> Result<Self, String> {
        Self::deserialize(name.into_deserializer()).map_err(|_: Error| {
            let names = Self::ALL.map(|kind| kind.to_string()).join(", ");
            format!("`{name}` is not a sampler: use one of {names}")
        })
    }
}
