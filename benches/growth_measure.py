"""The measuring half of benches/growth.py: runs pipeline stage by stage with private servers, and reads their CPU.

CPU of pipeline is what the system says of the ended process, of Redis what INFO says, of Postgres the ticks of
/proc of the server and all its processes; autovacuum is off, for chance decides in which round it falls. Nothing here knows the simulation's results.
"""
import datetime
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from peers.measure import TICKS_PER_SECOND, tree_cpu_seconds
from peers.servers import Servers

STREAM = "growth"
# what a stream holds by default, less what a measurement must not touch
ROOM = 62 << 20


def own_cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / TICKS_PER_SECOND


class Redis:
    """A connection that asks in as few words as it can."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.answers = self.socket.makefile("rb")

    def ask(self, *words):
        self.socket.sendall(" ".join(words).encode() + b"\r\n")
        line = self.answers.readline()
        if line[:1] == b":":
            return int(line[1:])
        if line[:1] == b"$" and int(line[1:]) >= 0:
            return self.answers.read(int(line[1:]) + 2)
        return line

    def length(self):
        answer = self.ask("XLEN", STREAM)
        return answer if isinstance(answer, int) else 0

    def cpu(self):
        fields = dict(line.split(b":") for line in self.ask("INFO", "cpu").split() if b":" in line)
        return float(fields[b"used_cpu_user"]) + float(fields[b"used_cpu_sys"])


class Services:
    def __init__(self, options):
        # told to end, it still stops what it started
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.children = []
        self.servers = Servers()
        self.servers.start()
        self.folder = self.servers.folder
        self.environment = {**os.environ, "PGPASSWORD": "pipeline"}
        self.postmaster = int((self.folder / "services/postgres/postmaster.pid").read_text().split()[0])
        self.redis_url = self.servers.redis
        # a password in it would be warned of
        self.postgres_url = f"postgres://pipeline@127.0.0.1:{self.servers.postgres_port}/pipeline"
        self.redis = Redis(self.servers.redis_port)
        self.pipeline = os.fspath(Path(options.pipeline).resolve())
        self.schemas = 0
        # it begins when it likes, and takes as much as a round
        self.ask("ALTER SYSTEM SET autovacuum = off")
        self.ask("SELECT pg_reload_conf()")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
        self.servers.remove()

    def postgres_cpu(self):
        return tree_cpu_seconds(self.postmaster)

    def start(self, *arguments):
        command = [self.pipeline, *map(os.fspath, arguments), "--quiet"]
        # a folder of its own: no pipeline.toml, and archives beside nothing
        child = subprocess.Popen(command, env=self.environment, cwd=self.folder, stdout=subprocess.DEVNULL)
        self.children.append(child)
        return child

    def process(self, schema, into, workers, *more):
        places = {"postgres": [self.postgres_url], "archive": [self.folder / f"archive-{schema}"]}
        places["both"] = places["postgres"] + places["archive"]
        arguments = [part for place in places[into] for part in ("--into", os.fspath(place))]
        return self.start("process", "--via", self.redis_url, "--stream", STREAM, "--schema", schema, "--workers",
                          str(workers), *arguments, *more)

    def read(self, logs, *more):
        return self.start("read", "--via", self.redis_url, "--stream", STREAM, *more, logs)

    def generate(self, lines, seed):
        out = self.folder / f"logs-{lines}-{seed}"
        if not out.exists():
            files = max(1, lines // 200_000)
            self.ended(self.start("generate", "--out", out, "--files", str(files), "--lines", str(lines // files),
                                  "--seed", str(seed)))
        return out

    def ended(self, child, codes=(0,)):
        """CPU seconds of a child that ends."""
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in codes:
            raise SystemExit(f"pipeline ended with {child.returncode}: {child.args}")
        return used.ru_utime + used.ru_stime

    def fresh(self, into="postgres"):
        """A schema that is made, and nothing in Redis; a checkpoint, so that each run begins alike. The second value
        is what it takes to start and to end, of pipeline and of Postgres."""
        if self.schemas:
            self.drop(f"growth_{self.schemas}")
        self.schemas += 1
        schema = f"growth_{self.schemas}"
        self.redis.ask("FLUSHALL")
        self.ended(self.process(schema, into, 1, "--drain"))
        postgres = self.postgres_cpu()
        base = {"process": self.ended(self.process(schema, into, 1, "--drain"))}
        base["postgres"] = self.postgres_cpu() - postgres
        self.ask("CHECKPOINT")
        return schema, base

    def drop(self, schema):
        for table in self.ask("SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = "
                              f"relnamespace WHERE nspname = '{schema}' AND relkind IN ('r', 'p') "
                              "ORDER BY relispartition DESC").split():
            self.ask(f"DROP TABLE {table} CASCADE")
        self.ask(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        shutil.rmtree(self.folder / f"archive-{schema}", ignore_errors=True)

    def ask(self, sql):
        command = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", self.postgres_url, "-c", sql]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout.strip()

    def ship(self, schema, into, logs):
        """Fills Redis, with the processor that answers the reader stopped as soon as the first chunk is there."""
        answering = self.process(schema, into, 1)
        reader = self.read(logs, "--no-wait")
        while not self.redis.length():
            time.sleep(0.0005)
        answering.send_signal(signal.SIGSTOP)
        # from here on, for the looks above are commands too
        redis, before, started = self.redis.cpu(), self.redis.length(), time.perf_counter()
        read = self.ended(reader)
        seconds, redis = time.perf_counter() - started, self.redis.cpu() - redis
        redis /= max(self.redis.length() - before, 1)
        answering.send_signal(signal.SIGTERM)
        answering.send_signal(signal.SIGCONT)
        self.ended(answering, (143,))
        return {"read": read, "redis_in": redis, "seconds": seconds}

    def drain(self, schema, into, base):
        """One worker takes what is in Redis; CPU until all is committed, and then until every index is built."""
        chunks = self.redis.length()
        postgres, redis = self.postgres_cpu(), self.redis.cpu()
        started = time.perf_counter()
        process = self.process(schema, into, 1, "--drain")
        while self.redis.length():
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        committed, redis = self.postgres_cpu() - postgres, self.redis.cpu() - redis
        own = self.ended(process) - base["process"]
        ended = self.postgres_cpu() - postgres
        found = {"process": own, "redis_out": redis, "postgres": committed - base["postgres"],
                 "index": ended - committed, "seconds": seconds}
        return {name: value / chunks for name, value in found.items()}

    def commit_seconds(self):
        """What one transaction waits for the disk: many small ones, one after the other, less what they compute."""
        self.ask("CREATE TABLE IF NOT EXISTS public.growth_commits (n integer)")
        count = 200
        statements = "INSERT INTO public.growth_commits VALUES (1);\n" * count
        command = ["psql", "-Xq", "-v", "ON_ERROR_STOP=1", self.postgres_url]
        started = time.perf_counter()
        subprocess.run(command, env=self.environment, input=statements, text=True, check=True)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        subprocess.run(command, env=self.environment, input=f"BEGIN;\n{statements}COMMIT;\n", text=True, check=True)
        return max(seconds - (time.perf_counter() - started), 0.0) / count


def put_seconds(services, schema):
    """What a commit of the archive takes beside its lines: those of files of a hundred lines."""
    target = services.folder / f"put-{schema}"
    seconds = []
    for seed in range(6, 10):
        source = services.generate(100, seed)
        started = time.perf_counter()
        services.ended(services.start("run", source, "--into", target))
        seconds.append(time.perf_counter() - started)
    # a run that finds nothing new has no commit
    nothing = []
    for _ in seconds:
        started = time.perf_counter()
        services.ended(services.start("run", source, "--into", target))
        nothing.append(time.perf_counter() - started)
    return max(statistics.median(seconds) - statistics.median(nothing), 0.001)


def measure(options, folder):
    lines, rounds = options.lines or 480_000, []
    with Services(options) as services:
        for number in range(-1, options.rounds):
            # other lines each round, of the same days; the first round warms the servers and does not count
            logs, more = services.generate(lines, 42 + 2 * number), services.generate(lines, 43 + 2 * number)
            total = sum(path.stat().st_size for path in logs.iterdir())
            if total > ROOM:
                raise SystemExit(f"--lines {lines}: what is measured has to fit into the stream; at most 480000")
            schema, base = services.fresh()
            # what a reader takes to start, learn what is committed, and end
            idle = services.process(schema, "postgres", 1)
            base_read = services.ended(services.read(services.generate(100, 1)))
            idle.send_signal(signal.SIGTERM)
            services.ended(idle, (143,))
            shipped = services.ship(schema, "postgres", logs)
            bare = services.drain(schema, "postgres", base)
            services.ship(schema, "postgres", more)
            indexed = services.drain(schema, "postgres", base)
            schema, base = services.fresh("archive")
            services.ship(schema, "archive", logs)
            archive = services.drain(schema, "archive", base)
            schema, base = services.fresh("both")
            services.ship(schema, "both", logs)
            both = services.drain(schema, "both", base)
            chunks = round(total / (1 << 20))
            found = {
                "read": (shipped["read"] - base_read) / chunks,
                "redis_in": shipped["redis_in"],
                "redis_out": bare["redis_out"],
                "process": bare["process"],
                "process_archive": archive["process"],
                "process_both": both["process"],
                "postgres": bare["postgres"],
                "index": bare["index"],
                "postgres_indexed": indexed["postgres"] + indexed["index"],
                "commit": services.commit_seconds(),
                "put": put_seconds(services, schema),
                "reader_seconds": shipped["seconds"] / chunks,
                "drain_seconds": bare["seconds"],
            }
            if number < 0:
                continue
            rounds.append(found)
            print(f"round {number + 1}: " + ", ".join(f"{name} {1e3 * value:.2f}" for name, value in found.items())
                  + " ms per chunk", flush=True)
    middle = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    # with an archive alone nothing is encoded for COPY; what both take is measured whole
    middle["archive"] = max(middle["process_both"] - middle["process"], 0.0)
    middle["decode_only"] = max(middle["process_archive"] - middle["archive"], 0.0)
    report = {
        "recorded": {"date": datetime.date.today().isoformat(), "lines": lines, "rounds": options.rounds,
                     "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
        "lines_per_chunk": round(lines / chunks), "chunk_bytes": round(total / chunks),
        "seconds_per_chunk": {name: float(f"{value:.4g}") for name, value in middle.items()},
        "rounds": [{name: float(f"{value:.4g}") for name, value in each.items()} for each in rounds],
    }
    out = Path(options.out) if options.out else folder / f"{report['recorded']['date']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {out}")
    return 0


def machine_cpu():
    """Seconds that all cores were busy or taken away since the machine started."""
    fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]))
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


def validate(options, path, measured, world_of, chosen):
    """Cores that others took are measured, and not there for the simulation. Where a run also waits, as an archive has
    it wait, they took some that it did not want: then only a quiet machine tells."""
    lines = options.lines or 1_200_000
    options.leaves, options.apart, options.cores = "bare", False, os.cpu_count()
    options.bursts, options.fail, options.readers, options.streams, options.databases = [], [], 1, 1, 1
    seconds = chosen(measured, options)
    chunk = measured["chunk_bytes"]

    def predict(chunks, cores):
        options.cores = cores
        return world_of(options, seconds, chunk, measured["lines_per_chunk"]).load(chunks)

    errors = []
    print(f"times of {path.name}, seed {options.seed}; {lines:,} lines, {options.processors} processors of "
          f"{options.workers} workers, into {options.into}")
    with Services(options) as services:
        for number in range(-1, options.rounds):
            # other lines than those that were measured, and others in each round; the first warms the servers
            logs = services.generate(lines, 1_000 + number)
            size = sum(file.stat().st_size for file in logs.iterdir())
            schema, base = services.fresh(options.into)
            processors = [services.process(schema, options.into, options.workers) for _ in range(options.processors)]
            reader = services.read(logs)
            while not services.redis.length():
                time.sleep(0.0005)
            pids = [child.pid for child in processors]

            def ours():
                return {"read": own_cpu(reader.pid), "Redis": services.redis.cpu(),
                        "process": sum(map(own_cpu, pids)), "Postgres": services.postgres_cpu()}

            busy, own, started = machine_cpu(), ours(), time.perf_counter()
            # not waited for yet, so that its ticks are still there
            os.waitid(os.P_PID, reader.pid, os.WEXITED | os.WNOWAIT)
            took = time.perf_counter() - started
            busy = machine_cpu() - busy
            own = {name: value - own[name] for name, value in ours().items()}
            others = max(busy - sum(own.values()), 0.0)
            services.ended(reader)
            for child in processors:
                child.send_signal(signal.SIGTERM)
                services.ended(child, (143,))
            if number < 0:
                continue
            chunks = round(size / chunk)
            left = max(os.cpu_count() - others / took, 0.1)
            alone, predicted = predict(chunks, os.cpu_count()), predict(chunks, left)
            wanted = {"read": seconds["read"], "Redis": seconds["redis_in"] + seconds["redis_out"],
                      "process": seconds["process"] + seconds["archive"], "Postgres": seconds["postgres"]}
            errors.append(predicted / took - 1)
            print(f"round {number + 1}: predicted {predicted:.2f} s, took {took:.2f} s, {errors[-1]:+.1%}; others left "
                  f"{left:.2f} of {os.cpu_count()} cores (with all of them: {alone:.2f} s); CPU seconds, predicted and "
                  "used: " + ", ".join(f"{name} {chunks * wanted[name]:.2f} {own[name]:.2f}" for name in own), flush=True)
    worst = max(map(abs, errors))
    print(f"median {statistics.median(errors):+.1%}, worst {worst:.1%} (goal: 15 %)")
    return 0 if abs(statistics.median(errors)) <= 0.15 else 1


if __name__ == "__main__":
    sys.exit("run benches/growth.py --measure or --validate")
