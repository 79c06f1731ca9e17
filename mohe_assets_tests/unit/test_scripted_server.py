"""The scripted server itself."""

import socket

import pytest

from mohe_assets_tests.support.scripted_server import ScriptedServer, reply, reset


def exchange(connection: socket.socket) -> bytes:
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    return connection.recv(1000)


def test_the_script_is_followed_and_its_last_step_repeated() -> None:
    with (
        ScriptedServer(reply(b"a"), reply(b"b")) as server,
        socket.create_connection(server.address) as connection,
    ):
        assert [exchange(connection)[-1:] for _ in range(3)] == [b"a", b"b", b"b"]
        assert (len(server.requests), server.connections) == (3, 1)


def test_a_reset_is_one() -> None:
    with (
        ScriptedServer(reset) as server,
        socket.create_connection(server.address) as connection,
        pytest.raises(ConnectionResetError),
    ):
        exchange(connection)
