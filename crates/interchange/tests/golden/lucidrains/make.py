"""Makes the golden files of tests/lucidrains.rs with denoising-diffusion-pytorch 2.3.4: python make.py

trainer.pt.gz     model-1.pt of a Trainer after 130 steps, with optimizer and EMA
trainer.safetensors  outputs of both copies of its weights, and sums of Adam's moments by name
NAME.safetensors  state dicts of other networks and diffusions, with outputs
buffers.safetensors   the buffers of each schedule with each objective
zip.pt, older.pt, protocol4.pt  the same small dictionary in three formats of torch.save
"""

import gzip
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from denoising_diffusion_pytorch import GaussianDiffusion, LearnedGaussianDiffusion, Trainer, Unet
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).parent
torch.set_num_threads(1)
torch.manual_seed(7)
SMALL = dict(dim=4, attn_heads=2, attn_dim_head=3)


def save(tensors, name):
    save_file(tensors, HERE / name)
    (HERE / name).chmod(0o644)


def shaken(module):
    """Parameters away from their initial values, so that gains and memories matter."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        # a random network is chaotic in 20 steps: of a small output, rounding stays small
        module.final_conv.weight.mul_(0.2)
    return module


def ddim(diffusion, noise, steps):
    """The chain of ddim_sample from given noise, before it goes to [0, 1]."""
    diffusion.sampling_timesteps, diffusion.is_ddim_sampling = steps, True
    randn = torch.randn
    torch.randn = lambda shape, **_: noise.clone()
    try:
        images = diffusion.ddim_sample(tuple(noise.shape))
    finally:
        torch.randn = randn
    return images * 2 - 1


def outputs(name, unet, channels, diffusion=None, side=8):
    x, t = torch.randn(2, channels, side, side), torch.tensor([3, 19])
    condition = torch.randn(2, channels, side, side) if unet.self_condition else None
    with torch.no_grad():
        tensors = {"x": x, "t": t.float(), "output": unet(x, t, condition)}
        if condition is not None:
            tensors["condition"] = condition
        if diffusion is not None:
            tensors["noise"] = torch.randn(2, channels, side, side)
            tensors["ddim"] = ddim(diffusion, tensors["noise"], 20)
            nudged = ddim(diffusion, tensors["noise"] + 1e-6, 20)
            assert (tensors["ddim"] - nudged).abs().max() < 1e-4, name
    return {f"{name}/{key}": value.contiguous() for key, value in tensors.items()}


def trainer(folder):
    for number in range(100):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    unet = Unet(dim_mults=(1,), channels=1, **SMALL)
    diffusion = GaussianDiffusion(unet, image_size=8, timesteps=40, sampling_timesteps=4, min_snr_loss_weight=True)
    training = Trainer(
        diffusion,
        str(folder),
        train_lr=3e-4,
        train_num_steps=130,
        save_and_sample_every=130,
        num_samples=1,
        results_folder=str(folder / "results"),
        calculate_fid=False,
    )
    training.train()
    path = folder / "results" / "model-1.pt"
    (HERE / "trainer.pt.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    diffusion, average = training.model, training.ema.ema_model
    tensors = outputs("raw", diffusion.model, 1) | outputs("average", average.model, 1, average)
    state = training.opt.state_dict()["state"]
    for number, (name, _) in enumerate(diffusion.model.named_parameters()):
        tensors[f"first/{name}"] = state[number]["exp_avg"].abs().sum()
        tensors[f"second/{name}"] = state[number]["exp_avg_sq"].sum()
    return tensors


def variants():
    def add(name, unet, channels, diffusion=None, chain=True):
        tensors = {f"state/{key}": value.contiguous() for key, value in (diffusion or unet).state_dict().items()}
        tensors.update(outputs("out", unet, channels, diffusion if chain else None))
        save(tensors, f"{name}.safetensors")

    unet = shaken(Unet(dim_mults=(1,), channels=3, learned_variance=True, **SMALL))
    diffusion = LearnedGaussianDiffusion(unet, image_size=8, timesteps=60, objective="pred_noise", beta_schedule="linear")
    add("learned_variance", unet, 3, diffusion, chain=False)
    unet = shaken(Unet(dim_mults=(1,), channels=1, self_condition=True, **SMALL))
    add("self_condition", unet, 1, GaussianDiffusion(unet, image_size=8, timesteps=40, objective="pred_x0", beta_schedule="cosine"))
    unet = shaken(Unet(dim_mults=(1,), channels=3, learned_sinusoidal_cond=True, learned_sinusoidal_dim=6, **SMALL))
    add("fourier", unet, 3)
    unet = shaken(Unet(dim_mults=(2, 1), channels=3, init_dim=6, full_attn=(True, False), **SMALL))
    # betas of no known family
    kwargs = dict(objective="pred_noise", beta_schedule="cosine", schedule_fn_kwargs=dict(s=0.02))
    add("other_betas", unet, 3, GaussianDiffusion(unet, image_size=8, timesteps=40, **kwargs))


def buffers():
    tensors = {}
    unet = Unet(dim_mults=(1,), channels=1, **SMALL)
    for schedule in ("linear", "cosine", "sigmoid"):
        for objective in ("pred_noise", "pred_x0", "pred_v"):
            diffusion = GaussianDiffusion(unet, image_size=8, timesteps=30, objective=objective, beta_schedule=schedule)
            for name, value in diffusion.state_dict().items():
                if not name.startswith("model."):
                    tensors[f"{schedule}/{objective}/{name}"] = value
    return tensors


def formats():
    square = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    content = {
        "square": square,
        "turned": square.t(),
        "part": square[1:, 1:3],
        "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
        "brain": torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
        "double": torch.tensor([0.1], dtype=torch.float64),
        "long": torch.tensor([1, -2, 3]),
        "truth": torch.tensor(True),
        "empty": torch.zeros(0, 3),
        "numbers": {0: {"step": torch.tensor(5.0)}, 1: [7, 0.25, None, "text", (1, 2)]},
        "module": torch.nn.Linear(2, 1).state_dict(),
    }
    torch.save(content, HERE / "zip.pt")
    torch.save(content, HERE / "protocol4.pt", pickle_protocol=4)
    torch.save(content, HERE / "older.pt", _use_new_zipfile_serialization=False)


folder = Path(tempfile.mkdtemp())
tensors = trainer(folder)
shutil.rmtree(folder)
save(tensors, "trainer.safetensors")
variants()
save(buffers(), "buffers.safetensors")
formats()
