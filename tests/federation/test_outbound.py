"""Sending to other servers: everything, in order, once; patient with the dead, and quick with the living."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from appliance.federation.outbound import AT_ONCE, Line, Outbound
from appliance.link.errors import RefusedByPeer
from appliance.matrix.ids import ServerName
from appliance.store import outbox
from appliance.store.database import Store
from appliance.store.writer import Tx
from tests.federation.post import A, B, Clock, Letter, Post, until


class House:
    def __init__(self, store: Store, post: Post, clock: Clock, line: Line | None = None) -> None:
        self.store = store
        self.outbound = Outbound(store, post.send, clock=clock, chance=lambda: 0.5, line=line)

    async def owe(self, first: int, last: int, *peers: str) -> None:
        await self.store.write(owe, first, last, peers or (B,))

    async def owed(self, peer: str = B) -> int:
        return await self.store.read(outbox.owed, peer)


def owe(tx: Tx, first: int, last: int, peers: tuple[str, ...]) -> None:
    for number in range(first, last):
        outbox.owe_edu(tx, json.dumps({"n": number}).encode(), peers)


@asynccontextmanager
async def house(
    folder: Path, post: Post, clock: Clock, line: Line | None = None, *, running: bool = True
) -> AsyncIterator[House]:
    store = await Store.open(folder / "x.db")
    made = House(store, post, clock, line)
    task = asyncio.create_task(made.outbound.run()) if running else None
    try:
        yield made
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await store.close()


def arrived(post: Post, peer: str = B) -> list[int]:
    return [edu["n"] for letter in post.sent if letter.peer == peer for edu in letter.edus if "n" in edu]


def more_than(post: Post, tries: int) -> bool:
    return len(post.tried) > tries


async def test_everything_in_order_in_few_transactions(tmp_path: Path) -> None:
    post, clock = Post(), Clock()
    async with house(tmp_path, post, clock) as h:
        post.open.clear()
        await h.owe(0, 1)
        await until(lambda: len(post.tried) == 1)
        await h.owe(1, 251)
        post.open.set()
        await until(lambda: len(arrived(post)) == 251 and h.outbound.idle())
        assert arrived(post) == list(range(251))
        assert [len(letter.edus) for letter in post.sent] == [1, 100, 100, 50]
        assert len({letter.txn for letter in post.sent}) == 4 and await h.owed() == 0


async def test_a_dead_peer_gets_everything_when_it_is_back_under_the_same_id(tmp_path: Path) -> None:
    post, clock = Post(down={B}), Clock()
    async with house(tmp_path, post, clock) as h:
        await h.owe(0, 3)
        await until(lambda: h.outbound.idle() and bool(post.tried))
        await h.owe(3, 120)
        assert len(post.tried) == 1 and h.outbound.idle()
        pauses = []
        for _ in range(14):
            before = len(post.tried)
            trouble = h.outbound.troubles()[B]
            pauses.append(trouble.retry_at - clock.now)
            clock.now = trouble.retry_at
            h.outbound.nudge()
            await until(partial(more_than, post, before))
            await until(h.outbound.idle)
        assert pauses[:4] == [1000, 2000, 4000, 8000] and pauses[-1] == 3_600_000
        assert {(letter.txn, json.dumps(letter.edus)) for letter in post.tried} == {
            (post.tried[0].txn, json.dumps(post.tried[0].edus))
        }
        post.down.clear()
        clock.now += 3_600_000
        h.outbound.nudge()
        await until(lambda: len(arrived(post)) == 120)
        assert arrived(post) == list(range(120)) and h.outbound.troubles() == {}


async def test_pauses_and_what_is_owed_survive_a_restart(tmp_path: Path) -> None:
    post, clock = Post(down={B}), Clock()
    async with house(tmp_path, post, clock) as h:
        await h.owe(0, 2)
        await until(lambda: bool(h.outbound.troubles()) and h.outbound.idle())
    async with house(tmp_path, post, clock) as h:
        await until(lambda: bool(h.outbound.troubles()))
        await h.owe(2, 4)
        assert len(post.tried) == 1
        post.down.clear()
        clock.now += 1000
        h.outbound.nudge()
        await until(lambda: len(arrived(post)) == 4)
        assert post.tried[1].txn == post.tried[0].txn and post.tried[1].edus == post.tried[0].edus


async def test_a_crash_between_commit_and_send_or_between_send_and_acknowledgement(tmp_path: Path) -> None:
    post, clock = Post(), Clock()
    async with house(tmp_path, post, clock, running=False) as h:
        await h.owe(0, 5)
    assert post.tried == []
    seen: dict[str, list[int]] = {}

    async def accept(txn: str, content: object) -> None:
        assert isinstance(content, dict)
        seen.setdefault(txn, [edu["n"] for edu in content["edus"]])

    post.at[B] = accept
    async with house(tmp_path, post, clock) as h:
        store_write = h.store.write

        def dies(fn, *args):
            if fn is outbox.turn and args[1] is not None:
                raise asyncio.CancelledError  # the process ends here: the peer has it, we do not know
            return store_write(fn, *args)

        h.store.write = dies  # type: ignore[method-assign,assignment]
        await until(lambda: len(post.sent) == 1)
        assert await h.owed() == 5
    async with house(tmp_path, post, clock) as h:
        await h.owe(5, 7)
        await until(lambda: len(post.sent) == 3)
    assert post.sent[0].txn == post.sent[1].txn  # the peer recognises it
    assert [number for numbers in seen.values() for number in numbers] == list(range(7))


async def test_a_signed_request_ends_the_pause_but_not_too_often(tmp_path: Path) -> None:
    post, clock = Post(down={B}), Clock()
    async with house(tmp_path, post, clock) as h:
        await h.owe(0, 1)
        for _ in range(5):
            await until(lambda: bool(h.outbound.troubles()) and h.outbound.idle())
            clock.now = h.outbound.troubles()[B].retry_at
            before = len(post.tried)
            h.outbound.nudge()
            await until(partial(more_than, post, before))
        await until(h.outbound.idle)
        tries = len(post.tried)
        for _ in range(20):
            h.outbound.heard(B)
            clock.now += 100
            await asyncio.sleep(0)
        assert len(post.tried) == tries
        post.down.clear()
        clock.now += 4000
        h.outbound.heard(B)
        h.outbound.nudge()
        await until(lambda: arrived(post) == [0])


async def test_while_our_line_is_down_nobody_is_blamed(tmp_path: Path) -> None:
    class Cable:
        def __init__(self) -> None:
            self.plugged = asyncio.Event()

        def up(self) -> bool:
            return self.plugged.is_set()

        async def back(self) -> None:
            await self.plugged.wait()

    post, clock, cable = Post(down={B}), Clock(), Cable()
    async with house(tmp_path, post, clock, cable) as h:
        await h.owe(0, 3)
        await until(lambda: len(post.tried) == 1)
        await asyncio.sleep(0.02)
        assert h.outbound.troubles() == {} and len(post.tried) == 1
        post.down.clear()
        cable.plugged.set()
        await until(lambda: arrived(post) == [0, 1, 2])
        assert post.tried[0].txn == post.tried[1].txn


async def test_many_peers_at_once_but_not_all_and_the_slow_hold_nobody_up(tmp_path: Path) -> None:
    post, clock = Post(), Clock()
    peers = [f"p{number}.example" for number in range(100)]
    post.down.update(peers[:90])
    async with house(tmp_path, post, clock) as h:
        await h.owe(0, 2, *peers)
        await until(lambda: h.outbound.idle() and len(post.tried) >= 100)
        assert all(arrived(post, peer) == [0, 1] for peer in peers[90:])
        assert len(h.outbound.troubles()) == 90 and post.most_under_way <= AT_ONCE
        assert len(asyncio.all_tasks()) <= 3  # the test, the loop of pauses: the dead have no tasks


async def test_a_refusal_of_us_waits_and_a_refused_event_does_not_block_the_rest(tmp_path: Path) -> None:
    post, clock = Post(no={B: 403}), Clock()
    async with house(tmp_path, post, clock) as h:
        await h.owe(0, 1)
        await until(lambda: bool(h.outbound.troubles()) and h.outbound.idle())
        trouble = h.outbound.troubles()[B]
        assert trouble.refused and trouble.retry_at - clock.now == 3_600_000 and await h.owed() == 1

    def judge(letter: Letter) -> None:
        if any(edu["n"] == 3 for edu in letter.edus):
            raise RefusedByPeer(letter.peer, 400, "M_BAD_JSON")

    post.no.clear()
    post.judge = judge
    clock.now += 3_600_000
    async with house(tmp_path, post, clock) as h:
        await h.owe(1, 6)
        await until(lambda: len(arrived(post)) == 5)
        assert arrived(post) == [0, 1, 2, 4, 5]


async def test_typing_is_told_at_once_and_forgotten_when_the_peer_is_away(tmp_path: Path) -> None:
    post, clock = Post(), Clock()
    async with house(tmp_path, post, clock) as h:
        post.open.clear()
        h.outbound.offer(B, "typing !r @a", {"typing": True})
        await until(lambda: len(post.tried) == 1)
        for number in range(5):
            h.outbound.offer(B, "typing !r @b", {"typing": number})
        await h.owe(0, 1)
        post.open.set()
        await until(lambda: len(post.sent) == 2 and h.outbound.idle())
        assert [letter.edus for letter in post.sent] == [[{"typing": True}], [{"n": 0}, {"typing": 4}]]
        post.down.add(ServerName("c.example"))
        h.outbound.offer(ServerName("c.example"), "k", {"typing": True})
        await until(lambda: "c.example" in h.outbound.troubles() and h.outbound.idle())
        h.outbound.offer(ServerName("c.example"), "k", {"typing": True})
        clock.now += 10_000
        post.down.clear()
        h.outbound.nudge()
        await until(lambda: not h.outbound.troubles() and h.outbound.idle())
        assert all(letter.peer != "c.example" for letter in post.sent) and A != B
