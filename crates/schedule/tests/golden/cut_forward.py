"""Copies the values that the tests read from the reference files `forward_*.safetensors` (denoising-diffusion-pytorch 2.3.4).

    python3 cut_forward.py FOLDER_OF_REFERENCE_VALUES forward.safetensors

These are, bytes unchanged, t and the posterior (log-)variance of each schedule, and some loss weights over all of T = 1000.
"""

import json
import pathlib
import struct
import sys

POSTERIORS = ["cosine", "linear", "sigmoid"]
WEIGHTS = [f"cosine_{objective}{clip}" for objective in ("pred_noise", "pred_x0", "pred_v") for clip in ("", "_minsnr5")]
WEIGHTS += ["linear_pred_v_minsnr5", "sigmoid_pred_v_minsnr5"]


def read(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    return {
        name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def main(source, target):
    kept = {}
    for schedule in POSTERIORS:
        values = read(pathlib.Path(source) / f"forward_{schedule}_pred_v.safetensors")
        for name in ("t", "posterior_variance", "posterior_log_variance_clipped"):
            kept[f"{schedule}.{name}"] = values[name]
    for name in WEIGHTS:
        kept[f"{name}.loss_weight"] = read(pathlib.Path(source) / f"forward_{name}.safetensors")["loss_weight"]

    header, data = {}, b""
    for name, (dtype, shape, content) in sorted(kept.items(), key=lambda item: (item[1][0] != "I64", item[0])):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(target).write_bytes(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    main(*sys.argv[1:])
