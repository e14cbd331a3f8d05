"""The state of an upgrade: durable, shared between processes, and never half-written."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
from pathlib import Path

import pytest

from crossfade.errors import FormatError, NewerFormat, StorageError, UpgradeRefused
from crossfade.upgrading.entries import Moment
from crossfade.upgrading.migrations import MIGRATIONS
from crossfade.upgrading.stages import NEXT, SERVING, STAGES, Stage, require_step
from crossfade.upgrading.state import FILE, State


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.create(tmp_path / "upgrade", {"id": "x", "odd": {"ü": [1, None]}}, metrics={"rows": 3})


def test_facts_and_history_survive(state: State) -> None:
    state.note("later", [1, 2])
    again = State(state.path.parent)
    assert again.fact("odd") == {"ü": [1, None]}
    assert again.fact("later") == [1, 2]
    assert again.fact("absent") is None
    (planned,) = again.history()
    assert (planned.step, planned.after, planned.metrics) == ("plan", "planned", {"rows": 3})


def test_a_pointer_that_another_handle_moves_is_seen(state: State) -> None:
    other = State(state.path.parent)
    assert state.now() == Moment("planned", "old")
    other.move("shadowed", step="shadow")
    assert state.now().stage == "shadowed"
    state.move("cut over", step="cutover", reason="so")
    assert state.now() == other.now() == Moment("cut over", "mapped")
    other.move("finished", step="finish", serving="mapped")
    assert state.now() == Moment("finished", "mapped")


def test_threads_have_connections_of_their_own(state: State) -> None:
    seen: list[Moment] = []
    state.move("shadowed", step="shadow")
    threads = [threading.Thread(target=lambda: seen.append(state.now())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [Moment("shadowed", "old")] * 4
    state.close()


def test_every_stage_can_be_searched_and_only_what_follows_is_allowed() -> None:
    assert set(SERVING) == set(NEXT) == set(STAGES)
    allowed = {(one, other) for one, after in NEXT.items() for other in after}
    for one in STAGES:
        for other in STAGES:
            if (one, other) in allowed:
                require_step(one, other)
            else:
                with pytest.raises(UpgradeRefused, match=f"An upgrade that is {one} can become"):
                    require_step(one, other)


def test_a_step_that_does_not_follow_leaves_nothing_behind(state: State) -> None:
    with pytest.raises(UpgradeRefused):
        state.move("finished", step="finish")
    assert state.now().stage == "planned"
    assert len(state.history()) == 1


def test_the_queue_keeps_its_order(state: State) -> None:
    state.enqueue(["c", 7, "a", "7"])
    state.enqueue(["a", "d"])
    assert state.next(3) == ["c", 7, "a"]
    state.settle({"c": "done", 7: "gone"})
    assert state.next(9) == ["a", "7", "d"]
    state.mark({"7": -(2**63)})
    assert state.next(9) == ["7"]  # what was cut off comes first
    assert state.outcomes(["7", "d", "absent"]) == {"7": "writing", "d": ""}
    state.enqueue(["c", "7", "d"], anew=True)
    state.settle({"7": "done"})
    assert state.next(9) == ["a", "d", "c"]
    assert state.counts() == {"": 3, "done": 1, "gone": 1}
    assert state.settled("done") == ["7"]
    assert state.stamps(["7", "a"]) == {"7": -(2**63)}


def test_many_stamps(state: State) -> None:
    stamps = {f"id {n}": n for n in range(3000)}
    state.stamp(stamps)
    state.stamp({"id 5": -5})
    assert state.stamps([*stamps, "absent"]) == {**stamps, "id 5": -5}


def test_what_is_no_state_is_said_so(tmp_path: Path, state: State) -> None:
    with pytest.raises(FormatError, match="is no upgrade"):
        State(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="exists already"):
        State.create(state.path.parent, {}, metrics={})
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / FILE).write_text("no database, and long enough to be looked at as one" * 50)
    with pytest.raises(FormatError, match="damaged or no state"):
        State(tmp_path / "text")
    (tmp_path / "foreign").mkdir()
    foreign = sqlite3.connect(tmp_path / "foreign" / FILE)
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.commit()
    foreign.close()
    with pytest.raises(FormatError, match="of another program"):
        State(tmp_path / "foreign")
    state.close()
    newer = sqlite3.connect(state.path)
    newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    newer.close()
    with pytest.raises(NewerFormat, match="Upgrade crossfade"):
        State(state.path.parent)


def _count_up(folder: Path, times: int) -> None:
    state = State(folder)
    for number in range(times):
        state.enqueue([f"{os.getpid()}/{number}"])


def test_processes_write_one_after_the_other(state: State) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count_up, args=(state.path.parent, 30)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(state.next(1000)) == 90


def _write_until_killed(folder: Path) -> None:
    state = State(folder)
    number = 0
    while True:
        state.mark({f"{number}": number})
        state.enqueue([f"{number}", f"{number}+"])
        number += 1


def test_a_killed_writer_leaves_whole_writes(state: State) -> None:
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=_write_until_killed, args=(state.path.parent,))
    worker.start()
    while len(state.next(100)) < 20:
        pass
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    queued = state.next(10**6)
    assert len(queued) % 2 == 0
    state.move("shadowed", step="shadow")
    assert State(state.path.parent).now().stage == "shadowed"


def test_a_state_that_cannot_be_written_says_so(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossfade.upgrading import state as module

    monkeypatch.setattr(module, "WAIT", 0.05)
    blocking = sqlite3.connect(state.path, isolation_level=None)
    blocking.execute("BEGIN IMMEDIATE")
    other = threading.Thread(target=lambda: None)
    other.start()
    other.join()
    state.close()
    with pytest.raises(StorageError, match="could not be read or written"):
        State(state.path.parent).move("shadowed", step="shadow")
    blocking.execute("ROLLBACK")
    blocking.close()
    stage: Stage = State(state.path.parent).now().stage
    assert stage == "planned"
