"""The life of an upgrade from the plan to its end, on the store in memory: what each step does, refuses and leaves alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from live import NEW, OLD, Live, expected_rows, fitted, judged, queries, seen, stored
from stores import maker_of

from crossfade import Space
from crossfade.encoders import Encoder
from crossfade.errors import (
    ConfigError,
    EncoderError,
    EndpointError,
    EvaluationError,
    SpaceMismatch,
    StorageError,
    StoreChanged,
    UpgradeRefused,
)
from crossfade.stores import Store
from crossfade.upgrading import (
    Pace,
    Searcher,
    Upgrade,
    Writer,
    backfill,
    cutover,
    finish,
    plan_upgrade,
    rollback,
    shadow,
    status,
)
from crossfade.upgrading.shadowing import shadow_queries

ASKED = list(range(20))


@pytest.fixture
def live(tmp_path: Path) -> Live:
    return Live.begin(maker_of("memory", tmp_path), tmp_path / "upgrade")


@pytest.fixture
def upgrade(live: Live) -> Upgrade:
    return live.planned()


def shadowed(live: Live, upgrade: Upgrade) -> Upgrade:
    shadow(upgrade, live.store, old=queries(ASKED, OLD), new=queries(ASKED, NEW))
    return upgrade


def cut_over(live: Live, upgrade: Upgrade) -> Upgrade:
    cutover(shadowed(live, upgrade), live.store)
    return upgrade


def backfilled(live: Live, upgrade: Upgrade) -> Upgrade:
    assert backfill(cut_over(live, upgrade), live.store, live.embed, sample=50).why == "done"
    return upgrade


def snapshot(store: Store) -> list[object]:
    fields = sorted(store.describe().fields)
    found = stored(store, *fields)
    return [found.ids, *(found.vectors[f].values.tobytes() for f in fields), found.columns, store.notes()]


def assert_native(live: Live) -> None:
    found, wanted = stored(live.store, "old", "new"), expected_rows(live.contents, native=True)
    assert found.ids == wanted.ids
    for field in ("old", "new"):
        assert found.vectors[field].present.all()
        np.testing.assert_array_equal(found.vectors[field].values, wanted.vectors[field].values)


def test_a_plan_says_what_it_costs_and_changes_nothing(live: Live, tmp_path: Path) -> None:
    before = snapshot(live.store)
    plan = plan_upgrade(
        live.store, fitted(), out=tmp_path / "plan", field="old", evaluation=judged(), embed=live.embed, price=0.5
    )
    assert snapshot(live.store) == before
    assert (plan.rows, plan.encoded_before_cutover, plan.encoded_by_backfill) == (120, 0, 120)
    assert plan.money == 60.0
    assert plan.bytes == 120 * 16 * 4
    assert plan.seconds is not None
    assert plan.seconds > 0
    assert plan.allowed
    (only,) = plan.quality
    assert only.direction == "image→image"
    assert only.before is not None
    assert only.after is not None
    assert only.before[0] < only.after[0]
    assert json.loads((tmp_path / "plan" / "plan.json").read_text())["rows"] == 120
    assert Upgrade.open(tmp_path / "plan").new_field == f"crossfade_{NEW.fingerprint}"
    with pytest.raises(StorageError, match="exists already"):
        plan_upgrade(live.store, fitted(), out=tmp_path / "plan", field="old")


def test_a_plan_refuses_what_cannot_be_upgraded(live: Live, tmp_path: Path) -> None:
    adapter, out = fitted(), tmp_path / "plan"
    with pytest.raises(StoreChanged, match="'absent' was asked for"):
        plan_upgrade(live.store, adapter, out=out, field="absent")
    with pytest.raises(ConfigError, match="has a field or column 'kind' already"):
        plan_upgrade(live.store, adapter, out=out, field="old", new_field="kind")
    live.store.add_field("other", dimension=12)
    with pytest.raises(ConfigError, match="Nothing says which space"):
        plan_upgrade(live.store, adapter, out=out, field="other")
    live.store.register("other", replace(OLD, revision="another"), "image")
    with pytest.raises(SpaceMismatch, match="Fit an adapter to the field's space"):
        plan_upgrade(live.store, adapter, out=out, field="other")
    other = replace(judged(), source=Space(model="m", dimension=3).to_dict())
    with pytest.raises(ConfigError, match="of an adapter between other spaces"):
        plan_upgrade(live.store, adapter, out=out, field="old", evaluation=other)
    assert not out.exists()


def test_a_shadow_measures_both_ways_and_serves_the_old_one(live: Live, upgrade: Upgrade) -> None:
    searcher = Searcher(upgrade, live.store)
    old, new = queries(ASKED, OLD), queries(ASKED, NEW)
    right = {str(id_): [f"item-{content}"] for id_, content in zip(old.ids, ASKED, strict=True)}
    found = shadow(upgrade, live.store, old=old, new=new, k=5, right=right)
    mapped = upgrade.adapter.transform(new)
    agree, hit_before, hit_after = [], [], []
    for n, content in enumerate(ASKED):
        (a,) = live.store.search(old.matrix()[n], field="old", k=5)
        (b,) = live.store.search(mapped.matrix()[n], field="old", k=5)
        agree.append(len(set(a.ids) & set(b.ids)) / 5)
        hit_before.append(f"item-{content}" in a.ids)
        hit_after.append(f"item-{content}" in b.ids)
    assert found.agreement.value == pytest.approx(np.mean(agree))
    assert found.before is not None
    assert found.after is not None
    assert found.change is not None
    assert (found.before.value, found.after.value) == (np.mean(hit_before), np.mean(hit_after))
    assert found.change.value == pytest.approx(np.mean(hit_after) - np.mean(hit_before))
    flips = [b and not a for b, a in zip(hit_before, hit_after, strict=True)]
    assert found.negative_flips == np.mean(flips)
    assert 0 < found.old.p50 <= found.old.p95
    assert upgrade.state.now().stage == "shadowed"
    assert searcher.expects == OLD
    assert upgrade.state.history()[-1].metrics["queries"] == 20


class Names(Encoder):
    """A text names a content; a model sees that content's query."""

    def __init__(self, space: Space) -> None:
        self.space = replace(space)
        self.asked: list[str] = []

    def encode_texts(self, texts: Sequence[str], *, role: str = "document") -> np.ndarray:
        self.asked += texts
        if "broken" in texts and self.space == NEW:
            raise EndpointError("HTTP 500")
        return queries([int(text) if text.isdigit() else 0 for text in texts], self.space).matrix()

    def __repr__(self) -> str:
        return "Names()"


