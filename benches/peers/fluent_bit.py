"""Fluent Bit, where its program is on PATH: files, one regular expression per type, its plugin for Postgres.

The plugin stores JSON: one table with tag, time and data, which it makes itself.
"""
import shutil
import time

from .measure import Failed, Process, Sample
from .rounds import NOT_INSTALLED

PROGRAM = "fluent-bit"
LOOK_SECONDS = 0.05
# it follows its files for ever, so it is ended; without progress for so long it has failed
PATIENCE_SECONDS = 60
EXPRESSIONS = {
    "firewall": r"^(?<timestamp>[^|]+)\|action=(?<action>[^|]*)\|src=(?<src>[^|]*)\|dst=(?<dst>[^|]*)"
                r"\|proto=(?<proto>[^|]*)\|src_port=(?<src_port>\d+)\|dst_port=(?<dst_port>\d+)"
                r"\|bytes_sent=(?<bytes_sent>\d+)\|rule=(?<rule>.*)$",
    "dns": r"^(?<timestamp>\S+) client (?<client_ip>\S+) query: (?<query_domain>\S+) IN (?<query_type>\S+) "
           r"\+ \((?<server_ip>[^)]*)\) (?<response_code>\S+)$",
    "auth": r"^(?<timestamp>\S+) (?<hostname>\S+) sshd\[(?<pid>\d+)\]: (?<status>\S+) (?<auth_method>\S+) "
            r"for (?<username>\S+) from (?<source_ip>\S+) port (?<source_port>\d+) ssh2$",
}
PARSER = """
[PARSER]
    Name {name}
    Format regex
    Regex {expression}
"""
CONFIG = """
[SERVICE]
    Flush 0.2
    Log_Level error
    Parsers_File {folder}/parsers.conf
[INPUT]
    Name tail
    Path {logs}/*.log
    Read_from_Head true
    Buffer_Chunk_Size 1M
    Buffer_Max_Size 8M
[FILTER]
    Name parser
    Match *
    Key_Name log
    Parser firewall
    Parser dns
    Parser auth
[OUTPUT]
    Name pgsql
    Match *
    Host 127.0.0.1
    Port {port}
    User pipeline
    Password pipeline
    Database pipeline
    Table {table}
"""


def load(site, schema):
    if shutil.which(PROGRAM) is None:
        raise Failed(NOT_INSTALLED)
    database, table = site.database, f"{schema}_fluentbit"
    database.ask(f"DROP TABLE IF EXISTS {table}")
    folder = site.new_folder()
    parsers = (PARSER.format(name=name, expression=expression) for name, expression in EXPRESSIONS.items())
    (folder / "parsers.conf").write_text("".join(parsers))
    file = folder / "fluent-bit.conf"
    file.write_text(CONFIG.format(folder=folder, logs=site.logs, port=site.servers.postgres_port, table=table))
    before, seen, progress = site.servers.cpu_seconds(), 0, time.monotonic()
    with Process([PROGRAM, "-c", file]) as process:
        while not process.has_ended() and time.monotonic() - progress < PATIENCE_SECONDS:
            time.sleep(LOOK_SECONDS)
            if database.ask(f"SELECT to_regclass('{table}') IS NOT NULL") != ["t"]:
                continue
            # the exact count of a growing table is dear; statistics are late by at most its last flush
            count = database.number(f"SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = '{table}'")
            if count > seen:
                seen, progress = count, time.monotonic()
            if count >= site.lines:
                break
        seconds = time.perf_counter() - process.started
    shutil.rmtree(folder)
    cpu_seconds = process.usage.ru_utime + process.usage.ru_stime + site.servers.cpu_seconds() - before
    count = database.number(f"SELECT count(*) FROM {table}")
    database.ask(f"DROP TABLE {table}")
    if count != site.lines:
        raise Failed(f"it loaded {count} rows of {site.lines} lines")
    return Sample(seconds, site.lines, cpu_seconds, process.usage.ru_maxrss * 1024)
