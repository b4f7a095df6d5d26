#!/usr/bin/env python3
"""Throughput of `pipeline fetch` over loopback beside `curl --parallel` on the same files.

    benches/fetch.py [--folder DIR] [--rounds N] [--pipeline target/release/pipeline]

Both fetch four files at once from one server, which answers by sendfile(2), in turn, after one round that does not
count. `pipeline` syncs every file before it gives it its name and keeps its progress in a database; curl does neither,
so a third figure is curl with a sync(1) of its files behind it. Prints the median seconds and the ratios.
"""
import argparse
import http.server
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

LOADS = {"8 files of 128 MiB": (8, 128 << 20), "1,000 files of 64 KiB": (1000, 64 << 10)}

FORGOTTEN_SECONDS = 6


class Files(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open(os.path.join(self.server.folder, os.path.basename(self.path)), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.send_header("ETag", f'"{size}"')
            self.end_headers()
            self.wfile.flush()
            sent = 0
            while sent < size:
                sent += os.sendfile(self.connection.fileno(), file.fileno(), sent, size - sent)

    def log_message(self, *_):
        pass


def serve(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.folder, server.daemon_threads = folder, True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def timed(command, folder):
    started = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where to read and write [default: a temporary folder]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pipeline", default="target/release/pipeline")
    arguments = parser.parse_args()
    pipeline = os.path.abspath(arguments.pipeline)
    for load, (count, size) in LOADS.items():
        with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
            served, out = os.path.join(root, "served"), os.path.join(root, "out")
            os.mkdir(served)
            block = os.urandom(size)
            for number in range(count):
                with open(f"{served}/{number}.bin", "wb") as file:
                    file.write(block)
            url = serve(served)
            with open(f"{root}/m.json", "w") as file:
                json.dump([{"url": f"{url}/{number}.bin"} for number in range(count)], file)
            with open(f"{root}/curl", "w") as file:
                for number in range(count):
                    file.write(f'url = "{url}/{number}.bin"\noutput = "{out}/{number}.bin"\n')
            curl = ["curl", "--silent", "--parallel", "--parallel-max", "4", "--config", f"{root}/curl"]
            ours = [pipeline, "fetch", "--files", "m.json", "--allow-private", "--post-processor", f"keep:{out}"]
            ours += ["--download-cache", f"{root}/cache", "--database", f"{root}/state.db", "--again"]
            seconds = {"curl": [], "curl, synced": [], "pipeline": []}
            for turn in range(arguments.rounds + 1):
                for name, command in (
                    ("curl", curl),
                    ("curl, synced", ["sh", "-c", '"$@" && sync --file-system "$0"', out, *curl]),
                    ("pipeline", ours),
                ):
                    shutil.rmtree(out, ignore_errors=True)
                    os.mkdir(out)
                    subprocess.run(["sync", "--file-system", root], check=True)
                    # ext4 without a journal looks at each inode that was freed in the last five seconds before it
                    # gives one away: what one round removed would cost the next
                    time.sleep(FORGOTTEN_SECONDS)
                    took = timed(command, root)
                    sizes = [os.path.getsize(f"{out}/{number}.bin") for number in range(count)]
                    if sizes != [size] * count:
                        sys.exit(f"{name} did not fetch all files")
                    if turn:
                        seconds[name].append(took)
            print(f"{load}, median of {arguments.rounds}:")
            base = statistics.median(seconds["curl"])
            for name, values in seconds.items():
                middle = statistics.median(values)
                rate = count * size / middle / (1 << 20)
                print(f"  {name:<14}{middle:8.2f} s {rate:8.0f} MiB/s   {middle / base:5.2f} x curl")


if __name__ == "__main__":
    main()
