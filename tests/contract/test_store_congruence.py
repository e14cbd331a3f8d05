"""Every store gives what the store in memory gives, whatever is done to both, in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from stores import MAKERS, Maker, maker_of

from crossfade.stores import MemoryBackend, Records, Store, VectorField, Vectors

OLD, NEW = VectorField("old", 4, "cosine"), VectorField("new", 3, "cosine")
IDS = [f"item {number}" for number in range(12)]
KEYS = st.lists(st.sampled_from(IDS), unique=True, max_size=6)
SEEDS = st.integers(0, 10_000)
SCRIPTS = st.sampled_from(["LATIN", "GREEK", None])


def vectors(seed: int, count: int, dimension: int) -> np.ndarray:
    """Unit vectors: what a store that normalises keeps, too; each in a direction of its own."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


class Congruence(RuleBasedStateMachine):
    """Two stores, one of them in memory."""

    maker: Maker

    @initialize(seed=SEEDS)
    def start(self, seed: int) -> None:
        records = Records(IDS[:5], {"old": Vectors.of(vectors(seed, 5, 4))}, {"script": ["LATIN"] * 5})
        columns = {"script": "string"}
        self.store = self.maker.make([OLD], columns, "string", records)  # type: ignore[arg-type]
        self.oracle = Store(MemoryBackend([OLD], columns=columns))  # type: ignore[arg-type]
        self.oracle.upsert(records)
        self.fields = ["old"]
        if self.store.capabilities.second_field:
            for each in (self.store, self.oracle):
                each.add_field("new", dimension=3)
            self.fields.append("new")
        self.columns = ["script"] if self.store.capabilities.filter else []

    @rule(ids=KEYS, seed=SEEDS, scripts=st.lists(SCRIPTS, min_size=6, max_size=6), both=st.booleans())
    def upsert(self, ids: list[str], seed: int, scripts: list[str | None], both: bool) -> None:
        fields = {"old": Vectors.of(vectors(seed, len(ids), 4))}
        if both and "new" in self.fields:
            fields["new"] = Vectors.of(vectors(seed + 1, len(ids), 3))
        records = Records(list(ids), fields, {"script": list(scripts[: len(ids)])})
        self.store.upsert(records)
        self.oracle.upsert(records)

    @rule(ids=KEYS)
    def delete(self, ids: list[str]) -> None:
        assert self.store.delete(list(ids)) == self.oracle.delete(list(ids))

    @rule(ids=KEYS, seed=SEEDS, empty=st.booleans())
    def set_vectors(self, ids: list[str], seed: int, empty: bool) -> None:
        if "new" in self.fields:
            given = None if empty else vectors(seed, len(ids), 3)
            assert self.store.set_vectors("new", list(ids), given) == self.oracle.set_vectors("new", list(ids), given)

    @rule(seed=SEEDS, k=st.integers(1, 15), script=SCRIPTS, lacking=st.booleans(), exact=st.booleans())
    def search(self, seed: int, k: int, script: str | None, lacking: bool, exact: bool) -> None:
        for name in self.fields:
            query = vectors(seed, 2, 4 if name == "old" else 3)
            where = {"script": script} if script and self.columns else None
            without = "new" if lacking and self.fields == ["old", "new"] and name == "old" else None
            asked = {"field": name, "k": k, "where": where, "lacking": without, "exact": exact}
            for mine, expected in zip(
                self.store.search(query, **asked),  # type: ignore[arg-type]
                self.oracle.search(query, **asked),  # type: ignore[arg-type]
                strict=True,
            ):
                assert len(mine) == len(expected)
                np.testing.assert_allclose(mine.scores, expected.scores, atol=1e-5)
                apart = np.abs(np.diff(expected.scores)) > 1e-4  # equal scores have no order
                if apart.all():
                    assert mine.ids == expected.ids

    @invariant()
    def they_hold_the_same(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.count() == self.oracle.count()
        mine, expected = (
            each.fetch(IDS, fields=self.fields, columns=self.columns) for each in (self.store, self.oracle)
        )
        assert mine.ids == expected.ids
        assert mine.columns == expected.columns
        for name in self.fields:
            np.testing.assert_array_equal(mine.vectors[name].present, expected.vectors[name].present)
            np.testing.assert_allclose(mine.vectors[name].values, expected.vectors[name].values, atol=1e-6)
        scanned = [id_ for part in self.store.scan(batch=4) for id_ in part.ids]
        assert sorted(scanned) == sorted(expected.ids)  # type: ignore[type-var]


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_it_is_congruent_with_the_store_in_memory(name: str, tmp_path: Path) -> None:
    maker = maker_of(name, tmp_path)
    try:
        probe = maker.make([OLD], {}, "string", Records([], {"old": Vectors.of(np.empty((0, 4)))}))
        if not probe.capabilities.write:
            pytest.skip("rows of this store are not written")

        class Machine(Congruence):
            pass

        Machine.maker = maker
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=12,
                stateful_step_count=15,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                derandomize=True,
            ),
        )
    finally:
        maker.close()
