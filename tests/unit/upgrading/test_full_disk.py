"""Full disks: no plan is left half-written, no step half-taken, no row in between; and all goes on when there is room."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from bad_days import ASKED, MIDWAY, PACE, ROWS, SAMPLE, Embed, assert_native, cut_over
from live import NEW, OLD, Live, fitted, judged, queries
from stores import Maker, maker_of

from crossfade.errors import StorageError, StoreError
from crossfade.upgrading import Searcher, Upgrade, backfill, cutover, finish, plan_upgrade, rollback, shadow, status


@pytest.fixture(scope="module")
def lance(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return maker_of("lancedb", tmp_path_factory.mktemp("lancedb"))


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    made = maker_of("postgresql", tmp_path_factory.mktemp("postgresql"))
    yield made
    made.close()


@contextmanager
def full_disk(size: int = 1) -> Iterator[None]:
    """No file of this process grows beyond so many bytes, whichever library writes it."""
    if os.name != "posix":
        pytest.skip("file size limits are POSIX")
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def full_from_midway(live: Live) -> Iterator[Embed]:
    """The new model; the disk is full from midway to the end of the block."""
    with ExitStack() as stack:
        filled: list[bool] = []

        def embed(ids: np.ndarray) -> np.ndarray:
            if live.embedded >= MIDWAY and not filled:
                filled.append(True)
                stack.enter_context(full_disk())
            return live.embed(ids)

        yield embed


def test_a_disk_that_is_full_leaves_no_plan(lance: Maker, tmp_path: Path) -> None:
    live = Live.begin(lance, tmp_path / "upgrade", rows=ROWS)
    adapter, evaluation, notes = fitted(), judged(), live.store.notes()
    with full_disk(20_000), pytest.raises(StorageError, match=r"upgrade/state\.sqlite could not be .*see to disk"):
        plan_upgrade(live.store, adapter, out=live.folder, field="old", new_field="new", evaluation=evaluation)
    assert list(tmp_path.iterdir()) == []
    assert live.store.notes() == notes
    live.planned()


def test_a_step_that_finds_the_disk_full_is_not_taken_and_can_be_taken_again(postgres: Maker, tmp_path: Path) -> None:
    live = Live.begin(postgres, tmp_path / "upgrade", rows=ROWS)
    upgrade, store = live.planned(), live.store
    steps: list[Callable[[], object]] = [
        lambda: shadow(upgrade, store, old=queries(ASKED, OLD), new=queries(ASKED, NEW)),
        lambda: cutover(upgrade, store),
        lambda: backfill(upgrade, store, live.embed, sample=SAMPLE),
        lambda: finish(upgrade, store),
        lambda: rollback(upgrade, store, reason="a test"),
    ]
    for step in steps:
        before = (upgrade.state.now(), len(upgrade.state.history()))
        with full_disk(), pytest.raises(StorageError, match=r"disk I/O error\. Nothing was changed; see to disk"):
            step()
        assert (upgrade.state.now(), len(upgrade.state.history())) == before
        assert Upgrade.open(live.folder).state.now() == before[0]
        step()
        assert upgrade.state.now() != before[0]
    assert_native(live)


def test_a_disk_that_fills_up_midway_leaves_no_row_in_between(
    lance: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live.begin(lance, tmp_path / "upgrade", rows=ROWS)
    upgrade = cut_over(live)
    whole = live.store._backend.set_vectors

    def write(field: str, ids: list[object], vectors: np.ndarray | None) -> int:
        if live.embedded <= MIDWAY:
            return whole(field, ids, vectors)  # type: ignore[arg-type]
        with full_disk(100):
            return whole(field, ids, vectors)  # type: ignore[arg-type]

    monkeypatch.setattr(live.store._backend, "set_vectors", write)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"could not be written.*File too large"):
            backfill(upgrade, live.store, live.embed, sample=SAMPLE, pace=PACE)
        assert "StoreError" in status(upgrade)["paused"]
        assert live.store.count(lacking="new") == 20
        hits = Searcher(upgrade, live.store).search_many(queries(ASKED, NEW).matrix(), space=NEW, k=ROWS)
        assert all(len(each) == ROWS for each in hits)
    monkeypatch.undo()
    assert backfill(upgrade, live.store, live.embed, pace=PACE).why == "done"
    finish(upgrade, live.store)
    assert_native(live)
    assert not list(lance.folder.rglob("*.tmp"))


def test_a_state_that_cannot_be_written_midway_is_told_by_the_run_and_done_again(lance: Maker, tmp_path: Path) -> None:
    live = Live.begin(lance, tmp_path / "upgrade", rows=ROWS)
    upgrade = cut_over(live)
    with (
        full_from_midway(live) as embed,
        pytest.raises(StorageError, match=r"state\.sqlite could not be .*see to disk"),
    ):
        backfill(upgrade, live.store, embed, sample=SAMPLE, pace=PACE)
    assert upgrade.state.now().stage == "backfilling"
    assert upgrade.state.counts() == {"": 20, "done": 40}
    assert backfill(upgrade, live.store, live.embed, pace=PACE).why == "done"
    finish(upgrade, live.store)
    assert_native(live)
