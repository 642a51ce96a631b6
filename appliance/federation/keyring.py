"""Whose key is which, and until when: the ground under every signature from outside.

A key is looked for in memory, then in the store, then at its server, then at the notaries that the site trusts (none
unless configured). What was learned is kept for good: old events stay verifiable after their server is gone. Looking is
bounded in every direction, because strangers decide what we look for: one flight per server, few at once, a rest after
each attempt that doubles with every failure, at most 50 servers for one batch, and a deadline for the batch.

A key signs an event only up to the time that its server vouched for, and never longer than a week ahead; a key
declared old signs up to its expiry and no requests at all.

Source: server-server API, "Retrieving server keys"; room version 5, "Signing key validity period".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from appliance.federation import key_object, requests
from appliance.federation.key_object import WEEK_MS, BadKeys, KeyObject, VerifyKey
from appliance.federation.own_keys import OwnKeys
from appliance.federation.requests import Credentials, Unauthorized
from appliance.federation.signatures import Claims, check_all, claims
from appliance.link.errors import PeerError
from appliance.link.expiring import Clock, Expiring
from appliance.link.flights import Flights
from appliance.matrix import canonical
from appliance.matrix.canonical import Json
from appliance.matrix.event import Event
from appliance.matrix.ids import ServerName
from appliance.matrix.signing import BadSignature, verify_json
from appliance.store import server_keys
from appliance.store.database import Store
from appliance.store.server_keys import KeyRow, ObjectRow
from appliance.store.writer import Tx

MOST_SERVERS: Final = 5_000
"""Servers whose keys are in memory."""
MEMORY_MS: Final = 3_600_000
MOST_AT_ONCE: Final = 16
MOST_PER_BATCH: Final = 50
BATCH_SECONDS: Final = 20.0
REST_MS: Final = 60_000
LONGEST_REST_MS: Final = 3_600_000
IN_THE_LOOP: Final = 16
"""Events checked on the event loop (0.2 ms each); larger batches go to a thread."""

Wanted = dict[ServerName, dict[str, int]]
"""By server and key id: until when the key must be good (milliseconds)."""
Keys = Mapping[str, VerifyKey]


class Publishers(Protocol):
    """Where keys come from; `federation.client.Client` is one. Both raise `PeerError`."""

    async def key_object(self, peer: ServerName) -> dict[str, Json]:
        """Return a server's own key object, unchecked."""
        ...

    async def ask_notary(
        self, notary: ServerName, wanted: Mapping[ServerName, Mapping[str, int]]
    ) -> list[dict[str, Any]]:
        """Return what a notary knows of servers' keys, unchecked."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks a notary about one server: an object valid until then (milliseconds), with these key ids."""

    keys: frozenset[str] = frozenset()
    until: int = 0


