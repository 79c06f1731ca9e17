"""A program under measurement: started in a group of its own, sampled while it runs, killed with
all that it started.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.25
MIB = 2**20


class ProgramFailed(Exception):
    """It ended with another status than 0, or not in time. The text is the end of its output."""


@dataclass(kw_only=True)
class Program:
    """A started program. `worker` selects the processes that do the work; by default it is the
    program itself. CPU seconds are those of the program and all its descendants; memory is
    resident, shared pages counted in each process.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    worker: Callable[[psutil.Process], bool] | None = None
    status: int | None = None
    started: float = 0.0
    ended: float = 0.0
    cpu_seconds: float = 0.0
    worker_mib: float = 0.0
    total_mib: float = 0.0
    _sampled: float = 0.0
    _process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                list(self.command),
                env=dict(self.environment),
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def finished(self) -> bool:
        """Whether it has ended; takes a sample now and then."""
        if self.status is not None:
            return True
        self._sample()
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if pid == 0:
            return False
        self._is_over(os.waitstatus_to_exitcode(status))
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return True

    def wait(
        self, done: Callable[[], bool] | None = None, *, seconds: float, every: float = 0.02
    ) -> None:
        """Until `done`, or until it ends by itself, which has to be a success. Raises
        ProgramFailed.
        """
        deadline = time.monotonic() + seconds
        while True:
            if self.finished():
                if done is not None and not done():
                    raise ProgramFailed(
                        f"ended early with status {self.status}: {self.output[-800:]}"
                    )
                if self.status:
                    raise ProgramFailed(f"status {self.status}: {self.output[-800:]}")
                return
            if done is not None and done():
                self.ended = time.monotonic()
                return
            if time.monotonic() > deadline:
                raise ProgramFailed(f"not done within {seconds:.0f} s: {self.output[-800:]}")
            time.sleep(every)

    def kill(self) -> None:
        """Send SIGKILL to it and all its descendants at once; keep their CPU and memory figures."""
        if self.status is not None:
            return
        family = self._family()
        self.cpu_seconds = sum(map(_cpu, family))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for process in family[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, status = os.waitpid(self._process.pid, 0)
        psutil.wait_procs(family[1:], timeout=30)
        ended = self.ended
        self._is_over(os.waitstatus_to_exitcode(status))
        self.ended = ended or self.ended

    def _is_over(self, status: int) -> None:
        self.ended = time.monotonic()
        self.status = self._process.returncode = status

    def _family(self) -> list[psutil.Process]:
        try:
            itself = psutil.Process(self._process.pid)
            return [itself, *itself.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _sample(self) -> None:
        if time.monotonic() - self._sampled < SAMPLE_SECONDS:
            return
        total = 0.0
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                resident = process.memory_info().rss / MIB
                total += resident
                if (
                    process.pid == self._process.pid
                    if self.worker is None
                    else self.worker(process)
                ):
                    self.worker_mib = max(self.worker_mib, resident)
        self.total_mib = max(self.total_mib, total)
        self._sampled = time.monotonic()


def _cpu(process: psutil.Process) -> float:
    """Its own and that of children it has waited for."""
    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(used.user + used.system + used.children_user + used.children_system)


def cpu_of_tree(pid: int) -> float:
    """CPU seconds of a process and its children so far, those that have ended included."""
    itself = psutil.Process(pid)
    return sum(map(_cpu, [itself, *itself.children(recursive=True)]))
