"""Run several processes, of which the others need the first; restart those that die, stop all."""

import contextlib
import ctypes
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from mohe_assets.collection.stop_timeouts import UP_OTHERS_SECONDS, UP_STOP_SECONDS

log = logging.getLogger(__name__)

# Between two starts of a process, so that a process that always dies causes no busy loop.
RESTART_SECONDS = 5.0
LISTEN_SECONDS = 30.0
LOOK_SECONDS = 10.0
# Before SIGKILL: a hanging process may not react to SIGTERM.
HUNG_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


@dataclass(kw_only=True)
class Supervisor:
    """`commands` by name, started in their order and stopped together.

    The others are started when `first_listens` is true: if the code server does not listen yet,
    Dagster's daemon prints a traceback and connects again only a minute later. Only the first gets
    the variables in `withheld`. All run in `folder`.

    `watches` by the command's name return the reason to replace a running process, or "".
    """

    commands: Mapping[str, Sequence[str]]
    environment: Mapping[str, str]
    folder: str | None = None
    first_listens: Callable[[], bool] | None = None
    withheld: Collection[str] = ()
    watches: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    look_seconds: float = LOOK_SECONDS
    _stop: threading.Event = field(default_factory=threading.Event)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _started: dict[str, float] = field(default_factory=dict)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        try:
            for name in self.commands:
                self._start(name)
                self._wait_for_first()
            threading.Thread(target=self._watch, name="watch", daemon=True).start()
            while not self._stop.wait(0.2):
                for name, process in list(self._running.items()):
                    status = process.poll()
                    if status is not None:
                        self._start_again(name, status)
        finally:
            self._end()
        return 0

    def _start(self, name: str) -> None:
        self._started[name] = time.monotonic()
        withheld = () if name == next(iter(self.commands)) else self.withheld
        self._running[name] = subprocess.Popen(  # noqa: S603 - our own commands
            list(self.commands[name]),
            env={key: value for key, value in self.environment.items() if key not in withheld},
            cwd=self.folder,
            preexec_fn=_as_child,  # noqa: PLW1509 - before any thread is started
            # A terminal's Ctrl-C would otherwise signal all processes at once.
            start_new_session=True,
        )

    def _wait_for_first(self) -> None:
        """Wait up to LISTEN_SECONDS; after that, the processes that need it report the problem."""
        deadline = time.monotonic() + LISTEN_SECONDS
        while self.first_listens is not None and time.monotonic() < deadline:
            if self.first_listens():
                return
            first = next(iter(self._running.values()))
            if first.poll() is not None or self._stop.wait(0.1):
                return

    def _watch(self) -> None:
        """End hanging processes; the main loop restarts them like those that died."""
        while self.watches and not self._stop.wait(self.look_seconds):
            for name, look in self.watches.items():
                process = self._running[name]
                if process.poll() is None and (reason := look()):
                    log.warning("%s hangs (%s) and is ended", name, reason)
                    process.terminate()
                    _wait([process], time.monotonic() + HUNG_SECONDS)
                    process.kill()

    def _start_again(self, name: str, status: int) -> None:
        log.warning("%s ended with status %s and is restarted", name, status)
        if self._stop.wait(max(0.0, self._started[name] + RESTART_SECONDS - time.monotonic())):
            return
        self._start(name)

    def _end(self) -> None:
        """Stop the others before the first, so that no run is launched in a stopping code server.

        Each gets one signal, since a second would interrupt its cleanup, and passes it on to its
        own children.
        """
        if not self._running:
            return
        deadline = time.monotonic() + UP_STOP_SECONDS
        families = [process for child in self._running.values() for process in _family(child.pid)]
        first, *others = self._running.values()
        for child in others:
            child.terminate()
        _wait(others, time.monotonic() + UP_OTHERS_SECONDS)
        first.terminate()
        _wait([first, *others], deadline)
        for process in families:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for child in self._running.values():
            child.wait()


def _wait(children: Sequence[subprocess.Popen[bytes]], deadline: float) -> None:
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=max(0.0, deadline - time.monotonic()))


def _family(process_id: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(process_id)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _as_child() -> None:
    """Let the child end with its parent, and handle signals as if started from a terminal.

    Shells start background jobs with SIGINT ignored, and Dagster would then ignore SIGTERM as well.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
