"""Keys of other servers on disk: kept for good, never more than there is room for, and their times only as declared."""

from pathlib import Path

import pytest

from appliance.store import server_keys
from appliance.store.database import Store
from appliance.store.server_keys import KeyRow, ObjectRow


def row(key: bytes, until: int, *, old: bool = False, key_id: str = "ed25519:1") -> KeyRow:
    return KeyRow("a.example", key_id, key * 32, until, old)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (row(b"a", 5), row(b"a", 9), row(b"a", 9)),
        (row(b"a", 9), row(b"a", 5), row(b"a", 9)),
        (row(b"a", 9), row(b"a", 5, old=True), row(b"a", 5, old=True)),
        (row(b"a", 5, old=True), row(b"a", 9), row(b"a", 9)),
        (row(b"a", 9), row(b"b", 5), row(b"b", 5)),
    ],
)
async def test_what_a_second_look_changes(tmp_path: Path, first: KeyRow, second: KeyRow, expected: KeyRow) -> None:
    store = await Store.open(tmp_path / "x.db")
    await store.write(server_keys.learn, [first])
    await store.write(server_keys.learn, [second])
    assert await store.read(server_keys.keys_of, ["a.example", "b.example"]) == [expected]
    await store.close()


async def test_nobody_fills_the_disk_with_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_keys, "MOST_OBJECTS", 40)
    store = await Store.open(tmp_path / "x.db")
    await store.write(server_keys.learn, [row(b"a", 5, key_id=f"ed25519:{n}") for n in range(500)])
    assert len(await store.read(server_keys.keys_of, ["a.example"])) == server_keys.MOST_PER_SERVER
    await store.write(server_keys.learn, [row(b"a", 7, key_id="ed25519:0")])
    assert max(found.until for found in await store.read(server_keys.keys_of, ["a.example"])) == 7
    for number in range(100):
        await store.write(server_keys.keep_object, f"s{number}", ObjectRow(b"{}", number, 0))
    held = await store.read(server_keys.objects, [f"s{number}" for number in range(100)])
    assert 38 <= len(held) <= 40 and "s99" in held and "s0" not in held
    await store.close()
