"""A Redis and a Postgres of their own, by `scripts/services`, on free ports and in a folder that goes with them."""
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from .measure import Failed, tree_cpu_seconds

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts/services"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Servers:
    """Started and stopped as often as one likes; `remove` is the end of them."""

    def __init__(self):
        # not under target/: the servers run as another user, who may not reach it
        self.folder = Path(tempfile.mkdtemp(prefix="pipeline-servers-"))
        self.folder.chmod(0o755)
        self.redis_port, self.postgres_port = free_port(), free_port()
        self.redis = f"redis://127.0.0.1:{self.redis_port}"
        self.postgres = f"postgres://pipeline:pipeline@127.0.0.1:{self.postgres_port}/pipeline"

    def call(self, command, *flags):
        ports = {"PIPELINE_REDIS_PORT": str(self.redis_port), "PIPELINE_PG_PORT": str(self.postgres_port)}
        # in a session of its own, so that Ctrl-C leaves it to us to stop what it started
        ended = subprocess.run([SCRIPT, command, "--dir", self.folder / "services", *flags], capture_output=True,
                               text=True, env={**os.environ, **ports}, start_new_session=True)
        if ended.returncode:
            raise Failed(f"scripts/services {command}: {ended.stderr.strip() or ended.returncode}")

    def start(self):
        self.call("start")

    def stop(self):
        self.call("stop")

    def remove(self):
        self.call("stop", "--purge")
        shutil.rmtree(self.folder, ignore_errors=True)

    def cpu_seconds(self):
        """Of both servers and their sessions, since they started."""
        files = ("postgres/postmaster.pid", "redis/redis.pid")
        pids = ((self.folder / "services" / file).read_text().split()[0] for file in files)
        return sum(map(tree_cpu_seconds, pids))

    def redis_call(self, command):
        """The first piece of the answer to a command in line form."""
        with socket.create_connection(("127.0.0.1", self.redis_port)) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(1 << 16).decode()
