"""State that a resolved fork changed reaches whoever waits, although no state event of the timeline says so."""

from __future__ import annotations

from pathlib import Path

import msgspec

from appliance.matrix.requester import Requester
from appliance.store import append, events, rooms, state
from appliance.store.readers import Rx
from tests.sync.station import Station, joined, station

TOPIC = ("m.room.topic", "")


async def merge(house: Station, room_id: str, sender: Requester, topic_eid: int) -> None:
    """Append a message that follows a fork whose resolution brings an earlier topic back."""

    def tip(rx: Rx) -> tuple[rooms.RoomRow, events.Row, dict[state.Key, int]]:
        room = rooms.find(rx, room_id)
        assert room is not None
        newest = events.timeline(rx, room.rid, after=0, upto=2**60, limit=1, backwards=True)[0]
        return room, newest, state.current(rx, room.rid)

    room, newest, current = await house.store.read(tip)
    event = msgspec.structs.replace(
        newest.event, event_id="$merge", type="m.room.message", state_key=None, sender=sender.user_id,
        content={"msgtype": "m.text", "body": "merge"}, prev_events=(newest.event.event_id,),
    )
    await house.ledger.append(room.rid, append.New(event, before=room.sid, current={**current, TOPIC: topic_eid}))


async def test_the_state_section_carries_what_a_fork_changed(tmp_path: Path) -> None:
    async with station(tmp_path, presence=False) as house:
        anna, bert = await house.person("anna"), await house.person("bert")
        room_id = await house.room(anna, "public_chat")
        await house.join(bert, room_id)
        first = await house.state(anna, room_id, *TOPIC[:1], {"topic": "first"})
        await house.state(anna, room_id, *TOPIC[:1], {"topic": "second"})
        await house.say(anna, room_id, "before")
        since = await house.token(bert)
        await house.say(anna, room_id, "live")
        since = (await house.sync(bert, since))["next_batch"]
        topic = (await house.store.read(events.fetch, [first]))[first]
        await merge(house, room_id, anna, topic.eid)
        for after in (False, True):
            section = joined(await house.sync(bert, since, state_after=after), room_id)
            told = section["state_after" if after else "state"]["events"]
            assert [event["content"] for event in told] == [{"topic": "first"}]
            assert [event["content"].get("body") for event in section["timeline"]["events"]] == ["merge"]
