#!/usr/bin/env python3
"""A large scan, two aggregations and a join on 1, 2 and 3 workers of this machine, beside one process, in turn.

    python benches/cluster_query.py PIPELINE [LINES] [ROUNDS]

PIPELINE: the release binary. LINES: lines to generate and load (default 2000000). Each round asks every question of
each of the four once, each time in a process of its own. Prints the median seconds of wall time and their ratio to the
one process; the last line is JSON.

What it can show on a machine of few cores: what distribution costs (planning, plans and rows as bytes, shuffles over
TCP, a result that is held back), for all workers share the cores that one process has to itself. What it cannot show:
what more machines gain. Workers that have cores of their own take that cost off a smaller share of the work.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUESTIONS = {
    "scan": "SELECT count(*), sum(bytes_sent), max(src), max(dst) FROM firewall_logs WHERE bytes_sent % 7 < 6",
    "few groups": "SELECT action, proto, count(*), sum(bytes_sent) FROM firewall_logs GROUP BY action, proto",
    "many groups": "SELECT src, dst, dst_port, count(*) AS n, sum(bytes_sent) AS b FROM firewall_logs "
                   "GROUP BY src, dst, dst_port ORDER BY n DESC, b DESC, src, dst, dst_port LIMIT 20",
    "join": "SELECT f.dst_port, count(*) AS n FROM firewall_logs f JOIN "
            "(SELECT client_ip, count(*) AS q FROM dns_logs GROUP BY client_ip) d ON f.src = d.client_ip "
            "WHERE d.q > 2 GROUP BY f.dst_port ORDER BY n DESC, f.dst_port",
    "render": "SELECT log_type, count(*), max(raw_line) FROM logs GROUP BY log_type ORDER BY log_type",
}


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    program = str(Path(sys.argv[1]).resolve())
    lines = int(sys.argv[2]) if len(sys.argv) > 2 else 2_000_000
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    with tempfile.TemporaryDirectory() as folder:
        run = lambda *arguments: subprocess.run(
            [program, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
        run("generate", "--quiet", "--out", "logs", "--files", "10", "--lines", str(lines // 10))
        run("run", "--quiet", "logs")
        workers, addresses = [], []
        try:
            for _ in range(3):
                worker = subprocess.Popen([program, "query-worker", "--listen", "127.0.0.1:0"], cwd=folder,
                                          stderr=subprocess.PIPE, text=True)
                workers.append(worker)
                addresses.append(worker.stderr.readline().split()[-1])
            times = {name: [[], [], [], []] for name in QUESTIONS}
            for number in range(rounds + 1):
                for name, sql in QUESTIONS.items():
                    answers = set()
                    for count in range(4):
                        cluster = ["--cluster", ",".join(addresses[:count])] if count else []
                        started = time.perf_counter()
                        answer = run("query", "--output", "csv", *cluster, sql)
                        # the first round warms up
                        if number:
                            times[name][count].append(time.perf_counter() - started)
                        answers.add("\n".join(sorted(answer.splitlines())))
                    if len(answers) > 1:
                        sys.exit(f"{name}: the answers differ")
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait()
    medians = {name: [statistics.median(of_count) for of_count in of_name] for name, of_name in times.items()}
    print(f"{lines} lines, {rounds} rounds, {os.cpu_count()} cores for all processes together; seconds (and ratio)")
    print(f"{'':12}{'one process':>14}" + "".join(f"{f'{count} workers':>18}" for count in (1, 2, 3)))
    for name, (alone, *of_counts) in medians.items():
        cells = "".join(f"{seconds:>10.3f} ({seconds / alone:.2f})" for seconds in of_counts)
        print(f"{name:12}{alone:>14.3f}  {cells}")
    print(json.dumps({"lines": lines, "rounds": rounds, "cores": os.cpu_count(), "seconds": medians}))


if __name__ == "__main__":
    main()
