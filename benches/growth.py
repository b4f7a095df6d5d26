#!/usr/bin/env python3
"""What more lines, more machines, bursts and failures do to throughput and queue age: a simulation of measured times.

    python3 benches/growth.py --check
    python3 benches/growth.py --measure [--pipeline target/release/pipeline] [--rounds 5]
    python3 benches/growth.py --validate [--pipeline ..] [--lines 1200000] [--workers 2] [--into postgres]
    python3 benches/growth.py --rate 100000 --minutes 10 --burst 4:2 --fail sink@120:60 [--fail processor@300] ..

--measure runs pipeline with private servers, stage by stage, and writes CPU seconds per chunk of each stage into
`data/growth/DATE.json`; the last file there is what the other modes reckon with. --validate runs reader and processor
together, with another number of lines and of workers, and prints what the simulation said beside what the clock
said: the times of that run are not used. --check holds the engine against formulas of queueing theory.

The simulation moves chunks one by one. Cores of a machine are shared evenly by what runs on them, at most one core
each. A reader reads one chunk at a time, and keeps at most --max-queue-bytes without a report; Redis runs commands on
one thread per stream, and holds at most --max-queue-bytes; a processor decodes --workers chunks at once and commits
groups of 65,536 lines over as many connections. Arrivals are even unless --poisson; the seed moves their phases and
the moments of failures, and the same seed gives the same figures. Not in it: disks and networks that are full,
memory, queries beside the load, and chunks that a slow source cuts early.
"""
import argparse
import heapq
import json
import os
import random
import sys
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "growth"
MIB = 1 << 20
# of src/transport/redis_streams, src/sink and src/stage: what is not a flag, and the defaults of what is
AHEAD_BYTES = 4 * MIB
GROUP_LINES, GROUP_SECONDS, GROUP_IDLE_SECONDS = 65_536, 0.25, 0.25 / 8
ARCHIVE_LINES, ARCHIVE_BYTES, ARCHIVE_SECONDS = 1 << 20, 64 * MIB, 10.0
IDLE_SECONDS = 2.0
TAKEOVER = 10.0
LOST_IS_SEEN = (1.0, 1.5)     # a reader looks for what is missing each second, between reads of half a second
SINK_RETRY = 5.0              # the longest pause between attempts to reach a sink
SINKS = ("postgres", "archive", "both")


class Clock:
    """Events in order of time; those of one moment in the order in which they were asked for."""

    def __init__(self):
        self.now, self.events, self.number = 0.0, [], 0

    def at(self, time, call, *arguments):
        self.number += 1
        heapq.heappush(self.events, (max(time, self.now), self.number, call, arguments))

    def after(self, seconds, call, *arguments):
        self.at(self.now + seconds, call, *arguments)

    def run(self, until=float("inf"), stop=None):
        while self.events and self.events[0][0] <= until and not (stop and stop()):
            self.now, _, call, arguments = heapq.heappop(self.events)
            call(*arguments)
        if until < float("inf") and not (stop and stop()):
            self.now = until


class Machine:
    """Cores that all running jobs share evenly. A job has demands in CPU seconds and runs on one core at most.

    All jobs run at one speed, so each is known by the point of a common clock of work at which it ends."""

    def __init__(self, clock, cores, name):
        self.clock, self.cores, self.name = clock, cores, name
        self.jobs, self.running, self.number, self.version = [], {}, 0, 0
        self.work, self.looked, self.used = 0.0, 0.0, 0.0

    def speed(self):
        count = len(self.running)
        return min(1.0, self.cores / count) if count else 0.0

    def advance(self):
        seconds, speed = self.clock.now - self.looked, self.speed()
        self.work += seconds * speed
        self.used += seconds * speed * len(self.running)
        self.looked = self.clock.now

    def start(self, demand, done, *arguments):
        self.advance()
        self.number += 1
        self.running[self.number] = (done, arguments)
        heapq.heappush(self.jobs, (self.work + demand, self.number))
        self.plan()
        return self.number

    def cancel(self, job):
        self.advance()
        self.running.pop(job, None)
        self.plan()

    def plan(self):
        self.version += 1
        while self.jobs and self.jobs[0][1] not in self.running:
            heapq.heappop(self.jobs)
        speed = self.speed()
        if self.jobs and speed:
            left = max(self.jobs[0][0] - self.work, 0.0)
            self.clock.after(left / speed, self.finish, self.version)

    def finish(self, version):
        if version != self.version:
            return
        self.advance()
        job = heapq.heappop(self.jobs)[1]
        done, arguments = self.running.pop(job)
        self.plan()
        done(*arguments)


