"""lucidrains' denoising-diffusion-pytorch for `bench step --against-torch`, on the same shapes.

Reads one JSON object a line: {"dim", "dim_mults", "channels", "side", "batch", "what": "train" | "forward", "threads",
"repeats"}; answers with {"seconds": [...], "peak_bytes"}; an empty line ends it. The model of the last shape is kept.
"""

import json
import resource
import sys
import time

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from ema_pytorch import EMA


class Case:
    def __init__(self, request):
        torch.manual_seed(0)
        self.unet = Unet(dim=request["dim"], dim_mults=tuple(request["dim_mults"]), channels=request["channels"])
        self.diffusion = GaussianDiffusion(self.unet, image_size=request["side"], timesteps=1000)
        self.optimizer = torch.optim.Adam(self.diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))
        self.ema = EMA(self.diffusion, beta=0.995, update_every=10)
        self.images = torch.rand(request["batch"], request["channels"], request["side"], request["side"])
        self.t = torch.randint(0, 1000, (request["batch"],))

    def train(self):
        loss = self.diffusion(self.images)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()

    def forward(self):
        with torch.inference_mode():
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


main()
