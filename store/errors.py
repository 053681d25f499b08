"""What the store refuses: branches of the project's one error tree.

Each carries what its HTTP answer needs; the status code is the business of the HTTP room.
"""

from __future__ import annotations

from shortft_core.errors import ShortFTError


class StoreError(ShortFTError):
    """Root of what the store raises on purpose, beside UserError and ArtifactError."""


class NotFoundError(StoreError):
    """No row has this id, or none that this project may see."""

    def __init__(self, kind: str, row_id: str) -> None:
        super().__init__(kind, row_id)
        self.kind = kind
        self.row_id = row_id

    def __str__(self) -> str:
        return f"there is no {self.kind} {self.row_id}"


class InvalidStateError(StoreError):
    """A verb that is not allowed now; carries the current status and the verbs that are."""

    def __init__(
        self, kind: str, row_id: str, status: str, asked: str, allowed: tuple[str, ...]
    ) -> None:
        super().__init__(kind, row_id, status, asked, allowed)
        self.kind = kind
        self.row_id = row_id
        self.status = status
        self.asked = asked
        self.allowed = allowed

    def __str__(self) -> str:
        verbs = ", ".join(self.allowed) or "nothing"
        return (
            f"{self.kind} {self.row_id} is {self.status}: {self.asked} is refused, {verbs} may be"
        )


class NameTakenError(StoreError):
    """A name that is free once per project; carries the field that asked for it."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name)
        self.kind = kind
        self.name = name
        self.field = "name"

    def __str__(self) -> str:
        return f"name: there is a {self.kind} {self.name!r}. Choose another name."


class InUseError(StoreError):
    """A row that cannot be deleted while an unfinished job names it."""

    def __init__(self, kind: str, row_id: str, job_id: str) -> None:
        super().__init__(kind, row_id, job_id)
        self.kind = kind
        self.row_id = row_id
        self.job_id = job_id

    def __str__(self) -> str:
        return f"job {self.job_id} names the {self.kind} {self.row_id}, and is not finished"


class LeaseLostError(StoreError):
    """The writer no longer holds the row: another one does, or the attempt is over.

    Whoever gets this stops, and publishes nothing.
    """

    def __init__(self, row_id: str, token: int) -> None:
        super().__init__(row_id, token)
        self.row_id = row_id
        self.token = token

    def __str__(self) -> str:
        return f"lease {self.token} of {self.row_id} is no longer held"


class QuotaExceededError(StoreError):
    """A key has as many unfinished jobs, or generations, as it may have."""

    def __init__(self, what: str, limit: int, used: int) -> None:
        super().__init__(what, limit, used)
        self.what = what
        self.limit = limit
        self.used = used

    def __str__(self) -> str:
        return f"{self.used} of {self.limit} {self.what} of this key are unfinished"


class IdempotencyError(StoreError):
    """A repeated key that cannot be answered from the first request."""


class KeyReusedError(IdempotencyError):
    """The same key came with another request body."""


class KeyInFlightError(IdempotencyError):
    """The first request with this key has not been answered yet."""


class BusyError(StoreError):
    """The database kept refusing a transaction that met others; nothing was written."""


class LostCommitError(StoreError):
    """The database went away while it was told to commit: the work is written, or it is not.

    Look before doing it again; a write that names a lease's token or an idempotency key may simply
    be repeated.
    """
