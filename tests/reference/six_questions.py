#!/usr/bin/env python3
"""Answers the six analyst questions from raw text logs, with nothing but the standard library.

    six_questions.py 1..6 PATH..      PATH: a log file, or a folder of *.log files

Prints what `pipeline query -f sql/queries/N_*.sql --output csv` prints over the same lines, byte for byte.
It shares no code with the pipeline: what the two agree on, neither made up.
"""
import csv
import re
import sys
from collections import Counter
from pathlib import Path

FIREWALL = re.compile(
    r"(?P<timestamp>[^|]+)\|action=(?P<action>[^|]*)\|src=(?P<src>[^|]*)\|dst=(?P<dst>[^|]*)\|proto=(?P<proto>[^|]*)"
    r"\|src_port=(?P<src_port>\d+)\|dst_port=(?P<dst_port>\d+)\|bytes_sent=(?P<bytes_sent>\d+)\|rule=(?P<rule>.*)"
)
DNS = re.compile(
    r"(?P<timestamp>\S+) client (?P<client_ip>\S+) query: (?P<query_domain>\S+) IN (?P<query_type>\S+) \+ "
    r"\((?P<server_ip>\S+)\) (?P<response_code>\S+)"
)
AUTH = re.compile(
    r"(?P<timestamp>\S+) (?P<hostname>\S+) sshd\[(?P<pid>\d+)\]: (?P<status>\S+) (?P<auth_method>\S+) "
    r"for (?P<username>.+) from (?P<source_ip>\S+) port (?P<source_port>\d+) ssh2"
)
TYPES = {"firewall": FIREWALL, "dns": DNS, "auth": AUTH}
NUMBERS = {"src_port", "dst_port", "bytes_sent", "pid", "source_port"}


def rows(paths):
    for path in paths:
        path = Path(path)
        for file in sorted(path.glob("*.log")) if path.is_dir() else [path]:
            with open(file, encoding="utf-8", newline="\n") as lines:
                for line in lines:
                    for log_type, pattern in TYPES.items():
                        found = pattern.fullmatch(line.rstrip("\n"))
                        if found:
                            row = found.groupdict()
                            row.update((key, int(row[key])) for key in NUMBERS & row.keys())
                            yield log_type, row
                            break


def when(timestamp):
    """The line's own text; a fraction of zero is not printed."""
    return timestamp.replace(".000Z", "Z")


def selected(paths, log_type, matches, columns, order):
    found = [row for kind, row in rows(paths) if kind == log_type and matches(row)]
    found.sort(key=lambda row: [row[column] for column in order])
    return columns, [[when(row[c]) if c == "timestamp" else row[c] for c in columns] for row in found]


def host_window(paths):
    def matches(row):
        in_window = "2024-01-15T05:00:00" <= row["timestamp"] < "2024-01-15T06:00:00"
        return in_window and "192.168.1.42" in (row["src"], row["dst"])

    columns = ["timestamp", "action", "src", "dst", "proto", "src_port", "dst_port", "bytes_sent", "rule"]
    order = ["timestamp", "src", "dst", "src_port", "dst_port", "bytes_sent"]
    return selected(paths, "firewall", matches, columns, order)


def dns_domain(paths):
    columns = ["timestamp", "client_ip", "query_domain", "query_type", "server_ip", "response_code"]
    order = ["timestamp", "client_ip", "query_type", "server_ip"]
    return selected(paths, "dns", lambda row: row["query_domain"] == "evil-domain.com", columns, order)


def failed_logins(paths):
    def matches(row):
        return row["status"] == "Failed" and row["source_ip"] == "192.168.1.100"

    columns = ["timestamp", "hostname", "pid", "auth_method", "username", "source_ip", "source_port"]
    return selected(paths, "auth", matches, columns, ["timestamp", "hostname", "pid", "source_port"])


def hourly_volume(paths):
    counts = Counter((kind, row["timestamp"][:13] + ":00:00Z") for kind, row in rows(paths))
    return ["log_type", "hour", "events"], [[*key, events] for key, events in sorted(counts.items())]


def top(columns, counts):
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]
    return [*columns, "events"], [[*key, events] for key, events in ranked]


def top_talkers(paths):
    return top(["src"], Counter((row["src"],) for kind, row in rows(paths) if kind == "firewall"))


def port_pairs(paths):
    to_port = (row for kind, row in rows(paths) if kind == "firewall" and row["dst_port"] == 3389)
    return top(["src", "dst"], Counter((row["src"], row["dst"]) for row in to_port))


QUESTIONS = [host_window, dns_domain, failed_logins, hourly_volume, top_talkers, port_pairs]

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in "123456":
        sys.exit(__doc__)
    header, answer = QUESTIONS[int(sys.argv[1]) - 1](sys.argv[2:])
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(answer)
