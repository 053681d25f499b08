"""A typed client of the HTTP interface, and its commands; needs neither torch nor a server."""

from shortft_client.answers import Artifact, Generation, Image, Job, JobEvent
from shortft_client.async_client import AsyncClient
from shortft_client.client import Client
from shortft_client.errors import ClientError, NotInTimeError, ServiceError, UnreachableError
from shortft_client.retries import Retries

__all__ = [
    "Artifact",
    "AsyncClient",
    "Client",
    "ClientError",
    "Generation",
    "Image",
    "Job",
    "JobEvent",
    "NotInTimeError",
    "Retries",
    "ServiceError",
    "UnreachableError",
]
