"""Exchanges models with denoising-diffusion-pytorch, both ways: python lucidrains.py DIFFUSE

DIFFUSE is the path of the program. Each check prints a line; the first that fails ends with an error.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from denoising_diffusion_pytorch import GaussianDiffusion, LearnedGaussianDiffusion, Trainer, Unet
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

DIFFUSE = sys.argv[1]
torch.set_num_threads(1)
torch.manual_seed(3)
SMALL = dict(dim=8, attn_heads=2, attn_dim_head=8)


def diffuse(*arguments):
    line = [DIFFUSE, *map(str, arguments), "--json"]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(line)}\nended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def check(what, difference, most):
    print(f"{what}: {difference:.1e}")
    if not difference <= most:
        raise SystemExit(f"{what}: {difference:.1e} is more than {most:.0e}")


def largest_difference(one, other):
    one, other = ({key: value for key, value in dict(state).items()} for state in (one, other))
    assert one.keys() == other.keys(), sorted(one.keys() ^ other.keys())
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one)


def shaken(unet):
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return unet


def header(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["diffuse"])


def there_and_back(folder):
    """State dicts of many networks come in, and go out as they were."""
    networks = {
        "plain": dict(dim_mults=(1, 2), channels=3),
        "one level, gray": dict(dim_mults=(1,), channels=1),
        "self-conditioned": dict(dim_mults=(1, 2), channels=1, self_condition=True),
        "other attention": dict(dim_mults=(2, 1, 3), channels=4, full_attn=(True, False, True), init_dim=6),
        "linear attention": dict(dim_mults=(1, 2), channels=2, full_attn=(False, False)),
    }
    diffusions = [
        dict(timesteps=100, objective=objective, beta_schedule=schedule, min_snr_loss_weight=min_snr)
        for objective in ("pred_noise", "pred_x0", "pred_v")
        for schedule in ("linear", "cosine", "sigmoid")
        for min_snr in (False, True)
    ]
    other = dict(timesteps=50, beta_schedule="sigmoid", schedule_fn_kwargs=dict(start=-2, end=2, tau=0.8))
    cases = [(name, options, diffusions[number]) for number, (name, options) in enumerate(networks.items())]
    cases += [("plain", networks["plain"], diffusion) for diffusion in diffusions[len(cases) :] + [other]]
    for name, options, settings in cases:
        unet = shaken(Unet(**SMALL, **options))
        diffusion = GaussianDiffusion(unet, image_size=16, **settings)
        torch.save(diffusion.state_dict(), folder / "state.pt")
        diffuse("import", folder / "state.pt", "--out", folder / "model.safetensors", "--image-size", 16)
        what = f"{name}, {settings.get('objective', 'pred_v')}, {settings['beta_schedule']}"
        found = header(folder / "model.safetensors")
        objective = dict(pred_noise="epsilon", pred_x0="x0", pred_v="v")[settings.get("objective", "pred_v")]
        family = "custom" if "schedule_fn_kwargs" in settings else settings["beta_schedule"]
        assert (found["objective"], found["schedule"]["family"]) == (objective, family), (what, found)
        check(f"in, weights: {what}", largest_difference(load_file(folder / "model.safetensors"), unet.state_dict()), 0)
        diffuse("export", folder / "model.safetensors", "--to", "lucidrains", "--out", folder / "back.pt")
        back = torch.load(folder / "back.pt", weights_only=True)
        again = GaussianDiffusion(Unet(**SMALL, **options), image_size=16, **settings)
        again.load_state_dict(back["model"], strict=True)
        theirs, ours = diffusion.state_dict(), again.state_dict()
        # a model file has no weight of the loss: that of min-SNR is written anew
        if settings.get("min_snr_loss_weight"):
            theirs.pop("loss_weight"), ours.pop("loss_weight")
        relative = {key: 1 / (1 + value.abs()) for key, value in theirs.items()}
        scaled = lambda state: {key: value * relative[key] for key, value in state.items()}
        check(f"out, state dict: {what}", largest_difference(scaled(ours), scaled(theirs)), 1e-5 if family == "custom" else 3e-7)


def learned_variance(folder):
    options = dict(dim_mults=(1, 2), channels=3, learned_variance=True)
    settings = dict(image_size=16, timesteps=60, objective="pred_noise", beta_schedule="linear")
    diffusion = LearnedGaussianDiffusion(shaken(Unet(**SMALL, **options)), **settings)
    save_file(diffusion.state_dict(), folder / "state.safetensors")
    diffuse("import", folder / "state.safetensors", "--out", folder / "model.safetensors", "--image-size", 16)
    diffuse("export", folder / "model.safetensors", "--to", "lucidrains", "--out", folder / "back.pt")
    again = LearnedGaussianDiffusion(Unet(**SMALL, **options), **settings)
    again.load_state_dict(torch.load(folder / "back.pt", weights_only=True)["model"], strict=True)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 50])
    with torch.no_grad():
        check("learned variance, output", float((again.model(x, t) - diffusion.model(x, t)).abs().max()), 1e-6)


def trainer(folder, results, steps):
    unet = Unet(dim_mults=(1, 2), channels=1, **SMALL)
    diffusion = GaussianDiffusion(unet, image_size=16, timesteps=50, sampling_timesteps=5)
    return Trainer(
        diffusion,
        str(folder / "images"),
        train_num_steps=steps,
        save_and_sample_every=steps,
        num_samples=1,
        results_folder=str(results),
        calculate_fid=False,
    )


def training(folder):
    """A training goes on here, and on there."""
    (folder / "images").mkdir()
    for number in range(100):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    first = trainer(folder, folder / "first", 112)
    first.train()
    run = folder / "run"
    diffuse("import", folder / "first/model-1.pt", "--image-size", 16, "--optimizer", "--data", folder / "images", "--out", run)
    there = torch.load(folder / "first/model-1.pt", weights_only=True)

    state = load_file(run / f"checkpoints/step-{there['step']:07}.safetensors")
    for number, (name, _) in enumerate(first.model.named_parameters()):
        name, moments = name.removeprefix("model."), there["opt"]["state"][number]
        for key, moment in (("first_moment", "exp_avg"), ("second_moment", "exp_avg_sq")):
            assert torch.equal(state[f"{key}.{name}"], moments[moment].flatten()), (key, name)
    # at once back: nothing is lost
    diffuse("export", run, "--to", "lucidrains", "--out", folder / "back.pt")
    back = torch.load(folder / "back.pt", weights_only=True)
    assert (back["step"], back["version"]) == (there["step"], there["version"])
    for key in ("model", "ema"):
        floats = [{name: value for name, value in content[key].items()} for content in (back, there)]
        weights = [{name: value for name, value in state.items() if ".model." in name or name.startswith("model.")} for state in floats]
        check(f"a training there and back, {key}", largest_difference(*weights), 0)
    for number, state in there["opt"]["state"].items():
        for moment in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(state[moment], back["opt"]["state"][number][moment]), (number, moment)
    ours, theirs = back["opt"]["param_groups"][0], there["opt"]["param_groups"][0]
    assert all(ours[key] == value for key, value in theirs.items()), (ours, theirs)

    # three steps here, and on there
    steps = there["step"] + 3
    diffuse("train", "--resume", "--run", run, "--steps", steps)
    metrics = (run / "checkpoints").glob("*.safetensors")
    assert any(f"{steps:07}" in path.name for path in metrics), "no training state after the steps"
    (folder / "second").mkdir()
    diffuse("export", run, "--to", "lucidrains", "--out", folder / "second/model-2.pt")
    second = trainer(folder, folder / "second", steps + 2)
    second.load(2)
    assert second.step == steps and int(second.ema.step) == steps, (second.step, second.ema.step)
    moved = {name: value for name, value in second.model.state_dict().items() if name.startswith("model.")}
    before = {name: value for name, value in there["model"].items() if name.startswith("model.")}
    # three steps of Adam move a weight by about three learning rates
    difference = largest_difference(moved, before)
    assert 1e-5 < difference < 10 * 3 * theirs["lr"], difference
    second.train()
    print(f"a training went on here for 3 steps (moved by {difference:.1e}), and on there")


with tempfile.TemporaryDirectory() as name:
    root = Path(name)
    there_and_back(root)
    learned_variance(root)
    training(root)
