"""Lines to zstd Parquet: pipeline into an archive, its whole process; the peers after their imports."""
import json
import shutil
from contextlib import contextmanager

from .measure import Failed, Sample, peer, run
from .parses import FORMS
from .rounds import PIPELINE, Goal, Report, play, rows
from .site import size_bytes

CLICKHOUSE, POLARS = "ClickHouse local", "Polars"
DUCKDB, DUCKDB_BY_PART = "DuckDB, lines split once", "DuckDB, split_part for each field"
PEERS = {
    CLICKHOUSE: ("clickhouse_peer", "parquet"), DUCKDB: ("duckdb_peer", "parquet"),
    DUCKDB_BY_PART: ("duckdb_peer", "parquet_by_part"), POLARS: ("polars_peer",),
}


class Contenders:
    def __init__(self, site):
        self.site = site

    @contextmanager
    def output(self):
        folder = self.site.new_folder()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def pipeline(self):
        with self.output() as folder:
            ended = run([self.site.pipeline, "run", self.site.logs, "--into", folder, "--quiet"])
            return Sample(ended.seconds, self.site.lines, ended.cpu_seconds, ended.peak_bytes,
                          {"stored_bytes": size_bytes(folder)})

    def peer(self, name):
        module, *job = PEERS[name]
        with self.output() as folder:
            ended = peer(module, *job, self.site.logs, folder)
            count = sum(int(peer("duckdb_peer", "count", folder / f"{form}.parquet").output) for form in FORMS)
            if count != self.site.lines:
                raise Failed(f"it wrote {count} rows of {self.site.lines} lines")
            figures = json.loads(ended.output)
            return Sample(figures["seconds"], self.site.lines, figures["cpu_seconds"], ended.peak_bytes,
                          {"stored_bytes": size_bytes(folder)})


def measure(site):
    contenders = Contenders(site)
    played = play({PIPELINE: contenders.pipeline, **{name: lambda name=name: contenders.peer(name) for name in PEERS}},
                  site.rounds)
    goals = {name: [Goal(limit, is_at_least=True)] for name, limit in
             ((CLICKHOUSE, 4), (DUCKDB, 10), (DUCKDB_BY_PART, 10))}
    return Report(rows("lines -> Parquet (zstd)", played, goals=goals) +
                  rows("bytes per line of that Parquet", played, unit="bytes/line",
                       value=lambda sample: sample.others["stored_bytes"] / sample.lines))
