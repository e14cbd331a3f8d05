"""Train, save and measure the two demo encoders that ship with Crossfade.

::

    python scripts/train_demo_encoders.py old
    python scripts/train_demo_encoders.py new --checkpoint new.pt
    python scripts/train_demo_encoders.py --evaluate
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from demo_encoders.evaluation import measure
from demo_encoders.publishing import publish, write_results
from demo_encoders.recipes import RECIPES
from demo_encoders.training import train

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = REPOSITORY / "src" / "crossfade" / "demo"
RESULTS = REPOSITORY / "benchmarks" / "demo-encoders"


def main() -> None:
    """Parse, call, print."""
    parser = argparse.ArgumentParser(description="Train and measure the demo encoders.")
    parser.add_argument("encoders", nargs="*", metavar="{old,new}", help="which to train")
    parser.add_argument("--evaluate", action="store_true", help="measure both from their saved files")
    parser.add_argument("--steps", type=int, help="train for other than the recipe's steps")
    parser.add_argument("--decay", type=int, help="let the learning rate fall over other than the recipe's last steps")
    parser.add_argument("--checkpoint", type=Path, help="a file to resume from, written every 50 steps")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--models", type=Path, default=MODELS, help="the folder of both models")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of result.json")
    options = parser.parse_args()
    if unknown := set(options.encoders) - set(RECIPES):
        parser.error(f"an encoder is one of {', '.join(RECIPES)}; found {', '.join(sorted(unknown))}")
    torch.set_num_threads(options.threads)
    changed = {name: getattr(options, name) for name in ("steps", "decay") if getattr(options, name) is not None}
    for encoder in options.encoders:
        recipe = dataclasses.replace(RECIPES[encoder], **changed)
        trained = train(recipe, checkpoint=options.checkpoint)
        publish(trained, recipe, options.models / f"glyphs-{encoder}")
    if options.evaluate:
        write_results(measure(options.models, list(RECIPES), split_seed=0), options.models, options.results)


if __name__ == "__main__":
    main()
