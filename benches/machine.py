"""What the system says about processes and the disk."""

import os
import platform
import resource
import statistics
import time
from pathlib import Path

def stat(pid):
    """The fields of /proc/PID/stat from the third on; the second may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def tree(root):
    """A process and all its descendants: nginx works in children."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat(entry)):
            parents[int(entry)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_seconds(pids):
    """User and system time, threads that have ended included. The processes' own clocks count it in nanoseconds, /proc in ticks."""
    total = 0.0
    for pid in pids:
        try:
            total += time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) makes of a process on Linux
        except OSError:
            continue  # it has ended
    return total


def memory(pids, key):
    """`VmRSS` or `VmHWM` (the most it ever was) in KB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                total += int(line.split()[1])
    return total


def open_files():
    """Raises the limit of open files, which all that is started inherits, and says what it is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def fdatasync_us(directory, appends=300):
    """Median of a synced append of 4 KB."""
    times = []
    path = Path(directory) / "fdatasync"
    with open(path, "wb", buffering=0) as file:
        for _ in range(appends):
            file.write(b"x" * 4096)
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - before)
    path.unlink()
    return statistics.median(times) * 1e6


def busy_share(seconds=0.5):
    """Share of the processors that others use just now."""

    def read():
        fields = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    before = read()
    time.sleep(seconds)
    after = read()
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])


def describe():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} x {names[0] if names else platform.machine()}, Linux {platform.release()}"
