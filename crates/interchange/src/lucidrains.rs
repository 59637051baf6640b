//! Models of lucidrains' denoising-diffusion-pytorch.
