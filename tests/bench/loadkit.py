"""Measuring parts of the load generators: percentiles, bounded concurrency, /proc sampling, disk and machine facts."""

from __future__ import annotations

import asyncio
import os
import platform
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


def require_loopback(*urls: str) -> None:
    """Refuse to load any host that is not this machine."""
    for url in urls:
        if urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
            raise SystemExit(f"refusing to load a host that is not loopback: {url}")


def percentiles(seconds: Sequence[float], *ranks: int) -> dict[str, float | None]:
    """Return {"p50": milliseconds, ...} by nearest rank."""
    ordered = sorted(seconds)
    if not ordered:
        return {f"p{rank}": None for rank in ranks}
    last = len(ordered) - 1
    return {f"p{rank}": round(ordered[min(last, int(len(ordered) * rank / 100))] * 1000, 2) for rank in ranks}


async def bounded(at_once: int, jobs: Iterable[Callable[[], Awaitable[T]]]) -> tuple[list[T], float, list[float]]:
    """Run jobs with at most `at_once` in flight; return results in order, seconds in all, seconds of each."""
    waiting, results, each = iter(enumerate(jobs)), {}, []

    async def worker() -> None:
        for number, job in waiting:
            begin = time.perf_counter()
            results[number] = await job()
            each.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return [results[number] for number in sorted(results)], time.perf_counter() - begin, each


def _descendants(pids: Iterable[int]) -> list[int]:
    found: list[int] = []
    todo = list(pids)
    while todo:
        pid = todo.pop()
        if pid in found or not Path(f"/proc/{pid}").exists():
            continue
        found.append(pid)
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            todo += [int(child) for child in _read(listing).split()]
    return found


def _read(path: Path) -> str:
    """Return a /proc file, or nothing when its process has just ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _megabytes(text: str, key: str) -> float:
    """Return a "Key:  123 kB" line of a /proc file in MiB."""
    values = [line.split()[1] for line in text.splitlines() if line.startswith(f"{key}:")]
    return int(values[0]) / 1024 if values else 0.0


def sample(pids: Iterable[int]) -> dict[str, float]:
    """Return CPU seconds and memory (MiB) summed over the processes and all their descendants."""
    cpu = rss = pss = peak = 0.0
    for pid in _descendants(pids):
        fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        cpu += sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_SECOND  # user, system, and both of dead children
        status = _read(Path(f"/proc/{pid}/status"))
        rss += _megabytes(status, "VmRSS")
        peak += _megabytes(status, "VmHWM")
        pss += _megabytes(_read(Path(f"/proc/{pid}/smaps_rollup")), "Pss")
    return {"cpu_s": round(cpu, 2), "rss_mib": round(rss, 1), "pss_mib": round(pss, 1), "peak_rss_mib": round(peak, 1)}


def own_cpu() -> float:
    """Return the CPU seconds of this process so far."""
    times = os.times()
    return times.user + times.system


def disk_bytes(folder: Path) -> int:
    """Return the bytes of all files in a data directory."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fdatasync_ms(folder: Path, rounds: int = 200) -> float:
    """Return what one 4 KiB write and fdatasync costs in this folder, in milliseconds."""
    path = folder / "fsync.probe"
    with path.open("wb", buffering=0) as probe:
        begin = time.perf_counter()
        for _ in range(rounds):
            probe.write(b"x" * 4096)
            os.fdatasync(probe.fileno())
        took = time.perf_counter() - begin
    path.unlink()
    return round(took / rounds * 1000, 3)


def load_average() -> str:
    """Return how busy the machine was over the last 1, 5 and 15 minutes: other work beside a measurement spoils it."""
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


def machine_facts(folder: Path) -> dict[str, Any]:
    """Return what a reader needs to judge the numbers: processor, memory, disk, versions, and how busy it was."""
    cpus = [line.split(":", 1)[1].strip() for line in _read(Path("/proc/cpuinfo")).splitlines() if "model name" in line]
    return {
        "processor": f"{len(os.sched_getaffinity(0))} x {cpus[0] if cpus else platform.processor()}",
        "memory": f"{_megabytes(_read(Path('/proc/meminfo')), 'MemTotal') / 1024:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "fdatasync of 4 KiB": f"{fdatasync_ms(folder)} ms",
        "load average before": load_average(),
    }
