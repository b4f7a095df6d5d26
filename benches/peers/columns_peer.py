"""Bytes of each column of an archive, beside its entropy: `python -m peers.columns_peer ARCHIVE`.

Entropy is of order 0: of a value without regard to those before it. A sorted or counting column holds far less than
that, so for numbers and times the differences from one row of a file to the next are taken where they have less.
What no column's data is (dictionaries are), such as footers, indexes and the tables' logs, is counted as such.
"""
import json
import sys
from pathlib import Path

import duckdb

NUMBERS = ("SMALLINT", "INTEGER", "BIGINT", "TIMESTAMP WITH TIME ZONE")


def entropy_bytes(connection, value, table):
    """Per row."""
    bits, = connection.execute(
        f"WITH counted AS (SELECT count(*) AS times FROM (SELECT {value} AS value FROM {table}) GROUP BY value), "
        "total AS (SELECT sum(times) AS rows FROM counted) "
        "SELECT sum(times * log2(rows / times)) / any_value(rows) FROM counted, total").fetchone()
    return bits / 8


def least_entropy(connection, column, kind, table):
    found = [(entropy_bytes(connection, column, table), "values")]
    if kind in NUMBERS:
        number = f"epoch_us({column})" if kind.startswith("TIMESTAMP") else column
        # chunk ids fill all 64 bits
        step = f"{number}::HUGEINT - lag({number}) OVER (PARTITION BY filename ORDER BY file_row_number)"
        found.append((entropy_bytes(connection, step, table), "differences"))
    return min(found)


def of_table(connection, name, files):
    """Its columns, as rows of the report."""
    listed = "[" + ", ".join(f"'{file}'" for file in files) + "]"
    table = f"read_parquet({listed}, file_row_number = true, filename = true, hive_partitioning = false)"
    stored = dict(connection.execute("SELECT path_in_schema, sum(total_compressed_size)::BIGINT "
                                     f"FROM parquet_metadata({listed}) GROUP BY ALL").fetchall())
    count, = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    rows = []
    for column, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall():
        if column in stored:
            entropy, of = least_entropy(connection, f'"{column}"', kind, table)
            per_row = stored[column] / count
            rows.append([name, column, stored[column], per_row, entropy, of, per_row / entropy if entropy else None])
    rest = sum(file.stat().st_size for file in files) - sum(stored.values())
    rows.append([name, "(footers, indexes, filters)", rest, rest / count, None, None, None])
    return rows


def columns(archive):
    archive, rows, left = Path(archive), [], sum(f.stat().st_size for f in Path(archive).rglob("*") if f.is_file())
    with duckdb.connect() as connection:
        for folder in sorted(path for path in archive.iterdir() if path.is_dir()):
            # data lies in the folders of days
            files = sorted(folder.glob("day=*/*.parquet"))
            if files:
                rows += of_table(connection, folder.name, files)
                left -= sum(file.stat().st_size for file in files)
    return rows + [["", "(ledger, logs of the tables, log types)", left, None, None, None, None]]


if __name__ == "__main__":
    print(json.dumps(columns(sys.argv[1])))
