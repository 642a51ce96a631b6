"""Measure Synapse and Schleuse alternately in one sitting and write tests/bench/RESULTS.md.

    python -m tests.bench.compare [--rounds 2] [--only synapse|schleuse]

Every round gives each server a fresh data directory, the same load and the same reading of /proc. Three cases: one room
of 50 people under load; 20 rooms of 30 for the initial sync; and a 50-member room between two clean stops for the disk.
Synapse is installed, pinned by constraints.txt, into a virtual environment under .bench/ (ignored by git).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.loadkit import bounded, disk_bytes, load_average, machine_facts
from tests.world.client import Client, register_many, session
from tests.world.server import Homeserver, Schleuse, Synapse

HERE = Path(__file__).resolve().parent
SCRATCH = HERE.parents[1] / ".bench"
ONE_ROOM = {"users": 50, "rooms": 1, "readers": 10, "messages": 1000, "unloaded": 100, "in-flight": 16}
MANY_ROOMS = {**ONE_ROOM, "users": 30, "rooms": 20, "messages": 300, "unloaded": 20}
DISK_EVENTS = 1000

Spawner = Callable[[Path], Homeserver]


def install_peer() -> Path:
    """Return the virtual environment with the pinned peer and profiler; make it the first time."""
    venv = SCRATCH / "venv"
    wanted = HERE / "constraints.txt"
    stamp = venv / "installed"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        print("installing the pinned Synapse into .bench/venv (once) ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run([str(venv / "bin" / "pip"), "install", "--quiet", "-r", str(wanted)], check=True)
        stamp.write_text(wanted.read_text())
    return venv


def cs_load(server: Homeserver, label: str, numbers: dict[str, int]) -> dict[str, Any]:
    """Run the load generator in a process of its own and return its report."""
    command = [sys.executable, "-m", "tests.bench.cs_load", "--base", server.base, "--pid", str(server.pid)]
    command += ["--label", label]
    for name, number in numbers.items():
        command += [f"--{name}", str(number)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=HERE.parents[1])
    got = json.loads(done.stdout)
    assert isinstance(got, dict)
    return got


def start_to_healthy(server: Homeserver) -> float:
    """Start the process and return the seconds to its first healthy answer."""
    begin = time.perf_counter()
    server.spawn()
    server.wait_until_healthy()
    return round(time.perf_counter() - begin, 3)


async def _fill_room(server: Homeserver) -> tuple[list[Client], str]:
    async with session() as http:
        people = await register_many(http, server.base, [f"disk{n}" for n in range(ONE_ROOM["users"])])
        room = await people[0].create_room(preset="public_chat", name="disk")
        await asyncio.gather(*(one.join(room) for one in people[1:]))
    return people, room


async def _talk(people: list[Client], room: str) -> None:
    async with session() as http:
        for one in people:
            one.http = http
        body = {"msgtype": "m.text", "body": "bench message " + "x" * 90}
        jobs = [lambda n=n: people[n % len(people)].send(room, body) for n in range(DISK_EVENTS)]
        await bounded(ONE_ROOM["in-flight"], jobs)


def disk_growth(server: Homeserver) -> dict[str, Any]:
    """Return what 1000 messages in a room of 50 add to the data directory between two clean stops."""
    start_to_healthy(server)
    people, room = asyncio.run(_fill_room(server))
    server.stop()
    before = disk_bytes(server.data)
    restarted = start_to_healthy(server)
    asyncio.run(_talk(people, room))
    server.stop()
    after = disk_bytes(server.data)
    return {"bytes_per_1000": after - before, "bytes_before": before, "start_existing_s": restarted}


def one_round(label: str, make: Spawner, folder: Path) -> dict[str, Any]:
    """Measure one server once: three cases, each on a fresh data directory."""
    out: dict[str, Any] = {}
    for case, numbers in (("one_room", ONE_ROOM), ("many_rooms", MANY_ROOMS)):
        server = make(folder / case)
        healthy = start_to_healthy(server)
        try:
            out[case] = cs_load(server, f"{label} {case}", numbers)
        finally:
            server.stop()
        out[case]["start_new_s"] = healthy
    out["disk"] = disk_growth(make(folder / "disk"))
    return out


def sitting(rounds: int, makers: dict[str, Spawner]) -> dict[str, list[dict[str, Any]]]:
    """Measure every server `rounds` times, taking turns, and keep the raw figures under .bench/."""
    results: dict[str, list[dict[str, Any]]] = {label: [] for label in makers}
    for number in range(rounds):
        for label, make in makers.items():
            folder = SCRATCH / "data" / f"{label}-{number}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            begin = time.perf_counter()
            results[label].append(one_round(label, make, folder))
            shutil.rmtree(folder)
            print(f"round {number + 1}: {label} measured in {time.perf_counter() - begin:.0f} s", flush=True)
    return results


def module_json(name: str, *arguments: str) -> Any:
    """Run one of our measuring programs in a process of its own and return what it printed."""
    command = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=HERE.parents[1]).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=["synapse", "schleuse"], help="measure one side and print, write no report")
    options = parser.parse_args()
    SCRATCH.mkdir(exist_ok=True)
    venv = install_peer()
    facts = machine_facts(SCRATCH)
    makers: dict[str, Spawner] = {"synapse": lambda data: Synapse(venv, data), "schleuse": Schleuse}
    if options.only:
        makers = {options.only: makers[options.only]}
    pinned = dict(line.split("==") for line in (HERE / "constraints.txt").read_text().splitlines() if "==" in line)
    found: dict[str, Any] = {"facts": facts, "peer": pinned["matrix-synapse"]}
    found |= {"rounds": sitting(options.rounds, makers)}
    facts["load average after"] = load_average()
    if not options.only:
        found["ceiling"] = module_json("ceiling")
        found["message"] = module_json("where_time_goes", "--py-spy", str(venv / "bin" / "py-spy"))
    (SCRATCH / f"{options.only or 'sitting'}.json").write_text(json.dumps(found, indent=1))
    text = report.render(found)
    if options.only:
        print(text)
    else:
        (HERE / "RESULTS.md").write_text(text)
        print("wrote tests/bench/RESULTS.md")


if __name__ == "__main__":
    main()
