"""The machine and the versions, as they stand above a table."""
import datetime
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from .fluent_bit import PROGRAM as FLUENT_BIT
from .measure import Failed, run
from .rounds import NOT_INSTALLED
from .site import ROOT

PACKAGES = ("chdb", "duckdb", "polars", "psycopg2-binary", "redis", "zstandard")
STANDARD_LINES = 2_000_000
STANDARD_ROUNDS = 3


def first_value(file, name):
    lines = Path(file).read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "unknown")


def command(arguments):
    """What gives the same table again."""
    standard = {"only": None, "lines": STANDARD_LINES, "rounds": STANDARD_ROUNDS}
    given = [f"--{name} {value}" for name, value in vars(arguments).items() if value != standard.get(name, value)]
    return "make bench-peers" + (f" ARGS='{' '.join(given)}'" if given else "")


def commit():
    try:
        return run(["git", "-C", ROOT, "describe", "--always", "--dirty"]).output.strip()
    except (Failed, OSError):
        return "unknown"


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
        "commit": commit(),
        "python": platform.python_version(),
        **{f"{package} (Python)": version(package) for package in PACKAGES},
    }
    has_fluent_bit = shutil.which(FLUENT_BIT) is not None
    said["fluent-bit"] = run([FLUENT_BIT, "--version"]).output.splitlines()[0] if has_fluent_bit else NOT_INSTALLED
    return said
