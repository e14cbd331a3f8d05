"""Class retrieval between two trained CIFAR-10 ResNets (ResNet-20 → ResNet-56): CMC and mAP, every method.

``python -m benchmarks.cifar10_upgrade.run [--write]``

Pairs are the 10,000 training images. Of the 10,000 test images (sorted by class, so shuffled with seed 0) the first 5,000 are
the gallery and the next 1,000 the queries.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import crossfade as cf
from benchmarks.record import shared_data, write
from crossfade.methods import Method

GALLERY, QUERIES = 5000, 1000


def open_side(folder: Path, network: str, part: str) -> cf.Embeddings:
    """The features of one network, each of unit norm, with their labels."""
    features = np.load(folder / f"{network}_{part}.npy").astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.load(folder / f"{part}_labels.npy")
    space = cf.Space(model=network, dimension=features.shape[1], modalities=("image",))
    ids = [f"{part}/{row}" for row in range(len(features))]
    return cf.Embeddings(ids, features, space, "image", metadata={"label": labels.astype(str)})


def candidates() -> Iterator[tuple[str, Method]]:
    """Every registered method, with its variants."""
    for name in cf.METHODS:
        for options in cf.METHODS[name].variants:
            yield " ".join([name, *(f"{key}={value}" for key, value in options.items())]), cf.METHODS[name](**options)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder = shared_data("cifar10-resnet-features")
    if folder is None:
        print("skipped: the folder cifar10-resnet-features is not beside the project")
        return 0
    sides = {(n, p): open_side(folder, n, p) for n in ("resnet20", "resnet56") for p in ("train", "test")}
    pairs = cf.pair(sides["resnet20", "train"], sides["resnet56", "train"])
    test = {n: sides[n, "test"] for n in ("resnet20", "resnet56")}
    order = np.random.default_rng(0).permutation(len(test["resnet20"]))
    gallery, queries = order[:GALLERY], order[GALLERY : GALLERY + QUERIES]
    labels = dict(zip(test["resnet20"].ids.tolist(), test["resnet20"].metadata["label"].tolist(), strict=True))
    table: dict[str, dict[str, list[float]]] = {}
    for name, method in candidates():
        result = cf.evaluate(
            method.fit(pairs, seed=0),
            queries=test["resnet56"].select(queries),
            gallery=test["resnet20"].select(gallery),
            relevant=cf.Relevance.from_labels(labels, labels),
            old_queries=test["resnet20"].select(queries),
            new_gallery=test["resnet56"].select(gallery),
            seed=0,
        )
        (direction,) = result.directions
        for system, row in (("old/old", "old/old"), ("mapped/old", name), ("new/new", "new/new")):
            metrics = direction.scores[system].metrics
            table[row] = {m: [e.value, e.low, e.high] for m, e in metrics.items()}
    metrics = list(table["old/old"])
    order = ["old/old", *(r for r in table if r not in ("old/old", "new/new")), "new/new"]
    rows = [{"system": r, **{m: "{:.3f} [{:.3f}, {:.3f}]".format(*table[r][m]) for m in metrics}} for r in order]
    print(f"{'':<28}" + "".join(f"{m:>24}" for m in metrics))
    for row in rows:
        print(f"{row['system']:<28}" + "".join(f"{row[m]:>24}" for m in metrics))
    if options.write:
        print(write(Path(__file__).parent, {"gallery": GALLERY, "queries": QUERIES, "seed": 0}, table, table=rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
