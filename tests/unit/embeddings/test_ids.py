"""Ids: what they may be, that repeats are found, and that each is found where it stands."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import crossfade.embeddings.ids as ids_module
from crossfade.embeddings.ids import CHUNK, IdIndex, as_ids, item_keys, numbered, require_unique
from crossfade.errors import InvalidIds

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


def key_slowly(name: str, salt: str) -> int:
    """FNV-1a over the salt's bytes and the name's code points, then SplitMix64's finaliser, one number at a time."""
    word = 2**64
    key = 0xCBF29CE484222325
    for symbol in [*salt.encode(), *map(ord, name)]:
        key = ((key ^ symbol) * 0x100000001B3) % word
    key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) % word
    key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) % word
    return key ^ (key >> 31)


@given(st.lists(WORDS, max_size=20), st.text(max_size=5))
def test_keys_are_the_formula(words: list[str], salt: str) -> None:
    ids = as_ids(words)
    assert item_keys(ids, salt=salt).tolist() == [key_slowly(word, salt) for word in words]


def test_keys_never_change() -> None:
    """Saved adapters recognise by them the items they were fitted on."""
    assert item_keys(as_ids(["image_1", "é"]), salt="image").tolist() == [6990911252385053627, 18353102160441487143]


def test_keys_do_not_depend_on_the_width_or_the_chunk() -> None:
    short = as_ids(["a", "bc"])
    assert (item_keys(short, salt="") == item_keys(short.astype("<U50"), salt="")).all()
    many = as_ids([f"{i}" for i in range(CHUNK + 3)])
    assert (item_keys(many, salt="s")[-5:] == item_keys(many[-5:], salt="s")).all()


@pytest.mark.parametrize(
    ("given_ids", "become"),
    [
        (["a", "b"], ["a", "b"]),
        ([3, 10], ["3", "10"]),
        (np.array([3, 10], np.uint8), ["3", "10"]),
        (["a", 3], ["a", "3"]),
        ([b"a", "ü".encode()], ["a", "ü"]),
        (np.array(["a", "b"], object), ["a", "b"]),
        (np.array(["a", "b"], ">U3"), ["a", "b"]),
        ([2**70], [str(2**70)]),
        ([], []),
    ],
    ids=repr,
)
def test_what_becomes_an_id(given_ids: Any, become: list[str]) -> None:
    ids = as_ids(given_ids)
    assert ids.tolist() == become
    assert ids.dtype.kind == "U"
    assert ids.dtype.isnative


@pytest.mark.parametrize(
    "wrong",
    [
        ["a", ""],
        [1.0, 2.0],
        [1, None],
        ["a", None],
        ["a", float("nan")],
        ["a", 1.5],
        [True, False],
        ["a", True],
        [["a"], ["b"]],
        [b"\xff\xfe", b"a"],
        np.array([1.5, "a"], object),
    ],
    ids=repr,
)
def test_what_is_no_id(wrong: Any) -> None:
    with pytest.raises(InvalidIds):
        as_ids(wrong)


@given(st.lists(WORDS, min_size=1, max_size=30))
def test_repeats_are_found(words: list[str]) -> None:
    if len(set(words)) == len(words):
        require_unique(as_ids(words))
    else:
        with pytest.raises(InvalidIds, match=f"{len(words) - len(set(words))} repeat"):
            require_unique(as_ids(words))


@given(st.lists(WORDS, unique=True, max_size=30), st.lists(WORDS, max_size=30), st.randoms(use_true_random=False))
def test_locate_is_a_dictionary(words: list[str], others: list[str], random: Any) -> None:
    wanted = words + others
    random.shuffle(wanted)
    where = {word: row for row, word in enumerate(words)}
    assert IdIndex(as_ids(words)).locate(as_ids(wanted)).tolist() == [where.get(word, -1) for word in wanted]


@given(st.lists(WORDS, unique=True, min_size=1), st.lists(WORDS, min_size=1))
def test_ids_of_one_key_are_told_apart(words: list[str], others: list[str]) -> None:
    """Two ids of one 64-bit key are too rare to wait for: here all have the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids_module, "item_keys", lambda ids, *, salt: np.zeros(len(ids), np.uint64))
        require_unique(as_ids(words))
        with pytest.raises(InvalidIds, match="1 repeat"):
            require_unique(as_ids([*words, words[0]]))
        where = {word: row for row, word in enumerate(words)}
        wanted = [*reversed(words), *others]
        assert IdIndex(as_ids(words)).locate(as_ids(wanted)).tolist() == [where.get(word, -1) for word in wanted]
        names, number = numbered(as_ids(wanted))
        assert names[number].tolist() == wanted


@given(st.lists(WORDS, min_size=1))
def test_numbered_names_each_once(words: list[str]) -> None:
    names, number = numbered(as_ids(words))
    assert names[number].tolist() == words
    assert sorted(names.tolist()) == sorted(set(words))
