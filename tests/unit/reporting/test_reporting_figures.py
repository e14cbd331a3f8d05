"""Each figure: well-formed SVG, deterministic, its places re-derived from its data."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.evaluation.result import Estimate
from crossfade.reporting.drawn import Cosines, Curve, Picture, PointSet
from crossfade.reporting.figures import cosine_histogram, dumbbell, gap_bar, recall_curves, space_picture
from crossfade.reporting.figures.svg import Scale, element, nice_ticks, number, spread, text

OLD, MAPPED, NEW = Estimate(0.2, 0.18, 0.22), Estimate(0.35, 0.33, 0.37), Estimate(0.6, 0.57, 0.63)


def by_class(svg: str, tag: str, style: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(svg).iter(tag) if style in e.get("class", "").split()]


def share(value: str | None) -> float:
    assert value is not None
    assert value.endswith("%")
    return float(value[:-1])


def test_gap_bar_closes_the_share_that_it_says() -> None:
    svg = gap_bar({"old/old": OLD, "mapped/old": MAPPED, "new/new": NEW}, metric="R@1")
    (track,), (won,) = by_class(svg, "rect", "track"), by_class(svg, "rect", "won")
    gain = (MAPPED.value - OLD.value) / (NEW.value - OLD.value)
    assert share(won.get("width")) / share(track.get("width")) == pytest.approx(gain, abs=1e-3)
    assert share(won.get("x")) == pytest.approx(share(track.get("x")))
    dots = [share(dot.get("cx")) for dot in by_class(svg, "circle", "dot")]
    assert dots == sorted(dots)
    assert all(5 < dot < 95 for dot in dots)


def test_gap_bar_shows_a_loss_as_a_loss() -> None:
    svg = gap_bar({"old/old": MAPPED, "mapped/old": OLD, "new/new": NEW}, metric="R@1")
    assert by_class(svg, "rect", "lost")
    assert not by_class(svg, "rect", "won")


@pytest.mark.parametrize("missing", ["old/old", "mapped/old", "new/new"])
def test_gap_bar_without_one_system(missing: str) -> None:
    known = {"old/old": OLD, "mapped/old": MAPPED, "new/new": NEW}
    svg = gap_bar({s: e for s, e in known.items() if s != missing}, metric="mAP")  # type: ignore[misc]
    assert len(by_class(svg, "circle", "dot")) == 2
    assert gap_bar({}, metric="mAP") == ""


def test_gap_bar_of_equal_systems() -> None:
    one = Estimate(0.5, 0.5, 0.5)
    svg = gap_bar({"old/old": one, "mapped/old": one, "new/new": one}, metric="R@1")
    assert len(by_class(svg, "circle", "dot")) == 3


def test_overlapping_intervals_stand_on_levels_of_their_own() -> None:
    near = Estimate(0.21, 0.19, 0.23)
    svg = gap_bar({"old/old": OLD, "mapped/old": MAPPED, "new/new": near}, metric="R@1")
    assert len({line.get("y1") for line in by_class(svg, "line", "span")}) == 3


def test_recall_curves_rise_and_end_at_their_value() -> None:
    curves = [
        Curve.from_ranks("old/old", [1, 4, 60, 0, 2]),
        Curve.from_ranks("mapped/old", [1, 1, 3, 200, 9]),
        Curve("new/new", (1, 5, 10), (0.5, 0.75, 0.875)),
    ]
    assert curves[0].recall[0] == 1 / 5
    assert curves[0].recall[1] == 2 / 5
    assert curves[0].recall[-1] == curves[1].recall[-1] == 4 / 5
    svg = recall_curves(curves, direction="text→image")
    lines = by_class(svg, "polyline", "curve")
    assert len(lines) == 3
    for line in lines:
        heights = [float(point.split(",")[1]) for point in line.get("points", "").split()]
        assert heights == sorted(heights, reverse=True)
    names = [e.text for e in by_class(svg, "text", "end")]
    assert set(names) == {"old 80.0", "mapped 80.0", "re-indexed 87.5"}
    assert len(list(ET.fromstring(svg).iter("circle"))) == 3
    assert recall_curves([], direction="x") == ""


def test_names_of_curves_do_not_overlap() -> None:
    systems = ("old/old", "mapped/old", "new/old", "old/mapped", "mapped/mapped", "new/new")
    svg = recall_curves([Curve(s, (1, 10), (0.5, 0.9)) for s in systems], direction="d")
    heights = sorted(float(e.get("y", "0")) for e in by_class(svg, "text", "end"))
    assert all(b - a >= 14 for a, b in itertools.pairwise(heights))
    assert heights[-1] < 300


def test_cosine_histogram() -> None:
    cosines = Cosines("image", "after", (-0.2, 0.2, 0.6, 1.0), (0.0, 0.25, 0.75), (0.6, 0.4, 0.0), (0.8, 0.1), 0.97)
    svg = cosine_histogram(cosines)
    assert len(by_class(svg, "polygon", "steps")) == 2
    assert [e.text for e in by_class(svg, "text", "end")] == ["random 0.10", "matching 0.80"]
    assert "97%" in (ET.fromstring(svg).get("aria-label") or "")
    assert 'class="tone-mapped"' in svg
    assert 'class="tone-new"' in cosine_histogram(
        Cosines("text", "before", (0.0, 1.0), (1.0,), (1.0,), (0.5, 0.51), 0.5)
    )


@given(matching=st.floats(-0.95, 0.95), random=st.floats(-0.95, 0.95))
def test_names_of_means_stay_inside_and_apart(matching: float, random: float) -> None:
    svg = cosine_histogram(Cosines("x", "after", (-1.0, 0.0, 1.0), (0.5, 0.5), (0.5, 0.5), (matching, random), 0.5))
    spans = []
    for name in by_class(svg, "text", "end"):
        x, width = float(name.get("x", "")), 7.0 * len(name.text or "")
        left = x if name.get("text-anchor") is None else x - width
        assert left >= -1
        assert left + width <= 441
        spans.append((left, left + width, name.get("y")))
    (a, b, y), (c, d, z) = spans
    assert y != z or b <= c + 0.1 or d <= a + 0.1


def test_space_picture_keeps_proportions() -> None:
    old = PointSet("image", "old", ((0.0, 0.0), (2.0, 1.0)))
    new = PointSet("text", "new", ((1.0, 0.5),))
    svg = space_picture(Picture("after", (old, new), ((0.0, 0.0, 2.0, 1.0),), 0.5, (0.0, 2.0, 0.0, 1.0)))
    (line,) = ET.fromstring(svg).iter("line")
    across = float(line.get("x2", "")) - float(line.get("x1", ""))
    up = float(line.get("y1", "")) - float(line.get("y2", ""))
    assert across == pytest.approx(2 * up, rel=1e-2)
    assert len(by_class(svg, "path", "dots")) == len(by_class(svg, "path", "rings")) == 1
    assert (by_class(svg, "path", "dots")[0].get("d") or "").count("M") == 2


def test_space_picture_of_one_place() -> None:
    points = PointSet("image", "old", ((3.0, 3.0),))
    assert "nan" not in space_picture(Picture("before", (points,), (), 0.0, (3.0, 3.0, 3.0, 3.0)))


def test_dumbbell() -> None:
    svg = dumbbell({"old/old": OLD, "mapped/old": MAPPED, "new/new": NEW}, low=0.1, high=0.7)
    dots = [share(dot.get("cx")) for dot in by_class(svg, "circle", "dot")]
    assert dots == pytest.approx([2 + 96 * (e.value - 0.1) / 0.6 for e in (OLD, MAPPED, NEW)], abs=0.01)
    assert by_class(svg, "line", "won")
    assert dumbbell({}, low=0, high=1) == ""


def test_words_are_escaped() -> None:
    assert text("<&>", 1, 2) == '<text x="1" y="2">&lt;&amp;&gt;</text>'
    assert element("a", {"title": 'x"y'}) == '<a title="x&quot;y"></a>'


@given(st.floats(-1e4, 1e4))
def test_number_is_short_and_near(value: float) -> None:
    assert re.fullmatch(r"-?\d+(\.\d{1,2})?", number(value))
    assert float(number(value)) == pytest.approx(value, abs=0.0051)
    assert number(value) != "-0"


@given(st.floats(-10, 10), st.floats(0.001, 10))
def test_nice_ticks(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)
    assert 1 <= len(ticks) <= 8
    assert all(low - 1e-6 <= tick <= low + width + 1e-6 for tick in ticks)
    assert nice_ticks(1.0, 1.0) == (1.0,)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_spread(places: list[float]) -> None:
    moved = spread(places, gap=10, low=0, high=100)
    ordered = sorted(moved)
    assert all(b - a >= 10 - 1e-6 for a, b in itertools.pairwise(ordered))
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in moved)
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            assert not (a < b and moved[i] > moved[j])


def test_scale() -> None:
    scale = Scale(0.0, 2.0, 100.0, 0.0)
    assert scale(0.5) == 75.0
