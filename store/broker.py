"""The queues, and what Celery is told about them; a message is a wake-up without content.

Rows hold the work, so a message may be lost, doubled or late. Celery is imported only where an
application is made: repositories and their readers start without it.
"""

from __future__ import annotations

from enum import StrEnum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from shortft_core.errors import UserError
from store.mounts import network_filesystem
from store.settings import StoreSettings

if TYPE_CHECKING:
    from celery import Celery

Role = Literal["api", "worker"]
WAKE_UP_SECONDS: Final = 60
"""A wake-up that nobody took for so long is dropped: the row is told of again long before."""
_POLL_SECONDS: Final = 0.2


class Queue(StrEnum):
    """Who is woken: one kind of worker each."""

    TRAIN = auto()
    GENERATE = auto()
    DEFAULT = auto()
    """Chores."""

    @property
    def task(self) -> str:
        """Name of the Celery task that its worker runs, without arguments."""
        return f"shortft.{self.value}"


def celery_app(settings: StoreSettings, *, role: Role) -> Celery:
    """The application on Redis, or on files in the data folder where no Redis is set.

    The API waits for a broker a second at most. Raises UserError for a folder that is not local.
    """
    from celery import Celery

    app = Celery("shortft", set_as_current=role == "worker")
    app.conf.update(_common())
    address = settings.redis_address()
    app.conf.update(_files(settings.message_folder()) if address is None else _redis(address, role))
    return app


def _common() -> dict[str, Any]:
    """Early acknowledgement and no retries: leases repeat work, never the broker."""
    from kombu import Exchange
    from kombu import Queue as Declared

    # With the routing key of its own, or every queue would get every message.
    queues = [Declared(name, Exchange("shortft"), routing_key=name) for name in map(str, Queue)]
    return {
        "task_ignore_result": True,
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "task_default_queue": str(Queue.DEFAULT),
        "task_queues": queues,
        "task_create_missing_queues": False,
        "task_routes": {queue.task: {"queue": str(queue)} for queue in Queue},
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_limit": 4,
        "worker_send_task_events": False,
        "worker_soft_shutdown_timeout": 0.0,
        "worker_hijack_root_logger": False,
        "task_publish_retry": True,
        # A number of 0 is the fastest way to fail; no retry at all falls back to a slower one.
        "task_publish_retry_policy": {"max_retries": 0},
    }


def _redis(address: str, role: Role) -> dict[str, Any]:
    return {
        "broker_url": address,
        "worker_disable_prefetch": True,
        "broker_transport_options": {
            "socket_timeout": 1 if role == "api" else 5,
            "socket_connect_timeout": 1 if role == "api" else 3,
            "max_retries": 0,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "visibility_timeout": 3600,
        },
    }


def _files(folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    if (kind := network_filesystem(folder)) is not None:
        problem = f"{folder} is on {kind}, where a rename may not be atomic"
        raise UserError("data_dir", problem, "Use a local disk, or Redis")
    return {
        "broker_url": "filesystem://",
        "broker_transport": "store.filesystem_transport:Transport",
        "worker_disable_prefetch": False,
        "broker_transport_options": {
            "data_folder_in": str(folder),
            "data_folder_out": str(folder),
            "control_folder": str(folder / "control"),
            "polling_interval": _POLL_SECONDS,
            "message_seconds": WAKE_UP_SECONDS,
        },
    }
