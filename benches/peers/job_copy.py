"""Lines through Redis into Postgres, against the same rows as ready-made binary COPY files by two psql clients.

Both load into the same leaves, attached and without their indexes, which exist before the clock starts. The clients'
time is from their start until both have ended. Then the indexes: pipeline's until its process ends, and the same
CREATE INDEX statements by two clients.
"""
import re
import shutil

from . import loading
from .measure import Sample, peer, run
from .rounds import PIPELINE, Goal, Report, play, rows

MODEL, TARGET = "peers_copy_model", "peers_copy_target"
COPY, MEMCPY = "floor: ready-made COPY files by two psql clients", "floor: memcpy of those files' bytes"
IN_MEMORY = "pipeline in memory, without Redis"
CLIENTS = 2
KEPT = ("schema_migrations", "log_types")


def split_evenly(sized):
    """Lists of about the same total size, one for each client."""
    parts, totals = [[] for _ in range(CLIENTS)], [0] * CLIENTS
    for size, item in sorted(sized, reverse=True):
        smallest = totals.index(min(totals))
        parts[smallest].append(item)
        totals[smallest] += size
    return parts


class ReadyMade:
    """COPY files of all rows, as pipeline itself stores them, and the scripts that load and index them."""

    def __init__(self, site):
        self.site, self.folder = site, site.new_folder()
        database = site.database
        database.drop(MODEL)
        loading.load(site, MODEL)
        of_leaf = ("pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                   f"AND nspname = '{MODEL}' AND c.relispartition AND c.relkind = 'r'")
        self.leaves = database.ask(f"SELECT relname FROM {of_leaf} ORDER BY 1")
        self.write("out", (f"\\copy {MODEL}.{leaf} TO '{self.folder / leaf}' (FORMAT binary)" for leaf in self.leaves))
        database.script(self.folder / "out.sql")
        sizes = {leaf: (self.folder / leaf).stat().st_size for leaf in self.leaves}
        self.size_bytes = sum(sizes.values())
        indexes = database.ask(f"SELECT relname || '|' || pg_get_indexdef(indexrelid) FROM {of_leaf} "
                               "JOIN pg_index ON indrelid = c.oid ORDER BY 1")
        indexes = (line.split("|", 1) for line in indexes)
        builds = [(sizes[leaf], index.replace(MODEL, TARGET)) for leaf, index in indexes]
        copies = [(size, f"\\copy {TARGET}.{leaf} FROM '{self.folder / leaf}' (FORMAT binary)")
                  for leaf, size in sizes.items()]
        self.loads = [self.write(f"load-{number}", part) for number, part in enumerate(split_evenly(copies))]
        self.builds = [self.write(f"index-{number}", [f"{index};" for index in part])
                       for number, part in enumerate(split_evenly(builds))]
        self.schema = self.write("schema", self.without_leaf_indexes())
        database.drop(MODEL)

    def write(self, name, lines):
        file = self.folder / f"{name}.sql"
        file.write_text("".join(f"{line}\n" for line in lines))
        return file

    def without_leaf_indexes(self):
        """The schema with its leaves, which pipeline then takes as it finds them."""
        url = self.site.database.url
        tables = self.site.database.ask(f"SELECT tablename FROM pg_tables WHERE schemaname = '{MODEL}'")
        empty = [f"--exclude-table-data={MODEL}.{table}" for table in tables if table not in KEPT]
        dump = run(["pg_dump", "--no-owner", "-n", MODEL, *empty, url]).output.replace(MODEL, TARGET)
        of_leaf = re.compile(rf"CREATE INDEX \S+ ON (ONLY )?{TARGET}\.({'|'.join(self.leaves)}) ")
        return [line for line in dump.split("\n") if not of_leaf.match(line)]

    def fresh(self):
        self.site.database.drop(TARGET)
        self.site.database.script(self.schema)
        loading.clear(self.site)

    def by_copy(self):
        self.fresh()
        database, before = self.site.database, self.site.servers.cpu_seconds()
        loaded, clients = database.by_clients(self.loads)
        indexed, builders = database.by_clients(self.builds)
        cpu_seconds = sum(client.cpu_seconds for client in clients + builders)
        cpu_seconds += self.site.servers.cpu_seconds() - before
        peak_bytes = sum(client.peak_bytes for client in clients)
        return Sample(loaded, self.site.lines, cpu_seconds, peak_bytes, {"indexed": loaded + indexed})

    def by_memcpy(self):
        return Sample(float(peer("memcpy_peer", self.size_bytes).output), self.site.lines)

    def by_pipeline(self, is_through_redis=True):
        self.fresh()
        return loading.load(self.site, TARGET, is_through_redis=is_through_redis)


def measure(site):
    files = ReadyMade(site)
    played = play({
        PIPELINE: files.by_pipeline, COPY: files.by_copy, MEMCPY: files.by_memcpy,
        IN_MEMORY: lambda: files.by_pipeline(is_through_redis=False),
    }, site.rounds)
    site.database.drop(TARGET)
    shutil.rmtree(files.folder)
    job, goals = "lines -> Redis -> Postgres", {COPY: [Goal(1.25)]}
    return Report(rows(f"{job}, rows queryable", played, floors=[COPY, MEMCPY], goals=goals) +
                  rows(f"{job}, every index valid", played, floors=[COPY], value=loading.indexed, without=[MEMCPY]))
