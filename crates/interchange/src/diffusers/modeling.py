"""The U-Net of lucidrains' denoising-diffusion-pytorch in plain PyTorch, as `diffuse export` writes it.

It has the parameter names of that library, and needs PyTorch and diffusers alone. Images are [N, C, H, W] in [-1, 1].
"""

import math
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn
from torch.nn import functional


@dataclass
class DiffuseUnetOutput(BaseOutput):
    """The prediction, [N, out_dim, H, W]."""

    sample: torch.Tensor


class Norm(nn.Module):
    """RMS norm over the channels with a gain."""

    def __init__(self, channels):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x):
        return functional.normalize(x, dim=1) * self.g * x.shape[1] ** 0.5


class Block(nn.Module):
    """Convolution, norm, scale and shift, SiLU."""

    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.proj = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm = Norm(channels_out)

    def forward(self, x, scale_shift=None):
        x = self.norm(self.proj(x))
        if scale_shift is not None:
            scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
            x = x * (scale + 1) + shift
        return functional.silu(x)


class ResnetBlock(nn.Module):
    """Two blocks and a residual connection around them."""

    def __init__(self, channels_in, channels_out, time_dim):
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, 2 * channels_out))
        self.block1 = Block(channels_in, channels_out)
        self.block2 = Block(channels_out, channels_out)
        same = channels_in == channels_out
        self.res_conv = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x, time):
        return self.block2(self.block1(x, self.mlp(time))) + self.res_conv(x)


class LinearAttention(nn.Module):
    """Attention whose cost grows with the number of pixels, with four learned keys and values."""

    def __init__(self, channels, heads, head_dim):
        super().__init__()
        self.heads = heads
        self.norm = Norm(channels)
        self.mem_kv = nn.Parameter(torch.randn(2, heads, head_dim, 4))
        self.to_qkv = nn.Conv2d(channels, 3 * heads * head_dim, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(heads * head_dim, channels, 1), Norm(channels))

    def forward(self, x):
        batch, _, height, width = x.shape
        # [batch, heads, head_dim, positions]
        q, k, v = self.to_qkv(self.norm(x)).reshape(batch, 3, self.heads, -1, height * width).unbind(1)
        memory_k, memory_v = (memory.expand(batch, -1, -1, -1) for memory in self.mem_kv)
        k = torch.cat([memory_k, k], dim=3).softmax(dim=3)
        v = torch.cat([memory_v, v], dim=3)
        q = q.softmax(dim=2) * q.shape[2] ** -0.5
        out = (k @ v.transpose(2, 3)).transpose(2, 3) @ q
        return self.to_out(out.reshape(batch, -1, height, width)) + x


class FullAttention(nn.Module):
    """Softmax attention, with four learned keys and values."""

    def __init__(self, channels, heads, head_dim):
        super().__init__()
        self.heads = heads
        self.norm = Norm(channels)
        self.mem_kv = nn.Parameter(torch.randn(2, heads, 4, head_dim))
        self.to_qkv = nn.Conv2d(channels, 3 * heads * head_dim, 1, bias=False)
        self.to_out = nn.Conv2d(heads * head_dim, channels, 1)

    def forward(self, x):
        batch, _, height, width = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(batch, 3, self.heads, -1, height * width)
        # [batch, heads, positions, head_dim]
        q, k, v = qkv.transpose(3, 4).unbind(1)
        memory_k, memory_v = (memory.expand(batch, -1, -1, -1) for memory in self.mem_kv)
        k, v = torch.cat([memory_k, k], dim=2), torch.cat([memory_v, v], dim=2)
        out = functional.scaled_dot_product_attention(q, k, v)
        return self.to_out(out.transpose(2, 3).reshape(batch, -1, height, width)) + x


