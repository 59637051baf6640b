"""The pipeline of a network that `diffuse export` has written.

from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
pipeline(batch_size=4).images[0].save("sample.png")
"""

import inspect

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor


class DiffusePipeline(DiffusionPipeline):
    """Draws images; `steps`, `eta` and `crop` are the defaults of the model."""

    model_cpu_offload_seq = "unet"

    def __init__(self, unet, scheduler, steps=1000, eta=0.0, crop=None):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(steps=steps, eta=eta, crop=crop)

    @torch.no_grad()
    def __call__(
        self,
        batch_size=1,
        generator=None,
        num_inference_steps=None,
        class_labels=None,
        guidance_scale=1.0,
        noise=None,
        output_type="pil",
        return_dict=True,
    ):
        """Draws `batch_size` images, [batch_size, C, H, W] of `noise` if it is given.

        `class_labels` is a class for all, or one for each. `guidance_scale` above 1 is classifier-free guidance.
        """
        config = self.unet.config
        if noise is None:
            shape = (batch_size, config.channels, *config.sample_size)
            noise = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)
        x = noise.to(self._execution_device)
        labels = None
        if config.classes > 0 and class_labels is not None:
            labels = torch.as_tensor(class_labels, device=x.device).expand(len(x))
        self.scheduler.set_timesteps(num_inference_steps or self.config.steps)
        options = {"generator": generator, "eta": self.config.eta, "use_clipped_model_output": True}
        known = inspect.signature(self.scheduler.step).parameters
        options = {key: value for key, value in options.items() if key in known}
        estimate = None
        for t in self.progress_bar(self.scheduler.timesteps):
            output = self.unet(x, t, labels, estimate).sample
            if labels is not None and guidance_scale != 1.0:
                null = self.unet(x, t, None, estimate).sample
                output = null + guidance_scale * (output - null)
            step = self.scheduler.step(output, t, x, **options)
            x = step.prev_sample
            if config.self_condition:
                estimate = step.pred_original_sample
        if self.config.crop is not None:
            height, width = self.config.crop
            top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
            x = x[:, :, top : top + height, left : left + width]
        images = (x / 2 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).float().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)
