"""Users of other servers, as the accounts of this one need them: keys, messages for their devices, profiles.

Implements `accounts.e2ee_keys.Peers`, `accounts.to_device.Peers` and `accounts.profile.Peers`.

Source: server-server API, "End-to-End Encryption", "Send-to-device messaging", "Querying for information".
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from appliance.federation.client import Client
from appliance.federation.device_lists import Copies
from appliance.link.errors import PeerError
from appliance.matrix import canonical
from appliance.matrix.errors import NotFound
from appliance.matrix.ids import ServerName, UserId, server_of
from appliance.store import device_lists, outbox
from appliance.store.database import Store
from appliance.store.device_lists import Copy, PeerDevice
from appliance.store.readers import Rx
from appliance.store.writer import Tx

ONE_BY_ONE: Final = 20
"""Lists that are fetched (and from then on followed) for one question; for more, the server is asked once for all."""
EDU_BYTES: Final = 256 * 1024

Json = Any
Answer = dict[str, Any]
Messages = dict[str, dict[str, Json]]


class Users:
    """The users of other servers."""

    def __init__(self, store: Store, home: ServerName, client: Client, copies: Copies) -> None:
        self._store = store
        self._home = home
        self._client = client
        self._copies = copies

    # -- keys -------------------------------------------------------------------------------------------------------

    async def query_keys(self, server: ServerName, wanted: Mapping[str, Sequence[str]]) -> Answer:
        """Return `device_keys`, `master_keys` and `self_signing_keys`; from our copies as far as they are good.

        A user of whom nothing is known and nothing can be learned makes the answer incomplete (`failures`).
        """
        answer: Answer = {"device_keys": {}, "master_keys": {}, "self_signing_keys": {}, "failures": {}}
        held, watched = await self._store.read(_held, self._home, list(wanted))
        missing = [user for user in wanted if user not in held or held[user].stale]
        followed = [user for user in missing if user in watched]
        if len(followed) <= ONE_BY_ONE:
            failed = await self._fetch(followed)
            missing = [user for user in missing if user not in watched or (user in failed and user not in held)]
        if missing:
            try:
                found = await self._client.user_keys(server, {user: wanted[user] for user in missing})
            except PeerError:
                answer["failures"][server] = {"status": 503, "message": "The server could not be reached"}
            else:
                answer["device_keys"].update(found.device_keys)
                answer["master_keys"].update(found.master_keys)
                answer["self_signing_keys"].update(found.self_signing_keys)
        rest = [user for user in wanted if user not in missing]
        for user, (copy, known) in (await self._store.read(_copies, rest)).items():
            _render(answer, user, copy, known, wanted[user])
        return answer

    async def _fetch(self, users: Sequence[str]) -> set[str]:
        """Fetch lists; returns those that could not be had."""
        results = await asyncio.gather(*(self._copies.fetch(UserId(user)) for user in users), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, PeerError):
                raise result
        return {user for user, result in zip(users, results, strict=True) if result is not None}

    async def claim_keys(self, server: ServerName, wanted: Mapping[str, Mapping[str, str]]) -> Answer:
        """Return `one_time_keys`; each is handed out by its server once, so nothing is kept here."""
        found = await self._client.claim_keys(server, wanted)
        return {"one_time_keys": found.one_time_keys}

    # -- messages for devices ---------------------------------------------------------------------------------------

    def queue(
        self, tx: Tx, server: ServerName, sender: UserId, type: str, txn: str, messages: Mapping[str, Any]
    ) -> None:
        """Owe messages (user -> device -> content) to a server, inside the commit that takes them from the client."""
        for part in _parts(messages):
            number = tx.next_pos()
            message_id = hashlib.sha256(f"{sender}\0{type}\0{txn}\0{number}".encode()).hexdigest()[:32]
            content = {"sender": sender, "type": type, "message_id": message_id, "messages": part}
            edu = canonical.dumps({"edu_type": "m.direct_to_device", "content": content})
            outbox.owe_edu(tx, edu, [server])

    # -- profiles ---------------------------------------------------------------------------------------------------

    async def profile(self, user_id: UserId, field: str | None) -> dict[str, Any]:
        """Return a profile, or one field of it; `NotFound` whatever the reason is that there is none."""
        try:
            return dict(await self._client.profile(server_of(user_id), user_id, field))
        except PeerError as error:
            raise NotFound("Profile not found") from error


def _parts(messages: Mapping[str, Mapping[str, Json]]) -> Iterator[Messages]:
    """Cut messages into EDUs of a bounded size."""
    part: Messages = {}
    size = 0
    for user_id, by_device in messages.items():
        for device_id, content in by_device.items():
            length = len(canonical.dumps(content)) + len(user_id) + len(device_id)
            if part and size + length > EDU_BYTES:
                yield part
                part, size = {}, 0
            part.setdefault(user_id, {})[device_id] = content
            size += length
    if part:
        yield part


def _held(rx: Rx, home: str, users: Sequence[str]) -> tuple[dict[str, Copy], set[str]]:
    found = {user: copy for user in users if (copy := device_lists.copy(rx, user)) is not None}
    return found, {user for user in users if device_lists.watched(rx, user, home)}


def _copies(rx: Rx, users: Sequence[str]) -> dict[str, tuple[Copy, list[PeerDevice]]]:
    found = {user: device_lists.copy(rx, user) for user in users}
    return {user: (copy, device_lists.copied_devices(rx, user)) for user, copy in found.items() if copy is not None}


def _render(answer: Answer, user: str, copy: Copy, known: Sequence[PeerDevice], wanted: Sequence[str]) -> None:
    rendered: dict[str, Json] = {}
    for device in known:
        if device.keys is None or (wanted and device.device_id not in wanted):
            continue
        keys = dict(canonical.decode_object(device.keys))
        if device.name is not None:
            keys["unsigned"] = {"device_display_name": device.name}
        rendered[device.device_id] = keys
    answer["device_keys"][user] = rendered
    if copy.master is not None:
        answer["master_keys"][user] = canonical.decode_object(copy.master)
    if copy.self_signing is not None:
        answer["self_signing_keys"][user] = canonical.decode_object(copy.self_signing)
