"""Throw generated requests, valid and broken, at every published operation: no answer may be a 5xx, HTML or a hang.

    python -m tests.fuzz.api_fuzz [--cases 4000] [--seed 1] [--spec ../shared/spec/data]

schemathesis draws the requests from the OpenAPI data; half of them name things that really exist (a room, an event, a
device of the caller), because most code lies behind a known id. Prints what was wrong and one line of totals.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import itertools
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from tests.conformance.openapi import merged
from tests.world.client import Client, session
from tests.world.keys import DeviceKeys
from tests.world.server import REPO, Homeserver, homeserver

PATIENCE = 20  # seconds until an answer counts as a hang
TOKENS = st.sampled_from(
    [""] * 12 + ["Bearer", "Bearer x", "Basic eDp4", "Bearer " + "y" * 2000]
)  # empty: the caller's
WAITS = ("timeout", "timeout_ms")  # a long poll is not a hang


@dataclass(slots=True)
class Tally:
    """What came back."""

    cases: int = 0
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)


class Caller:
    """A person with a room, an event, keys and a backup; a new one as soon as a request has logged the old one out."""

    def __init__(self, server: Homeserver) -> None:
        self.server = server
        self.http = requests.Session()
        self._count = 0
        self.known: dict[str, str] = {}
        self.token = ""

    def renew(self) -> None:
        """Make sure that there is a caller whose token and room are good."""
        url = f"{self.server.base}/_matrix/client/v3/account/whoami"
        if self.token and self.http.get(url, headers=self.headers(), timeout=PATIENCE).status_code == 200:
            return
        self._count += 1
        self.known = asyncio.run(self._settle(f"caller{self._count}"))

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def _settle(self, name: str) -> dict[str, str]:
        async with session() as http:
            one = await Client(http, self.server.base).register(name)
            room = await one.create_room(preset="public_chat", name="fuzz", room_alias_name=name)
            event = await one.send(room, {"msgtype": "m.text", "body": "hello"})
            keys = DeviceKeys(one.user_id, one.device_id)
            upload = {"device_keys": keys.device_keys(), "one_time_keys": keys.one_time_keys(3)}
            await one.call("POST", "/v3/keys/upload", upload)
            backup = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "A" * 43}}
            version = await one.call("POST", "/v3/room_keys/version", backup)
            chosen = await one.call("POST", f"/v3/user/{one.user_id}/filter", {"room": {"timeline": {"limit": 3}}})
        self.token = one.token
        server = one.user_id.split(":", 1)[1]
        return {
            "userId": one.user_id,
            "roomId": room,
            "eventId": event,
            "deviceId": one.device_id,
            "roomAlias": f"#{name}:{server}",
            "roomIdOrAlias": room,
            "version": str(version["version"]),
            "filterId": str(chosen["filter_id"]),
            "serverName": server,
            "eventType": "m.room.message",
            "keyName": "displayname",
            "kind": "override",
            "receiptType": "m.read",
            "relType": "m.thread",
        }


def operations_of(document: dict[str, Any]) -> list[Any]:
    """Return the operations; tokens are ours to give, so the description of how to give them is taken out."""
    del document["components"]
    for methods in document["paths"].values():
        for operation in methods.values():
            if isinstance(operation, dict):
                operation.pop("security", None)
    return [
        found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations() if isinstance(found, Ok)
    ]


def strategies(operation: Any, known: dict[str, str]) -> Iterator[Any]:
    """Yield how to draw requests for one operation: valid and broken, with made-up and with existing names."""
    names = [parameter.name for parameter in operation.path_parameters]
    real = {name: known[name] for name in names if name in known}
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        yield operation.as_strategy(generation_mode=mode)
        if real and len(real) == len(names):
            yield operation.as_strategy(generation_mode=mode, path_parameters=real)


def ask(case: Any, caller: Caller, tally: Tally, token: str, version_too: bool) -> None:
    """Send one request and judge the answer."""
    if isinstance(case.query, dict):
        for name in WAITS:
            if name in case.query:
                case.query[name] = "0"
        if version_too and "version" in case.query:
            case.query["version"] = caller.known["version"]
    label = case.operation.label
    tally.cases += 1
    try:
        answer = case.call(
            caller.server.base,
            caller.http,
            headers={"Authorization": token or f"Bearer {caller.token}"},
            timeout=PATIENCE,
            allow_redirects=False,
        )
    except requests.Timeout:
        tally.faults.append(f"{label}: no answer within {PATIENCE} s: {case.as_curl_command()[:600]}")
        return
    except requests.RequestException as problem:
        tally.faults.append(f"{label}: {problem!r}: {case.as_curl_command()[:600]}")
        return
    tally.statuses[answer.status_code] += 1
    fault = verdict(answer.status_code, answer.headers.get("Content-Type", ""), answer.content or b"")
    if fault:
        tally.faults.append(f"{label}: {fault}: {answer.content[:200]!r}: {case.as_curl_command()[:600]}")


def verdict(status: int, content_type: str, raw: bytes) -> str:
    """Return what is wrong with an answer, or nothing."""
    if status >= 500:
        return f"status {status}"
    if "html" in content_type:
        return "an HTML page"
    if status >= 400 and not (b'"errcode"' in raw or b'"flows"' in raw):
        return f"status {status} without an errcode"
    return ""


def fuzz_operation(operation: Any, caller: Caller, tally: Tally, cases: int, seed: int) -> None:
    """Send about `cases` requests to one operation."""
    if cases <= 0:
        return
    caller.renew()
    drawers = list(strategies(operation, caller.known))
    for drawer in drawers:

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=max(1, round(cases / len(drawers))),
            database=None,
            deadline=None,
            derandomize=False,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=drawer, token=TOKENS, version_too=st.booleans())
        def run(case: Any, token: str, version_too: bool) -> None:
            ask(case, caller, tally, token, version_too)

        try:
            run()
        except (hypothesis.errors.Unsatisfiable, hypothesis.errors.InvalidArgument):
            continue  # an operation without parameters and body cannot be called wrongly


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="only operations whose label contains this")
    parser.add_argument("--spec", type=Path, default=REPO.parent / "shared" / "spec" / "data")
    options = parser.parse_args()
    if not options.spec.is_dir():
        print(f"left out: no specification data at {options.spec}")
        return 0
    operations = [found for found in operations_of(merged(options.spec)) if options.only in found.label]
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        server = homeserver(Path(folder) / "data")
        server.start()
        try:
            caller = Caller(server)
            for seed in itertools.count(options.seed):  # some operations can be asked in few ways: go round again
                for number, operation in enumerate(operations):
                    share = -(-(options.cases - tally.cases) // (len(operations) - number))
                    fuzz_operation(operation, caller, tally, share, seed)
                if tally.cases >= options.cases:
                    break
        finally:
            server.stop()
    for fault in tally.faults:
        print(fault)
    spread = ", ".join(f"{status}: {count}" for status, count in sorted(tally.statuses.items()))
    print(f"{tally.cases} cases over {len(operations)} operations ({spread}); {len(tally.faults)} faults")
    return 1 if tally.faults or tally.cases < options.cases else 0


if __name__ == "__main__":
    sys.exit(main())
