"""Every operation we serve answers as the published OpenAPI data says; every other one is named with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.chapters import encryption, media, oneself, rooms, signing_in, syncing, talking
from tests.conformance.openapi import Specification
from tests.conformance.walk import Walk
from tests.world.client import session
from tests.world.server import Homeserver, homeserver

PARTS = (signing_in, rooms, talking, syncing, encryption, oneself, media)
CHAPTERS = [chapter for part in PARTS for chapter in part.CHAPTERS]

C = "/_matrix/client"
NOT_OURS = {
    "identity servers and third-party identifiers: a hospital's people are provisioned, not found by e-mail": (
        f"POST {C}/v3/account/3pid",
        f"POST {C}/v3/account/3pid/add",
        f"POST {C}/v3/account/3pid/bind",
        f"POST {C}/v3/account/3pid/delete",
        f"POST {C}/v3/account/3pid/unbind",
        f"POST {C}/v3/account/3pid/email/requestToken",
        f"POST {C}/v3/account/3pid/msisdn/requestToken",
        f"POST {C}/v3/account/password/email/requestToken",
        f"POST {C}/v3/account/password/msisdn/requestToken",
        f"POST {C}/v3/register/email/requestToken",
        f"POST {C}/v3/register/msisdn/requestToken",
    ),
    "application services and bridges: not part of a messenger between hospitals": (
        f"POST {C}/v1/appservice/{{appserviceId}}/ping",
        f"PUT {C}/v3/directory/list/appservice/{{networkId}}/{{roomId}}",
        f"GET {C}/v3/thirdparty/protocol/{{protocol}}",
        f"GET {C}/v3/thirdparty/location/{{protocol}}",
        f"GET {C}/v3/thirdparty/user/{{protocol}}",
        f"GET {C}/v3/thirdparty/location",
        f"GET {C}/v3/thirdparty/user",
    ),
    "the sync before /sync, deprecated since r0": (
        f"GET {C}/v3/events",
        f"GET {C}/v3/initialSync",
        f"GET {C}/v3/events/{{eventId}}",
        f"GET {C}/v3/rooms/{{roomId}}/initialSync",
    ),
    "administration has its own door, for people with a role": (
        f"GET {C}/v3/admin/whois/{{userId}}",
        f"GET {C}/v1/admin/suspend/{{userId}}",
        f"PUT {C}/v1/admin/suspend/{{userId}}",
        f"GET {C}/v1/admin/lock/{{userId}}",
        f"PUT {C}/v1/admin/lock/{{userId}}",
    ),
    "the appliance fetches nothing from addresses that a message names": (
        f"GET {C}/v1/media/preview_url",
        "GET /_matrix/media/v3/preview_url",
    ),
    "the OAuth 2.0 interface comes with the organisation's log-in": (f"GET {C}/v1/auth_metadata",),
    "single sign-on is a hook until the card and directory log-ins come": (
        f"GET {C}/v3/login/sso/redirect",
        f"GET {C}/v3/login/sso/redirect/{{idpId}}",
    ),
    "nothing to tell before the organisation is enrolled": ("GET /.well-known/matrix/support",),
    "not in Matrix 1.11": ("GET /.well-known/matrix/policy_server", f"GET {C}/v1/mutual_rooms"),
}
reached: set[str] = set()
walked: set[str] = set()


@pytest.fixture(scope="module")
def specification(spec_data: Path) -> Specification:
    return Specification(spec_data)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homeserver]:
    server = homeserver(tmp_path_factory.mktemp("walk") / "data")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.__name__)
async def test_answers_are_as_published(chapter, specification: Specification, server: Homeserver) -> None:
    async with session() as http:
        walk = Walk(http, server.base, specification)
        try:
            await chapter(walk)
        except AssertionError as stop:
            walk.faults.append(f"the walk ended early: {stop!r}")
    reached.update(walk.reached)
    walked.add(chapter.__name__)
    assert not walk.faults, "\n".join(walk.faults)


def test_every_operation_is_walked_or_named(specification: Specification) -> None:
    if len(walked) < len(CHAPTERS):
        pytest.skip("left out: only some chapters were walked")
    named = {operation for operations in NOT_OURS.values() for operation in operations}
    assert named <= specification.operations(), f"no such operations: {sorted(named - specification.operations())}"
    assert not named & reached, f"served after all: {sorted(named & reached)}"
    left = specification.operations() - reached - named
    print(f"{len(reached)} of {len(specification.operations())} operations walked, {len(named)} named as not ours")
    assert not left, f"neither walked nor named: {sorted(left)}"
