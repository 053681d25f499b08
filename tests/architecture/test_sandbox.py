"""Tests reach no network and run on one thread: what conftest and pyproject promise holds."""

from __future__ import annotations

import socket
import warnings
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from pytest_socket import SocketConnectBlockedError

from shortft_core.settings import settings

DOCUMENTATION_ADDRESS = "192.0.2.1"  # RFC 5737: belongs to nobody


def test_the_network_is_closed() -> None:
    with socket.socket() as client, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SocketConnectBlockedError):
            client.connect((DOCUMENTATION_ADDRESS, 80))


def test_loopback_is_open() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        client.sendall(b"x")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b"x"


def test_the_hub_is_offline() -> None:
    assert constants.HF_HUB_OFFLINE is True


def test_caches_are_not_the_users() -> None:
    assert settings().cache_dir == Path(constants.HF_HOME)
    assert Path.home() not in settings().cache_dir.parents


def test_torch_uses_one_thread() -> None:
    assert torch.get_num_threads() == 1


def test_warnings_are_errors() -> None:
    with pytest.raises(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)
