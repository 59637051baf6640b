//! Noise schedules of diffusion models: betas, alpha-bars, posterior coefficients, SNR and respacing in plain f64.
