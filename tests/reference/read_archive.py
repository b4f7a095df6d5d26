#!/usr/bin/env python3
"""Reads an archive with readers that are not ours.

    read_archive.py ARCHIVE                 rows of every table, by each reader
    read_archive.py ARCHIVE "SELECT .."     the statement's result as CSV without a header, by each reader
    read_archive.py ARCHIVE FILE.sql ..     the result of each file's statement, rows sorted, by each engine with SQL
                                            of its own: ClickHouse, DuckDB, DataFusion by `deltalake`

Prints one JSON object: reader -> table -> rows, reader -> CSV, or engine -> CSVs. `deltalake` says which files are
live. In SQL a log type's table is called as in `pipeline query`: firewall_logs, dns_logs, ..
"""
import datetime
import json
import re
import sys
from pathlib import Path

import duckdb
import polars
from deltalake import DeltaTable, QueryBuilder

OWN_NAMES = {"blanks", "chunks", "rejects"}


def tables(archive):
    return {path.parent.name: DeltaTable(str(path.parent)) for path in sorted(Path(archive).glob("*/_delta_log"))}


def by_deltalake(table):
    # Without a filter a count would come from the log alone; every row has to be read to be null or not.
    column = table.schema().fields[0].name
    counts = f'SELECT count(*) FILTER (WHERE "{column}" IS NULL), count("{column}") FROM t'
    batches = QueryBuilder().register("t", table).execute(counts).read_all()
    return sum(batches.column(index)[0].as_py() for index in range(2))


def by_duckdb(table):
    files = table.file_uris()
    if not files:
        return 0
    # Not delta_scan(): DuckDB fetches that extension from the network when it is first used.
    return duckdb.execute("SELECT count(*) FROM read_parquet(?, union_by_name = true)", [files]).fetchone()[0]


def by_polars(table):
    return polars.scan_delta(table).select(polars.len()).collect().item()


def sql_names(found):
    return {name if name in OWN_NAMES else f"{name}_logs": table for name, table in found.items()}


def csv(rows):
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def query_deltalake(found, sql):
    builder = QueryBuilder()
    for name, table in sql_names(found).items():
        builder = builder.register(name, table)
    result = builder.execute(sql).read_all()
    columns = [result.column(index) for index in range(result.num_columns)]
    return csv([column[row].as_py() for column in columns] for row in range(result.num_rows))


def query_duckdb(found, sql):
    for name, table in sql_names(found).items():
        if table.file_uris():
            files = ", ".join(f"'{uri}'" for uri in table.file_uris())
            duckdb.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{files}], union_by_name = true)")
    return csv(duckdb.execute(sql).fetchall())


def query_polars(found, sql):
    frames = {name: polars.scan_delta(table) for name, table in sql_names(found).items()}
    return csv(polars.SQLContext(frames, eager=True).execute(sql).rows())


def cell(value):
    """A value as `pipeline query --output csv` prints it; all of the archive's times are UTC."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", value):
        value = datetime.datetime.fromisoformat(value)
    if not isinstance(value, datetime.datetime):
        return str(value)
    unit = "seconds" if not value.microsecond else "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.replace(tzinfo=None).isoformat(timespec=unit) + "Z"


def sorted_csv(rows):
    return "".join(sorted(",".join(map(cell, row)) + "\n" for row in rows))


def clickhouse(found, statements):
    from chdb import session

    engine = session.Session()
    engine.query("SET session_timezone = 'UTC'")
    for name, table in sql_names(found).items():
        if table.file_uris():
            files = " UNION ALL ".join(f"SELECT * FROM file('{uri}', Parquet)" for uri in table.file_uris())
            engine.query(f"CREATE OR REPLACE VIEW {name} AS {files}")
    for statement in statements:
        # it takes no time with T and Z, and an ORDER BY behind a union is of the last part only
        statement = re.sub(r"'(\d{4}-\d\d-\d\d)T([\d:.]+)Z'", r"'\1 \2'", statement)
        result = str(engine.query(statement, "JSONCompactEachRow"))
        yield sorted_csv(map(json.loads, result.splitlines()))


def duckdb_engine(found, statements):
    for name, table in sql_names(found).items():
        if table.file_uris():
            files = ", ".join(f"'{uri}'" for uri in table.file_uris())
            rows = f"SELECT * FROM read_parquet([{files}], union_by_name = true)"
            if name not in OWN_NAMES:
                # its Python needs another package for times with a zone
                rows = rows.replace("*", "* REPLACE (timestamp AT TIME ZONE 'UTC' AS timestamp)", 1)
            duckdb.execute(f"CREATE OR REPLACE VIEW {name} AS {rows}")
    for statement in statements:
        yield sorted_csv(duckdb.execute(statement).fetchall())


def deltalake_engine(found, statements):
    builder = QueryBuilder()
    for name, table in sql_names(found).items():
        builder = builder.register(name, table)
    for statement in statements:
        result = builder.execute(statement).read_all()
        columns = [result.column(index) for index in range(result.num_columns)]
        yield sorted_csv([column[row].as_py() for column in columns] for row in range(result.num_rows))


ENGINES = {"clickhouse": clickhouse, "deltalake": deltalake_engine, "duckdb": duckdb_engine}
COUNT = {"deltalake": by_deltalake, "duckdb": by_duckdb, "polars": by_polars}
QUERY = {"deltalake": query_deltalake, "duckdb": query_duckdb, "polars": query_polars}

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    found = tables(sys.argv[1])
    if not found:
        sys.exit(f"no Delta table under {sys.argv[1]}; give an archive's folder")
    if len(sys.argv) == 2:
        answer = {reader: {name: count(table) for name, table in found.items()} for reader, count in COUNT.items()}
    elif sys.argv[2].endswith(".sql"):
        texts = [Path(path).read_text() for path in sys.argv[2:]]
        answer = {name: list(engine(found, texts)) for name, engine in ENGINES.items()}
    else:
        answer = {reader: query(found, sys.argv[2]) for reader, query in QUERY.items()}
    print(json.dumps(answer, indent=2))
