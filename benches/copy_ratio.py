#!/usr/bin/env python3
"""Lines into Postgres by pipeline, beside the same rows as ready-made binary COPY files loaded by two psql clients.

    python3 benches/copy_ratio.py PIPELINE LOGS POSTGRES_URL [--via memory|REDIS_URL] [--rounds 5]

PIPELINE: the release binary. LOGS: a folder of `pipeline generate`. The password is PGPASSWORD. Both load into the
same leaves, attached and without their indexes, which exist before the clock starts; round by round in turn, each
after a checkpoint. Pipeline's time is from the start of its process until the ledger holds every line, the
clients' from their start until both have ended. Then the indexes: pipeline's until its process ends, and the same
CREATE INDEX statements by two clients. CPU is that of server and clients, indexes included. Prints medians, their ratios, and the ratio of each round; the last line is
JSON. Needs psql and pg_dump of the server's version. Works in schemas of its own, and drops them.
"""
import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

MODEL, TARGET = "pipeline_copy_model", "pipeline_copy_target"
KEPT = ("schema_migrations", "log_types")


def stat(pid):
    """Parent and CPU seconds, those of its ended children included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return int(fields[1]), sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Cpu:
    """CPU seconds of the server and of ended clients, since the last look."""

    def __init__(self, server):
        self.server = server
        self.seen = self.now()

    def now(self):
        clients = resource.getrusage(resource.RUSAGE_CHILDREN)
        return self.server.cpu_seconds() + clients.ru_utime + clients.ru_stime

    def lap(self):
        before, self.seen = self.seen, self.now()
        return self.seen - before


class Server:
    def __init__(self, url):
        self.url = url
        command = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", url]
        self.session = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, sql):
        """The answer's lines; one session, so that a look costs no connection."""
        self.session.stdin.write(f"{sql};\n\\echo end\n")
        lines = []
        while True:
            line = self.session.stdout.readline()
            if line == "":
                raise SystemExit(f"psql ended at: {sql}")
            if line == "end\n":
                return lines
            lines.append(line.rstrip("\n"))

    def cpu_seconds(self):
        """Of the server and its sessions since it started; 0 where it is on another machine."""
        backend = self.ask("SELECT pg_backend_pid()")[0]
        try:
            server = stat(backend)[0]
            stats = [stat(pid) for pid in os.listdir("/proc") if pid.isdigit()]
            return stat(server)[1] + sum(cpu for parent, cpu in filter(None, stats) if parent == server)
        except TypeError:
            return 0.0

    def by_two_clients(self, scripts):
        """Wall seconds until both have ended."""
        started = time.perf_counter()
        clients = [subprocess.Popen(["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", script, self.url])
                   for script in scripts]
        if any(client.wait() for client in clients):
            raise SystemExit("a psql client failed")
        return time.perf_counter() - started

    def drop(self, schema):
        for table in self.ask("SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n "
                              f"ON n.oid = relnamespace WHERE nspname = '{schema}' AND relkind IN ('r', 'p') "
                              "ORDER BY relispartition DESC"):
            self.ask(f"DROP TABLE {table} CASCADE")
        self.ask(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def run_pipeline(server, arguments, schema, lines):
    """Seconds until the ledger holds so many lines, and until the process has ended."""
    command = [arguments.pipeline, "run", "--quiet", "--schema", schema, "--via", arguments.via]
    if arguments.via != "memory":
        command += ["--stream", f"{schema}:{os.getpid()}"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, arguments.logs], env={**os.environ, "PIPELINE_INTO": server.url})
    queryable = None
    while process.poll() is None:
        if lines and queryable is None:
            if int(server.ask(f"SELECT coalesce(sum(lines), 0) FROM {schema}.chunks")[0]) >= lines:
                queryable = time.perf_counter() - started
        time.sleep(0.005)
    ended = time.perf_counter() - started
    if process.returncode:
        raise SystemExit("pipeline failed")
    return queryable or ended, ended


