"""Receipts tell whether a transaction was written whose commit got no answer.

The connection may break between the database's commit and its answer. Whoever has signed the
transaction finds its receipt in the row then, or may safely write it again.
"""

from __future__ import annotations

import secrets

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from store.models import Job


def new_receipt() -> str:
    """A name for one transaction that nothing else has."""
    return secrets.token_hex(16)


def sign(session: Session, job_id: str, receipt: str) -> None:
    """Leaves the receipt of this transaction in the row of its job."""
    session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(receipt=receipt)
        .execution_options(synchronize_session=False)
    )


def is_signed(session: Session, job_id: str, receipt: str) -> bool:
    """Whether the last transaction that was signed is this one.

    Waits for a commit that the database is still making.
    """
    found = session.scalar(select(Job.receipt).where(Job.id == job_id).with_for_update())
    return found == receipt
