//! One noise level of a chain.

/// A noise level: x_t = sqrt(alpha_bar) · x_0 + sqrt(1 - alpha_bar) · epsilon (Ho et al. 2020, equation 4).
///
/// It is independent of a schedule: discrete chains, continuous time and EDM's sigmas are all sequences of such levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseLevel {
    /// The timestep 0, …, T-1 of the chain that the network was trained on; -1 for clean data.
    pub timestep: f64,
    /// Share of the variance that is signal, in [0, 1]: 1 is clean data, 0 is pure noise.
    pub alpha_bar: f64,
}

impl NoiseLevel {
    /// Clean data: the level at which every sampler ends.
    pub const CLEAN: NoiseLevel = NoiseLevel { timestep: -1.0, alpha_bar: 1.0 };

    /// Factor of x_0 in x_t: sqrt(alpha_bar), in [0, 1].
    pub fn signal_scale(self) -> f64 {
        self.alpha_bar.sqrt()
    }

    /// Factor of epsilon in x_t: sqrt(1 - alpha_bar), in [0, 1].
    pub fn noise_scale(self) -> f64 {
        (1.0 - self.alpha_bar).sqrt()
    }

    /// Noise over signal, sqrt((1 - alpha_bar) / alpha_bar): EDM's sigma (Karras et al. 2022), in the data's units.
    /// 0 for clean data, infinite for pure noise.
    pub fn sigma(self) -> f64 {
        ((1.0 - self.alpha_bar) / self.alpha_bar).sqrt()
    }

    /// Signal-to-noise ratio, alpha_bar / (1 - alpha_bar) (Kingma et al. 2021): infinite for clean data, 0 for pure
    /// noise.
    pub fn snr(self) -> f64 {
        self.alpha_bar / (1.0 - self.alpha_bar)
    }

    /// Natural logarithm of [`NoiseLevel::snr`]: +infinity for clean data, -infinity for pure noise.
    pub fn log_snr(self) -> f64 {
        self.alpha_bar.ln() - (-self.alpha_bar).ln_1p()
    }
}