def test_live_queries_are_shadowed_and_served_the_old_way(
    live: Live, upgrade: Upgrade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade.adapter, "modalities", ("image", "text"))
    monkeypatch.setattr(upgrade.adapter, "map", lambda vectors, modality: fitted().map(vectors, "image"))
    old, new = Names(OLD), Names(NEW)
    with pytest.raises(EvaluationError, match="No live query"):
        shadow(upgrade, live.store)
    with pytest.raises(ConfigError, match="takes both models"):
        Searcher(upgrade, live.store, old=old, shadow=0.5)
    searcher = Searcher(upgrade, live.store, old=old, new=new, shadow=1.0)
    plain = Searcher(upgrade, live.store, old=old)
    served = [searcher.search(text=str(content), k=5).ids for content in ASKED]
    assert served == [plain.search(text=str(content), k=5).ids for content in ASKED]
    assert new.asked == [str(content) for content in ASKED]
    with pytest.warns(UserWarning, match="could not be shadowed: EndpointError"):
        assert searcher.search(text="broken", k=5).ids
    found = shadow(upgrade, live.store)
    expected = shadow_queries(upgrade, live.store, old=queries(ASKED, OLD), new=queries(ASKED, NEW), k=5)
    assert (found.queries, found.k) == (20, 5)
    assert (found.agreement, found.same_first) == (expected.agreement, expected.same_first)
    assert upgrade.state.now().stage == "shadowed"
    cutover(upgrade, live.store)
    searcher.search(text="3", k=5)
    assert len(upgrade.state.glimpses()) == 20
    with pytest.raises(ConfigError, match="those of one alone"):
        shadow(upgrade, live.store, old=queries(ASKED, OLD))


