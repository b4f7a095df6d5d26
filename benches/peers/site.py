"""What all jobs share: the program, the data, the servers, and a folder that goes with them."""
import shutil
import signal
import tempfile
from functools import cached_property
from pathlib import Path

from .measure import peer, run
from .postgres import Database
from .servers import Servers

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = 5
SEED = 42
# the same job with so many times fewer lines, and more
FEWER = MORE = 10


def answer_signals(answer):
    """To Ctrl-C and to what ends a process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, answer)


class Site:
    """Made with the parsed arguments; what costs time is made when a job first asks for it."""

    def __init__(self, arguments):
        self.pipeline, self.decode_bench = Path(arguments.pipeline).resolve(), arguments.decode_bench
        self.lines, self.rounds = arguments.lines, arguments.rounds
        self.folder = Path(tempfile.mkdtemp(prefix="pipeline-peers-"))
        self.number = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        answer_signals(signal.SIG_IGN)
        if "database" in self.__dict__:
            self.database.close()
        if "servers" in self.__dict__:
            self.servers.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    @cached_property
    def logs(self):
        return self.generate("logs", self.lines)

    @cached_property
    def fewer_logs(self):
        return self.generate("fewer-logs", self.lines // FEWER)

    @cached_property
    def more_logs(self):
        return self.generate("more-logs", self.lines * MORE)

    @cached_property
    def servers(self):
        servers = Servers()
        try:
            servers.start()
        except BaseException:
            servers.remove()
            raise
        return servers

    @cached_property
    def database(self):
        return Database(self.servers.postgres)

    def server_versions(self):
        """Of those that a job has asked for."""
        if "database" not in self.__dict__:
            return {}
        redis = self.servers.redis_call("INFO server").split("redis_version:")[1].split()[0]
        return {"postgres": self.database.ask("SHOW server_version")[0], "redis": redis}

    @cached_property
    def archive(self):
        """What pipeline makes of the data."""
        folder = self.folder / "archive"
        run([self.pipeline, "run", self.logs, "--into", folder, "--quiet"])
        return folder

    @cached_property
    def duckdb_parquet(self):
        """What DuckDB makes of it."""
        folder = self.new_folder()
        peer("duckdb_peer", "parquet", self.logs, folder)
        return folder

    def generate(self, name, lines):
        folder = self.folder / name
        run([self.pipeline, "generate", "--out", folder, "--files", FILES, "--lines", lines // FILES, "--seed", SEED])
        return folder

    def new_folder(self):
        """An empty one; who makes it removes it, so that the disk need not hold all rounds."""
        self.number += 1
        folder = self.folder / f"out-{self.number}"
        folder.mkdir()
        return folder


def size_bytes(folder):
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
