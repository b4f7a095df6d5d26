#!/usr/bin/env python3
"""What safety costs: pipeline beside a build of it that keeps no ledger, and the time Redis spends on acknowledging.

    python3 benches/safety.py LOGS POSTGRES_URL [--redis REDIS_URL] [--rounds 7] [--target-dir target]

Builds both programs (`--features bench-without-ledger` leaves out the lock on the sources, the look for overlapping
ranges and the ledger entries of each commit), then loads LOGS with each in turn. A figure is `seconds` of the run's
summary: until every line is committed and acknowledged. CPU is that of pipeline and, where it runs on this machine,
Postgres. With --redis, also one load through Redis, and what its server spent on the scripts that acknowledge.
Prints medians and their ratio (goal: at most 1.10); the last line is JSON. The password is PGPASSWORD.
"""
import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from peers.measure import tree_cpu_seconds
from peers.postgres import Database

SCHEMA = "pipeline_safety"


def build(target, features):
    command = ["cargo", "build", "--release", "--target-dir", target, *features]
    subprocess.run(command, check=True)
    return Path(target) / "release" / "pipeline"


def server_cpu(database):
    """CPU seconds of the server and its sessions since it started; None where it is elsewhere."""
    folder = database.ask("SHOW data_directory")[0]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if arguments[0].endswith(b"postgres") and folder.encode() in arguments:
            return tree_cpu_seconds(pid)
    return None


def load(binary, arguments, database, via):
    database.drop(SCHEMA)
    database.ask("CHECKPOINT")
    command = [binary, "run", "--quiet", "--output", "json", "--schema", SCHEMA, "--via", via]
    if via != "memory":
        command += ["--stream", f"{SCHEMA}:{os.getpid()}"]
    server_before = server_cpu(database)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([*command, arguments.logs], env={**os.environ, "PIPELINE_INTO": arguments.postgres},
                           check=True, stdout=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    server = server_cpu(database)
    cpu = own if None in (server, server_before) else own + server - server_before
    return json.loads(ended.stdout)["seconds"], cpu


def script_seconds(redis):
    """What Redis spent on scripts since it started, and how many there were."""
    text = subprocess.run(["redis-cli", "-u", redis, "INFO", "commandstats"], check=True, capture_output=True,
                          text=True).stdout
    found = re.findall(r"cmdstat_eval(?:sha)?:calls=(\d+),usec=(\d+)", text)
    return sum(int(usec) for _, usec in found) / 1e6, sum(int(calls) for calls, _ in found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("logs", "postgres"):
        parser.add_argument(name)
    parser.add_argument("--redis")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--target-dir", default="target")
    arguments = parser.parse_args()
    database = Database(arguments.postgres)
    report = {"rounds": arguments.rounds}
    with tempfile.TemporaryDirectory() as folder:
        binaries = {}
        for name, features in (("without", ["--features", "bench-without-ledger"]), ("with", [])):
            binaries[name] = shutil.copy(build(arguments.target_dir, features), Path(folder) / name)
        figures = {name: [] for name in binaries}
        for number in range(arguments.rounds):
            # the order changes, so that neither always follows the other
            for name in sorted(binaries, reverse=number % 2 == 1):
                figures[name].append(load(binaries[name], arguments, database, "memory"))
            print(f"round {number + 1}: " + ", ".join(
                f"{name} ledger {values[-1][0]:.2f} s, {values[-1][1]:.2f} s of CPU" for name, values in figures.items()),
                flush=True)
        for index, unit in ((0, "seconds"), (1, "cpu_seconds")):
            medians = {name: statistics.median(value[index] for value in values) for name, values in figures.items()}
            report.update({f"{unit}_{name}": round(value, 3) for name, value in medians.items()})
            report[f"{unit}_ratio"] = round(medians["with"] / medians["without"], 3)
        if arguments.redis:
            before = script_seconds(arguments.redis)
            seconds, _ = load(binaries["with"], arguments, database, arguments.redis)
            after = script_seconds(arguments.redis)
            report["redis_run_seconds"] = round(seconds, 3)
            report["redis_script_seconds"] = round(after[0] - before[0], 4)
            report["redis_scripts"] = after[1] - before[1]
        database.drop(SCHEMA)
    print(f"safety costs {(report['seconds_ratio'] - 1) * 100:.1f} % of the time, "
          f"{(report['cpu_seconds_ratio'] - 1) * 100:.1f} % of the CPU (goal: at most 10 %)")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