class Database:
    """Work on a machine that stops and begins anew when the server was away: its transactions are rolled back."""

    def __init__(self, machine):
        self.machine, self.is_down, self.number, self.jobs = machine, False, 0, {}

    def start(self, demand, done, *arguments):
        self.number += 1
        number = self.number

        def ended():
            del self.jobs[number]
            done(*arguments)

        self.jobs[number] = [demand, ended, None if self.is_down else self.machine.start(demand, ended)]
        return number

    def cancel(self, number):
        job = self.jobs.pop(number, None)
        if job and job[2] is not None:
            self.machine.cancel(job[2])

    def set_down(self, is_down):
        self.is_down = is_down
        for job in self.jobs.values():
            if is_down:
                self.machine.cancel(job[2])
            job[2] = None if is_down else self.machine.start(job[0], job[1])


class Threads:
    """So many jobs of one kind at once on a machine; the others wait in the order they came."""

    def __init__(self, machine, count, name):
        self.machine, self.count, self.name = machine, count, name
        self.waiting, self.jobs, self.busy_seconds, self.looked = deque(), set(), 0.0, 0.0

    def look(self):
        now = self.machine.clock.now
        self.busy_seconds += (now - self.looked) * len(self.jobs)
        self.looked = now

    def is_free(self):
        return len(self.jobs) < self.count

    def submit(self, demand, done, *arguments):
        if not self.is_free():
            self.waiting.append((demand, done, arguments))
            return
        self.look()
        slot = []
        job = self.machine.start(demand, self.ended, slot, done, arguments)
        slot.append(job)
        self.jobs.add(job)

    def ended(self, slot, done, arguments):
        self.look()
        self.jobs.discard(slot[0])
        if self.waiting:
            demand, next_done, next_arguments = self.waiting.popleft()
            self.submit(demand, next_done, *next_arguments)
        done(*arguments)

    def clear(self):
        self.look()
        for job in self.jobs:
            self.machine.cancel(job)
        self.jobs.clear()
        self.waiting.clear()


class Chunk:
    __slots__ = ("came", "reader", "shipped", "epoch", "is_committed", "owner")

    def __init__(self, came, reader):
        self.came, self.reader, self.shipped, self.epoch = came, reader, None, 0
        self.is_committed, self.owner = False, None


class Stream:
    """One stream of Redis: bounded in bytes, what is taken and not acknowledged included."""

    def __init__(self, world, number, machine):
        self.world, self.epoch = world, 0
        self.thread = Threads(machine, 1, f"Redis {number + 1}: its one thread")
        self.ready, self.entries, self.bytes, self.max_bytes_seen = deque(), deque(), 0, 0
        self.readers_waiting, self.processors = deque(), []

    def oldest(self):
        while self.entries and (self.entries[0][0].is_committed or self.entries[0][1] != self.epoch):
            self.entries.popleft()
        return self.world.clock.now - self.entries[0][0].shipped if self.entries else 0.0

    def reserve(self, reader):
        size = self.world.chunk_bytes
        if self.bytes + size > self.world.options.max_queue_bytes and self.bytes:
            self.readers_waiting.append(reader)
            return False
        self.bytes += size
        self.max_bytes_seen = max(self.max_bytes_seen, self.bytes)
        return True

    def add(self, chunk):
        chunk.shipped, chunk.epoch = self.world.clock.now, self.epoch
        self.ready.append(chunk)
        self.entries.append((chunk, self.epoch))
        self.offer()

    def offer(self):
        """To whoever has room, in turn."""
        for processor in list(self.processors):
            if not self.ready:
                return
            processor.take()
        if self.processors:
            self.processors.append(self.processors.pop(0))

    def acknowledge(self, chunk):
        if chunk.epoch == self.epoch:
            self.bytes -= self.world.chunk_bytes
            if self.readers_waiting:
                self.readers_waiting.popleft().ship()

    def flush(self):
        """Everything is gone. What processors have taken they commit all the same."""
        self.epoch += 1
        lost = [chunk for chunk, epoch in self.entries if epoch == self.epoch - 1 and not chunk.is_committed]
        self.ready.clear()
        self.entries.clear()
        self.bytes = 0
        waiting, self.readers_waiting = list(self.readers_waiting), deque()
        for chunk in lost:
            chunk.reader.lost.append(chunk)
        for reader in {chunk.reader for chunk in lost}:
            self.world.clock.after(self.world.random.uniform(*LOST_IS_SEEN), reader.reship)
        for reader in waiting:
            reader.ship()


