"""Writes the files that the readers are tested with, by the Python libraries that users write theirs with.

    pip install datasets==5.2.0 pillow numpy && python make.py

Image n has at row y, column x, channel c the value (41 n + 7 y + 3 x + 11 c) mod 256, and the label n mod 3.
"""

import io
import zipfile
from pathlib import Path

import datasets
import numpy
import pandas
import pyarrow
import pyarrow.parquet
from PIL import Image

HERE = Path(__file__).parent
COUNT, HEIGHT, WIDTH = 7, 5, 6
NAMES = ["ant", "bee", "cow"]


def pixels(channels: int) -> numpy.ndarray:
    """[COUNT, HEIGHT, WIDTH, channels]"""
    n, y, x, c = numpy.indices((COUNT, HEIGHT, WIDTH, channels))
    return ((41 * n + 7 * y + 3 * x + 11 * c) % 256).astype("uint8")


def png(array: numpy.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array.squeeze()).save(buffer, format="PNG")
    return buffer.getvalue()


color, gray = pixels(3), pixels(1)
labels = [n % 3 for n in range(COUNT)]

features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
rows = {"image": [Image.fromarray(image) for image in color], "label": labels}
datasets.Dataset.from_dict(rows, features=features).to_parquet(HERE / "hugging_face.parquet")

frame = pandas.DataFrame({"picture": [png(image) for image in gray], "kind": [NAMES[label] for label in labels]})
frame.to_parquet(HERE / "pandas.parquet")

# pages of both versions, and labels as pandas has them that were missing once
for name, version in [("gzip", "2.0"), ("brotli", "1.0")]:
    table = pyarrow.table({"image": [png(image) for image in gray], "label": pyarrow.array(labels, pyarrow.float64())})
    pyarrow.parquet.write_table(table, HERE / f"{name}.parquet", compression=name, data_page_version=version, row_group_size=4)

numpy.savez_compressed(HERE / "arrays.npz", x_train=color.transpose(0, 3, 1, 2), y_train=numpy.array(labels))
# 16 bits: 256 v + 255 - v
numpy.save(HERE / "deep.npy", (256 * gray.astype("uint16") + 255 - gray)[..., 0])
floats = (color / 127.5 - 1).astype("float32")
numpy.savez_compressed(HERE / "floats.npz", images=floats, labels=numpy.array(NAMES)[labels], weights=numpy.ones(3))
numpy.savez_compressed(HERE / "one_hot.npz", images=color.astype(">i8"), labels=numpy.eye(3)[labels])
numpy.save(HERE / "fortran.npy", numpy.asfortranarray(color / 255).astype("float16"))

with zipfile.ZipFile(HERE / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for n in range(COUNT):
        archive.writestr(f"pictures/{NAMES[labels[n]]}/{n}.png", png(gray[n]))
with zipfile.ZipFile(HERE / "table.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    lines = [f'{{"file_name": "images/{n}.png", "label": "{NAMES[labels[n]]}"}}' for n in range(COUNT)]
    archive.writestr("metadata.jsonl", "\n".join(lines))
    for n in range(COUNT):
        archive.writestr(f"images/{n}.png", png(gray[n]))