def test_a_cutover_needs_a_verdict_and_a_shadow(live: Live, tmp_path: Path) -> None:
    doubtful = replace(judged().directions[0], verdict=replace(judged().directions[0].verdict, outcome="undecided"))
    upgrade = live.planned(evaluation=replace(judged(), directions=(doubtful,)))
    with pytest.raises(UpgradeRefused, match="image→image is undecided"):
        cutover(upgrade, live.store)
    with pytest.raises(ConfigError, match="with a reason"):
        cutover(upgrade, live.store, force=" ")
    assert upgrade.state.now().serving == "old"
    cutover(upgrade, live.store, force="the old model is switched off tonight")
    assert upgrade.state.now().serving == "mapped"
    last = upgrade.state.history()[-1]
    assert (last.step, last.reason, last.metrics["forced"]) == (
        "cutover",
        "the old model is switched off tonight",
        True,
    )


def test_a_cutover_follows_a_shadow(live: Live, upgrade: Upgrade) -> None:
    with pytest.raises(UpgradeRefused, match="follows a shadow"):
        cutover(upgrade, live.store)
    cut_over(live, upgrade)
    assert upgrade.state.history()[-1].metrics["quality"][0]["outcome"] == "compatible"


def test_steps_that_do_not_follow_are_refused(live: Live, upgrade: Upgrade) -> None:
    with pytest.raises(UpgradeRefused, match="is planned can become shadowed, or cut over; rolled back was asked for"):
        rollback(upgrade, live.store, reason="why not")
    with pytest.raises(UpgradeRefused, match="backfilling was asked for"):
        backfill(upgrade, live.store, live.embed)
    with pytest.raises(UpgradeRefused, match="finished was asked for"):
        finish(upgrade, live.store)
    with pytest.raises(UpgradeRefused, match="while it is under way; the upgrade is planned"):
        upgrade.state.pause("lunch")
    cut_over(live, upgrade)
    with pytest.raises(UpgradeRefused):
        cutover(upgrade, live.store)


def test_searches_follow_the_pointer(live: Live, upgrade: Upgrade) -> None:
    searcher, elsewhere = Searcher(upgrade, live.store), Upgrade.open(live.folder)
    asked = {space: queries(ASKED, space) for space in (OLD, NEW)}
    mapped = upgrade.adapter.transform(asked[NEW]).matrix()
    before = live.store.search(asked[OLD].matrix(), field="old", k=5)

    def found(space: Space) -> list[list[object]]:
        return [list(h.ids) for h in searcher.search_many(asked[space].matrix(), space=space, k=5)]

    assert searcher.expects == OLD
    assert found(OLD) == [h.ids for h in before]
    cut_over(live, elsewhere)  # by another handle
    assert searcher.expects == NEW
    through = [h.ids for h in live.store.search(mapped, field="old", k=5)]
    assert found(NEW) == through
    assert found(OLD) == [h.ids for h in before]  # what was encoded before the cutover is searched as it was
    rollback(elsewhere, live.store, reason="a test")
    assert searcher.expects == OLD
    assert found(OLD) == [h.ids for h in before]
    one = searcher.search(vector=asked[OLD].select([3]), k=5)
    assert one.ids == before[3].ids
    with pytest.raises(ConfigError, match="by its space"):
        searcher.search(vector=asked[OLD].matrix()[0])
    with pytest.raises(ConfigError, match="one query"):
        searcher.search()
    with pytest.raises(SpaceMismatch, match="Queries must live in"):
        searcher.search(vector=asked[OLD].matrix()[0], space=replace(OLD, revision="9"))
    with pytest.raises(ConfigError, match="give Searcher old=ENCODER"):
        searcher.search(text="a cat")


def test_backfilling_gives_every_row_its_native_vector(live: Live, upgrade: Upgrade) -> None:
    backfilled(live, upgrade)
    assert_native(live)
    assert live.embedded == 120  # none twice, the sample's neither
    assert upgrade.state.now().stage == "backfilled"
    assert live.store.space("new") == NEW
    assert upgrade.state.fact("merge") in ("raw", "standardised", "regressed", "ranks")
    finish(upgrade, live.store)
    searcher = Searcher(upgrade, live.store)
    hits = searcher.search_many(queries(ASKED, NEW).matrix(), space=NEW, k=3)
    exact = live.store.search(queries(ASKED, NEW).matrix(), field="new", k=3)
    assert [h.ids for h in hits] == [h.ids for h in exact]
    assert live.store.notes().keys() == {"crossfade.space.old", "crossfade.space.new"}  # the claim is given back


