"""The example of a live upgrade, as a newcomer runs it, on every store that it knows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "live_upgrade.py"


@pytest.mark.slow
@pytest.mark.parametrize("store", ["lancedb", "qdrant", "postgresql"])
def test_the_live_upgrade_helps_and_loses_nothing(store: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--store", store, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout[: done.stdout.rindex("}") + 1])
    assert summary["writes not found"] == 0
    recall = {
        stage: summary[stage]["recall@10"]
        for stage in ("planned", "cut over", "backfilling", "finished", "rolled back")
    }
    assert recall["planned"] < recall["cut over"] < recall["backfilling"] < recall["finished"]
    assert recall["rolled back"] == pytest.approx(recall["planned"], abs=0.1)
    with Image.open(tmp_path / "out" / "live-upgrade.png") as drawn:
        assert min(drawn.size) > 500
