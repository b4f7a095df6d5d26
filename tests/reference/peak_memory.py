#!/usr/bin/env python3
"""Runs a command and prints, as a last line, the most memory it held at once, in KiB.

    peak_memory.py COMMAND [ARGUMENT..]

Standard input, output and error are the command's own, and so is the exit code.
"""
import resource
import subprocess
import sys

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    code = subprocess.run(sys.argv[1:]).returncode
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, flush=True)
    sys.exit(code)
