"""Writes the golden files of the tests: outputs and gradients of diffusers' UNet2DModel.

python make.py
"""

from pathlib import Path

import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

here = Path(__file__).parent
torch.set_num_threads(1)


def make(name, size, labels=None, t=(3, 17), trained=False, **config):
    torch.manual_seed(0)
    # defaults of diffusers that are too wide for a small file
    unet = UNet2DModel(**(dict(norm_num_groups=2, layers_per_block=1, time_embedding_dim=6) | config)).eval()
    with torch.no_grad():
        for key, value in unet.named_parameters():
            if "norm" in key:
                value.add_(0.3 * torch.randn_like(value))
    channels = unet.config.in_channels
    x = torch.randn(2, channels, *size)
    t = torch.tensor(t)
    file = {f"weights.{key}": value.clone() for key, value in unet.state_dict().items()}
    file |= {"x": x, "t": t}
    if labels is not None:
        labels = torch.tensor(labels)
        if labels.dtype == torch.long:
            file["labels"] = labels
        else:
            # the vector 0 for the type "identity"
            labels = labels.expand(2, unet.time_embedding.linear_2.out_features)
    y = unet(x, t, class_labels=labels).sample
    file["y"] = y.detach().clone()
    if trained:
        target = file["target"] = torch.randn_like(y)
        loss = torch.nn.functional.mse_loss(y, target)
        loss.backward()
        file["loss"] = loss.detach()[None]
        file |= {f"grads.{k}": v.grad.clone() for k, v in unet.named_parameters() if v.grad is not None}
    tensors = {key: value.contiguous() for key, value in file.items()}
    save_file(tensors, here / f"{name}.safetensors", metadata={"config": unet.to_json_string()})


make(
    "attention", (8, 8), trained=True, block_out_channels=(4, 6), attention_head_dim=3,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)
make(
    "ddpm", (8, 12), block_out_channels=(4, 6), layers_per_block=2, attention_head_dim=None, downsample_padding=0,
    flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6, act_fn="swish", in_channels=1, out_channels=1,
    down_block_types=("AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D"),
)
make(
    "resnets", (8, 8), labels=[0, 4], trained=True, block_out_channels=(2, 4, 4), attention_head_dim=2,
    down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    up_block_types=("ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"), downsample_type="resnet",
    upsample_type="resnet", resnet_time_scale_shift="scale_shift", act_fn="mish", class_embed_type="timestep",
    mid_block_scale_factor=1.5, in_channels=2, out_channels=4, center_input_sample=True,
)
make(
    "fourier", (4, 4), labels=[1, 4], block_out_channels=(4, 8), time_embedding_type="fourier",
    act_fn="gelu", num_class_embeds=5, add_attention=False, downsample_padding=0,
    down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
)
make(
    "learned", (4, 4), block_out_channels=(4, 8), time_embedding_type="learned", num_train_timesteps=20,
    act_fn="relu", mid_block_type=None, attention_head_dim=3,
    down_block_types=("AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D"),
)
make(
    "scale_shift", (4, 4), labels=0.0, block_out_channels=(4, 8),
    resnet_time_scale_shift="scale_shift", class_embed_type="identity", attn_norm_num_groups=2, freq_shift=0.5,
    attention_head_dim=3, down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
)
make(
    "one_level", (3, 5), block_out_channels=(6,), time_embedding_dim=None, resnet_time_scale_shift="scale_shift", attention_head_dim=None,
    down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
)