def test_a_mixed_gallery_is_searched_whole_and_each_row_in_its_space(live: Live, upgrade: Upgrade) -> None:
    cut_over(live, upgrade)
    done = backfill(upgrade, live.store, live.embed, sample=40, pace=Pace(batch=10, limit=70))
    assert (done.why, done.encoded) == ("limit", 70)
    assert upgrade.state.now().stage == "backfilling"
    searcher = Searcher(upgrade, live.store)
    asked = queries(ASKED, NEW).matrix()
    for merge in ("raw", "standardised", "regressed", "ranks"):
        hits = Searcher(upgrade, live.store, merge=merge).search_many(asked, space=NEW, k=200)
        assert all(sorted(h.ids) == sorted(live.contents) for h in hits)  # each row once
    (hits,) = searcher.search_many(asked[:1], space=NEW, k=10, where={"kind": "odd"})
    assert all(int(str(id_).split("-")[1]) % 2 for id_ in hits.ids)
    (raw,) = Searcher(upgrade, live.store, merge="raw").search_many(asked[:1], space=NEW, k=200)
    new, old = seen([live.contents[id_] for id_ in raw.ids], NEW), seen([live.contents[id_] for id_ in raw.ids], OLD)
    native = live.store.fetch(raw.ids, fields=["new"]).vectors["new"].present
    assert native.sum() == 70
    mapped = upgrade.adapter.map(asked[:1], "image")
    np.testing.assert_allclose(raw.scores, np.where(native, new @ asked[0], old @ mapped[0]), atol=1e-5)
    assert backfill(upgrade, live.store, live.embed).why == "done"
    assert_native(live)


def test_rows_written_and_deleted_meanwhile_are_right_in_the_end(live: Live, upgrade: Upgrade) -> None:
    cut_over(live, upgrade)
    writer = Writer(upgrade, live.store)
    live.write_directly("before", 900)
    backfill(upgrade, live.store, live.embed, sample=40, pace=Pace(batch=10, limit=60))
    done = [str(id_) for id_ in upgrade.state.settled("done")]
    waiting = [id_ for id_ in live.contents if id_ not in done]
    live.write_directly(done[0], 901)  # a whole row anew: its native vector is gone
    live.contents[done[1]] = 902  # by a client that changes one field alone: its native vector is stale
    live.store.set_vectors("old", [done[1]], seen([902], OLD))
    live.delete_directly(done[2])
    live.delete_directly(str(waiting[0]))
    live.write_directly("after", 903)
    live.contents["native"] = 904
    writer.write(["native"], seen([904], NEW), space=NEW, columns={"kind": ["even"]})
    live.contents["by the old model"] = 905
    writer.write(["by the old model"], seen([905], OLD), space=OLD)
    found = live.store.fetch(["native"], fields=["old", "new"])
    np.testing.assert_array_equal(found.vectors["new"].values, seen([904], NEW))
    np.testing.assert_allclose(found.vectors["old"].values, upgrade.adapter.map(seen([904], NEW), "image"), atol=1e-6)
    assert backfill(upgrade, live.store, live.embed).why == "done"
    found, wanted = stored(live.store, "old", "new"), expected_rows(live.contents, native=True)
    assert found.ids == wanted.ids
    np.testing.assert_array_equal(found.vectors["new"].values, wanted.vectors["new"].values)
    rollback(upgrade, live.store, reason="a test")
    others = [row for row, id_ in enumerate(found.ids) if id_ != "native"]
    np.testing.assert_array_equal(found.vectors["old"].values[others], wanted.vectors["old"].values[others])


def test_an_item_that_changes_while_it_is_encoded_is_encoded_again(live: Live, upgrade: Upgrade) -> None:
    cut_over(live, upgrade)
    changed = ["item-3", "item-50"]

    def embed(ids: np.ndarray) -> np.ndarray:
        made = live.embed(ids)
        for id_ in list(changed):
            if id_ in ids:  # after it was looked at: the row is replaced, or its old vector alone
                changed.remove(id_)
                live.contents[id_] = 777
                live.store.set_vectors("old", [id_], seen([777], OLD))
        return made

    assert backfill(upgrade, live.store, embed, sample=40).why == "done"
    assert not changed
    assert_native(live)


