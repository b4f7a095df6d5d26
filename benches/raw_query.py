#!/usr/bin/env python3
"""SQL over raw log files that were never loaded: pipeline beside DuckDB and ClickHouse local, in turn, in one run.

    python benches/raw_query.py PIPELINE LOGS [ROUNDS]

PIPELINE: the release binary. LOGS: a folder of `pipeline generate`. Needs the packages chdb and duckdb: the
Python of target/peers-venv has them, once `make bench-peers` has run. Questions 1, 2 and 6 of sql/queries, each over
the text: the peers parse the generated lines, and of each only what the question asks for; no rejects, no line numbers.
Pipeline's time is that of its whole process, the peers' that of the query alone. Prints the median seconds per
question, and the ratio to pipeline's, round by round; the last line is JSON.
"""
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from peers.parses import FORMS, clickhouse_select, duckdb_lines, duckdb_select

QUESTIONS = ("1_host_window", "2_dns_domain", "6_port_pairs")


class Pipeline:
    def __init__(self, program, logs):
        self.command = [program, "query", "--from", f"raw:{logs}", "--output", "csv"]

    def rows(self, sql):
        return subprocess.run([*self.command, "--", sql], check=True, capture_output=True).stdout.count(b"\n") - 1


class DuckDb:
    def __init__(self, logs):
        import duckdb

        self.connection = duckdb.connect()
        self.connection.execute(f"SET threads = {os.cpu_count()}")
        for name in FORMS:
            select = duckdb_select(name, f"({duckdb_lines(logs)})", is_split_once=False)
            self.connection.execute(f"CREATE VIEW {name}_logs AS {select}")

    def rows(self, sql):
        return len(self.connection.execute(sql).fetchall())


class ClickHouse:
    def __init__(self, logs):
        from chdb import session

        self.session = session.Session()
        self.session.query(f"SET max_threads = {os.cpu_count()}")
        for name in FORMS:
            self.session.query(f"CREATE OR REPLACE VIEW {name}_logs AS {clickhouse_select(name, logs)}")

    def rows(self, sql):
        # it takes no time with T and Z
        sql = re.sub(r"'(\d{4}-\d\d-\d\d)T([\d:]+)Z'", r"'\1 \2'", sql)
        return len(str(self.session.query(sql, "CSV")).splitlines())


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    program, logs = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    folder = Path(__file__).parent.parent / "sql/queries"
    statements = {name: (folder / f"{name}.sql").read_text() for name in QUESTIONS}
    engines = {"pipeline": Pipeline(program, logs), "ClickHouse local": ClickHouse(logs), "DuckDB": DuckDb(logs)}
    seconds = {(engine, question): [] for engine in engines for question in QUESTIONS}
    for number in range(rounds + 1):
        for question, sql in statements.items():
            rows = {}
            for name, engine in engines.items():
                started = time.monotonic()
                rows[name] = engine.rows(sql)
                if number:
                    # the first round warms the page cache and the engines
                    seconds[name, question].append(time.monotonic() - started)
            if len(set(rows.values())) != 1:
                sys.exit(f"{question}: the engines do not agree: {rows}")
    report = {"rounds": rounds}
    for question in QUESTIONS:
        ours = seconds["pipeline", question]
        print(f"{question:<14} pipeline {statistics.median(ours):6.3f} s", end="")
        for name in ("ClickHouse local", "DuckDB"):
            ratio = statistics.median(theirs / own for theirs, own in zip(seconds[name, question], ours))
            report[f"{question} {name}"] = round(ratio, 2)
            print(f"   {name} {statistics.median(seconds[name, question]):6.3f} s, {ratio:5.2f} x", end="")
        print()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
