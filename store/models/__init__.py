"""The tables; imported by repositories and migrations only."""

from store.models.base import Base
from store.models.columns import equals_inline
from store.models.generations import Generation, Image
from store.models.jobs import Adapter, Artifact, Checkpoint, Job, JobEvent, JobLog, Sample
from store.models.service import ApiKey, IdempotencyKey, PromptSetRow, Tombstone, Worker

__all__ = [
    "Adapter",
    "ApiKey",
    "Artifact",
    "Base",
    "Checkpoint",
    "Generation",
    "IdempotencyKey",
    "Image",
    "Job",
    "JobEvent",
    "JobLog",
    "PromptSetRow",
    "Sample",
    "Tombstone",
    "Worker",
    "equals_inline",
]
