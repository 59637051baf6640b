"""Training step, forward pass and memory of lucidrains' denoising-diffusion-pytorch on an NVIDIA GPU, for `bench gpu torch`.

The argument is one JSON object: {"dim", "dim_mults", "channels", "side", "batch", "setting"}; the last line printed is another.
A step is forward, backward, clip, Adam, and EMA every 10 steps; `train_ms` is the median of synchronized steps, `train_ahead_ms`
the mean of steps that are only waited for at the end.
"""

import json
import statistics
import sys
import time

import torch

from lucidrains import Case

SETTINGS = {
    "tf32": {},
    "tf32-compiled": {"compiled": True},
    "bf16": {"dtype": torch.bfloat16},
    "bf16-channels-last": {"dtype": torch.bfloat16, "memory_format": torch.channels_last},
    "bf16-compiled": {"dtype": torch.bfloat16, "memory_format": torch.channels_last, "compiled": True},
}
WARM_UP = 3
# the most and the least steps that are measured, and the seconds after which no further one is
MOST, LEAST, SECONDS = 20, 3, 3.0


def timed(work):
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def series(work):
    """The median of the seconds of some repetitions, after a few that are not measured."""
    for _ in range(WARM_UP):
        timed(work)
    start, seconds = time.perf_counter(), []
    while len(seconds) < LEAST or (len(seconds) < MOST and time.perf_counter() - start < SECONDS):
        seconds.append(timed(work))
    return statistics.median(seconds)


def main():
    start = time.perf_counter()
    request = json.loads(sys.argv[1])
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    case = Case(request, device="cuda", **SETTINGS[request["setting"]])
    timed(case.train)
    first = time.perf_counter() - start
    step = series(case.train)
    count = max(LEAST, min(MOST, int(SECONDS / step)))
    ahead = timed(lambda: [case.train() for _ in range(count)]) / count
    memory, allocated = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    result = {
        "train_ms": round(1e3 * step, 2),
        "train_ahead_ms": round(1e3 * ahead, 2),
        "forward_ms": round(1e3 * series(case.forward), 2),
        "memory_mib": memory >> 20,
        "allocated_mib": allocated >> 20,
        "first_step_s": round(first, 2),
        "batch": request["batch"],
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
