"""Batched Python, in processes of its own: a reader, Redis, and two processors that load by COPY.

    python -m peers.python_peer LOGS REDIS_URL POSTGRES_URL SCHEMA

5,000 lines in a message, compressed; a processor parses one, copies its rows into the three tables and commits.
"""
import io
import json
import multiprocessing
import resource
import sys
import time
import zlib
from itertools import islice
from pathlib import Path

import psycopg2
import redis

from .measure import Clock

LINES_PER_MESSAGE = 5_000
MOST_WAITING = 200
PROCESSORS = 2
LIST, END = "peers:lines", b""


def read(logs, redis_url):
    queue = redis.Redis.from_url(redis_url)
    for path in sorted(Path(logs).glob("*.log")):
        with path.open("rb") as file:
            while lines := list(islice(file, LINES_PER_MESSAGE)):
                while queue.llen(LIST) > MOST_WAITING:
                    time.sleep(0.01)
                queue.lpush(LIST, zlib.compress(b"".join(lines), 1))
    for _ in range(PROCESSORS):
        queue.lpush(LIST, END)


def rows(text):
    """The lines of each type in COPY's text form."""
    firewall, dns, auth = [], [], []
    for line in text.splitlines():
        if "|" in line:
            time_text, *pairs = line.split("|")
            firewall.append("\t".join([time_text, *(pair.split("=", 1)[1] for pair in pairs)]))
        elif " query: " in line:
            word = line.split(" ")
            dns.append("\t".join((word[0], word[2], word[4], word[6], word[8][1:-1], word[9])))
        else:
            word = line.split(" ")
            auth.append("\t".join((word[0], word[1], word[2][5:-2], word[3], word[4], word[6], word[8], word[10])))
    return {"firewall": firewall, "dns": dns, "auth": auth}


def process(redis_url, postgres_url, schema):
    queue, connection = redis.Redis.from_url(redis_url), psycopg2.connect(postgres_url)
    cursor = connection.cursor()
    while (message := queue.brpop(LIST)[1]) != END:
        for name, lines in rows(zlib.decompress(message).decode()).items():
            if lines:
                cursor.copy_expert(f"COPY {schema}.{name} FROM STDIN", io.StringIO("\n".join(lines) + "\n"))
        connection.commit()


def measured(peaks, work, *arguments):
    work(*arguments)
    peaks.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def load(logs, redis_url, postgres_url, schema):
    clock, peaks = Clock(), multiprocessing.SimpleQueue()
    work = [(read, logs, redis_url), *[(process, redis_url, postgres_url, schema)] * PROCESSORS]
    processes = [multiprocessing.Process(target=measured, args=(peaks, *job)) for job in work]
    for process_ in processes:
        process_.start()
    for process_ in processes:
        process_.join()
    if any(process_.exitcode for process_ in processes):
        sys.exit("one of the processes failed")
    return {**clock.figures(), "peak_bytes": sum(peaks.get() for _ in processes)}


if __name__ == "__main__":
    print(json.dumps(load(*sys.argv[1:])))
