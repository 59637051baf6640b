//! The denoising U-Net with its timestep embedding, as a burn module.
