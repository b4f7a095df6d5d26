"""What copying so many bytes in memory takes, in a process of its own: `python -m peers.memcpy_peer BYTES`."""
import sys
import time

TIMES = 5


def copy(size):
    """Seconds, at best: the first time finds pages that nobody has touched."""
    source, target = memoryview(bytearray(b"\1") * size), memoryview(bytearray(size))
    taken = []
    for _ in range(TIMES):
        started = time.perf_counter()
        target[:] = source
        taken.append(time.perf_counter() - started)
    return min(taken)


if __name__ == "__main__":
    print(copy(int(sys.argv[1])))