def test_an_item_that_cannot_be_read_stays_mapped_and_keeps_the_upgrade_from_its_end(
    live: Live, upgrade: Upgrade
) -> None:
    live.unreadable = {"item-7"}
    cut_over(live, upgrade)
    done = backfill(upgrade, live.store, live.embed, sample=40)
    assert (done.why, done.failed) == ("done", 1)
    assert status(upgrade, live.store)["without native vector"] == 1
    with pytest.raises(UpgradeRefused, match="1 rows have no native vector"):
        finish(upgrade, live.store)
    (hits,) = Searcher(upgrade, live.store).search_many(queries([7], NEW).matrix(), space=NEW, k=200)
    assert "item-7" in hits.ids
    finish(upgrade, live.store, keep_mixed=True)
    assert upgrade.state.now().serving == "mixed"
    with pytest.raises(ConfigError, match="is not dropped"):
        finish(upgrade, live.store, drop_old=True)


@pytest.mark.parametrize("until", ["cut over", "backfilling", "backfilled", "finished"])
def test_a_rollback_gives_the_searches_of_before(live: Live, upgrade: Upgrade, until: str) -> None:
    asked = queries(ASKED, OLD).matrix()
    before = live.store.search(asked, field="old", k=7)
    cut_over(live, upgrade)
    if until == "backfilling":
        backfill(upgrade, live.store, live.embed, sample=40, pace=Pace(batch=10, limit=50))
    elif until != "cut over":
        backfill(upgrade, live.store, live.embed, sample=40)
    if until == "finished":
        finish(upgrade, live.store)
    assert upgrade.state.now().stage == until
    rollback(upgrade, live.store, reason="a test", drop_new=until == "backfilled")
    searcher = Searcher(upgrade, live.store)
    assert searcher.expects == OLD
    after = searcher.search_many(asked, space=OLD, k=7)
    for one, other in zip(before, after, strict=True):
        assert one.ids == other.ids
        np.testing.assert_array_equal(one.scores, other.scores)
    assert "crossfade.upgrade" not in live.store.notes()
    cutover(upgrade, live.store)  # and forward again
    assert backfill(upgrade, live.store, live.embed).why == "done"
    assert_native(live)


def test_dropping_the_old_field_ends_the_way_back(live: Live, upgrade: Upgrade) -> None:
    backfilled(live, upgrade)
    writer = Writer(upgrade, live.store)
    finish(upgrade, live.store, drop_old=True)
    assert set(live.store.describe().fields) == {"new"}
    with pytest.raises(UpgradeRefused, match="nothing can be rolled back"):
        rollback(upgrade, live.store, reason="too late")
    writer.write(["fresh"], seen([950], NEW), space=NEW)
    (hits,) = Searcher(upgrade, live.store).search_many(queries([950], NEW).matrix(), space=NEW, k=1)
    assert hits.ids == ["fresh"]
    with pytest.raises(UpgradeRefused, match="Write the vectors of"):
        writer.write(["stale"], seen([951], OLD), space=OLD)


def test_an_upgrade_may_end_without_backfilling(live: Live, upgrade: Upgrade) -> None:
    cut_over(live, upgrade)
    with pytest.raises(ConfigError, match="is not dropped"):
        finish(upgrade, live.store, drop_old=True)
    finish(upgrade, live.store)
    assert upgrade.state.now().serving == "mapped"
    Writer(upgrade, live.store).write(["fresh"], seen([960], NEW), space=NEW)
    (hits,) = Searcher(upgrade, live.store).search_many(queries([960], NEW).matrix(), space=NEW, k=3)
    assert "fresh" in hits.ids


def test_a_second_upgrade_of_a_collection_is_refused(live: Live, upgrade: Upgrade, tmp_path: Path) -> None:
    plan_upgrade(live.store, fitted(), out=tmp_path / "second", field="old", new_field="x", evaluation=judged())
    second = Upgrade.open(tmp_path / "second")
    shadowed(live, upgrade)
    with pytest.raises(UpgradeRefused, match=str(live.folder)):
        shadowed(live, second)
    assert second.state.now().stage == "planned"
    cutover(upgrade, live.store)
    rollback(upgrade, live.store, reason="the second goes first")
    shadowed(live, second)


