"""Lines into Postgres until they are committed and queryable: pipeline through Redis, and how others would do it.

Pipeline makes its schema, its ledger and its indexes within its time; the peers load plain typed tables that are there.
The old design gets few lines, as all of them would take hours: rates are compared.
"""
import json

from . import fluent_bit, loading
from .measure import Failed, Sample, peer, run
from .parses import FORMS, postgres_table
from .rounds import PIPELINE, Goal, Report, play, rows

SCHEMA = "peers_plain"
OLD_LINES = 5_000
OLD, PYTHON = f"old design, {OLD_LINES:,} lines", "batched Python, Redis and COPY"
CLICKHOUSE, FLUENT_BIT = "ClickHouse local", "Fluent Bit"


class Contenders:
    """Each loads all lines, and is held to it."""

    def __init__(self, site):
        self.site = site

    def pipeline(self):
        loading.clear(self.site, loading.SCHEMA)
        return loading.load(self.site)

    def checked(self, load):
        """The rows of all tables are counted."""
        loading.clear(self.site, SCHEMA)
        database = self.site.database
        database.ask(f"CREATE SCHEMA {SCHEMA}")
        for name in FORMS:
            database.ask(f"CREATE TABLE {SCHEMA}.{name} ({postgres_table(name)})")
        before = self.site.servers.cpu_seconds()
        sample = load()
        sample.cpu_seconds += self.site.servers.cpu_seconds() - before
        count = sum(database.number(f"SELECT count(*) FROM {SCHEMA}.{name}") for name in FORMS)
        if count != self.site.lines:
            raise Failed(f"it loaded {count} rows of {self.site.lines} lines")
        return sample

    def python(self):
        def load():
            ended = peer("python_peer", self.site.logs, self.site.servers.redis, self.site.servers.postgres, SCHEMA)
            figures = json.loads(ended.output)
            return Sample(figures["seconds"], self.site.lines, figures["cpu_seconds"], figures["peak_bytes"])

        return self.checked(load)

    def clickhouse(self):
        def load():
            address = f"127.0.0.1:{self.site.servers.postgres_port}"
            ended = peer("clickhouse_peer", "postgres", self.site.logs, address, SCHEMA)
            figures = json.loads(ended.output)
            return Sample(figures["seconds"], self.site.lines, figures["cpu_seconds"], ended.peak_bytes)

        return self.checked(load)

    def old_design(self):
        loading.clear(self.site)
        servers = self.site.servers
        command = [self.site.pipeline, "bench", self.site.fewer_logs, "--baseline", "--baseline-lines", OLD_LINES,
                   "--via", servers.redis, "--into", servers.postgres, "--schema", "peers_bench", "--output", "json",
                   "--quiet"]
        used = json.loads(run(command).output)["baseline"]
        cpu_seconds = used["process"]["cpu_seconds"] + used["postgres_cpu_seconds"] + used["redis_cpu_seconds"]
        return Sample(used["old"]["seconds"], used["old"]["lines"], cpu_seconds, used["process"]["peak_bytes"])

    def fluent_bit(self):
        loading.clear(self.site, SCHEMA)
        return fluent_bit.load(self.site, SCHEMA)


def measure(site):
    contenders = Contenders(site)
    played = play({
        PIPELINE: contenders.pipeline, PYTHON: contenders.python, CLICKHOUSE: contenders.clickhouse,
        FLUENT_BIT: contenders.fluent_bit, OLD: contenders.old_design,
    }, site.rounds)
    loading.clear(site, loading.SCHEMA, SCHEMA)
    goals = {PYTHON: 5, CLICKHOUSE: 12, FLUENT_BIT: 12, OLD: 400}
    goals = {name: [Goal(limit, is_at_least=True)] for name, limit in goals.items()}
    report = Report(rows("lines -> Postgres, rows queryable", played, goals=goals, is_per_line=True))
    indexed = {name: played[0][name] for name in (PIPELINE, OLD)}
    for sample in indexed[OLD]:
        # its indexes are there all the time
        sample.others["indexed"] = sample.value
    report.rows += rows("lines -> Postgres, every index valid", (indexed, played[1]),
                        goals={OLD: [Goal(200, is_at_least=True)]}, value=loading.indexed, is_per_line=True)
    return report
