"""The error tree has one root, and each error survives the way between two processes."""

from __future__ import annotations

import inspect
from multiprocessing.reduction import ForkingPickler

import pytest

from shortft_core import errors

ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
]


def _instance(kind: type[errors.ShortFTError]) -> errors.ShortFTError:
    _, *parameters = inspect.signature(kind.__init__).parameters.values()
    values = [
        ("alpha", "beta") if "Iterable" in str(parameter.annotation) else f"some {parameter.name}"
        for parameter in parameters
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    return kind(*values)


@pytest.mark.parametrize("kind", ERRORS)
def test_derives_from_the_root(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.ShortFTError)


@pytest.mark.parametrize("kind", ERRORS)
def test_survives_pickling(kind: type[errors.ShortFTError]) -> None:
    error = _instance(kind)
    again = ForkingPickler.loads(ForkingPickler.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_unknown_name_suggests_the_nearest_known_one() -> None:
    error = errors.UnknownNameError("rewards.0.name", "pikscore", ["pickscore", "symmetry"])
    assert str(error) == (
        "rewards.0.name: unknown name 'pikscore'. "
        "Did you mean pickscore? (known: pickscore, symmetry)."
    )
