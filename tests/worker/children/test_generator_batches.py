"""How a batch is taken apart where memory ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.worker.generate.samples import BASE, CPU, STEPS, asked
from worker.children.batches import Batches, _Work, problem_of
from worker.children.pipelines import Pipelines
from worker.generate.messages import Answer, Batch, Request


def work(batch_size: int) -> _Work:
    batches = Batches(
        pipelines=Pipelines(CPU, 0),
        batch_size=batch_size,
        answer=lambda _: None,
        alive=lambda _: None,
    )
    return _Work(batches, Batch(id="b", requests=(), folder=Path("unused")))


def in_parts(fits: int, count: int, batch_size: int) -> tuple[list[int], list[int]]:
    """What came out, and how many were tried at once, on a machine that holds only so many."""
    tried = []

    def make(part: Sequence[int]) -> Tensor:
        tried.append(len(part))
        if len(part) > fits:
            raise torch.OutOfMemoryError("none left")
        return torch.tensor(part)

    made = work(batch_size)._in_parts(make, range(count), asked("a"))
    return made.tolist(), tried


@pytest.mark.parametrize(
    ("fits", "tried"),
    [
        (16, [16, 4]),
        # Once more with everything else freed, then by halves, for the rest of the batch too.
        (5, [16, 16, 8, 4, 4, 4, 4, 4]),
        (1, [16, 16, 8, 4, 2, *[1] * 20]),
    ],
)
def test_parts_are_halved_until_they_fit(fits: int, tried: list[int]) -> None:
    assert in_parts(fits, 20, 16) == (list(range(20)), tried)


def test_one_that_does_not_fit_alone_is_an_error_with_its_own_code() -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught:
        in_parts(0, 3, 2)
    problem = problem_of(caught.value)
    assert (problem.code, problem.field) == ("out_of_memory", None)


def test_another_error_is_not_taken_for_it() -> None:
    def make(part: Sequence[int]) -> Tensor:
        raise RuntimeError(f"{len(part)} do not fit together")

    with pytest.raises(RuntimeError, match="2 do not fit together") as caught:
        work(2)._in_parts(make, range(3), asked("a"))
    assert problem_of(caught.value).code == "internal"


def test_a_part_runs_as_one_batch_and_every_step_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    answers: list[Answer] = []
    batches = Batches(
        pipelines=Pipelines(CPU, 1 << 30), batch_size=6, answer=answers.append, alive=told.append
    )
    sizes: list[int] = []
    model = batches.pipelines.model(BASE)
    hook = model.denoiser.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    requests = tuple(
        Request(id=f"gen_{n}", spec=asked(*"abcd", guidance_scale=1.0, seeds=range(n, n + 4)))
        for n in range(0, 8, 4)
    )
    batches.run(Batch(id="b", requests=requests, folder=tmp_path))
    hook.remove()
    assert [len(answer.pictures) for answer in answers] == [4, 4]
    assert sizes == [6] * STEPS + [2] * STEPS
    assert told.count("denoising") == 2 * STEPS
    told.clear()
    batches.pipelines.sampler(asked("a"), ()).images(["a"], [1])
    assert told == []
