"""lucidrains' denoising-diffusion-pytorch on the shapes of `bench step --against-torch` and of `torch_speed.py`.

As a program: reads one JSON object a line: {"dim", "dim_mults", "channels", "side", "batch", "what": "train" | "forward",
"threads", "repeats"}; answers with {"seconds": [...], "peak_bytes"}; an empty line ends it. The model of the last shape is kept.
"""

import json
import resource
import sys
import time
from contextlib import nullcontext

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from ema_pytorch import EMA


class Case:
    """A training: network, optimizer and EMA on `device`, with the passes in `dtype` (None: in that of the weights)."""

    def __init__(self, request, device="cpu", dtype=None, memory_format=torch.contiguous_format, compiled=False):
        torch.manual_seed(0)
        unet = Unet(dim=request["dim"], dim_mults=tuple(request["dim_mults"]), channels=request["channels"])
        unet = unet.to(device, memory_format=memory_format)
        self.diffusion = GaussianDiffusion(unet, image_size=request["side"], timesteps=1000).to(device)
        self.optimizer = torch.optim.Adam(self.diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))
        self.ema = EMA(self.diffusion, beta=0.995, update_every=10)
        if compiled:
            # in place, so that the copy of the EMA stays as it is
            unet.compile()
        self.unet = unet
        self.images = torch.rand(request["batch"], request["channels"], request["side"], request["side"], device=device)
        self.images = self.images.to(memory_format=memory_format)
        self.t = torch.randint(0, 1000, (request["batch"],), device=device)
        self.autocast = lambda: torch.autocast(device, dtype=dtype) if dtype else nullcontext()

    def train(self):
        with self.autocast():
            loss = self.diffusion(self.images)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()

    def forward(self):
        with torch.inference_mode(), self.autocast():
            self.unet(self.images, self.t)


def main():
    key, case = None, None
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
        request = json.loads(line)
        wanted = [request[name] for name in ("dim", "dim_mults", "channels", "side", "batch")]
        if wanted != key:
            key, case = wanted, Case(request)
        torch.set_num_threads(request["threads"])
        work = getattr(case, request["what"])
        seconds = []
        for _ in range(request["repeats"]):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()
