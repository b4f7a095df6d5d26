#!/usr/bin/env python3
"""Where a command's memory is at its peak, by the component that allocated it.

    python3 benches/memory.py target/release/pipeline run data/logs --into /tmp/archive --quiet

Wants heaptrack (Debian: heaptrack). An allocation belongs to the innermost function of `pipeline::` that led to it: an
Arrow buffer to the decoder that filled it, wherever it waits now. What is beside the heap is the program itself, the
stacks, and what the allocator keeps: the difference of the two sums. heaptrack itself adds to the resident memory.
"""
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

FRAME = re.compile(r"pipeline::([a-z_0-9]+)(?:::([a-z_0-9]+))?")
MIB = 1 << 20


def component(stack):
    for frame in reversed(stack.split(";")):
        found = FRAME.search(frame)
        if found:
            module, part = found.groups()
            return f"{module}::{part}" if part else module
    return "libraries, by threads of their own"


def main():
    command = sys.argv[1:]
    if not command:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        record, stacks = Path(folder, "record"), Path(folder, "stacks")
        subprocess.run(["heaptrack", "-o", record, *command], check=True, stdout=subprocess.DEVNULL)
        recorded = next(Path(folder).glob("record*"))
        printed = subprocess.run(
            ["heaptrack_print", "-f", recorded, "-p0", "-a0", "-T0", "-l0", "-F", stacks, "--flamegraph-cost-type", "peak"],
            check=True, capture_output=True, text=True).stdout
        totals = Counter()
        for line in stacks.read_text().splitlines():
            stack, _, size = line.rpartition(" ")
            totals[component(stack)] += int(size)
    for name, size in totals.most_common():
        if size >= MIB / 10:
            print(f"{size / MIB:8.1f} MiB  {name}")
    print(f"{sum(totals.values()) / MIB:8.1f} MiB  heap at its peak")
    print(next(line for line in printed.splitlines() if line.startswith("peak RSS")))


if __name__ == "__main__":
    main()
