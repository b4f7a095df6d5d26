#!/usr/bin/env python3
"""Whether `pipeline serve` keeps its memory: at full speed, with its sinks stopped, and with hostile keys.

    python3 benches/soak.py [--minutes 10] [--pipeline target/release/pipeline] [--connections 64]

Starts a private Redis and Postgres (`scripts/services`), and serves into SQLite, both of them. Three phases of
--minutes each, one process of `serve` throughout:

  full speed   `pipeline load steady --rate 0 --check`
  no sinks     the same while Redis and Postgres are stopped; they are started again at the end, and must catch up
  hostile      new users, event types, windows and identities in every event, in batches of 500

Resident memory is read every second. Prints, per phase, events per second, peak and slope (least squares, without the
phase's first fifth), and exits with 1 where the peak is 100 MiB or more, or the slope of the last two fifths of a
phase is above 1 MiB/h and more than a sample's noise. The last line is JSON.
"""
import argparse
import gzip
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from peers.servers import Servers, free_port

ROOT = Path(__file__).resolve().parent.parent
PEAK_LIMIT_MIB = 100.0
SLOPE_LIMIT = 1.0


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


class Samples(threading.Thread):
    """Resident memory, every second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.points, self.ended = pid, [], threading.Event()

    def run(self):
        while not self.ended.wait(1.0):
            try:
                self.points.append((time.monotonic(), resident_kib(self.pid) / 1024))
            except (FileNotFoundError, StopIteration):
                return

    def between(self, start, end):
        return [(at, mib) for at, mib in list(self.points) if start <= at <= end]


def slope_per_hour(points):
    count = len(points)
    if count < 3:
        return 0.0
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    over = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / over * 3600


def load(args, url, state, minutes, check):
    command = [args.pipeline, "load", "steady", "--rate", "0", "--duration", f"{int(minutes * 60)}s"]
    command += ["--connections", str(args.connections), "--url", url, "--output", "json"]
    if check:
        command += ["--check", "--database", f"sqlite://{state}"]
    ended = subprocess.run(command, capture_output=True, text=True)
    report = json.loads(ended.stdout)
    if ended.returncode != 0:
        sys.exit(f"the load failed: {ended.stdout}{ended.stderr}")
    return report["accepted"]


def hostile(url, minutes):
    """As many new keys as a sender can make up."""
    end, accepted, number = time.monotonic() + minutes * 60, 0, 0
    while time.monotonic() < end:
        now = time.time()
        events = []
        for _ in range(500):
            number += 1
            events.append({
                "id": f"hostile-{number}",
                "user_id": f"user-{random.getrandbits(64):x}",
                "event_type": f"type-{random.randrange(100_000)}",
                "value": random.uniform(-1e9, 1e9),
                "timestamp": now + random.uniform(-3600, 3500),
                "metadata": {"k": "x" * random.randrange(200)},
            })
        body = gzip.compress(json.dumps(events).encode(), 1)
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
                accepted += len(events) if answer.status == 200 else json.load(answer)["accepted"]
        except urllib.error.HTTPError as error:
            if error.code not in (400, 429):
                raise
            time.sleep(0.05)
    return accepted


def metric(base, name):
    with urllib.request.urlopen(f"{base}/metrics") as answer:
        return next(int(line.split()[1]) for line in answer.read().decode().splitlines() if line.startswith(name + " "))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--pipeline", default=str(ROOT / "target/release/pipeline"))
    parser.add_argument("--connections", type=int, default=64)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pipeline-soak-"))
    state, port = folder / "state.db", free_port()
    base = f"http://127.0.0.1:{port}"
    servers = Servers()
    servers.start()
    serve = subprocess.Popen(
        [args.pipeline, "serve", "--listen", f"127.0.0.1:{port}", "--window", "10s", "--database", f"sqlite://{state}",
         "--database", servers.postgres, "--queue", servers.redis],
        stderr=subprocess.DEVNULL)
    phases, failed = [], False
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{base}/health").close()
                break
            except OSError:
                time.sleep(0.1)
        samples = Samples(serve.pid)
        samples.start()
        for name in ("full speed", "no sinks", "hostile"):
            if name == "no sinks":
                servers.stop()
            start = time.monotonic()
            accepted = hostile(f"{base}/webhook", args.minutes) if name == "hostile" else \
                load(args, f"{base}/webhook", state, args.minutes, True)
            end = time.monotonic()
            if name == "no sinks":
                servers.start()
                while metric(base, "pipeline_aggregates_waiting") > 0:
                    time.sleep(0.5)
            points = samples.between(start, end)
            warm = samples.between(start + (end - start) / 5, end)
            late = samples.between(start + (end - start) * 3 / 5, end)
            peak, slope = max(mib for _, mib in points), slope_per_hour(warm)
            noise = max(mib for _, mib in late) - min(mib for _, mib in late)
            grows = slope_per_hour(late) > SLOPE_LIMIT and noise > 1.0
            failed |= peak >= PEAK_LIMIT_MIB or grows
            phases.append({"phase": name, "events_per_second": round(accepted / (end - start)), "peak_mib": round(peak, 1),
                           "slope_mib_per_hour": round(slope, 2), "range_of_last_two_fifths_mib": round(noise, 2)})
            print(f"{name:12} {accepted / (end - start):8.0f} events/s, peak {peak:5.1f} MiB, slope {slope:+.2f} MiB/h,"
                  f" within {noise:.2f} MiB at the end", flush=True)
    finally:
        serve.terminate()
        serve.wait()
        servers.remove()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(phases))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
