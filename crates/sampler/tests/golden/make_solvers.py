"""Results of diffusers' solvers in f64, for settings that the other golden files do not cover.

    python make_solvers.py    # needs diffusers (0.42.1) and torch; writes solvers_more.safetensors beside this file

The toy network is epsilon(x, t) = x t / (t + 1). It is linear, and so is a whole chain: for a stochastic solver the file
holds the result of a unit of noise in one step alone, from x_T = 0, for each step (`response`).
"""
import json
from pathlib import Path

import diffusers
import numpy as np
import torch
from safetensors.torch import save_file


def toy(x, t):
    t = float(t)
    return x * (t / (t + 1))


BASE = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
torch.manual_seed(17)
x_t = torch.randn(2, 1, 4, 4, dtype=torch.float64)
out, settings = {"xT": x_t}, {}


def chain(kind, steps, options, start, noise_at=None):
    scheduler = getattr(diffusers, kind)(**BASE, **options)
    scheduler.set_timesteps(steps)
    x = start.clone() * float(scheduler.init_noise_sigma)
    for index, t in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(x, t)
        extra = {}
        if options.get("algorithm_type") == "sde-dpmsolver++":
            extra["variance_noise"] = torch.full_like(x, float(index == noise_at))
        x = scheduler.step(toy(seen, t), t, x, **extra).prev_sample
    return x, torch.as_tensor(np.asarray(scheduler.timesteps), dtype=torch.float64)


def run(name, kind, steps, **options):
    out[f"{name}.y"], out[f"{name}.timesteps"] = chain(kind, steps, options, x_t)
    if options.get("algorithm_type") == "sde-dpmsolver++":
        zero = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        out[f"{name}.response"] = torch.stack([chain(kind, steps, options, zero, i)[0].flatten()[0] for i in range(steps)])
    settings[name] = dict(kind=kind, steps=steps, **options)


run("dpmpp_2m_heun", "DPMSolverMultistepScheduler", 20, solver_type="heun", timestep_spacing="trailing")
run("dpmpp_3m_short", "DPMSolverMultistepScheduler", 8, solver_order=3)
run("dpmpp_2m_exponential", "DPMSolverMultistepScheduler", 12, use_exponential_sigmas=True)
run("dpmpp_2m_sde", "DPMSolverMultistepScheduler", 20, algorithm_type="sde-dpmsolver++")
run("dpmpp_2m_sde_heun", "DPMSolverMultistepScheduler", 20, algorithm_type="sde-dpmsolver++", solver_type="heun")
# diffusers gives NaN for bh1 where the last sigma is 0
run("unipc_bh1_3", "UniPCMultistepScheduler", 12, solver_order=3, solver_type="bh1", final_sigmas_type="sigma_min")
run("unipc_bh2_3", "UniPCMultistepScheduler", 20, solver_order=3)
run("unipc_bh2_predictor", "UniPCMultistepScheduler", 10, disable_corrector=list(range(10)))
run("deis_3", "DEISMultistepScheduler", 20, solver_order=3)
run("pndm_runge_kutta", "PNDMScheduler", 10)
save_file(out, Path(__file__).parent / "solvers_more.safetensors", metadata={"settings": json.dumps(settings)})
