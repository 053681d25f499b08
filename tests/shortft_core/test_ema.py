"""The moving average: its recurrence, its exact swap, and what decay 0 means."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor, nn

from shortft_core.ema import Ema


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2, generator=generator)) for _ in range(2)]


def values(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [p.detach().clone() for p in parameters]


def move(parameters: list[nn.Parameter], by: float) -> None:
    for parameter in parameters:
        parameter.data += by


def test_the_average_follows_its_recurrence() -> None:
    parameters = weights()
    average, expected = Ema(parameters, 0.9), values(parameters)
    for step in range(5):
        move(parameters, 0.1 * step)
        average.update(step)
        d = min(0.9, (1 + step) / (10 + step))
        expected = [d * a + (1 - d) * p.detach() for a, p in zip(expected, parameters, strict=True)]
    for ours, theirs in zip(average.averages, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not torch.equal(average.averages[0], parameters[0])


def test_the_swap_is_given_back_bit_for_bit() -> None:
    parameters = weights()
    average = Ema(parameters, 0.9)
    move(parameters, 1.0)
    average.update(100)
    own, averages = values(parameters), [a.clone() for a in average.averages]
    with average.applied():
        assert all(map(torch.equal, parameters, averages))
        assert not any(map(torch.equal, parameters, own))
    assert all(map(torch.equal, parameters, own))
    assert all(map(torch.equal, average.averages, averages))


def test_a_failed_evaluation_gives_the_weights_back() -> None:
    parameters = weights()
    average = Ema(parameters, 0.9)
    move(parameters, 1.0)
    own = values(parameters)
    with suppress(ArithmeticError), average.applied():
        raise ArithmeticError
    assert all(map(torch.equal, parameters, own))


def test_parameters_stay_the_same_objects_for_the_optimizer() -> None:
    parameters = weights()
    average = Ema(parameters, 0.5)
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    with average.applied():
        pass
    before = values(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all(torch.equal(p, b - 1) for p, b in zip(parameters, before, strict=True))


def test_frozen_parameters_become_their_average_and_stay_it() -> None:
    parameters = weights()
    average = Ema(parameters, 0.9)
    move(parameters, 1.0)
    average.update(100)
    frozen, free = average.averages[0].clone(), parameters[1].detach().clone()
    average.freeze(parameters[:1])
    assert torch.equal(parameters[0], frozen)
    assert torch.equal(parameters[1], free)
    for _ in range(3):
        average.update(100)
    assert torch.equal(average.averages[0], frozen)
    assert torch.equal(parameters[0], frozen)


def test_decay_zero_does_nothing_at_all() -> None:
    parameters = weights()
    average, before = Ema(parameters, 0.0), values(parameters)
    average.update(100)
    average.freeze(parameters)
    with average.applied():
        assert all(map(torch.equal, parameters, before))
    assert all(map(torch.equal, parameters, before))
    assert average.averages == []


def test_an_average_is_no_alias_of_its_parameter() -> None:
    parameters = weights()
    average = Ema(parameters, 0.9)
    first = average.averages[0].clone()
    move(parameters, 1.0)
    assert torch.equal(average.averages[0], first)
