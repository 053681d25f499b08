"""One description of a request, two ways to make it: a call that waits, or one that is awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar, overload

from shortft_client.async_connection import AsyncConnection
from shortft_client.call import Call, Pages
from shortft_client.connection import Connection

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Requests whose methods return when the answer is there."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection


class Awaiting:
    """Requests whose methods are awaited."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection


class Endpoint(Generic[P, T]):
    """A method with the parameters of the function that describes the request."""

    def __init__(self, describe: Callable[P, Call[T]]) -> None:
        self._describe = describe

    @overload
    def __get__(self, group: Blocking, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, group: Awaiting, owner: type) -> Callable[P, Awaitable[T]]: ...

    def __get__(self, group: Blocking | Awaiting, owner: type) -> Any:
        """The method of a group."""
        connection: Any = group.connection
        return wraps(self._describe)(
            lambda *args, **kwargs: connection.send(self._describe(*args, **kwargs))
        )


class ListEndpoint(Generic[P, T]):
    """The same for lists: the method returns an iterator that fetches pages as it goes."""

    def __init__(self, describe: Callable[P, Pages[T]]) -> None:
        self._describe = describe

    @overload
    def __get__(self, group: Blocking, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, group: Awaiting, owner: type) -> Callable[P, AsyncIterator[T]]: ...

    def __get__(self, group: Blocking | Awaiting, owner: type) -> Any:
        """The method of a group."""
        connection: Any = group.connection
        return wraps(self._describe)(
            lambda *args, **kwargs: connection.pages(self._describe(*args, **kwargs))
        )
