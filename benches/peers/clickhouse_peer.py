"""ClickHouse local, as a library, in a process of its own.

    python -m peers.clickhouse_peer parquet LOGS OUT                    lines to zstd Parquet
    python -m peers.clickhouse_peer postgres LOGS HOST:PORT SCHEMA      lines into plain tables
"""
import json
import os
import sys

from chdb import session

from .measure import Clock
from .parses import CLICKHOUSE_CAST, CLICKHOUSE_CAST_FOR_POSTGRES, FORMS, clickhouse_select


def insert(targets, logs, casts=CLICKHOUSE_CAST, settings=""):
    """`targets`: a table function for each form."""
    clock = Clock()
    with session.Session() as connection:
        connection.query(f"SET max_threads = {os.cpu_count()}")
        for name, target in targets.items():
            connection.query(f"INSERT INTO FUNCTION {target} {clickhouse_select(name, logs, casts)} {settings}")
    return clock.figures()


def parquet(logs, out):
    targets = {name: f"file('{out}/{name}.parquet', 'Parquet')" for name in FORMS}
    return insert(targets, logs, settings="SETTINGS output_format_parquet_compression_method = 'zstd'")


def postgres(logs, address, schema):
    targets = {
        name: f"postgresql('{address}', 'pipeline', '{name}', 'pipeline', 'pipeline', '{schema}')" for name in FORMS
    }
    return insert(targets, logs, CLICKHOUSE_CAST_FOR_POSTGRES)


if __name__ == "__main__":
    print(json.dumps({"parquet": parquet, "postgres": postgres}[sys.argv[1]](*sys.argv[2:])))
