"""Archive bytes per line, every file counted, against the entropy of the generated lines; and where the bytes are."""
import json

from .measure import peer
from .rounds import PIPELINE, Goal, Report, Row, Table
from .site import FEWER, size_bytes

JOB = "archive, every byte on disk"
# Shannon entropy of a generated line: firewall 68.4 bits, dns 29.4, auth 58.2 (10.0 of each for the milliseconds) with
# probability 0.5, 0.3, 0.2, and 1.49 bits for the type
ENTROPY_BYTES = 7.02
ZSTD_LEVEL = 19


def measure(site):
    bytes_per_line = size_bytes(site.archive) / site.lines
    entropy = Row(JOB, "floor: entropy of the generated lines", "bytes/line", [ENTROPY_BYTES],
                  ratios=[bytes_per_line / ENTROPY_BYTES], is_floor=True, goals=[Goal(1.15)])
    report = Report([Row(JOB, PIPELINE, "bytes/line", [bytes_per_line], lines=site.lines), entropy])
    parquet = size_bytes(site.duckdb_parquet) / site.lines
    compressed = json.loads(peer("zstd_peer", site.fewer_logs, ZSTD_LEVEL).output)
    text = compressed["compressed_bytes"] / (site.lines // FEWER)
    for name, value, lines in (("DuckDB's zstd Parquet, no line numbers", parquet, site.lines),
                               (f"text by zstd -{ZSTD_LEVEL}, a {FEWER}th of the lines", text, site.lines // FEWER)):
        report.rows.append(Row(JOB, name, "bytes/line", [value], ratios=[value / bytes_per_line], lines=lines))
    columns = json.loads(peer("columns_peer", site.archive).output)
    report.tables.append(Table("Archive bytes by column, against the order-0 entropy of the column",
                               ["table", "column", "bytes", "bytes/row", "entropy, bytes/row", "of", "bytes / entropy"],
                               columns))
    return report