class Keyring:
    """Keys of all servers. `close` it at the end."""

    def __init__(
        self, own: OwnKeys, store: Store, publishers: Publishers, clock: Clock, chance: Callable[[], float],
        notaries: Sequence[ServerName] = (),
    ) -> None:
        self.own = own
        self._store = store
        self._publishers = publishers
        self._clock = clock
        self._chance = chance
        self._notaries = notaries
        self._known: Expiring[ServerName, Keys] = Expiring(MOST_SERVERS, clock)
        self._resting: Expiring[ServerName, int] = Expiring(MOST_SERVERS, clock)
        self._flights: Flights[ServerName, None] = Flights(MOST_AT_ONCE)

    async def close(self) -> None:
        """Stop looking."""
        await self._flights.close()

    # -- questions

    async def verify_event(self, event: Event) -> BadSignature | None:
        """Tell what is wrong with an event's signatures (`KeyUnknown` if nobody could say), or None."""
        return (await self.verify_events([event]))[0]

    async def verify_events(self, events: Sequence[Event]) -> list[BadSignature | None]:
        """Check the signatures of many events (`matrix.event.signers` says whose); the answers are in their order."""
        found = [claims(event) for event in events]
        keys = await self._provide(_wanted(found, self._clock() + WEEK_MS))
        if len(events) <= IN_THE_LOOP:
            return check_all(events, found, keys)
        return await asyncio.to_thread(check_all, events, found, keys)

    async def authenticate(self, claim: Credentials, method: str, target: str, content: bytes | None) -> None:
        """Check that a request comes from the server it names; `content` in canonical form. Raises `Unauthorized`."""
        if claim.origin == self.own.name:
            raise Unauthorized("Nobody but this server speaks for it")
        now = self._clock()
        keys = (await self._provide({claim.origin: dict.fromkeys(claim.signatures, now)}))[claim.origin]
        good = {key_id: key.key for key_id, key in keys.items() if not key.old and key.until >= now}
        requests.verify(claim, method, target, content, good)

    async def notarise(self, wanted: Mapping[ServerName, Asked]) -> list[Mapping[str, Json]]:
        """Return the servers' key objects with our signature beside theirs; those nobody can reach are left out."""
        others = [server for server in wanted if server != self.own.name]
        held = await self._store.read(server_keys.objects, others)
        stale = [server for server in others if self._stale(held.get(server), wanted[server])]
        if stale:
            await self._visit(stale[:MOST_PER_BATCH])
            held = await self._store.read(server_keys.objects, others)
        found: list[Mapping[str, Json]] = [self.own.published()] if self.own.name in wanted else []
        return found + [self.own.countersign(canonical.decode_object(row.json)) for row in held.values()]

    # -- looking for keys

    def _stale(self, row: ObjectRow | None, asked: Asked) -> bool:
        """Tell whether a notary should ask again: past half of its life, too short for the asker, or a key is new."""
        now = self._clock()
        if row is None or now > row.fetched + max(row.until - row.fetched, 0) // 2:
            return True
        if row.until < min(asked.until, now + WEEK_MS):
            return True
        held = canonical.decode_object(row.json)
        current, old = held.get("verify_keys"), held.get("old_verify_keys", {})
        known = {*(current if isinstance(current, Mapping) else ()), *(old if isinstance(old, Mapping) else ())}
        return not asked.keys <= known

    async def _provide(self, wanted: Wanted) -> dict[ServerName, Keys]:
        """Return what can be known of these servers' keys now."""
        others = [server for server in wanted if server != self.own.name]
        await self._recall([server for server in others if self._known.fresh(server) is None])
        lacking = [server for server in others if self._lacks(server, wanted[server])]
        if lacking:
            await self._visit(lacking[:MOST_PER_BATCH])
            still = {server: wanted[server] for server in lacking if self._lacks(server, wanted[server])}
            if still and self._notaries:
                await self._ask_notaries(still)
        keys: dict[ServerName, Keys] = {server: self._known.last(server) or {} for server in others}
        if self.own.name in wanted:
            keys[self.own.name] = self.own.keys()
        return keys

    async def _recall(self, servers: Sequence[ServerName]) -> None:
        """Fetch into memory what the store knows."""
        if not servers:
            return
        found: dict[str, dict[str, VerifyKey]] = {server: {} for server in servers}
        for row in await self._store.read(server_keys.keys_of, servers):
            found[row.server][row.key_id] = VerifyKey(row.verify_key, row.until, row.old)
        for server in servers:
            self._known.put(server, found[server], MEMORY_MS)

    def _lacks(self, server: ServerName, keys: Mapping[str, int]) -> bool:
        """Tell whether asking the server could help: a key is unknown, or good for too short a time."""
        known = self._known.last(server) or {}
        return any(
            key_id not in known or (known[key_id].until < until and not known[key_id].old)
            for key_id, until in keys.items()
        )

    async def _visit(self, servers: Sequence[ServerName]) -> None:
        """Ask the servers themselves, except those that rest; whoever is not done at the deadline goes on alone."""
        ready = [server for server in servers if self._resting.fresh(server) is None]
        flights = [
            asyncio.ensure_future(self._flights.join(server, lambda server=server: self._fetch(server)))  # type: ignore[misc]
            for server in ready
        ]
        if flights:
            landed, late = await asyncio.wait(flights, timeout=BATCH_SECONDS)
            for flight in late:
                flight.cancel()
            for flight in landed:
                flight.result()  # a store that cannot write is our trouble, not the peer's

    async def _fetch(self, server: ServerName) -> None:
        failures = (self._resting.last(server) or 0) + 1
        try:
            found = key_object.read(await self._publishers.key_object(server), server, self._clock())
        except (PeerError, BadKeys):
            pause = min(REST_MS * 2 ** min(failures - 1, 10), LONGEST_REST_MS)
            self._resting.put(server, failures, pause * (1 - self._chance() / 4))
            return
        await self._take(found)
        self._resting.put(server, 0, REST_MS * (1 - self._chance() / 4))

    async def _ask_notaries(self, wanted: Wanted) -> None:
        """Ask the notaries in turn for what is still lacking."""
        for notary in self._notaries:
            if notary == self.own.name or not wanted:
                continue
            try:
                async with asyncio.timeout(BATCH_SECONDS):
                    for found in await self._vouched(notary, wanted):
                        await self._take(found)
            except (PeerError, TimeoutError):
                continue
            wanted = {server: keys for server, keys in wanted.items() if self._lacks(server, keys)}

    async def _vouched(self, notary: ServerName, wanted: Wanted) -> list[KeyObject]:
        """Return those of the notary's answers that it signed itself and that are about what was asked."""
        now = self._clock()
        own = await self._keys_now(notary, now)
        answers = await self._publishers.ask_notary(notary, wanted)
        found = []
        for value in answers[: 2 * len(wanted)]:
            server = value.get("server_name")
            try:
                if not isinstance(server, str) or server not in wanted:
                    continue
                _verify_notary(value, notary, own)
                found.append(key_object.read(value, ServerName(server), now))
            except (BadKeys, BadSignature):
                continue
        return found

    async def _keys_now(self, server: ServerName, now: int) -> Keys:
        """Return a notary's keys that are good now; they come from the notary itself."""
        if self._known.fresh(server) is None:
            await self._recall([server])
        good = {k: key for k, key in (self._known.last(server) or {}).items() if not key.old and key.until >= now}
        if not good:
            await self._visit([server])
            good = {k: key for k, key in (self._known.last(server) or {}).items() if not key.old and key.until >= now}
        return good

    async def _take(self, found: KeyObject) -> None:
        """Keep what was learned, on disk and then in memory."""
        await self._store.write(_keep, found, self._clock())
        await self._recall([found.server])