def split_evenly(sized):
    """Two lists of about the same total size."""
    halves, totals = ([], []), [0, 0]
    for size, item in sorted(sized, reverse=True):
        smaller = totals.index(min(totals))
        halves[smaller].append(item)
        totals[smaller] += size
    return halves


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("pipeline", "logs", "postgres"):
        parser.add_argument(name)
    parser.add_argument("--via", default="memory")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.setdefault("PGOPTIONS", "-c client_min_messages=warning")
    server = Server(arguments.postgres)
    for schema in (MODEL, TARGET):
        server.drop(schema)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run_pipeline(server, arguments, MODEL, 0)
        lines = int(server.ask(f"SELECT sum(lines) FROM {MODEL}.chunks")[0])
        leaves = server.ask("SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
                            f"WHERE nspname = '{MODEL}' AND c.relispartition AND c.relkind = 'r' ORDER BY relname")
        with open(folder / "out.sql", "w") as script:
            for leaf in leaves:
                script.write(f"\\copy {MODEL}.{leaf} TO '{folder / leaf}' (FORMAT binary)\n")
        subprocess.run(["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", folder / "out.sql", arguments.postgres], check=True)
        indexes = server.ask("SELECT indexdef FROM pg_indexes JOIN pg_class c ON c.relname = tablename "
                             "JOIN pg_namespace n ON n.oid = c.relnamespace AND nspname = schemaname "
                             f"WHERE schemaname = '{MODEL}' AND c.relispartition ORDER BY 1")
        empty = [f"--exclude-table-data={MODEL}.{table}" for table in server.ask(
            f"SELECT tablename FROM pg_tables WHERE schemaname = '{MODEL}'") if table not in KEPT]
        dump = subprocess.run(["pg_dump", "--no-owner", "-n", MODEL, *empty, arguments.postgres], check=True,
                              capture_output=True, text=True).stdout.replace(MODEL, TARGET)
        is_leaf_index = re.compile(rf"CREATE INDEX \S+ ON (ONLY )?{TARGET}\.({'|'.join(leaves)}) ")
        (folder / "schema.sql").write_text(
            "\n".join(line for line in dump.split("\n") if not is_leaf_index.match(line)))
        files = [(os.path.getsize(folder / leaf), leaf) for leaf in leaves]
        sizes = dict((leaf, size) for size, leaf in files)
        built = [(sizes[re.search(r" ON (?:ONLY )?\w+\.(\w+) ", index)[1]], index.replace(MODEL, TARGET)) for index in indexes]
        loads, builds = [], []
        for number, (leaves_of_one, indexes_of_one) in enumerate(zip(split_evenly(files), split_evenly(built))):
            loads.append(folder / f"load{number}.sql")
            loads[-1].write_text("".join(
                f"\\copy {TARGET}.{leaf} FROM '{folder / leaf}' (FORMAT binary)\n" for leaf in leaves_of_one))
            builds.append(folder / f"index{number}.sql")
            builds[-1].write_text("".join(f"{index};\n" for index in indexes_of_one))
        server.drop(MODEL)

        def fresh():
            server.drop(TARGET)
            subprocess.run(["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", folder / "schema.sql", server.url],
                           check=True, stdout=subprocess.DEVNULL)
            server.ask("CHECKPOINT")

        rows = []
        for number in range(arguments.rounds):
            fresh()
            cpu = Cpu(server)
            loaded = server.by_two_clients(loads)
            indexed = loaded + server.by_two_clients(builds)
            copy_cpu = cpu.lap()
            fresh()
            cpu.lap()
            queryable, ended = run_pipeline(server, arguments, TARGET, lines)
            rows.append((queryable, loaded, ended, indexed, cpu.lap(), copy_cpu))
            print(f"round {number + 1}: rows queryable {queryable:.2f} s against {loaded:.2f} s "
                  f"({queryable / loaded:.2f}); indexed {ended:.2f} s against {indexed:.2f} s "
                  f"({ended / indexed:.2f}); CPU {rows[-1][4]:.2f} s against {copy_cpu:.2f} s", flush=True)
        server.drop(TARGET)
    queryable, loaded, ended, indexed, own_cpu, copy_cpu = (statistics.median(column) for column in zip(*rows))
    report = {
        "lines": lines, "via": arguments.via.split(":")[0], "rounds": len(rows),
        "pipeline_queryable_seconds": round(queryable, 3), "copy_seconds": round(loaded, 3),
        "queryable_ratio": round(queryable / loaded, 3),
        "round_ratios": [round(row[0] / row[1], 3) for row in rows],
        "pipeline_indexed_seconds": round(ended, 3), "copy_indexed_seconds": round(indexed, 3),
        "indexed_ratio": round(ended / indexed, 3),
        "pipeline_cpu_seconds": round(own_cpu, 3), "copy_cpu_seconds": round(copy_cpu, 3),
        "cpu_ratio": round(own_cpu / copy_cpu, 3),
    }
    print(f"medians: pipeline / COPY = {report['queryable_ratio']} until queryable, "
          f"{report['indexed_ratio']} until indexed (goal: 1.25)")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
