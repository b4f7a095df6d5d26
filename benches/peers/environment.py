"""The machine and the versions, as they stand above a table."""
import datetime
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from .fluent_bit import PROGRAM as FLUENT_BIT
from .measure import run
from .rounds import NOT_INSTALLED

PACKAGES = ("chdb", "duckdb", "polars", "psycopg2-binary", "redis", "zstandard")
STANDARD_LINES = 2_000_000
STANDARD_ROUNDS = 3


def first_value(file, name):
    lines = Path(file).read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "unknown")


def command(arguments):
    """What gives the same table again."""
    given = [f"--{name} {value}" for name, value, default in (
        ("only", arguments.only, None), ("lines", arguments.lines, STANDARD_LINES), ("rounds", arguments.rounds, STANDARD_ROUNDS),
    ) if value != default]
    return "make bench-peers" + (f" ARGS='{' '.join(given)}'" if given else "")


def describe(arguments):
    said = {
        "date": datetime.date.today().isoformat(),
        "command": command(arguments),
        "lines": arguments.lines,
        "rounds": arguments.rounds,
        "cpu": first_value("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
        "pipeline": run([arguments.pipeline, "--version"]).output.strip().removeprefix("pipeline "),
        "python": platform.python_version(),
        **{f"{package} (Python)": version(package) for package in PACKAGES},
    }
    for name, program in (("psql", "psql"), ("redis", "redis-server"), ("fluent-bit", FLUENT_BIT)):
        said[name] = run([program, "--version"]).output.splitlines()[0] if shutil.which(program) else NOT_INSTALLED
    return said
