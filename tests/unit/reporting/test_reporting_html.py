"""The HTML report: well-formed, offline, complete, escaped, deterministic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from crossfade.evaluation.result import Evaluation
from crossfade.reporting import Material, to_html
from crossfade.reporting.formatting import percent, points

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and keeps attributes and words."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> repeats an attribute"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raise AssertionError(f"<{tag}/> closes itself")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def document(evaluation: Evaluation, material: Material) -> str:
    return to_html(evaluation, material=material)


@pytest.fixture(scope="module")
def page(document: str) -> Page:
    return Page(document)


def test_every_element_is_closed(page: Page) -> None:
    assert page.open == []
    assert page.tags.count("html") == page.tags.count("body") == page.tags.count("h1") == 1


def test_nothing_is_loaded_from_outside(document: str, page: Page) -> None:
    assert not re.search(r"https?:|//[a-z]", re.sub(r'data:image/[^"]*', "", document))
    for tag, name, value in page.attributes:
        if name in ("src", "href", "srcset", "data", "poster", "action"):
            assert value.startswith(("#", "data:image/")), (tag, name, value[:60])
    assert "script" not in page.tags
    assert "link" not in page.tags
    style = document.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(v for _, n, v in page.attributes if n == "content" and "default-src" in v)
    assert "default-src 'none'" in policy


def test_anchors_lead_somewhere(page: Page) -> None:
    places = {value for _, name, value in page.attributes if name == "id"}
    links = [value for tag, name, value in page.attributes if tag == "a" and name == "href"]
    assert len(links) == 11
    assert {link.removeprefix("#") for link in links} == places


def test_hostile_texts_are_words(document: str, page: Page) -> None:
    assert "<script" not in document
    assert "<script>alert('caption')</script> | `code` & \"quotes\"" in page.text
    assert "<u>" not in document
    assert "<u>" in page.text


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from numbers(inner, f"{path}/{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from numbers(inner, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def test_every_number_of_the_evaluation_is_on_the_page(evaluation: Evaluation, page: Page) -> None:
    seen = 0
    for path, value in numbers(json.loads(json.dumps(evaluation.to_dict()))):
        if path == "/verdict/queries":
            continue  # the sum over directions, which are shown one by one
        if path.startswith(("/config", "/source", "/target")) or isinstance(value, int):
            shown = [f"{value:,}", str(value)]
        elif "/difference" in path:
            shown = [points(value)]
        else:
            shown = [percent(value), f"{100 * value:g}"]
        assert any(re.search(rf"(?<![\d.,]){re.escape(s)}(?![\d])", page.text) for s in shown), (path, value, shown)
        seen += 1
    assert seen > 150


def test_images_and_drawings_have_words(page: Page) -> None:
    images = page.tags.count("img")
    assert images > 30
    assert sum(tag == "img" and name == "alt" and bool(value) for tag, name, value in page.attributes) == images
    drawings = page.tags.count("svg")
    assert drawings >= 2 + 2 + 4 + 2
    assert (
        sum(tag == "svg" and name == "aria-label" and len(value) > 5 for tag, name, value in page.attributes)
        == drawings
    )
    tables = page.tags.count("table")
    assert page.tags.count("caption") == tables
    assert page.tags.count("thead") == tables


def test_warnings_come_before_any_number(page: Page) -> None:
    assert page.text.index("822 of 1,234 queries were fitted on.") < page.text.index("+1.5")
    assert ("aside", "role", "alert") in page.attributes


def test_undecided_says_how_many_more_queries(page: Page) -> None:
    assert page.text.count("≈ 8,765") == 2
    assert "Both directions are undecided." in page.text


def test_same_input_same_bytes(evaluation: Evaluation, material: Material, document: str) -> None:
    assert to_html(evaluation, material=material) == document


def test_a_round_trip_through_json_draws_the_same(evaluation: Evaluation) -> None:
    again = Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict())))
    assert to_html(again) == to_html(evaluation)


def test_minimal_evaluation(minimal: Evaluation) -> None:
    page = Page(to_html(minimal))
    assert page.open == []
    assert "What runs today was not measured" in page.text or "full re-index was not measured" in page.text
    links = [value for tag, name, value in page.attributes if tag == "a" and name == "href"]
    assert links == ["#gap", "#matrix", "#curves", "#method", "#provenance", "#words"]
    assert "alert" not in {value for _, name, value in page.attributes if name == "role"}
    assert "None" not in page.text


def test_empty_material_falls_back_on_the_numbers(evaluation: Evaluation) -> None:
    page = Page(to_html(evaluation))
    assert "Drawn through the measured cut-offs" in page.text
    assert "t3" in page.text
    assert "i5" in page.text
    assert "img" not in page.tags


def test_title(evaluation: Evaluation) -> None:
    assert "<h1>acme/old → acme/new</h1>" in to_html(evaluation)
    assert "<h1>A &lt;i&gt;title&lt;/i&gt;</h1>" in to_html(evaluation, title="A <i>title</i>")


def test_size_of_a_report_with_many_thumbnails(document: str) -> None:
    assert len(document.encode()) < 6_000_000


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2."""
    digits = colour.removeprefix("#")
    digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_has_contrast(document: str, scheme: str) -> None:
    light, dark = document.split("prefers-color-scheme: dark", 1)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", light))
    assert len(colours) > 15
    if scheme == "dark":
        colours |= dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", dark.split("}", 1)[0]))
    for words in ("ink", "muted", "old-ink", "mapped-ink", "new-ink", "good", "bad", "warn"):
        for ground in ("paper", "panel"):
            assert contrast(colours[words], colours[ground]) >= 4.5, (words, ground)
    for state in ("good", "bad", "warn"):
        assert contrast(colours[state], colours[f"{state}-soft"]) >= 4.5, state
        assert contrast(colours["ink"], colours[f"{state}-soft"]) >= 4.5, state
    for system in ("mapped", "new", "old"):
        assert contrast(colours[system], colours["paper"]) >= (2.5 if system == "old" else 3.0), system