class Reader:
    def __init__(self, world, number, stream, machine):
        self.world, self.stream = world, stream
        self.thread = Threads(machine, 1, f"reader {number + 1}: its one thread")
        self.backlog, self.to_ship, self.lost = deque(), deque(), []
        self.unreported, self.is_shipping = 0, False

    def arrive(self, chunk):
        self.backlog.append(chunk)
        self.read()

    def read(self):
        size = self.world.chunk_bytes
        has_room = not self.unreported or self.unreported + size <= self.world.options.max_queue_bytes
        if self.backlog and self.thread.is_free() and has_room:
            self.unreported += size
            self.thread.submit(self.world.draw(self.world.seconds["read"]), self.has_read, self.backlog.popleft())

    def has_read(self, chunk):
        self.to_ship.append(chunk)
        self.read()
        if not self.is_shipping:
            self.ship()

    def ship(self):
        """In order, one at a time, when there is room."""
        while self.to_ship and self.to_ship[0].is_committed:
            self.to_ship.popleft()
        self.is_shipping = bool(self.to_ship)
        if self.is_shipping and self.stream.reserve(self):
            epoch = self.stream.epoch
            self.stream.thread.submit(self.world.seconds["redis_in"], self.shipped, self.to_ship.popleft(), epoch)

    def shipped(self, chunk, epoch):
        if epoch != self.stream.epoch:
            # it came too late to be lost, and is there; its room was forgotten
            self.stream.bytes += self.world.chunk_bytes
        if chunk.is_committed:
            self.stream.bytes -= self.world.chunk_bytes
        else:
            self.stream.add(chunk)
        self.is_shipping = False
        self.ship()

    def reship(self):
        again = [chunk for chunk in self.lost if not chunk.is_committed]
        self.lost.clear()
        self.world.reshipped += len(again)
        self.to_ship.extendleft(reversed(again))
        if not self.is_shipping:
            self.ship()

    def reported(self):
        self.unreported -= self.world.chunk_bytes
        self.read()


