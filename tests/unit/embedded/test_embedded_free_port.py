"""Ports for servers that are started again."""

from __future__ import annotations

import socket

from meterline.embedded.processes import free_port

EPHEMERAL_FIRST = 32_768


def test_a_port_is_none_that_a_connection_could_be_given() -> None:
    """A worker finds its port free when it is started again, whatever connects in between."""
    ports = [free_port() for _ in range(20)]
    assert max(ports) < EPHEMERAL_FIRST
    assert len(set(ports)) > 1


def test_a_port_in_use_is_not_given() -> None:
    """What is given can be listened on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