class Sinusoidal(nn.Module):
    """Sines and cosines of t."""

    def __init__(self, dim, theta):
        super().__init__()
        self.dim, self.theta = dim, theta

    def forward(self, t):
        half = self.dim // 2
        exponents = torch.arange(half, device=t.device, dtype=torch.float32) / (half - 1)
        angles = t[:, None] * torch.exp(-math.log(self.theta) * exponents)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Fourier(nn.Module):
    """t, and sines and cosines of it with given frequencies."""

    def __init__(self, dim):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(dim // 2))

    def forward(self, t):
        angles = t[:, None] * self.weights.float() * 2 * math.pi
        return torch.cat([t[:, None], angles.sin(), angles.cos()], dim=1)


class Unshuffle(nn.Module):
    """Squares of four pixels become channels."""

    def forward(self, x):
        return functional.pixel_unshuffle(x, 2)


class DiffuseUnet(ModelMixin, ConfigMixin):
    """The network."""

    @register_to_config
    def __init__(
        self,
        dim,
        dim_mults,
        channels,
        attention,
        init_dim=None,
        out_dim=None,
        patch_size=1,
        attention_heads=4,
        attention_head_dim=32,
        classes=0,
        self_condition=False,
        learned_variance=False,
        learned_sinusoidal_cond=False,
        random_fourier_features=False,
        learned_sinusoidal_dim=16,
        sinusoidal_pos_emb_theta=10000.0,
        dropout=0.0,
        sample_size=None,
    ):
        super().__init__()
        time_dim = 4 * dim
        area = patch_size**2
        stem = init_dim or dim
        dims = [stem, *(multiple * dim for multiple in dim_mults)]
        heads = (attention_heads, attention_head_dim)

        self.init_conv = nn.Conv2d(channels * area * (2 if self_condition else 1), stem, 7, padding=3)
        if learned_sinusoidal_cond or random_fourier_features:
            features, size = Fourier(learned_sinusoidal_dim), learned_sinusoidal_dim + 1
        else:
            features, size = Sinusoidal(dim, sinusoidal_pos_emb_theta), dim
        self.time_mlp = nn.Sequential(features, nn.Linear(size, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim))
        # the last row is the null class
        self.label_embedding = nn.Embedding(classes + 1, time_dim) if classes > 0 else None

        kinds = {"off": lambda *_: nn.Identity(), "linear": LinearAttention, "full": FullAttention}
        levels = list(zip(dims, dims[1:], attention))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for index, (outer, inner, kind) in enumerate(levels):
            innermost = index + 1 == len(levels)
            down = nn.Sequential(Unshuffle(), nn.Conv2d(4 * outer, inner, 1))
            self.downs.append(
                nn.ModuleList(
                    [
                        ResnetBlock(outer, outer, time_dim),
                        ResnetBlock(outer, outer, time_dim),
                        kinds[kind](outer, *heads),
                        nn.Conv2d(outer, inner, 3, padding=1) if innermost else down,
                    ]
                )
            )
        self.mid_block1 = ResnetBlock(dims[-1], dims[-1], time_dim)
        self.mid_attn = FullAttention(dims[-1], *heads)
        self.mid_block2 = ResnetBlock(dims[-1], dims[-1], time_dim)
        for index, (outer, inner, kind) in reversed(list(enumerate(levels))):
            conv = nn.Conv2d(inner, outer, 3, padding=1)
            self.ups.append(
                nn.ModuleList(
                    [
                        ResnetBlock(inner + outer, inner, time_dim),
                        ResnetBlock(inner + outer, inner, time_dim),
                        kinds[kind](inner, *heads),
                        conv if index == 0 else nn.Sequential(nn.Upsample(scale_factor=2), conv),
                    ]
                )
            )
        self.final_res_block = ResnetBlock(2 * stem, stem, time_dim)
        out = out_dim or channels * (2 if learned_variance else 1)
        self.final_conv = nn.Conv2d(stem, out * area, 1)

    def forward(self, sample, timestep, class_labels=None, self_condition=None, return_dict=True):
        """The prediction for `sample` [N, C, H, W] at `timestep` (a number or [N]).

        `class_labels` [N] are 0 to `classes`, the null class, which is also that without labels. `self_condition` is an
        earlier prediction of x_0, or None.
        """
        config = self.config
        t = torch.as_tensor(timestep, device=sample.device, dtype=torch.float32).expand(sample.shape[0])
        if config.self_condition:
            estimate = torch.zeros_like(sample) if self_condition is None else self_condition
            sample = torch.cat([estimate, sample], dim=1)
        features, *perceptron = self.time_mlp
        time = features(t).to(sample.dtype)
        for layer in perceptron:
            time = layer(time)
        if self.label_embedding is not None:
            if class_labels is None:
                class_labels = torch.full([sample.shape[0]], config.classes, device=sample.device)
            time = time + self.label_embedding(class_labels)

        stem = x = self.init_conv(functional.pixel_unshuffle(sample, config.patch_size))
        skips = []
        for first, second, attention, resample in self.downs:
            x = first(x, time)
            skips.append(x)
            x = attention(second(x, time))
            skips.append(x)
            x = resample(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, time)), time)
        for first, second, attention, resample in self.ups:
            x = first(torch.cat([x, skips.pop()], dim=1), time)
            x = second(torch.cat([x, skips.pop()], dim=1), time)
            x = resample(attention(x))
        x = self.final_res_block(torch.cat([x, stem], dim=1), time)
        x = functional.pixel_shuffle(self.final_conv(x), config.patch_size)
        return DiffuseUnetOutput(sample=x) if return_dict else (x,)
