"""One psql session for questions, and psql clients that load. Needs psql and pg_dump of the server's version."""
import os
import subprocess
import time
from contextlib import ExitStack

from .measure import Failed, Process, run

PSQL = ["psql", "-Xq", "-v", "ON_ERROR_STOP=1"]
QUIET = {"PGOPTIONS": "-c client_min_messages=warning"}


class Database:
    """A session that is kept, so that a look costs no connection."""

    def __init__(self, url):
        self.url = url
        try:
            self.session = subprocess.Popen(
                [*PSQL, "-At", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                env={**os.environ, **QUIET}, process_group=0)
        except FileNotFoundError:
            raise Failed("psql is not installed; apt-get install postgresql-client") from None

    def ask(self, sql):
        """The answer's lines."""
        self.session.stdin.write(f"{sql};\n\\echo end\n")
        lines = []
        while (line := self.session.stdout.readline()) != "end\n":
            if line == "":
                raise Failed(f"psql ended at: {sql}")
            lines.append(line.rstrip("\n"))
        return lines

    def number(self, sql):
        return int(self.ask(sql)[0])

    def close(self):
        self.session.stdin.close()
        self.session.wait()

    def script(self, file):
        """Runs a file in a client of its own."""
        return run([*PSQL, "-f", file, self.url], **QUIET)

    def by_clients(self, files):
        """Runs each file in a client of its own, all at once: wall seconds until all have ended, and what each took."""
        started = time.perf_counter()
        with ExitStack() as stack:
            clients = [stack.enter_context(Process([*PSQL, "-f", file, self.url], **QUIET)) for file in files]
            ended = [client.finish() for client in clients]
        return time.perf_counter() - started, ended

    def drop(self, schema):
        """Table by table: all days of a long run are too many locks for one transaction."""
        for table in self.ask("SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n "
                              f"ON n.oid = relnamespace WHERE nspname = '{schema}' AND relkind IN ('r', 'p') "
                              "ORDER BY relispartition DESC"):
            self.ask(f"DROP TABLE {table} CASCADE")
        self.ask(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
