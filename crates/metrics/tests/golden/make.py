"""Golden values of the judges: pytorch-fid's network and distance, scikit-learn's kernels and neighbors.

pip install torch torchvision pytorch-fid scikit-learn safetensors; python make.py

The network is too large for a repository, so its weights follow a formula, which the test repeats (see `formula`).
"""

import numpy as np
import torch
from pytorch_fid import inception as fid_network
from pytorch_fid.fid_score import calculate_frechet_distance
from safetensors.numpy import save_file
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors


def formula(name_index, count):
    """Number k of parameter `name_index`, in f64: a sine of incommensurable steps."""
    k = np.arange(count, dtype=np.float64)
    return np.sin(0.7 * k + 1.3 * name_index + 0.0003 * k * k)


def structure():
    """pytorch-fid's network without the download of its weights."""
    fid_network.load_state_dict_from_url = lambda *args, **kwargs: {}
    loading = torch.nn.Module.load_state_dict
    torch.nn.Module.load_state_dict = lambda self, state: None
    inception = fid_network.fid_inception_v3()
    torch.nn.Module.load_state_dict = loading
    return inception


def main():
    inception = structure()
    state = inception.state_dict()
    names = sorted(name for name in state if not name.endswith("num_batches_tracked") and not name.startswith("fc."))
    shapes = []
    with torch.no_grad():
        for index, name in enumerate(names):
            shape = state[name].shape
            values = formula(index, state[name].numel())
            if name.endswith("conv.weight"):
                values *= np.sqrt(4.0 / np.prod(shape[1:]))
            elif name.endswith(("bn.weight", "bn.running_var")):
                values = 1.0 + 0.3 * values
            else:
                values *= 0.1
            state[name].copy_(torch.from_numpy(values.astype(np.float32)).reshape(shape))
            shapes.append((name, list(shape)))
    inception.load_state_dict(state)

    fid_network.fid_inception_v3 = lambda: inception
    model = fid_network.InceptionV3([3]).eval()
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (2, 3, 32, 40), dtype=np.uint8)
    with torch.no_grad():
        features = model(torch.from_numpy(images).float() / 255)[0][:, :, 0, 0].numpy()
    with open("inception_names.txt", "w") as out:
        for name, shape in shapes:
            out.write(f"{name} {' '.join(map(str, shape))}\n")

    a = generator.normal(size=(60, 12)).astype(np.float32)
    b = (generator.normal(size=(50, 12)) @ generator.normal(size=(12, 12)) * 0.4 + 0.3).astype(np.float32)
    wide = generator.normal(size=(40, 90)).astype(np.float32), (generator.normal(size=(30, 90)) + 0.2).astype(np.float32)

    def frechet(a, b):
        return calculate_frechet_distance(
            a.astype(np.float64).mean(0), np.cov(a.astype(np.float64), rowvar=False),
            b.astype(np.float64).mean(0), np.cov(b.astype(np.float64), rowvar=False),
        )

    def kernel_distance(a, b):
        k = lambda x, y: polynomial_kernel(x.astype(np.float64), y.astype(np.float64), degree=3, gamma=1 / a.shape[1], coef0=1)
        off = lambda m: (m.sum() - np.trace(m)) / (len(m) * (len(m) - 1))
        return off(k(a, a)) + off(k(b, b)) - 2 * k(a, b).mean()

    def inside(points, centers, k=3):
        """Points that lie within the k-th neighbor of some center."""
        centers, points = centers.astype(np.float64), points.astype(np.float64)
        radii = NearestNeighbors(n_neighbors=k + 1).fit(centers).kneighbors(centers)[0][:, k]
        distances = np.sqrt(((points[:, None] - centers[None]) ** 2).sum(-1))
        return distances <= radii[None], radii

    within, radii = inside(a, b)
    precision, density = within.any(1).mean(), within.sum() / (3 * len(a))
    recall = inside(b, a)[0].any(1).mean()
    nearest = NearestNeighbors(n_neighbors=1).fit(a.astype(np.float64)).kneighbors(b.astype(np.float64))[0][:, 0]
    coverage = (nearest <= radii).mean()
    save_file(
        {
            "images": images,
            "features": features,
            "a": a,
            "b": b,
            "wide_a": wide[0],
            "wide_b": wide[1],
            "frechet": np.array([frechet(a, b), frechet(*wide)]),
            "kernel_distance": np.array([kernel_distance(a, b), kernel_distance(*wide)]),
            "manifold": np.array([precision, recall, density, coverage]),
            "nearest": NearestNeighbors(n_neighbors=1).fit(b.astype(np.float64)).kneighbors(a.astype(np.float64))[0][:, 0],
        },
        "judges.safetensors",
    )
    print("features", features.mean(), features.std(), "frechet", frechet(a, b), frechet(*wide))
    print("kernel", kernel_distance(a, b), "manifold", precision, recall, density, coverage)


main()
