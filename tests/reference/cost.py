"""What a month costs, by plain arithmetic: the independent check of `pipeline cost`.

    python cost.py PRICES.toml RUN.json LINES_PER_DAY HOT_DAYS COLD_DAYS

Prints one JSON object: dollars by component for the old pipeline and this one, and SQS for both.
"""
import json
import math
import sys
import tomllib

GB = 2**30
DAY = 86_400
HOURS = 730
DAYS = 365 / 12


def up(number):
    """A part is paid as a whole; what is whole but for rounding stays."""
    return math.ceil(number - 1e-9 * abs(number))


def main():
    with open(sys.argv[1], "rb") as file:
        prices = tomllib.load(file)
    with open(sys.argv[2]) as file:
        run = json.load(file)
    lines, hot, cold = (float(text) for text in sys.argv[3:6])
    usd = {name: price["usd"] for name, price in prices["price"].items()}
    limit = {name: entry["value"] for name, entry in prices["limit"].items()}
    assume = {name: entry["value"] for name, entry in prices["assumption"].items()}
    millions = lines / 1e6
    vcpu_day = DAY * assume["utilisation"] * assume["vcpu_speed"]
    stages, old = run["stages"], run["old"]

    def redis(seconds_per_million):
        seconds = millions * seconds_per_million
        if seconds <= vcpu_day * limit["cache_t4g_small_vcpus"]:
            return HOURS * usd["cache_t4g_small"]
        return HOURS * up(seconds / vcpu_day) * usd["cache_m7g_large"]

    def sqs(frames, frame_bytes, messages):
        empty = max(0, assume["pollers"] * DAY / limit["sqs_wait_seconds"] - messages)
        units = up(frame_bytes / limit["sqs_unit_bytes"])
        requests = DAYS * (frames * 2 * units + messages + empty)
        total, tier = 0.0, limit["sqs_tier_requests"]
        for price, room in [("", tier), ("_tier_2", tier), ("_tier_3", math.inf)]:
            taken = min(requests, room)
            total += taken / 1e6 * usd["sqs_requests" + price]
            requests -= taken
        return total

    def compute(seconds, memory_gb):
        vcpus, gb = assume["task_vcpus"], assume["task_gb"]
        tasks = max(up(seconds / vcpu_day / vcpus), up(memory_gb / gb))
        fargate = tasks * (vcpus * usd["fargate_vcpu"] + gb * usd["fargate_gb"])
        instances = max(up(seconds / vcpu_day / limit["ec2_m7g_large_vcpus"]), up(memory_gb / limit["ec2_m7g_large_gb"]))
        return HOURS * min(fargate, instances * usd["ec2_m7g_large"])

    def database(seconds_per_million, row_bytes, wal_bytes, days, commits_a_second):
        seconds = millions * seconds_per_million
        gb = max(limit["rds_min_gb"], lines * days * row_bytes / GB / assume["database_fill"])
        pages_a_second = lines / DAY * (row_bytes + wal_bytes) / assume["page_bytes"]
        iops = (pages_a_second + commits_a_second) / assume["utilisation"]
        large = up(seconds / vcpu_day / limit["db_m7g_large_vcpus"])
        servers = max(up(large / limit["db_largest"]), up(gb / limit["rds_max_gb"]), up(iops / limit["rds_max_iops"]))
        if servers <= 1 and seconds <= vcpu_day * limit["db_t4g_medium_vcpus"]:
            instances = usd["db_t4g_medium"]
        else:
            instances = max(large, servers) * usd["db_m7g_large"]
        included = limit["rds_large_iops"] if gb >= limit["rds_small_gb"] else limit["rds_small_iops"]
        extra = max(0, iops - servers * included)
        return HOURS * instances, gb * usd["rds_gp3_gb"] + extra * usd["rds_gp3_iops"]

    queue = run["queue"]
    frames = max(lines / queue["lines_per_frame"], min(lines, assume["sources"] * DAY / assume["flush_seconds"]))
    frame_bytes = lines * queue["bytes_per_line"] / frames
    new_cpu = millions * (
        stages["read"]["cpu_seconds_per_million_lines"]
        + stages["process"]["cpu_seconds_per_million_lines"]
        + assume["compactions"] * stages["archive_writer"]["cpu_seconds_per_million_lines"]
    )
    new_row = run["postgres"]["table_bytes_per_row"] + run["postgres"]["index_bytes_per_row"]
    new_memory = (stages["read"]["peak_bytes"] + stages["process"]["peak_bytes"]) / GB
    commits = min(lines / DAY, assume["connections"] / assume["commit_seconds"])
    new_database, new_storage = database(
        stages["postgres"]["cpu_seconds_per_million_lines"], new_row, run["postgres"]["wal_bytes_per_row"], hot, commits
    )
    archive = run["archive"]
    groups = max(lines / archive["lines_per_group"], min(lines, DAY / assume["group_seconds"]))
    objects = groups * 2 * archive["tables"]
    put, get = objects * (1 + assume["compactions"]), objects * assume["compactions"]
    new_archive = lines * cold * archive["bytes_per_line"] / GB * usd["s3_standard"]
    new_archive += DAYS * (put / 1000 * usd["s3_put"] + get / 1000 * usd["s3_get"])

    workers = up(lines / DAY / assume["utilisation"] / old["lines_per_second"])
    old_row = old["table_bytes_per_row"] + old["index_bytes_per_row"]
    old_database, old_storage = database(
        old["postgres_cpu_seconds_per_million_lines"], old_row, old["wal_bytes_per_row"], max(hot, cold), lines / DAY
    )
    print(
        json.dumps(
            {
                "new": {
                    "queue": redis(stages["redis"]["cpu_seconds_per_million_lines"]),
                    "compute": compute(new_cpu, new_memory),
                    "database": new_database,
                    "storage": new_storage,
                    "archive": new_archive,
                },
                "old": {
                    "queue": redis(old["redis_cpu_seconds_per_million_lines"]),
                    "compute": compute(millions * old["cpu_seconds_per_million_lines"], workers * old["peak_bytes"] / GB),
                    "database": old_database,
                    "storage": old_storage,
                    "archive": 0.0,
                },
                "new_sqs_usd": sqs(frames, frame_bytes, frames * up(frame_bytes / limit["sqs_message_bytes"])),
                "old_sqs_usd": sqs(lines, old["message_bytes"], lines),
            }
        )
    )


main()
