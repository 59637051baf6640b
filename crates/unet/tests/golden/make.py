"""Writes the golden files beside it from lucidrains' own package.

    pip install torch denoising-diffusion-pytorch==2.3.4 && python make.py

Each file holds `weights.*` (before any training: cloned, since a state dict shares memory with the parameters), x, t and
y; `grads.*`, `grad_norm` of the first of three Adam steps (lr 1e-3, betas .9/.99, eps 1e-8, clip 1.0) of the v-objective
with the sigmoid schedule, their `losses`, and some parameters `after3.*` them.
"""

import pathlib

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from safetensors.torch import save_file

torch.set_num_threads(1)
here = pathlib.Path(__file__).parent


def make(name, size, trained=True, **config):
    torch.manual_seed(sum(name.encode()))
    unet = Unet(**config)
    channels, (height, width) = config["channels"], size
    with torch.no_grad():
        for key, parameter in unet.named_parameters():
            if key.endswith(".g"):  # gains that are not all 1, so that they are tested
                parameter.add_(0.2 * torch.randn_like(parameter))
    file = {f"weights.{key}": value.clone() for key, value in unet.state_dict().items()}
    x, t = torch.randn(2, channels, height, width), torch.tensor([3, 700])
    file |= {"x": x, "t": t}
    estimate = None
    if config.get("self_condition"):
        estimate = file["self_cond"] = torch.randn_like(x)
    y = unet(x, t, estimate)
    file["y"] = y.detach().clone()
    if trained:
        diffusion = GaussianDiffusion(unet, image_size=size, auto_normalize=False)
        x0 = file["x0"] = torch.randn_like(x).clamp(-1, 1)
        epsilon = file["eps"] = torch.randn_like(x)
        optimizer = torch.optim.Adam(unet.parameters(), lr=1e-3, betas=(0.9, 0.99), eps=1e-8)
        losses = []
        for step in range(3):
            optimizer.zero_grad()
            loss = diffusion.p_losses(x0, t, noise=epsilon.clone())
            loss.backward()
            losses.append(loss.detach())
            if step == 0:
                file |= {f"grads.{key}": value.grad.clone() for key, value in unet.named_parameters()}
            norm = torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            if step == 0:
                file["grad_norm"] = norm.detach().clone()
            optimizer.step()
        file["losses"] = torch.stack(losses)
        kept = ("init_conv", "mid_attn", "final_conv", "time_mlp", "ups.0.2")
        file |= {f"after3.{k}": v.clone() for k, v in unet.state_dict().items() if k.startswith(kept)}
    save_file({key: value.contiguous() for key, value in file.items()}, here / f"{name}.safetensors")


small = dict(attn_heads=2, attn_dim_head=8)
make("two_levels", (8, 8), dim=8, dim_mults=(1, 2), channels=1)
make("four_levels", (16, 16), dim=4, dim_mults=(1, 2, 4, 8), channels=3, **small)
make(
    "options", (8, 12), trained=False, dim=8, dim_mults=(1, 2), channels=2, init_dim=12, self_condition=True,
    learned_variance=True, learned_sinusoidal_cond=True, full_attn=(True, False), **small,
)