class Processor:
    def __init__(self, world, number, stream, machine, database):
        self.world, self.stream, self.database = world, stream, database
        options = world.options
        self.decoders = Threads(machine, options.workers, f"processor {number + 1}: --workers")
        self.encoders = Threads(machine, 3, f"processor {number + 1}: the archive's threads")
        self.connections, self.is_alive, self.life = options.workers, True, 0
        self.commits, self.connection_seconds = set(), 0.0
        self.fresh()

    def fresh(self):
        self.ahead, self.fetching, self.inbox, self.held = 0, 0, deque(), {}
        self.group, self.opened, self.due, self.is_blocked, self.committing = [], None, None, False, 0
        self.pending, self.encoding, self.pending_since, self.is_putting = [], 0, None, False
        self.touched, self.is_watched = 0.0, False

    # Redis -> inbox
    def take(self):
        while self.is_alive and self.stream.ready and self.ahead < AHEAD_BYTES:
            chunk = self.stream.ready.popleft()
            if chunk.is_committed or chunk.epoch != self.stream.epoch:
                continue
            chunk.owner = (self, self.life)
            self.ahead += self.world.chunk_bytes
            self.stream.thread.submit(self.world.seconds["redis_out"], self.receive, chunk, self.life)

    def receive(self, chunk, life):
        if life != self.life:
            return
        if chunk in self.held or chunk.is_committed:
            # it came again, and is committed or about to be
            self.ahead -= self.world.chunk_bytes
            return self.take()
        self.held[chunk] = set()
        self.inbox.append(chunk)
        self.step()

    # inbox -> decoding
    def step(self):
        share = self.world.options.max_queue_bytes / 2 / max(1, sum(p.is_alive for p in self.stream.processors))
        in_flight = len(self.held) - len(self.inbox)
        while self.inbox and self.decoders.is_free() and not self.is_blocked and not self.is_putting:
            if in_flight * self.world.chunk_bytes >= max(share, 1):
                # no room: what is open is committed now
                if not self.decoders.jobs:
                    self.close_group()
                    self.put()
                break
            in_flight += 1
            chunk = self.inbox.popleft()
            self.ahead -= self.world.chunk_bytes
            demand = self.world.draw(self.world.seconds["process"])
            self.decoders.submit(demand, self.decoded, chunk, self.life)
        self.take()

    def decoded(self, chunk, life):
        if life != self.life:
            return
        clock = self.world.clock
        self.touched = clock.now
        if not self.is_watched:
            self.is_watched = True
            clock.after(IDLE_SECONDS, self.is_idle, life)
        if self.world.to_postgres:
            self.group.append(chunk)
            self.opened = clock.now if self.opened is None else self.opened
            self.due = min(self.opened + GROUP_SECONDS, clock.now + GROUP_IDLE_SECONDS)
            clock.at(self.due, self.group_is_due, self.due, self.life)
            if len(self.group) * self.world.chunk_lines >= GROUP_LINES:
                self.close_group()
        if self.world.to_archive:
            self.pending.append(chunk)
            self.encoding += 1
            if self.pending_since is None:
                self.pending_since = clock.now
                clock.after(ARCHIVE_SECONDS, self.archive_is_due, clock.now, self.life)
            self.encoders.submit(self.world.seconds["archive"], self.encoded, self.life)
            lines, size = len(self.pending) * self.world.chunk_lines, len(self.pending) * self.world.chunk_bytes
            if lines >= ARCHIVE_LINES or size >= ARCHIVE_BYTES:
                self.put()
        self.step()

    def is_idle(self, life):
        """What has arrived is committed when nothing more arrives."""
        if life != self.life:
            return
        left = self.touched + IDLE_SECONDS - self.world.clock.now
        if left > 1e-9:
            self.world.clock.after(left, self.is_idle, life)
        else:
            self.is_watched = False
            self.close_group()
            self.put()

    # to Postgres
    def group_is_due(self, due, life):
        if life == self.life and due == self.due:
            self.close_group()

    def close_group(self):
        if not self.group:
            return
        if self.committing >= self.connections:
            # the loop waits for a connection, and takes nothing meanwhile
            self.is_blocked = True
            return
        chunks, self.group, self.opened, self.due, self.is_blocked = self.group, [], None, None, False
        self.committing += 1
        demand = len(chunks) * self.world.seconds["postgres"]
        began, slot = self.world.clock.now, []
        slot.append(self.database.start(demand, self.copied, chunks, self.life, began, slot))
        self.commits.add(slot[0])

    def copied(self, chunks, life, began, slot):
        self.commits.discard(slot[0])
        self.world.clock.after(self.world.seconds["commit"], self.committed, chunks, life, began)

    def committed(self, chunks, life, began):
        if life != self.life:
            return
        self.connection_seconds += self.world.clock.now - began
        self.committing -= 1
        self.has(chunks, "postgres")
        if self.world.seconds["index"]:
            self.database.start(len(chunks) * self.world.seconds["index"], lambda: None)
        if self.is_blocked:
            self.close_group()
        self.step()

    # to the archive
    def archive_is_due(self, since, life):
        if life == self.life and since == self.pending_since:
            self.put()

    def encoded(self, life):
        if life == self.life:
            self.encoding -= 1
            if self.is_putting and not self.encoding:
                self.world.clock.after(self.world.seconds["put"], self.has_put, self.life)

    def put(self):
        if self.pending and not self.is_putting:
            self.is_putting = True
            if not self.encoding:
                self.world.clock.after(self.world.seconds["put"], self.has_put, self.life)

    def has_put(self, life):
        if life != self.life:
            return
        chunks, self.pending, self.pending_since, self.is_putting = self.pending, [], None, False
        self.has(chunks, "archive")
        self.step()

    def has(self, chunks, sink):
        for chunk in chunks:
            self.held[chunk].add(sink)
            if len(self.held[chunk]) == self.world.to_postgres + self.world.to_archive:
                del self.held[chunk]
                self.world.commit(chunk, self.stream)

    # death
    def die(self):
        """Its chunks wait until they count as left: not touched for the lease, and then somebody has to look."""
        self.is_alive, self.life = False, self.life + 1
        self.decoders.clear()
        self.encoders.clear()
        for job in sorted(self.commits):
            self.database.cancel(job)
        self.commits.clear()
        takeover = self.world.options.takeover
        silent = takeover - self.world.random.uniform(0, takeover / 3) + self.world.random.uniform(0, takeover / 5)
        left = [chunk for chunk, _ in self.stream.entries
                if chunk.owner and chunk.owner[0] is self and not chunk.is_committed]
        self.world.clock.after(silent, self.taken_over, left)
        self.fresh()

    def taken_over(self, chunks):
        again = [chunk for chunk in chunks if not chunk.is_committed and chunk.epoch == self.stream.epoch]
        self.world.taken_over += len(again)
        self.stream.ready.extendleft(reversed(again))
        self.stream.offer()

    def restart(self):
        self.is_alive = True
        self.take()


