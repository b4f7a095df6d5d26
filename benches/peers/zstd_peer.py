"""Text by zstd, all files as one stream, in a process of its own: `python -m peers.zstd_peer LOGS LEVEL`."""
import json
import sys
from pathlib import Path

import zstandard


def compress(logs, level):
    compressor = zstandard.ZstdCompressor(level=int(level)).compressobj()
    size = sum(len(compressor.compress(file.read_bytes())) for file in sorted(Path(logs).glob("*.log")))
    return {"compressed_bytes": size + len(compressor.flush())}


if __name__ == "__main__":
    print(json.dumps(compress(*sys.argv[1:])))
