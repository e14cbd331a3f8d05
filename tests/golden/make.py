"""Write the golden adapters of the current format version: once for each new version; the old ones stay as they are.

``python tests/golden/make.py`` writes ``tests/golden/adapter-v<version>/<method>``: the adapter, and ``expected.json``
with a few vectors and what they map to.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import worlds  # noqa: E402

from crossfade.artifacts import FORMAT_VERSION, save_pretrained  # noqa: E402
from crossfade.methods import XBT, Contrastive, Procrustes, ResidualMLP, Ridge, Slerp  # noqa: E402

if __name__ == "__main__":
    world = worlds.two_modalities(d_s=8, d_t=6, items=60, seed=11)
    new, old = world.new["text"].matrix()[:4], world.old["text"].matrix()[:4]
    small = {"hidden": 4, "epochs": 3}
    for name, method in {
        "procrustes": Procrustes(),
        "ridge": Ridge(),
        "residual_mlp": ResidualMLP(**small),
        "slerp": Slerp(),
        "xbt": XBT(width=1.0, epochs=3, center=True, learning_rate=1e-2, batch=32),
        "contrastive": Contrastive(steps=12, evaluations=4, batch=32, gallery=64, learning_rate=1e-2),
        "slerp-adaptive": Slerp(weighting="adaptive", base="residual_mlp", base_options=small),
    }.items():
        folder = HERE / f"adapter-v{FORMAT_VERSION}" / name
        if folder.exists():
            continue
        adapter = method.fit(world.pairs(), seed=1)
        save_pretrained(adapter, folder / "adapter")
        expected = {
            "modality": "text",
            "new": new.tolist(),
            "old": old.tolist(),
            "mapped": adapter.map(new, "text", old=old).tolist(),
        }
        (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
