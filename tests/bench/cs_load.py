"""Client-Server load generator for any Matrix homeserver; prints one JSON report.

    python -m tests.bench.cs_load --base http://127.0.0.1:8008 --pid PID --users 50 --rooms 1 \\
           --messages 1000 --in-flight 16 --readers 10

Needs open registration (m.login.dummy) and rate limits off. Loopback only. --pid sums CPU and memory over that process
and its descendants (repeat it for a database server).
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.bench.loadkit import bounded, own_cpu, percentiles, require_loopback, sample
from tests.world.client import Client, Refusal, segment, session

FILTER = json.dumps({"presence": {"types": []}, "room": {"timeline": {"limit": 100}}})
SLIDING = {
    "lists": {
        "all": {
            "ranges": [[0, 19]],
            "timeline_limit": 20,
            "required_state": [["m.room.create", ""], ["m.room.name", ""]],
        }
    }
}


class Reader:
    """Long-polls /sync and notes when each numbered message arrived."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.since: str | None = None
        self.seen: dict[int, float] = {}
        self.polls = self.limited = self.errors = 0
        self.arrived = asyncio.Event()

    async def start(self) -> None:
        self.since = (await self.client.sync(filter_json=FILTER))["next_batch"]
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                got = await self.client.sync(self.since, 20_000, FILTER)
            except (Refusal, TimeoutError):
                self.errors += 1
                await asyncio.sleep(0.2)
                continue
            now = time.perf_counter()
            self.polls += 1
            self.since = got["next_batch"]
            for room in got.get("rooms", {}).get("join", {}).values():
                self._note(room.get("timeline", {}), now)

    def _note(self, timeline: dict[str, Any], now: float) -> None:
        self.limited += bool(timeline.get("limited"))
        for event in timeline.get("events", ()):
            number = event.get("content", {}).get("bench_n")
            if number is not None:
                self.seen.setdefault(number, now)
        self.arrived.set()

    async def wait_for(self, numbers: set[int], seconds: float) -> None:
        """Wait until all these numbers have arrived, or until the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while numbers - self.seen.keys():
                    self.arrived.clear()
                    await self.arrived.wait()
        except TimeoutError:
            return


class Load:
    """The people, rooms and readers of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.clients: list[Client] = []
        self.rooms: list[str] = []
        self.readers: list[Reader] = []
        self.sent = 0

    async def register(self, http: Any) -> dict[str, Any]:
        run, count = uuid.uuid4().hex[:8], self.options.users
        jobs = [lambda n=n: Client(http, self.options.base).register(f"b{run}u{n}") for n in range(count)]
        self.clients, seconds, each = await bounded(self.options.in_flight, jobs)
        return {"per_s": round(count / seconds, 2), "ms": percentiles(each, 50, 99)}

    async def create_rooms(self) -> float:
        begin = time.perf_counter()
        for number in range(self.options.rooms):
            self.rooms.append(await self.clients[0].create_room(preset="public_chat", name=f"bench {number}"))
        return round((time.perf_counter() - begin) / self.options.rooms * 1000, 1)

    async def fill_rooms(self) -> dict[str, Any]:
        before = sample(self.options.pid)
        joins = [(client, room) for room in self.rooms for client in self.clients[1:]]
        jobs = [functools.partial(client.join, room) for client, room in joins]
        _, seconds, each = await bounded(self.options.in_flight, jobs)
        cpu = sample(self.options.pid)["cpu_s"] - before["cpu_s"]
        return {
            "count": len(joins),
            "per_s": round(len(joins) / seconds, 2),
            "ms": percentiles(each, 50, 95, 99),
            "server_cpu_s_per_1000": round(cpu / len(joins) * 1000, 2),
        }

    async def start_readers(self) -> None:
        self.readers = [Reader(client) for client in self.clients[-self.options.readers :]]
        await asyncio.gather(*(reader.start() for reader in self.readers))

    async def stop_readers(self) -> dict[str, int]:
        for reader in self.readers:
            reader.task.cancel()
        await asyncio.gather(*(reader.task for reader in self.readers), return_exceptions=True)
        return {name: sum(getattr(r, name) for r in self.readers) for name in ("polls", "limited", "errors")}

    async def blast(self, count: int, in_flight: int, drain: float = 20.0) -> dict[str, Any]:
        """Send numbered messages and follow each to every reader."""
        sent_at: dict[int, float] = {}

        async def one(number: int) -> str:
            sent_at[number] = time.perf_counter()
            body = f"bench message {number} " + "x" * 80
            room = self.rooms[number % len(self.rooms)]
            content = {"msgtype": "m.text", "body": body, "bench_n": number}
            return await self.clients[number % len(self.clients)].send(room, content)

        numbers = range(self.sent, self.sent + count)
        self.sent += count
        _, seconds, each = await bounded(in_flight, [functools.partial(one, n) for n in numbers])
        await asyncio.gather(*(reader.wait_for(set(numbers), drain) for reader in self.readers))
        arrived = [r.seen[n] - begin for n, begin in sent_at.items() for r in self.readers if n in r.seen]
        return {
            "messages": count,
            "in_flight": in_flight,
            "send_per_s": round(count / seconds, 1),
            "send_ms": percentiles(each, 50, 95, 99),
            "delivery_ms": percentiles(arrived, 50, 99),
            "missing": sum(len(sent_at.keys() - reader.seen.keys()) for reader in self.readers),
        }

    async def loaded(self) -> dict[str, Any]:
        """The measured load: CPU of the server and of this client per 1000 messages."""
        options, before, own, begin = self.options, sample(self.options.pid), own_cpu(), time.perf_counter()
        out = await self.blast(options.messages, options.in_flight)
        cpu = sample(options.pid)["cpu_s"] - before["cpu_s"]
        out["server_cpu_s_per_1000"] = round(cpu / options.messages * 1000, 2)
        out["client_cpu_s_per_1000"] = round((own_cpu() - own) / options.messages * 1000, 2)
        out["wall_s"] = round(time.perf_counter() - begin, 2)
        return out


