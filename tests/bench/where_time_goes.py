"""Profile Schleuse under the load of the comparison and say where the CPU time of one message goes.

    python -m tests.bench.where_time_goes --py-spy .bench/venv/bin/py-spy      -> JSON on stdout

py-spy samples only threads that run. Every sample is counted for the innermost frame inside `appliance/`, split by what
that frame had called (SQLite, HTTP, signing, JSON); samples without such a frame belong to the event loop and aiohttp.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import re
import signal
import tempfile
from pathlib import Path

from tests.bench.cs_load import Load, arguments
from tests.world.client import session
from tests.world.server import Schleuse

CALLED = (
    (re.compile(r"[(/](?:aiohttp|multidict|yarl)/"), "aiohttp"),
    (re.compile(r"[(/]nacl/"), "signing"),
    (re.compile(r"[(/](?:json|orjson|msgspec)/"), "JSON"),
)
ENTRANCE = ("laboratory", "__main__", "guests/cli/main")  # they stand at the outer end of every stack of the loop
IDLE = re.compile(r"(?:select|wait|acquire) \([^()]*(?:selectors|threading)\.py:\d+\)$")
OURS = re.compile(r"\((?:[^()]*/)?(appliance/[\w/]+)\.py:\d+\)")


def part_of(stack: str) -> str:
    """Name the part of the house that one sampled stack (outermost frame first) belongs to."""
    frames = stack.split(";")
    for index in range(len(frames) - 1, -1, -1):
        inside = OURS.search(frames[index])
        part = inside.group(1).removeprefix("appliance/") if inside else ""
        if part and part not in ENTRANCE:
            below = ";".join(frames[index + 1 :])
            library = next((name for pattern, name in CALLED if pattern.search(below)), "")
            return part + (f" -> {library}" if library else "")
    library = next((name for pattern, name in CALLED if pattern.search(stack)), "")
    return f"event loop -> {library}" if library else "event loop and threads"


def shares(raw: str, least: float = 0.01) -> tuple[dict[str, float], int]:
    """Return share of samples per part, largest first, parts under `least` summed up, and the number of samples."""
    counts: collections.Counter[str] = collections.Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if IDLE.search(stack):
            continue
        counts[part_of(stack)] += int(count)
    total = sum(counts.values())
    large = {part: count / total for part, count in counts.most_common() if count / total >= least}
    rest = 1 - sum(large.values())
    return (large | {"everything else": rest} if rest > 0.001 else large), total


async def profile(server: Schleuse, py_spy: Path, raw: Path, messages: int) -> float:
    """Fill the room, then sample the server while the loaded messages pass; return CPU ms per message."""
    options = arguments().parse_args(["--base", server.base, "--pid", str(server.pid), "--messages", str(messages)])
    load = Load(options)
    async with session() as http:
        await load.register(http)
        await load.create_rooms()
        await load.fill_rooms()
        await load.start_readers()
        await load.blast(options.unloaded, 1)
        watch = ["record", "--pid", str(server.pid), "--format", "raw", "--rate", "250"]
        watch += ["--nonblocking", "--full-filenames"]
        quiet = asyncio.subprocess.DEVNULL
        spy = await asyncio.create_subprocess_exec(
            str(py_spy), *watch, "--output", str(raw), stdout=quiet, stderr=quiet
        )
        loaded = await load.loaded()
        spy.send_signal(signal.SIGINT)
        await spy.wait()
        await load.stop_readers()
    return float(loaded["server_cpu_s_per_1000"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--py-spy", type=Path, required=True)
    parser.add_argument("--messages", type=int, default=4000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Schleuse(Path(folder) / "data")
        server.start()
        try:
            raw = Path(folder) / "stacks.txt"
            cpu = asyncio.run(profile(server, options.py_spy.absolute(), raw, options.messages))
            parts, samples = shares(raw.read_text())
        finally:
            server.stop()
    print(json.dumps({"cpu_ms_per_message": cpu, "samples": samples, "parts": parts}, indent=1))


if __name__ == "__main__":
    main()
