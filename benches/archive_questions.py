#!/usr/bin/env python3
"""The six questions on the archive, beside DuckDB on its own Parquet of the same rows, in turn, in one run.

    python benches/archive_questions.py PIPELINE LOGS [ROUNDS]

PIPELINE: the release binary. LOGS: a folder of `pipeline generate`. Needs the package duckdb. Each round, a session of
pipeline and one of DuckDB answer all questions once to warm up and then three times more, as CSV to nowhere. Prints the
median milliseconds and their ratio per question, its geometric mean and the worst (goals: 1.0 and 1.5), and the
archive's bytes per line, every file counted, beside what the generator's lines hold at least; the last line is JSON.
"""
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from peers import duckdb as write_parquet

# Shannon entropy of the generator's lines, bytes per line
ENTROPY_BYTES = 7.02
TIMED = 3


def of_pipeline(program, archive, statements, folder):
    """Milliseconds by question."""
    file = Path(folder) / "questions.sql"
    file.write_text(";\n".join(sql.rstrip().rstrip(";") for sql in list(statements.values()) * (TIMED + 1)))
    command = [program, "query", "--from", archive, "--output", "csv", "--timing", "-f", file]
    ended = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    times = [float(line.split()[1]) for line in ended.stderr.splitlines() if line.startswith("time: ")]
    return {name: times[len(statements) + index::len(statements)] for index, name in enumerate(statements)}


def of_duckdb(parquet, statements):
    with duckdb.connect() as connection:
        connection.execute(f"SET threads = {os.cpu_count()}")
        for name in ("auth", "dns", "firewall"):
            connection.execute(f"CREATE VIEW {name}_logs AS SELECT * FROM '{parquet}/{name}.parquet'")
        times = {name: [] for name in statements}
        for number in range(TIMED + 1):
            for name, sql in statements.items():
                started = time.perf_counter()
                connection.execute(f"COPY ({sql.rstrip().rstrip(';')}\n) TO '/dev/null' (FORMAT csv)")
                if number:
                    times[name].append((time.perf_counter() - started) * 1e3)
        return times


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    program, logs = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    queries = Path(__file__).parent.parent / "sql/queries"
    statements = {file.stem: file.read_text() for file in sorted(queries.glob("*.sql"))}
    with tempfile.TemporaryDirectory() as folder:
        archive, parquet = os.path.join(folder, "archive"), os.path.join(folder, "parquet")
        os.mkdir(parquet)
        run = [program, "run", logs, "--into", archive, "--output", "json", "--quiet"]
        lines = json.loads(subprocess.run(run, check=True, capture_output=True).stdout)["lines"]
        write_parquet(logs, parquet)
        size = sum(file.stat().st_size for file in Path(archive).rglob("*") if file.is_file())
        ours, theirs = ({name: [] for name in statements} for _ in range(2))
        for _ in range(rounds):
            for times, came in ((ours, of_pipeline(program, archive, statements, folder)),
                                (theirs, of_duckdb(parquet, statements))):
                for name, values in came.items():
                    times[name] += values
    report = {"lines": lines, "rounds": rounds}
    for name in statements:
        own, other = statistics.median(ours[name]), statistics.median(theirs[name])
        report[name] = round(own / other, 3)
        print(f"{name:<18} pipeline {own:8.2f} ms   DuckDB {other:8.2f} ms   {own / other:5.2f}")
    ratios = [report[name] for name in statements]
    report["geometric_mean"] = round(math.exp(statistics.mean(map(math.log, ratios))), 3)
    report["worst"] = max(ratios)
    report["bytes_per_line"] = round(size / lines, 3)
    print(f"geometric mean {report['geometric_mean']}, worst {report['worst']}; {report['bytes_per_line']} bytes per line, "
          f"{size / lines / ENTROPY_BYTES:.2f} x the entropy of {ENTROPY_BYTES}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
