"""DuckDB, in a process of its own.

    python -m peers.duckdb_peer parquet|parquet_by_part LOGS OUT     lines to zstd Parquet
    python -m peers.duckdb_peer questions PARQUET STATEMENTS TIMED   milliseconds of each statement of a JSON file, warm
    python -m peers.duckdb_peer count PARQUET_GLOB                   rows
"""
import json
import os
import sys
import time
from pathlib import Path

import duckdb

from .measure import Clock
from .parses import FORMS, duckdb_lines, duckdb_select


def connect():
    connection = duckdb.connect()
    connection.execute(f"SET threads = {os.cpu_count()}")
    return connection


def parquet(logs, out, is_split_once=True):
    clock = Clock()
    with connect() as connection:
        connection.execute(f"CREATE TABLE raw AS {duckdb_lines(logs)}")
        for name in FORMS:
            connection.execute(f"COPY ({duckdb_select(name, 'raw', is_split_once)}) TO '{out}/{name}.parquet' "
                               "(FORMAT parquet, COMPRESSION zstd)")
    return clock.figures()


def parquet_by_part(logs, out):
    return parquet(logs, out, is_split_once=False)


def questions(folder, statements, timed):
    statements = json.loads(Path(statements).read_text())
    times, rows = {name: [] for name in statements}, {}
    with connect() as connection:
        for name in FORMS:
            connection.execute(f"CREATE VIEW {name}_logs AS SELECT * FROM '{folder}/{name}.parquet'")
        for number in range(int(timed) + 1):
            for name, sql in statements.items():
                started = time.perf_counter()
                rows[name] = connection.execute(f"COPY ({sql}\n) TO '/dev/null' (FORMAT csv)").fetchone()[0]
                if number:
                    times[name].append((time.perf_counter() - started) * 1e3)
    return {"milliseconds": times, "rows": rows}


def count(files):
    with connect() as connection:
        return connection.execute(f"SELECT count(*) FROM read_parquet('{files}')").fetchone()[0]


if __name__ == "__main__":
    jobs = {"parquet": parquet, "parquet_by_part": parquet_by_part, "questions": questions, "count": count}
    print(json.dumps(jobs[sys.argv[1]](*sys.argv[2:])))
