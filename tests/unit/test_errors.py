"""The exception tree, as drawn in the module's docstring, is the one that the classes make."""

import inspect
import re

import pytest

from crossfade import errors


def drawn() -> dict[str, str]:
    """Class → parent, read off the drawing: four columns of indentation are one level."""
    parents: dict[str, str] = {}
    above = ["CrossfadeError"]
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│ ]*)[├└]── (\w+)", line)
        if match:
            level = len(match[1]) // 4
            parents[match[2]] = above[level]
            above = [*above[: level + 1], match[2]]
    return parents


def defined() -> dict[str, type[BaseException]]:
    return {
        name: cls
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if cls.__module__ == errors.__name__ and issubclass(cls, BaseException)
    }


def test_the_drawing_is_the_tree() -> None:
    made = {name: cls.__bases__[0].__name__ for name, cls in defined().items() if cls is not errors.CrossfadeError}
    assert drawn() == made


def test_every_error_is_public() -> None:
    assert sorted(errors.__all__) == sorted(defined())
    assert errors.__all__ == sorted(errors.__all__)


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"MissingExtra"}))
def test_every_error_is_a_crossfade_error_with_its_message(name: str) -> None:
    error = defined()[name]("what happened")
    assert isinstance(error, errors.CrossfadeError)
    assert "what happened" in str(error)
    assert inspect.getdoc(defined()[name])


def test_a_missing_extra_names_the_command_that_mends_it() -> None:
    error = errors.MissingExtra("open_clip", extra="open-clip", feature="Reading open_clip checkpoints")
    assert "pip install 'crossfade[open-clip]'" in str(error)
    assert isinstance(error, ImportError)
    assert (error.package, error.extra) == ("open_clip", "open-clip")
