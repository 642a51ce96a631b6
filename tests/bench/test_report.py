"""The report says what was measured: ratios, verdicts, and the part of the house that a profile sample belongs to."""

from __future__ import annotations

import pytest

from tests.bench.loadkit import percentiles, require_loopback
from tests.bench.report import FIGURES, factor, met, render, row
from tests.bench.where_time_goes import part_of, shares


def one_round(send_per_s: float, p50: float) -> dict[str, object]:
    return {"one_room": {"send_loaded": {"send_per_s": send_per_s}, "send_unloaded": {"send_ms": {"p50": p50}}}}


def test_a_row_compares_medians_with_the_target() -> None:
    rounds = {"synapse": [one_round(40, 60), one_round(50, 60)], "schleuse": [one_round(540, 6.6), one_round(630, 6.6)]}
    more, less = (row(figure, rounds) for figure in FIGURES[:2])
    assert more.startswith("| messages sent per second, 16 in flight, /s | 45 (40 / 50) | 585 (540 / 630) |")
    assert more.endswith("| 13.0x | 12.0x (25.0x) | reached |")
    assert less.endswith("| 1/9.1 | 1/10.0 (1/20.0) | **missed** |")


@pytest.mark.parametrize(("ratio", "text"), [(14.04, "14.0x"), (0.62, "0.62"), (1 / 12, "1/12.0"), (1.2, "1.20")])
def test_factors_read_at_a_glance(ratio: float, text: str) -> None:
    assert factor(ratio) == text


def test_a_target_is_met_on_its_good_side() -> None:
    assert met(13, 12) and not met(11, 12)
    assert met(0.09, 0.1) and not met(0.11, 0.1)


def test_a_figure_that_was_not_measured_has_no_verdict() -> None:
    text = render({"facts": {"processor": "x"}, "peer": "1.163.2", "rounds": {"synapse": [one_round(40, 60)]}})
    assert "| messages sent per second, 16 in flight, /s | 40 | none |  | 12.0x (25.0x) |  |" in text


def test_a_sample_belongs_to_the_innermost_frame_of_ours() -> None:
    stack = "run (asyncio/runners.py:1);send (appliance/doors/client/send.py:9);send (appliance/rooms/send.py:40)"
    assert part_of(stack) == "rooms/send"
    assert part_of(f"{stack};sign (nacl/signing.py:7)") == "rooms/send -> signing"
    assert (
        part_of(f"{stack.replace('(appliance', '(/srv/a b/appliance')};run (/usr/aiohttp/x.py:1)")
        == "rooms/send -> aiohttp"
    )
    assert part_of("run (asyncio/runners.py:1);start (aiohttp/web_protocol.py:5)") == "event loop -> aiohttp"
    assert (
        part_of("homeserver (appliance/laboratory.py:79);start (aiohttp/web_protocol.py:5)") == "event loop -> aiohttp"
    )
    found, samples = shares(f"{stack} 30\nrun (asyncio/runners.py:1) 10\n")
    assert (found, samples) == ({"rooms/send": 0.75, "event loop and threads": 0.25}, 40)


def test_percentiles_are_nearest_rank_in_milliseconds() -> None:
    assert percentiles([0.001 * n for n in range(1, 101)], 50, 99) == {"p50": 51.0, "p99": 100.0}
    assert percentiles([], 50) == {"p50": None}


def test_only_this_machine_is_loaded() -> None:
    require_loopback("http://127.0.0.1:1")
    with pytest.raises(SystemExit):
        require_loopback("https://matrix.example")
