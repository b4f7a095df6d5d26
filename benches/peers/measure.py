"""Seconds, CPU and memory of processes.

The peak of a child cannot be told below that of the process which starts it, so nothing large may be loaded into this
one: whoever needs DuckDB, or much memory, is a process of its own.
"""
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

BENCHES = Path(__file__).resolve().parent.parent
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PATIENCE_SECONDS = 30


class Failed(Exception):
    """A contender did not do its job; the text says why, on one line."""


@dataclass
class Sample:
    """One run of one contender: `value` is in the unit of its job, others have names of their own."""

    value: float
    lines: int
    cpu_seconds: float | None = None
    peak_bytes: int | None = None
    others: dict[str, float] = field(default_factory=dict)


@dataclass
class Finished:
    """A process that ended well."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str
    errors: str


class Process:
    """A child in a group of its own, so that what it started can be ended with it."""

    def __init__(self, command, is_silent=False, **environment):
        self.name = Path(command[0]).name
        self.output, self.errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.usage = None
        self.started = time.perf_counter()
        self.child = subprocess.Popen(
            [str(argument) for argument in command], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if is_silent else self.output, stderr=self.errors,
            env={**os.environ, **environment}, process_group=0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Ends it where it was not awaited."""
        if self.usage is None:
            os.killpg(self.child.pid, signal.SIGTERM)
            until = time.monotonic() + PATIENCE_SECONDS
            while not self.has_ended() and time.monotonic() < until:
                time.sleep(0.05)
            if self.usage is None:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.has_ended(block=True)
        self.output.close()
        self.errors.close()

    def has_ended(self, block=False):
        if self.usage is None:
            pid, status, usage = os.wait4(self.child.pid, 0 if block else os.WNOHANG)
            if pid:
                self.seconds = time.perf_counter() - self.started
                self.child.returncode, self.usage = os.waitstatus_to_exitcode(status), usage
        return self.usage is not None

    def finish(self):
        """Waits for its end; a failure is told with the last line that it wrote to standard error."""
        self.has_ended(block=True)
        if self.child.returncode:
            said = self.text(self.errors).strip().splitlines() or ["it says nothing"]
            raise Failed(f"{self.name} ended with {self.child.returncode}: {said[-1].strip()}")
        cpu_seconds = self.usage.ru_utime + self.usage.ru_stime
        peak_bytes = self.usage.ru_maxrss * 1024
        return Finished(self.seconds, cpu_seconds, peak_bytes, self.text(self.output), self.text(self.errors))

    @staticmethod
    def text(file):
        file.seek(0)
        return file.read().decode(errors="replace")


def run(command, is_silent=False, **environment):
    """Runs it to its end; what a silent one writes to standard output goes nowhere."""
    with Process(command, is_silent, **environment) as process:
        return process.finish()


def peer(module, *arguments):
    """Runs a module of this package, such as `duckdb_peer`, with the Python that has the peers."""
    return run([sys.executable, "-m", f"peers.{module}", *arguments], PYTHONPATH=str(BENCHES))


class Clock:
    """What a peer in Python spends, from here on: its imports are not the engine's time."""

    def __init__(self):
        self.started, self.spent = time.perf_counter(), self.cpu_seconds()

    @staticmethod
    def cpu_seconds():
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    def figures(self):
        return {"seconds": time.perf_counter() - self.started, "cpu_seconds": self.cpu_seconds() - self.spent}


def stat(pid):
    """Parent and CPU seconds, those of its ended children included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return int(fields[1]), sum(map(int, fields[11:15])) / TICKS_PER_SECOND


def tree_cpu_seconds(server):
    """Of a process and its children, since it started; 0 where it does not run on this machine."""
    own = stat(server)
    if own is None:
        return 0.0
    others = filter(None, (stat(pid) for pid in os.listdir("/proc") if pid.isdigit()))
    return own[1] + sum(cpu for parent, cpu in others if parent == int(server))
