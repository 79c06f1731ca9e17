"""Hosts that can be cut off: packets from and to them vanish, no reset tells anybody, until they
come back.

As root each host is a network namespace with a host name of its own, joined by a cable to one in
the middle, and cutting it off pulls the cable. Without root a host is a name only, and cutting it
off makes its relays stand still: the kernel still accepts what is sent to them, so what
time-outs of TCP do is seen as root only.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mohe_assets_tests.support import relay

_CLONE_NEWNET = 0x40000000
# Address of a service: the path of a unix socket, or host and port.
Target = tuple[str] | tuple[str, str]


def has_namespaces() -> bool:
    """Whether this process may make network namespaces, and iproute2 is there to do it."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


@dataclass(frozen=True, kw_only=True)
class Host:
    """`wrapper` makes a command run on it, `address` and `ports` are how the services are reached
    from it.
    """

    wrapper: Sequence[str]
    address: str
    ports: Sequence[int]
    cut_off: Callable[[], None]
    come_back: Callable[[], None]

    def connections(self, port: int) -> int:
        """How many connections to that port this host believes in."""
        command = [*self.wrapper, "ss", "-Htn", "state", "established", f"( dport = :{port} )"]
        return len(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        )


@contextmanager
def host(number: int, services: Sequence[Target]) -> Iterator[Host]:
    """A host from which these services, and nothing else, can be reached."""
    made = _namespace(number, services) if has_namespaces() else _bare(services)
    with made as one:
        yield one


@contextmanager
def _bare(services: Sequence[Target]) -> Iterator[Host]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in services]
    with _relays(listeners, services) as relays:

        def signal_all(number: signal.Signals) -> None:
            for one in relays:
                one.send_signal(number)

        yield Host(
            wrapper=(),
            address="127.0.0.1",
            ports=_ports(listeners),
            cut_off=lambda: signal_all(signal.SIGSTOP),
            come_back=lambda: signal_all(signal.SIGCONT),
        )


@contextmanager
def _namespace(number: int, services: Sequence[Target]) -> Iterator[Host]:
    """A host whose addresses exist inside the two namespaces only."""
    middle, edge = (f"mohe-{os.getpid()}-{number}-{name}" for name in ("middle", "edge"))
    try:
        _join(middle, edge)
        with _inside(middle):
            listeners = [socket.create_server(("10.77.0.1", 0)) for _ in services]
        with _relays(listeners, services):
            yield Host(
                wrapper=(
                    "nsenter",
                    f"--net=/run/netns/{edge}",
                    "unshare",
                    "--uts",
                    "sh",
                    "-c",
                    'hostname "$0" && exec "$@"',
                    edge,
                ),
                address="10.77.0.1",
                ports=_ports(listeners),
                cut_off=lambda: _ip("-n", middle, "link", "set", "cable", "down"),
                come_back=lambda: _plug_in(middle, theirs=2),
            )
    finally:
        for name in (middle, edge):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)  # noqa: S607


def _join(middle: str, edge: str) -> None:
    for name in (middle, edge):
        _ip("netns", "add", name)
    _ip("-n", middle, "link", "add", "cable", "address", "02:00:00:00:00:01", "type", "veth",
        "peer", "name", "cable", "address", "02:00:00:00:00:02", "netns", edge)  # fmt: skip
    for name, mine, theirs in ((middle, 1, 2), (edge, 2, 1)):
        _ip("-n", name, "address", "add", f"10.77.0.{mine}/30", "dev", "cable")
        _plug_in(name, theirs=theirs)


def _plug_in(name: str, *, theirs: int) -> None:
    _ip("-n", name, "link", "set", "cable", "up")
    # No host would answer for the address, and connections would be refused at once
    # instead of going nowhere.
    _ip(
        "-n",
        name,
        "neighbour",
        "replace",
        f"10.77.0.{theirs}",
        "lladdr",
        f"02:00:00:00:00:0{theirs}",
        "dev",
        "cable",
    )


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"


@contextmanager
def _relays(
    listeners: Sequence[socket.socket], services: Sequence[Target]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    try:
        for listener, target in zip(listeners, services, strict=True):
            command = [sys.executable, "-m", relay.__name__, str(listener.fileno()), *target]
            started.append(subprocess.Popen(command, pass_fds=[listener.fileno()]))
        yield started
    finally:
        for one in started:
            one.kill()
            one.wait()
        for listener in listeners:
            listener.close()


def _ports(listeners: Sequence[socket.socket]) -> list[int]:
    return [int(listener.getsockname()[1]) for listener in listeners]


@contextmanager
def _inside(namespace: str) -> Iterator[None]:
    """Enter the namespace with this thread; sockets made inside stay in it."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(file: int) -> None:
        if libc.setns(file, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter network namespace {namespace}")

    with (
        Path("/proc/thread-self/ns/net").open("rb") as home,
        Path("/run/netns", namespace).open("rb") as there,
    ):
        enter(there.fileno())
        try:
            yield
        finally:
            enter(home.fileno())
