"""Exchanges models with diffusers, both ways: python diffusers.py DIFFUSE

DIFFUSE is the path of the program; the example `from_noise` of this crate lies in `examples` beside it, where
`cargo test --workspace` puts it. Each check prints a line; the first that fails ends with an error.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

# this file has the name of the library
sys.path.pop(0)

import diffusers
import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel
from safetensors.torch import load_file, save_file

DIFFUSE = Path(sys.argv[1])
FROM_NOISE = DIFFUSE.parent / "examples" / "from_noise"
torch.set_num_threads(1)
torch.manual_seed(5)
diffusers.logging.set_verbosity_error()
diffusers.logging.disable_progress_bar()


def run(*arguments):
    line = [str(argument) for argument in arguments]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(line)}\nended with {done.returncode}: {done.stderr}")
    return done.stdout


def check(what, ours, theirs, most):
    assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    print(f"{what}: {difference:.1e}")
    if not difference <= most:
        raise SystemExit(f"{what}: {difference:.1e} is more than {most:.0e}")


def from_noise(folder, model, **tensors):
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "input.safetensors")
    run(FROM_NOISE, model, folder / "input.safetensors", folder / "output.safetensors")
    return load_file(folder / "output.safetensors")


SMALL = dict(sample_size=16, block_out_channels=(16, 32), norm_num_groups=8, layers_per_block=1)
ATTENTION = dict(down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"))
PLAIN = dict(down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"))
RESNET = dict(
    down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    up_block_types=("ResnetUpsampleBlock2D", "AttnUpBlock2D"),
)
NETWORKS = {
    "plain": dict(**PLAIN, in_channels=1, out_channels=1),
    "as DDPM": dict(**ATTENTION, attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1),
    "scale and shift": dict(**RESNET, resnet_time_scale_shift="scale_shift", act_fn="gelu"),
    "classes": dict(**ATTENTION, num_class_embeds=5),
    "classes as t": dict(**ATTENTION, num_class_embeds=5, class_embed_type="timestep"),
    "no middle": dict(**ATTENTION, mid_block_type=None, act_fn="mish"),
}
SCHEDULERS = {
    "linear": dict(clip_sample=False),
    "clipped": dict(clip_sample=True),
    "cosine": dict(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing"),
    "scaled linear": dict(beta_schedule="scaled_linear", prediction_type="sample", num_train_timesteps=200),
    "own betas": dict(trained_betas=[1e-4 + 3e-5 * index for index in range(500)], num_train_timesteps=500),
    "zero terminal SNR": dict(rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"),
}


def drawn(pipeline, x, labels, steps):
    """DDIM's images in [-1, 1] from noise, by the library's scheduler."""
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = pipeline.unet(x, t, class_labels=labels).sample
            x = scheduler.step(output, t, x, use_clipped_model_output=True).prev_sample
    return x


def there_and_back(folder):
    """Pipelines come in, and go out as they were."""
    for number, (name, options) in enumerate(NETWORKS.items()):
        what, settings = list(SCHEDULERS.items())[number % len(SCHEDULERS)]
        unet = UNet2DModel(**SMALL, **options).eval()
        pipeline = DDIMPipeline(unet, DDIMScheduler(**settings))
        place = folder / f"pipeline {number}"
        pipeline.save_pretrained(place, safe_serialization=number % 2 == 0)
        x, t = torch.randn(2, unet.config.in_channels, 16, 16), torch.tensor([3, 150])
        labels = torch.tensor([0, 4]) if "classes" in name else None
        with torch.no_grad():
            y = unet(x, t, class_labels=labels).sample
        more = {} if labels is None else dict(labels=labels)
        ours = from_noise(folder, place, x=x, t=t.float(), **more)
        check(f"in, output: {name}", ours["y"], y, 1e-4)
        theirs = drawn(pipeline, x, labels, 50)
        check(f"in, images: {name}, {what}", ours["images"], theirs, 1e-3)

        run(DIFFUSE, "import", place, "--out", folder / "model.safetensors")
        back = folder / f"back {number}"
        run(DIFFUSE, "export", folder / "model.safetensors", "--to", "diffusers", "--out", back)
        again = DDPMPipeline.from_pretrained(back)
        for key, value in unet.state_dict().items():
            assert torch.equal(again.unet.state_dict()[key], value), key
        check(f"out, images: {name}, {what}", drawn(again, x, labels, 50), theirs, 1e-5)


def ancestral(folder):
    """A DDPMPipeline draws the same pictures before and after."""
    unet = UNet2DModel(**SMALL, **ATTENTION).eval()
    for variance in ("fixed_small", "fixed_large"):
        first = DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=20, variance_type=variance))
        place, back = folder / f"ddpm {variance}", folder / f"ddpm {variance} back"
        first.save_pretrained(place)
        run(DIFFUSE, "import", place, "--out", folder / "model.safetensors")
        run(DIFFUSE, "export", folder / "model.safetensors", "--to", "diffusers", "--out", back)
        again = DDPMPipeline.from_pretrained(back)
        pictures = [
            torch.from_numpy(pipeline(2, torch.Generator().manual_seed(1), 20, output_type="np").images)
            for pipeline in (first, again)
        ]
        check(f"out, pictures of DDPM, {variance}", pictures[1], pictures[0], 0)
        # and the program draws from the folder
        out = folder / f"samples {variance}"
        run(DIFFUSE, "sample", place, "--count", 3, "--steps", 4, "--save", "npz", "--out", out)
        assert np.load(out / "samples.npz")["arr_0"].shape == (3, 16, 16, 3)


def lucidrains(folder):
    """A network that has no twin leaves with its own code."""
    tiny = ["unet.dim=8", "unet.dim_mults=[1, 2]", "unet.attention=[]", "unet.attention_head_dim=8", "data.held_out=0", "sampling.count=2"]
    cases = {
        "patches": ["unet.patch_size=2"],
        "labels": ["unet.patch_size=1", "training.class_labels=true", "unet.attention=[\"off\", \"full\"]"],
        "self-conditioning": ["unet.self_condition=true", "unet.learned_sinusoidal_cond=true"],
    }
    for name, settings in cases.items():
        run_folder, out = folder / f"run {name}", folder / f"out {name}"
        sets = [word for setting in tiny + settings for word in ("--set", setting)]
        run(DIFFUSE, "train", "--preset", "digits", "--run", run_folder, "--steps", 2, "--batch-size", 4, *sets)
        run(DIFFUSE, "export", run_folder, "--to", "diffusers", "--out", out)
        pipeline = DiffusionPipeline.from_pretrained(out, custom_pipeline=str(out), trust_remote_code=True)
        side = pipeline.unet.config.sample_size
        x, t = torch.randn(2, 1, *side), torch.tensor([3, 900])
        labels = torch.tensor([0, 7]) if name == "labels" else None
        more = {} if labels is None else dict(labels=labels)
        ours = from_noise(folder, run_folder / "model.safetensors", x=x, t=t.float(), **more)
        with torch.no_grad():
            check(f"own code, output: {name}", pipeline.unet(x, t, labels).sample, ours["y"], 1e-4)
        # all timesteps, where every spacing is the same
        images = pipeline(noise=x, class_labels=labels, num_inference_steps=5, output_type="np").images
        assert images.shape[0] == 2 and np.isfinite(images).all(), name


with tempfile.TemporaryDirectory() as temporary:
    for part in (there_and_back, ancestral, lucidrains):
        part(Path(temporary))
