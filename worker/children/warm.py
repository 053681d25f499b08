"""What a generation process keeps loaded, bounded by its bytes; the longest unused goes first."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from worker.children.memory import is_out_of_memory

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class _Entry:
    value: object
    size_bytes: int
    upon: Hashable | None
    """Key of what it is built upon: without it, this one could not be freed either."""


class Warm:
    """Loaded models by key. The newest is kept whatever its size, and what it is built upon."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        """Memory of everything that is kept."""
        return sum(entry.size_bytes for entry in self._entries.values())

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def get(
        self, key: Hashable, make: Callable[[], _Value], *, upon: Hashable | None = None
    ) -> _Value:
        """What is kept under `key`, made where there is nothing.

        `upon` names what the value is built upon, which has to be kept already. Making it is tried
        again with everything else forgotten where memory ends.
        """
        if key not in self._entries:
            value = self._make(make, upon)
            beside = self._entries[upon].value if upon is not None else None
            size_bytes = held_bytes(value) if beside is None else _own_bytes(value, beside)
            self._entries[key] = _Entry(value, size_bytes, upon)
        for used in (upon, key):
            if used is not None:
                self._entries.move_to_end(used)
        self._shrink({key, upon})
        return cast("_Value", self._entries[key].value)

    def forget_all(self, *, but: frozenset[Hashable | None] = frozenset()) -> None:
        """Frees everything that is kept, apart from some keys and what they are built upon."""
        for key in [key for key in self._entries if key not in but]:
            self._forget(key)
        _free()

    def _make(self, make: Callable[[], _Value], upon: Hashable | None) -> _Value:
        try:
            return make()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler: a live exception holds the frames that hold the tensors.
        self.forget_all(but=frozenset({upon}))
        return make()

    def _shrink(self, needed: set[Hashable | None]) -> None:
        shrunk = False
        for key in list(self._entries):
            if self.size_bytes <= self._limit_bytes:
                break
            if key not in needed:
                self._forget(key)
                shrunk = True
        if shrunk:
            _free()

    def _forget(self, key: Hashable) -> None:
        if self._entries.pop(key, None) is not None:
            for other in [k for k, entry in self._entries.items() if entry.upon == key]:
                self._forget(other)


def held_bytes(value: object) -> int:
    """Memory of the tensors that an object of this project holds, each storage once."""
    return sum(_storages(value).values())


def _own_bytes(value: object, beside: object) -> int:
    shared = _storages(beside)
    return sum(size for key, size in _storages(value).items() if key not in shared)


def _storages(value: object) -> dict[int, int]:
    found: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            storage = one.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        else:
            waiting += _parts(one)
    return found


def _parts(value: object) -> Iterator[Any]:
    if isinstance(value, nn.Module):
        yield from value.parameters()
        yield from value.buffers()
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set):
        yield from value
    elif type(value).__module__.startswith(("shortft_core.", "shapes.")):
        # Objects of libraries, such as tokenizers, hold no weights.
        names = (*getattr(value, "__dict__", ()), *getattr(type(value), "__slots__", ()))
        yield from (getattr(value, name) for name in names if hasattr(value, name))


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
