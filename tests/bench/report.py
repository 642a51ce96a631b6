"""Render the figures of one sitting as tests/bench/RESULTS.md: values, ratios, targets, verdicts."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

PEER, OURS = "synapse", "schleuse"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table; `least` and `aim` are ours divided by the peer's, below 1 where less is better."""

    text: str
    unit: str
    path: tuple[str, ...]
    least: float | None = None
    aim: float | None = None
    scale: float = 1.0


ONE = "one_room"
FIGURES = (
    Figure("messages sent per second, 16 in flight", "/s", (ONE, "send_loaded", "send_per_s"), 12, 25),
    Figure("send p50, one at a time", "ms", (ONE, "send_unloaded", "send_ms", "p50"), 1 / 10, 1 / 20),
    Figure("delivery p99, loaded", "ms", (ONE, "send_loaded", "delivery_ms", "p99"), 1 / 6, 1 / 12),
    Figure("server CPU per 1000 messages", "s", (ONE, "send_loaded", "server_cpu_s_per_1000"), 1 / 10, 1 / 18),
    Figure("joins per second", "/s", (ONE, "join", "per_s"), 8, 12),
    Figure("memory after the load (RSS)", "MiB", (ONE, "proc_end", "rss_mib"), 0.7, 0.5),
    Figure("disk per 1000 events, 50-member room", "MB", ("disk", "bytes_per_1000"), 1 / 10, 1 / 20, 1e-6),
    Figure("initial sync, 20 rooms of 30, p50", "ms", ("many_rooms", "initial_sync_ms", "p50"), 1 / 6, 1 / 10),
    Figure("start to first healthy answer, new data", "s", (ONE, "start_new_s"), 0.5, 0.3),
    Figure("start to first healthy answer, existing data", "s", ("disk", "start_existing_s"), 0.5, 0.3),
    Figure("delivery p50, one at a time", "ms", (ONE, "send_unloaded", "delivery_ms", "p50")),
    Figure("delivery p50, loaded", "ms", (ONE, "send_loaded", "delivery_ms", "p50")),
    Figure("send p99, loaded", "ms", (ONE, "send_loaded", "send_ms", "p99")),
    Figure("registrations per second", "/s", (ONE, "register", "per_s")),
    Figure("initial sync, one room of 50, p50", "ms", (ONE, "initial_sync_ms", "p50")),
    Figure("sliding sync, first answer, p50", "ms", (ONE, "sliding_initial_ms", "p50")),
    Figure("empty incremental sync, p50", "ms", (ONE, "incremental_empty_sync_ms", "p50")),
    Figure("/messages, 50 events, p50", "ms", (ONE, "messages50_ms", "p50")),
    Figure("memory when idle in the full room (RSS)", "MiB", (ONE, "proc_idle_after_join", "rss_mib")),
    Figure("messages never delivered", "", (ONE, "send_loaded", "missing")),
)


def values(figure: Figure, rounds: list[dict[str, Any]]) -> list[float]:
    """Return the figure of every round, scaled to its unit."""
    found = []
    for one in rounds:
        value: Any = one
        for step in figure.path:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            found.append(value * figure.scale)
    return found


def number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def shown(found: list[float]) -> str:
    if not found:
        return "none"
    spread = f" ({' / '.join(number(value) for value in found)})" if len(found) > 1 else ""
    return number(statistics.median(found)) + spread


def factor(ratio: float) -> str:
    """Return 14x, 1/12 or 0.62, whichever a reader compares at a glance."""
    if ratio >= 1.5:
        return f"{ratio:.1f}x"
    return f"1/{1 / ratio:.1f}" if 0 < ratio < 0.25 else f"{ratio:.2f}"


def met(ratio: float, wanted: float) -> bool:
    """Tell whether a ratio is on the good side of a target: above 1 means more is better."""
    return ratio >= wanted if wanted > 1 else ratio <= wanted


def verdict(figure: Figure, ratio: float) -> str:
    if figure.least is None or figure.aim is None:
        return ""
    if met(ratio, figure.aim):
        return "aim reached"
    return "reached" if met(ratio, figure.least) else "**missed**"


def row(figure: Figure, rounds: dict[str, list[dict[str, Any]]]) -> str:
    theirs, ours = (values(figure, rounds.get(name, [])) for name in (PEER, OURS))
    ratio = aim = word = ""
    if theirs and ours and statistics.median(theirs):
        found = statistics.median(ours) / statistics.median(theirs)
        ratio, word = factor(found), verdict(figure, found)
    if figure.least is not None and figure.aim is not None:
        aim = f"{factor(figure.least)} ({factor(figure.aim)})"
    name = f"{figure.text}, {figure.unit}" if figure.unit else figure.text
    return f"| {name} | {shown(theirs)} | {shown(ours)} | {ratio} | {aim} | {word} |"


def ceiling_rows(ceiling: dict[str, Any]) -> list[str]:
    """Return the floor: what one PUT costs in this stack before it is a messenger."""
    lines = ["| mode | in flight | per second | p50 / p99 ms | server CPU s per 1000 |", "|---|---|---|---|---|"]
    for mode, found in ceiling["modes"].items():
        for flight, got in found["in_flight"].items():
            spread = f"{got['ms']['p50']} / {got['ms']['p99']}"
            lines.append(f"| {mode} | {flight} | {got['per_s']} | {spread} | {got['server_cpu_s_per_1000']} |")
    return lines


def message_rows(message: dict[str, Any]) -> list[str]:
    """Return where the CPU time of one message goes, by the part of the house that the sample stood in."""
    lines = ["| part | share of CPU samples | ms per message |", "|---|---|---|"]
    for part, share in message["parts"].items():
        lines.append(f"| {part} | {share * 100:.1f} % | {share * message['cpu_ms_per_message']:.3f} |")
    return lines


HEAD = """# Schleuse beside Synapse

Written by `make bench` on {date}. Synapse {peer} from PyPI with SQLite, pinned in `constraints.txt`. Both servers take
turns on the same machine with the load generator beside them, rate limits off, durability unchanged (an acknowledged
event survives `kill -9`). Medians of the sitting; the single rounds in brackets. Targets: at least (aim), ours divided
by Synapse's.
"""
MESSAGE = """
## Where the time of one message goes

{cpu:.2f} ms of CPU per message in a room of 50 with 10 readers; {samples} samples of py-spy, each counted for the
innermost frame of ours and the library it had called.
"""
FLOOR = """
## The floor

What aiohttp and SQLite cost here for one durable PUT, before there is a messenger (`ceiling.py`; the row
`full_group_sign` hashes, signs and indexes an event). fdatasync of 4 KiB takes {fdatasync} ms.
"""


def render(found: dict[str, Any]) -> str:
    """Return the whole report as Markdown."""
    lines = [HEAD.format(date=time.strftime("%Y-%m-%d"), peer=found["peer"]), "| machine | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in found["facts"].items()]
    lines += ["", "| figure | Synapse | Schleuse | ratio | at least (aim) | verdict |", "|---|---|---|---|---|---|"]
    lines += [row(figure, found["rounds"]) for figure in FIGURES]
    if "message" in found:
        message = found["message"]
        lines += [MESSAGE.format(cpu=message["cpu_ms_per_message"], samples=message["samples"]), *message_rows(message)]
    if "ceiling" in found:
        ceiling = found["ceiling"]
        lines += [FLOOR.format(fdatasync=ceiling["fdatasync_ms"]), *ceiling_rows(ceiling)]
    return "\n".join(lines) + "\n"