class World:
    def __init__(self, options, seconds, chunk_bytes, chunk_lines):
        self.options, self.seconds = options, seconds
        self.chunk_bytes, self.chunk_lines = chunk_bytes, chunk_lines
        self.to_postgres, self.to_archive = options.into != "archive", options.into != "postgres"
        self.random, self.clock = random.Random(options.seed), Clock()
        self.came = self.committed = self.reshipped = self.taken_over = 0
        self.delays, self.ages, self.last_commit = [], [], 0.0
        shared = None if options.apart else Machine(self.clock, options.cores, "the machine's cores")

        def machines(count, cores, name):
            return [shared or Machine(self.clock, cores, f"{name} {n + 1}: cores") for n in range(count)]

        self.databases = [Database(m) for m in machines(options.databases, options.database_cores, "Postgres")]
        streams = machines(options.streams, 2, "Redis")
        self.streams = [Stream(self, n, machine) for n, machine in enumerate(streams)]
        self.readers = [Reader(self, n, self.streams[n % options.streams], machine)
                        for n, machine in enumerate(machines(options.readers, options.cores, "reader"))]
        self.processors = []
        for number, machine in enumerate(machines(options.processors, options.cores, "processor")):
            stream = number % options.streams
            database = self.databases[stream % options.databases]
            processor = Processor(self, number, self.streams[stream], machine, database)
            self.streams[stream].processors.append(processor)
            self.processors.append(processor)
        parts = [*self.readers, *self.processors]
        used = [shared] if shared else [part.thread.machine if isinstance(part, Reader) else part.decoders.machine
                                        for part in parts] + [database.machine for database in self.databases]
        self.machines = list(dict.fromkeys(used))

    def draw(self, mean):
        return self.random.expovariate(1 / mean) if self.options.exponential and mean else mean

    def rate(self, time):
        rate = self.options.rate
        for start, end, factor in self.options.bursts:
            rate *= factor if start <= time < end else 1
        return rate

    def arrivals(self, reader, until):
        """Chunks of one reader as they are full; the first at a random part of its time."""
        def next_one(progress):
            chunks_per_second = self.rate(self.clock.now) / self.chunk_lines / len(self.readers)
            wanted = self.random.expovariate(1) if self.options.poisson else progress
            seconds = wanted / chunks_per_second
            edges = [edge for burst in self.options.bursts for edge in burst[:2] if edge > self.clock.now]
            edge = min(edges, default=float("inf"))
            if self.clock.now + seconds > edge:
                # the rate changes before it is full
                left = wanted - (edge - self.clock.now) * chunks_per_second
                return self.clock.at(edge, next_one, left)
            self.clock.after(seconds, come)

        def come():
            if self.clock.now <= until:
                self.came += 1
                reader.arrive(Chunk(self.clock.now, reader))
                next_one(1.0)

        next_one(self.random.random())

    def commit(self, chunk, stream):
        if chunk.is_committed:
            return
        chunk.is_committed = True
        self.committed += 1
        self.last_commit = self.clock.now
        self.delays.append((self.clock.now, self.clock.now - chunk.came))
        stream.acknowledge(chunk)
        chunk.reader.reported()

    def fail(self, failure):
        what, at, seconds = failure
        if what == "processor":
            victim = self.processors[self.random.randrange(len(self.processors))]
            self.clock.at(at, victim.die)
            if seconds:
                self.clock.at(at + seconds, victim.restart)
        elif what == "sink":
            for database in self.databases:
                self.clock.at(at, database.set_down, True)
                # whoever waited longest for it comes back this late
                self.clock.at(at + seconds + self.random.uniform(0, SINK_RETRY), database.set_down, False)
        else:
            for stream in self.streams:
                self.clock.at(at, stream.flush)

    def sample(self, every, until):
        """As a metric is read: the age of the oldest chunk in any stream, and of the oldest that waits in a file."""
        waits = [self.clock.now - queue[0].came for reader in self.readers
                 for queue in (reader.backlog, reader.to_ship) if queue]
        age = max(stream.oldest() for stream in self.streams)
        self.ages.append((self.clock.now, age, max([age, *waits]), self.came - self.committed))
        if self.clock.now + every <= until:
            self.clock.after(every, self.sample, every, until)

    def load(self, chunks):
        """All of it lies there, in even parts for the readers; returns the seconds until it is committed."""
        for number in range(chunks):
            reader = self.readers[number % len(self.readers)]
            self.came += 1
            reader.backlog.append(Chunk(0.0, reader))
        for reader in self.readers:
            reader.read()
        self.clock.run(stop=lambda: self.committed == self.came)
        return self.last_commit

    def flow(self, seconds):
        for reader in self.readers:
            self.arrivals(reader, seconds)
        for failure in self.options.fail:
            self.fail(failure)
        self.sample(0.1, seconds)
        self.clock.run(until=seconds)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def utilisation(world):
    """Share of the time that each resource was busy, the busiest of each kind first."""
    now, found = world.clock.now, []
    for machine in world.machines:
        machine.advance()
        found.append((machine.used / now / machine.cores, machine.name))
    for threads in [s.thread for s in world.streams] + [r.thread for r in world.readers]:
        threads.look()
        found.append((threads.busy_seconds / now, threads.name))
    for processor in world.processors:
        processor.decoders.look()
        found.append((processor.decoders.busy_seconds / now / processor.decoders.count, processor.decoders.name))
        share = processor.connection_seconds / now / processor.connections
        found.append((share, processor.decoders.name.replace("--workers", "its connections")))
    kinds = {}
    for share, name in sorted(found, reverse=True):
        kind = "".join(c for c in name if not c.isdigit())
        kinds.setdefault(kind, (share, name))
    return sorted(kinds.values(), reverse=True)