def test_a_run_can_be_paused_and_goes_on(live: Live, upgrade: Upgrade) -> None:
    cut_over(live, upgrade)
    other = Upgrade.open(live.folder)

    def embed(ids: np.ndarray) -> np.ndarray:
        if live.embedded >= 60 and not other.state.now().paused:
            other.state.pause("lunch")
        return live.embed(ids)

    done = backfill(upgrade, live.store, embed, sample=40, pace=Pace(batch=10))
    assert done.why == "paused"
    assert status(upgrade)["paused"] == "lunch"
    assert backfill(upgrade, live.store, live.embed, pace=Pace(batch=10)).why == "done"
    steps = [each.step for each in upgrade.state.history()]
    assert steps == ["plan", "shadow", "cutover", "backfill", "pause", "resume", "backfill"]
    assert_native(live)


@pytest.mark.parametrize("error", [EndpointError("HTTP 429"), EncoderError("returned 7 numbers a vector")])
def test_a_model_that_fails_pauses_the_run(live: Live, upgrade: Upgrade, error: Exception) -> None:
    cut_over(live, upgrade)

    def embed(ids: np.ndarray) -> np.ndarray:
        if live.embedded >= 60:
            raise error
        return live.embed(ids)

    with pytest.raises(type(error)):
        backfill(upgrade, live.store, embed, sample=40, pace=Pace(batch=10))
    assert type(error).__name__ in upgrade.state.now().paused
    assert backfill(upgrade, live.store, live.embed).why == "done"
    assert_native(live)


def test_a_model_of_another_dimension_is_refused(live: Live, upgrade: Upgrade) -> None:
    cut_over(live, upgrade)
    with pytest.raises(EncoderError, match="must have shape"):
        backfill(upgrade, live.store, lambda ids: np.ones((len(ids), 5)), sample=40)
    assert not live.store.fetch(["item-0"], fields=["new"]).vectors["new"].present.any()


def test_two_workers_are_one_too_many(live: Live, upgrade: Upgrade) -> None:
    cut_over(live, upgrade)
    refused = []

    def embed(ids: np.ndarray) -> np.ndarray:
        if not refused:
            refused.append(True)
            with pytest.raises(ConfigError, match="Only one process may write"):
                backfill(Upgrade.open(live.folder), live.store, live.embed)
        return live.embed(ids)

    backfill(upgrade, live.store, embed, sample=40)
    assert refused


@pytest.mark.parametrize("order", ["random", "uncertain", "queried", "given"])
def test_rows_are_taken_in_the_order_asked_for(live: Live, upgrade: Upgrade, order: str) -> None:
    cut_over(live, upgrade)
    given = [f"item-{n}" for n in range(99, 89, -1)]
    log = queries([5] * 1 + list(range(100, 104)), NEW)
    backfill(
        upgrade,
        live.store,
        live.embed,
        order=given if order == "given" else order,  # type: ignore[arg-type]
        queries=log,
        sample=40,
        pace=Pace(batch=10, limit=50),
    )
    done = upgrade.state.settled("done")
    assert len(done) == 50
    after = [str(id_) for id_ in done[40:]]
    sample = set(done[:40])
    if order == "given":
        assert after == [id_ for id_ in given if id_ not in sample][:10] or set(given) - sample <= set(after)
    if order == "queried":
        wanted: dict[object, int] = {}
        for hits in live.store.search(upgrade.adapter.map(log.matrix(), "image"), field="old", k=50):
            for id_ in hits.ids:
                wanted[id_] = wanted.get(id_, 0) + 1
        times = [wanted.get(id_, 0) for id_ in after]
        assert times == sorted(times, reverse=True)
        assert times[0] == max(count for id_, count in wanted.items() if id_ not in sample)
    with pytest.raises(ConfigError, match="at least 1 row"):
        Pace(batch=0)


def test_an_upgraded_collection_that_changed_is_left_alone(live: Live, upgrade: Upgrade) -> None:
    live.store.add_field("other", dimension=3)
    live.store.drop_field("old")
    with pytest.raises(StoreChanged, match=r"now there is no such field"):
        shadowed(live, upgrade)
    assert upgrade.state.now().stage == "planned"


def test_the_history_says_who_and_in_which_order(live: Live, upgrade: Upgrade) -> None:
    backfilled(live, upgrade)
    rollback(upgrade, live.store, reason="complaints")
    found = upgrade.state.history()
    assert [each.number for each in found] == list(range(1, len(found) + 1))
    assert found[-1].reason == "complaints"
    assert found[-1].after == "rolled back"
    assert all("@" in each.who and each.at.endswith("+00:00") for each in found)
