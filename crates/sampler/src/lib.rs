//! The reverse chain of a diffusion model over any Denoiser, as functions with an observer.
