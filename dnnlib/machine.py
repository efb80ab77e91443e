"""What this machine is: processor, usable CPUs, memory, in the words of a report. Asks files of the system alone."""

import os
import platform
from pathlib import Path


def processor_name() -> str:
    """The processor's name as the system states it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def usable_cpus() -> float:
    """CPUs that the affinity mask and the container's quota leave to this process."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, period = quota.read_text().split()[:2]
        if limit != "max":
            count = min(count, int(limit) / int(period))
    return count


def memory() -> str:
    """Memory in all and free now; 'unknown' where the system does not say."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return "unknown"
    sizes_kib = {line.split(":")[0]: int(line.split()[1]) for line in info.read_text().splitlines() if len(line.split()) > 1}
    return f"{sizes_kib['MemTotal'] / 2**20:.1f} GiB, {sizes_kib.get('MemAvailable', 0) / 2**20:.1f} GiB available"