def _keep(tx: Tx, found: KeyObject, now: int) -> None:
    """Keep a key object; an older one than the one we have only adds keys that we do not know."""
    held = server_keys.objects(tx, [found.server]).get(found.server)
    rows = [KeyRow(found.server, key_id, key.key, key.until, key.old) for key_id, key in found.keys.items()]
    if held is not None and held.until > found.until:
        known = {row.key_id for row in server_keys.keys_of(tx, [found.server])}
        server_keys.learn(tx, [row for row in rows if row.key_id not in known])
        return
    server_keys.learn(tx, rows)
    server_keys.keep_object(tx, found.server, ObjectRow(canonical.encode(found.json), now, found.until))


def _verify_notary(value: Mapping[str, Json], notary: ServerName, keys: Keys) -> None:
    """Check that one of the notary's keys signed the object; `BadSignature` otherwise."""
    problem = BadSignature("The notary did not sign")
    for key_id, key in keys.items():
        try:
            return verify_json(value, notary, key_id, key.key)
        except BadSignature as error:
            problem = error
    raise problem


def _wanted(found: Sequence[Claims], latest: int) -> Wanted:
    """Gather which keys the claims need and until when; nobody can vouch for times beyond `latest`."""
    wanted: Wanted = {}
    for claim in found:
        until = min(claim.ts, latest)
        for server, signatures in claim.signatures.items():
            keys = wanted.setdefault(server, {})
            for key_id in signatures:
                keys[key_id] = max(keys.get(key_id, 0), until)
    return wanted
