"""Lines into Postgres by pipeline; the ledger says when rows are committed and queryable."""
import itertools
import time

from .measure import Process, Sample

LOOK_SECONDS = 0.01
SCHEMA = "peers_pipeline"
runs = itertools.count()


def load(site, schema=SCHEMA, logs=None, lines=None, is_through_redis=True):
    """Its value is from the start of the process until the ledger holds all lines; indexed when the process ends."""
    lines, database, servers = lines or site.lines, site.database, site.servers
    via = [servers.redis, "--stream", f"{schema}:{next(runs)}"] if is_through_redis else ["memory"]
    command = [site.pipeline, "run", "--quiet", "--schema", schema, "--into", servers.postgres, "--via", *via,
               logs or site.logs]
    before, queryable = servers.cpu_seconds(), None
    held = f"SELECT coalesce(sum(lines), 0) FROM {schema}.chunks"
    exists = f"SELECT to_regclass('{schema}.chunks') IS NOT NULL"
    with Process(command) as process:
        while not process.has_ended():
            if queryable is None and database.ask(exists) == ["t"] and database.number(held) >= lines:
                queryable = time.perf_counter() - process.started
            time.sleep(LOOK_SECONDS)
        ended = process.finish()
    cpu_seconds = ended.cpu_seconds + servers.cpu_seconds() - before
    return Sample(queryable or ended.seconds, lines, cpu_seconds, ended.peak_bytes, {"indexed": ended.seconds})


def indexed(sample):
    """Seconds until every index is valid."""
    return sample.others["indexed"]


def clear(site, *schemas):
    """Both servers as they were at first, and nothing left to be written."""
    for schema in schemas:
        site.database.drop(schema)
    site.servers.redis_call("FLUSHALL")
    site.database.ask("CHECKPOINT")
