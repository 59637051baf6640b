//! Folders of diffusers' DDPMPipeline.