async def timed(times: int, ask: Callable[[int], Awaitable[Any]]) -> tuple[dict[str, float | None], list[Any]]:
    """Ask one after the other; return percentiles in milliseconds and the answers."""
    answers, each = [], []
    for number in range(times):
        begin = time.perf_counter()
        answers.append(await ask(number))
        each.append(time.perf_counter() - begin)
    return percentiles(each, 50, 99), answers


async def reads(clients: Sequence[Client], room: str) -> dict[str, Any]:
    """Time what a client does when it opens: first sync, empty sync, sliding sync, history, members."""
    some = clients[:10]
    out: dict[str, Any] = {}
    out["initial_sync_ms"], got = await timed(len(some), lambda n: some[n].sync())
    out["initial_sync_bytes"] = len(json.dumps(got[-1]))
    out["incremental_empty_sync_ms"], _ = await timed(len(some), lambda n: some[n].sync(since=got[n]["next_batch"]))
    sliding, body = "/unstable/org.matrix.simplified_msc3575/sync", {**SLIDING, "conn_id": uuid.uuid4().hex}
    try:
        out["sliding_initial_ms"], _ = await timed(
            len(some), lambda n: some[n].call("POST", sliding, body, params={"timeout": "0"})
        )
    except Refusal as refusal:
        out["sliding_initial_ms"] = f"unsupported ({refusal.status})"
    path, first = f"/v3/rooms/{segment(room)}", clients[0]
    page = {"dir": "b", "limit": "50"}
    out["messages50_ms"], _ = await timed(20, lambda _: first.call("GET", f"{path}/messages", params=page))
    out["members_ms"], _ = await timed(5, lambda _: first.call("GET", f"{path}/members"))
    return out


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Do the whole run against one server and return the report."""
    require_loopback(options.base)
    out: dict[str, Any] = {
        name: getattr(options, name) for name in ("label", "base", "users", "rooms", "readers", "messages", "in_flight")
    }
    load = Load(options)
    async with session() as http:
        out["proc_start"] = sample(options.pid)
        out["register"] = await load.register(http)
        out["create_room_ms"] = await load.create_rooms()
        out["join"] = await load.fill_rooms()
        await load.start_readers()
        await asyncio.sleep(1)  # a settled server is what is measured; nothing tells from outside when it is
        out["proc_idle_after_join"] = sample(options.pid)
        out["send_unloaded"] = await load.blast(options.unloaded, 1)
        out["send_loaded"] = await load.loaded()
        out["sync"] = await load.stop_readers()
        out |= await reads(load.clients, load.rooms[0])
        await asyncio.sleep(2)
        out["proc_end"] = sample(options.pid)
    return out


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--pid", type=int, action="append", default=[])
    parser.add_argument("--label", default="")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--rooms", type=int, default=1)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--unloaded", type=int, default=100, help="messages sent one at a time first")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--readers", type=int, default=10)
    return parser


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(arguments().parse_args())), indent=1))
