"""The laboratory door: one homeserver in one process, for conformance suites, comparisons and demonstrations.

    schleuse homeserver --server-name NAME --data DIR --listen HOST:PORT [...]

prints one JSON line with pid and address once it answers, and stops within five seconds of SIGTERM or SIGINT. The flags
are a contract that outside tools rely on. Not part of the production image.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from pathlib import Path

import click

from appliance.config import PROFILES, Config
from appliance.matrix import ids
from appliance.matrix.errors import MatrixError


def _address(_: click.Context, __: click.Parameter, value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter("must be HOST:PORT, for example 127.0.0.1:8008 or [::1]:8008")
    return host, int(port)


def _server_name(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return ids.server_name(value)
    except MatrixError as error:
        raise click.BadParameter(error.message) from error


LOOPBACK = ("127.0.0.0/8", "::1/128")
"""Where a laboratory's push gateways live."""

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--server-name", required=True, callback=_server_name, help="The Matrix domain of this server.")
@click.option("--data", required=True, type=click.Path(file_okay=False, path_type=Path), help="Directory for its data.")
@click.option("--listen", required=True, callback=_address, help="HOST:PORT for clients and servers.")
@click.option("--tls-cert", type=_FILE, help="Certificate chain in PEM; TLS is used if it is given.")
@click.option("--tls-key", type=_FILE, help="Private key of the certificate in PEM.")
@click.option("--federation-ca", type=_FILE, help="Authorities that peers' certificates are checked against.")
@click.option("--profile", "profile_name", type=click.Choice(sorted(PROFILES)), default="tim-pro", show_default=True)
@click.option("--open-registration", is_flag=True, help="Let anybody make an account (profile matrix).")
@click.option("--registration-secret", help="Offer the shared-secret registration (profile matrix).")
@click.option("--no-rate-limits", is_flag=True, help="Never answer M_LIMIT_EXCEEDED.")
@click.option("--direct-federation", is_flag=True, help="Reach other servers directly instead of through the link.")
def homeserver(
    server_name: str, data: Path, listen: tuple[str, int], tls_cert: Path | None, tls_key: Path | None,
    federation_ca: Path | None, profile_name: str, open_registration: bool, registration_secret: str | None,
    no_rate_limits: bool, direct_federation: bool,
) -> None:
    """Run one homeserver in the foreground (laboratory use)."""
    profile = PROFILES[profile_name]
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    if (open_registration or registration_secret) and not profile.laboratory_registration:
        raise click.UsageError(f"profile {profile.name} has neither of these registrations; use --profile matrix")
    config = Config(
        server_name=ids.ServerName(server_name), data=data, host=listen[0], port=listen[1], profile=profile,
        tls_cert=tls_cert, tls_key=tls_key, federation_ca=federation_ca, open_registration=open_registration,
        registration_secret=registration_secret, rate_limits=not no_rate_limits, direct_federation=direct_federation,
        push_gateways=LOOPBACK if profile.laboratory_registration else (),
    )
    import uvloop  # here, so that --help and mistakes in the options answer at once

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config))


async def _serve(config: Config) -> None:
    from appliance.house import House

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with House.open(config) as house:
        _, port = await house.listen(config.host, config.port, _tls(config))
        host = f"[{config.host}]" if ":" in config.host else config.host
        sys.stdout.write(json.dumps({"pid": os.getpid(), "address": f"{host}:{port}"}) + "\n")
        sys.stdout.flush()
        await stop.wait()


def _tls(config: Config) -> ssl.SSLContext | None:
    if config.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config.tls_cert, config.tls_key)
    return context