def capacity(options, seconds, chunk_lines):
    """Lines a second at which each resource is full, the least first; by division, without queues."""
    s, workers = seconds, options.workers
    process = s["process"] + (s["archive"] if options.into != "postgres" else 0)
    database = s["postgres"] + s["index"] if options.into != "archive" else 0
    group = max(1, -(-GROUP_LINES // chunk_lines))
    chunks = {
        "reader threads": options.readers / s["read"],
        "Redis threads": options.streams / (s["redis_in"] + s["redis_out"]),
        "processors' --workers": options.processors * workers / s["process"],
    }
    if options.into != "archive":
        chunks["connections"] = options.processors * workers * group / (group * s["postgres"] + s["commit"])
    if options.apart:
        chunks["processors' cores"] = options.processors * options.cores / process
        if database:
            chunks["Postgres' cores"] = options.databases * options.database_cores / database
    else:
        chunks["the machine's cores"] = options.cores / (
            s["read"] + s["redis_in"] + s["redis_out"] + process + database)
    return sorted((rate * chunk_lines, name) for name, rate in chunks.items())


def recovery(world, options):
    """Seconds from the end of the last burst or failure until the oldest line is as young as before the first."""
    starts = [burst[0] for burst in options.bursts] + [failure[1] for failure in options.fail]
    ends = [burst[1] for burst in options.bursts] + [failure[1] + failure[2] for failure in options.fail]
    if not starts:
        return None
    quiet = percentile([age for at, _, age, _ in world.ages if at < min(starts)], 0.99)
    late = [at for at, _, age, _ in world.ages if at >= max(ends) and age > max(2 * quiet, 0.5)]
    if late and late[-1] >= world.ages[-1][0] - 0.2:
        return float("inf")
    return late[-1] - max(ends) if late else 0.0


# --- what was measured

def service_times(path):
    files = sorted(FOLDER.glob("*.json"))
    path = Path(path) if path else files[-1] if files else sys.exit(f"no measured times in {FOLDER}; --measure first")
    return path, json.loads(path.read_text())


def chosen(measured, options):
    """Seconds per chunk for these sinks and leaves."""
    of = measured["seconds_per_chunk"]
    seconds = {name: of[name] for name in ("read", "redis_in", "redis_out", "commit", "put")}
    seconds["archive"] = of["archive"] if options.into != "postgres" else 0.0
    seconds["process"] = of["decode_only"] if options.into == "archive" else of["process"]
    is_live = options.leaves == "indexed"
    seconds["postgres"] = 0.0 if options.into == "archive" else of["postgres_indexed" if is_live else "postgres"]
    seconds["index"] = 0.0
    return seconds


# --- the engine against formulas

def check():
    failures = []

    def expect(name, found, wanted, tolerance):
        is_right = abs(found - wanted) <= tolerance * abs(wanted)
        print(f"{'ok ' if is_right else 'BAD'} {name}: {found:.6g}, by the formula {wanted:.6g} (within {tolerance:.0%})")
        if not is_right:
            failures.append(name)

    def options(**changes):
        parsed = parser().parse_args([])
        parsed.bursts, parsed.fail = [], []
        for name, value in {**dict(apart=True, poisson=True, max_queue_bytes=1 << 60), **changes}.items():
            setattr(parsed, name, value)
        return parsed

    zero = dict(read=0.0, redis_in=0.0, redis_out=0.0, process=0.0, postgres=0.0, archive=0.0, index=0.0, commit=0.0,
                put=0.0)
    load, service, chunks = 0.7, 0.01, 120_000
    # lines that no group waits for: each chunk is a group
    per_chunk = GROUP_LINES
    rate = load / service * per_chunk
    seconds = chunks * service / load
    for name, exponential, wanted in (("M/D/1", False, load * service / (2 * (1 - load))),
                                      ("M/M/1", True, load * service / (1 - load))):
        for stage in ("read", "process"):
            changes = dict(workers=1) if stage == "process" else {}
            world = World(options(rate=rate, exponential=exponential, seed=7, **changes), {**zero, stage: service},
                          MIB, per_chunk)
            world.flow(seconds)
            waits = [delay for _, delay in world.delays]
            # random times of service need more chunks for the same noise
            expect(f"{name}, {stage}, mean wait", sum(waits) / len(waits) - service, wanted, 0.06 if exponential else 0.03)
    # all that reads, decodes and stores on one core is a queue with shared service: the mean does not depend on
    # how the times are distributed
    parts = dict(read=0.002, process=0.003, postgres=0.005)
    world = World(options(rate=rate, apart=False, cores=1, readers=1, seed=3), {**zero, "postgres": service}, MIB, per_chunk)
    world.options.workers = 10 ** 6
    for processor in world.processors:
        processor.connections = 10 ** 6
    world.flow(seconds)
    waits = [delay for _, delay in world.delays]
    expect("shared core, mean time there", sum(waits) / len(waits), service / (1 - load), 0.03)
    # work is kept: a load that no stage limits takes all cores
    world = World(options(apart=False, cores=2, workers=8, poisson=False), {**zero, **parts}, MIB, per_chunk)
    world.options.readers = 1
    expect("two full cores, seconds", world.load(20_000), 20_000 * sum(parts.values()) / 2, 0.01)
    # a bounded queue blocks, and loses nothing
    world = World(options(apart=True, workers=1, poisson=False, max_queue_bytes=8 * MIB), {**zero, "process": service},
                  MIB, per_chunk)
    expect("a bounded queue, seconds", world.load(5_000), 5_000 * service, 0.01)
    most = world.streams[0].max_bytes_seen
    expect("a bounded queue, most bytes", most, 8 * MIB, 0.0)
    # failures: what came is committed, once, however often it was shipped
    failing = options(rate=rate / 2, poisson=False, processors=3, workers=1, seed=11, max_queue_bytes=64 * MIB)
    failing.fail = [("processor", 20.0, 5.0), ("sink", 60.0, 30.0), ("redis", 70.0, 0.0), ("processor", 150.0, 0.0)]
    times = {**zero, "read": 0.001, "process": 0.02, "postgres": 0.02}
    runs = []
    for _ in range(2):
        world = World(failing, times, MIB, per_chunk)
        world.flow(300.0)
        came = world.came
        world.clock.run(until=400.0)
        expect("failures, chunks committed", world.committed, world.came, 0.0)
        runs.append((came, world.last_commit, tuple(world.delays)))
    expect("the same seed, the same figures", float(runs[0] == runs[1]), 1.0, 0.0)
    expect("failures, some chunks taken over, some shipped again", float(min(world.taken_over, world.reshipped) > 0), 1.0, 0.0)
    # Little's law on a run with everything in it: mean number there = rate times mean time
    world = World(options(rate=rate / 2, processors=2, workers=2, seed=5), times, MIB, per_chunk)
    world.flow(2_000.0)
    delays = [delay for _, delay in world.delays]
    numbers = [number for *_, number in world.ages]
    wanted = world.committed / 2_000.0 * sum(delays) / len(delays)
    expect("Little's law, mean number", sum(numbers) / len(numbers), wanted, 0.02)
    print("failed: " + ", ".join(failures) if failures else "all as they must be")
    return 1 if failures else 0


def simulate(options, measured):
    seconds = chosen(measured, options)
    world = World(options, seconds, measured["chunk_bytes"], measured["lines_per_chunk"])
    world.flow(options.minutes * 60)
    return world, seconds


def report(options, measured, path):
    world, seconds = simulate(options, measured)
    lines = measured["lines_per_chunk"]
    ages, delays = [age for _, age, _, _ in world.ages], [delay for _, delay in world.delays]
    freshness = [age for _, _, age, _ in world.ages]
    duration = options.minutes * 60
    back = recovery(world, options)
    where = "on machines of their own" if options.apart else "on one machine"
    print(f"seed {options.seed}; times of {path.name}; {options.readers} readers, {options.streams} streams, "
          f"{options.processors} processors, {options.databases} databases {where}; into {options.into}")
    print(f"{'came':34}{world.came * lines / duration:14,.0f} lines/s")
    print(f"{'committed':34}{world.committed * lines / duration:14,.0f} lines/s")
    for name, values in (("age of the oldest in the stream", ages), ("age of the oldest not committed", freshness),
                         ("from full chunk to commit", delays)):
        print(f"{name:34}{percentile(values, .5):10.2f} s p50{percentile(values, .99):10.2f} s p99"
              f"{max(values, default=0):10.2f} s max")
    if back is not None:
        text = "not within this time" if back == float("inf") else f"{back:.1f} s after the last of it"
        print(f"{'as young as before':34}{text}; {world.taken_over} chunks taken over, {world.reshipped} shipped again")
    print("\nbusy, the most first")
    for share, name in utilisation(world)[:6]:
        print(f"  {share:7.1%}  {name}")
    print("\nfull at, the first first (by division)")
    for rate, name in capacity(options, seconds, lines):
        print(f"  {rate:14,.0f} lines/s  {name}")


def size(text):
    for unit, factor in (("GiB", 1 << 30), ("MiB", MIB), ("KiB", 1 << 10)):
        if text.endswith(unit):
            return int(float(text[:-3]) * factor)
    return int(text)


def parser():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=__doc__.split("\n\n", 1)[1],
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("check", "measure", "validate"):
        options.add_argument(f"--{flag}", action="store_true")
    options.add_argument("--pipeline", default="target/release/pipeline", help="the release binary")
    options.add_argument("--lines", type=int, help="lines to measure or validate with")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--times", help="a file of measured times [the last of data/growth]")
    options.add_argument("--out", help="where --measure writes [data/growth/DATE.json]")
    options.add_argument("--rate", type=float, default=100_000, help="lines a second, all readers together")
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--burst", action="append", default=[], metavar="X:MINUTES[@SECOND]",
                         help="X times the rate for so long, from a fifth of the time on")
    options.add_argument("--fail", action="append", default=[], metavar="WHAT@SECOND[:SECONDS]",
                         help="processor (dies; is back after SECONDS), sink (Postgres is away so long), redis (is emptied)")
    for flag, value in (("readers", 1), ("processors", 1), ("streams", 1), ("databases", 1)):
        options.add_argument(f"--{flag}", type=int, default=value)
    options.add_argument("--workers", type=int, default=2, help="of each processor")
    options.add_argument("--cores", type=float, default=2, help="of each machine")
    options.add_argument("--database-cores", type=float, default=2)
    options.add_argument("--apart", action="store_true", help="every reader, Redis, processor, database has a machine")
    options.add_argument("--into", choices=SINKS, default="postgres")
    options.add_argument("--leaves", choices=("bare", "indexed"), default="indexed",
                         help="days that are new, or whose indexes are there")
    options.add_argument("--max-queue-bytes", type=size, default=64 * MIB)
    options.add_argument("--takeover", type=float, default=TAKEOVER)
    options.add_argument("--poisson", action="store_true", help="chunks come at random")
    options.add_argument("--exponential", action="store_true", help="times of reading and decoding are random")
    options.add_argument("--seed", type=int, default=42)
    return options


def parse_failure(text):
    what, _, when = text.partition("@")
    at, _, seconds = when.partition(":")
    if what not in ("processor", "sink", "redis"):
        sys.exit(f"--fail {text}: processor, sink or redis")
    return what, float(at), float(seconds or 0)


def main():
    options = parser().parse_args()
    bursts = []
    for text in options.burst:
        burst, _, start = text.partition("@")
        factor, _, minutes = burst.partition(":")
        start = float(start) if start else options.minutes * 60 / 5
        bursts.append((start, start + float(minutes) * 60, float(factor)))
    options.bursts, options.fail = bursts, [parse_failure(text) for text in options.fail]
    if options.check:
        return check()
    if options.measure or options.validate:
        sys.path.insert(0, os.fspath(Path(__file__).resolve().parent))
        import growth_measure
        if options.measure:
            return growth_measure.measure(options, FOLDER)
        return growth_measure.validate(options, *service_times(options.times), World, chosen)
    path, measured = service_times(options.times)
    report(options, measured, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
