from __future__ import annotations

import copy

import pytest

from shortft_core.errors import (
    MissingWeightsError,
    PlanError,
    PromptError,
    ShortFTError,
    UnknownNameError,
    UserError,
    WeightsError,
)


@pytest.mark.parametrize("kind", [PlanError, PromptError, WeightsError, MissingWeightsError])
def test_a_user_error_says_where_what_and_what_to_do(kind: type[UserError]) -> None:
    error = kind("method.steps", "too many steps", "Use 1 to 999 steps")
    assert str(error) == "method.steps: too many steps. Use 1 to 999 steps."
    assert isinstance(error, ValueError)
    assert isinstance(error, ShortFTError)


def test_an_unknown_name_without_a_near_one_lists_all() -> None:
    error = UnknownNameError("base_model.name", "xyzzy", ["sd15", "shapes"])
    assert "Did you mean" not in str(error)
    assert "(known: sd15, shapes)" in error.remedy


def test_an_unknown_name_takes_names_that_can_be_read_only_once() -> None:
    error = UnknownNameError("base_model.name", "sd16", iter(["shapes", "sd15"]))
    assert error.known == ("sd15", "shapes")
    assert "Did you mean sd15?" in error.remedy


def test_a_copy_is_equal_in_every_field() -> None:
    error = UnknownNameError("base_model.name", "sd16", ["sd15"])
    again = copy.copy(error)
    assert (type(again), str(again), vars(again)) == (UnknownNameError, str(error), vars(error))
