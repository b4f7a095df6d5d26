#!/usr/bin/env python3
"""Raw logs to zstd Parquet: pipeline beside ClickHouse local and DuckDB, in turn, in one run.

    python benches/peers.py PIPELINE LOGS [ROUNDS]

PIPELINE: the release binary. LOGS: a folder of `pipeline generate`. Needs the packages chdb and duckdb.
Prints, per job, the median wall and CPU seconds and the bytes written, then the ratios to pipeline, round by
round. The peers parse the three generated formats only, with no accounting, no rejects and no line numbers.
"""
import os
import statistics
import subprocess
import sys
import tempfile
import time

TIME = "strptime(split_part(line, '{sep}', 1), '%Y-%m-%dT%H:%M:%S.%gZ') AS timestamp"
DUCKDB = {
    "firewall": ("contains(line, '|')", TIME.format(sep="|") + "," + ",".join(
        f"split_part(split_part(line, '|', {place}), '=', 2){cast} AS {name}" for place, (name, cast) in enumerate(
            [("action", ""), ("src", ""), ("dst", ""), ("proto", ""), ("src_port", "::INT"), ("dst_port", "::INT"),
             ("bytes_sent", "::BIGINT"), ("rule", "")], start=2))),
    "dns": ("contains(line, ' query: ')", TIME.format(sep=" ") + ", split_part(line, ' ', 3) AS client_ip,"
            "split_part(line, ' ', 5) AS query_domain, split_part(line, ' ', 7) AS query_type,"
            "trim(split_part(line, ' ', 9), '()') AS server_ip, split_part(line, ' ', 10) AS response_code"),
    "auth": ("contains(line, ' sshd[')", TIME.format(sep=" ") + ", split_part(line, ' ', 2) AS hostname,"
             "regexp_extract(line, 'sshd\\[(\\d+)\\]', 1)::INT AS pid, split_part(line, ' ', 4) AS status,"
             "split_part(line, ' ', 5) AS auth_method, split_part(line, ' ', 7) AS username,"
             "split_part(line, ' ', 9) AS source_ip, split_part(line, ' ', 11)::INT AS source_port"),
}
CLICKHOUSE = {
    "firewall": ("position(line, '|') > 0", "(splitByChar('|', line) AS p)[1]",
                 "splitByChar('=', p[2])[2], toIPv4(splitByChar('=', p[3])[2]), toIPv4(splitByChar('=', p[4])[2]),"
                 "splitByChar('=', p[5])[2], toUInt16(splitByChar('=', p[6])[2]), toUInt16(splitByChar('=', p[7])[2]),"
                 "toUInt32(splitByChar('=', p[8])[2]), splitByChar('=', p[9])[2]"),
    "dns": ("position(line, ' query: ') > 0", "(splitByChar(' ', line) AS p)[1]",
            "toIPv4(p[3]), p[5], p[7], toIPv4(trimBoth(p[9], '()')), p[10]"),
    "auth": ("position(line, ' sshd[') > 0", "(splitByChar(' ', line) AS p)[1]",
             "p[2], toUInt32(extract(p[3], '(\\\\d+)')), p[4], p[5], p[7], toIPv4(p[9]), toUInt16(p[11])"),
}


def duckdb(logs, out):
    import duckdb

    con = duckdb.connect()
    con.execute("SET threads = 2")
    con.execute(f"CREATE TABLE raw AS SELECT column0 AS line FROM read_csv('{logs}/*.log', delim = '\x07',"
                "header = false, quote = '', escape = '', columns = {'column0': 'VARCHAR'})")
    for name, (where, columns) in DUCKDB.items():
        con.execute(f"COPY (SELECT {columns} FROM raw WHERE {where}) TO '{out}/{name}.parquet'"
                    "(FORMAT parquet, COMPRESSION zstd)")


def clickhouse(logs, out):
    from chdb import session

    with session.Session() as con:
        con.query("SET max_threads = 2")
        for name, (where, timestamp, columns) in CLICKHOUSE.items():
            con.query(f"INSERT INTO FUNCTION file('{out}/{name}.parquet', 'Parquet') SELECT "
                      f"parseDateTime64BestEffort({timestamp}, 3, 'UTC'), {columns} "
                      f"FROM file('{logs}/*.log', 'LineAsString', 'line String') WHERE {where} "
                      "SETTINGS output_format_parquet_compression_method = 'zstd'")


def measure(command, out):
    started = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed")
    wall = time.monotonic() - started
    size = sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(out) for name in names)
    return wall, usage.ru_utime + usage.ru_stime, size


def main():
    pipeline, logs = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    jobs = {
        "pipeline": lambda out: [pipeline, "run", logs, "--into", out, "--quiet"],
        "ClickHouse local": lambda out: [sys.executable, __file__, "--job", "clickhouse", logs, out],
        "DuckDB": lambda out: [sys.executable, __file__, "--job", "duckdb", logs, out],
    }
    results = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, command in jobs.items():
            with tempfile.TemporaryDirectory() as out:
                results[name].append(measure(command(out), out))
    for name, rows in results.items():
        wall, cpu, size = (statistics.median(column) for column in zip(*rows))
        ratios = [row[0] / ours[0] for row, ours in zip(rows, results["pipeline"])]
        print(f"{name:<18} wall {wall:6.2f} s   cpu {cpu:6.2f} s   {size / 1e6:6.1f} MB   "
              f"{statistics.median(ratios):5.2f} x the time of pipeline")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        {"duckdb": duckdb, "clickhouse": clickhouse}[sys.argv[2]](*sys.argv[3:5])
    elif len(sys.argv) < 3:
        sys.exit(__doc__)
    else:
        main()
