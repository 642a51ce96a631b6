"""A small town on loopback: a throw-away authority, servers with its certificates, a telephone book, a clock."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.link.dns import Addresses, DnsUnavailable, NoSuchRecord, Service, Services

DAY = datetime.timedelta(days=1)
HOME = ("127.0.0.1",)


class Clock:
    """Milliseconds that pass only when told to."""

    def __init__(self, now: int = 1_800_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def pass_by(self, *, minutes: float = 0, hours: float = 0, seconds: float = 0) -> None:
        self.now += int((hours * 3600 + minutes * 60 + seconds) * 1000)


class Book:
    """The domain name system, and how often it was asked."""

    def __init__(self) -> None:
        self.hosts: dict[str, tuple[str, ...]] = {}
        self.srv: dict[str, tuple[Service, ...]] = {}
        self.broken: set[str] = set()
        self.asked: list[str] = []
        self.ttl = 300

    async def addresses(self, host: str) -> Addresses:
        self.asked.append(host)
        await asyncio.sleep(0)
        if host in self.broken:
            raise DnsUnavailable(host)
        if host not in self.hosts:
            raise NoSuchRecord(host)
        return Addresses(self.hosts[host], self.ttl)

    async def services(self, name: str) -> Services:
        self.asked.append(name)
        await asyncio.sleep(0)
        if name in self.broken:
            raise DnsUnavailable(name)
        if name not in self.srv:
            raise NoSuchRecord(name)
        return Services(self.srv[name], self.ttl)


class Authority:
    """Signs certificates that nobody outside the test trusts."""

    def __init__(self, folder: Path, name: str = "Town") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._sign(self._subject, self._key.public_key(), authority=True, names=())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str, days: int = 2) -> ssl.SSLContext:
        """Give a server's side of TLS with a certificate for these host names or addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
        signed = self._sign(subject, key.public_key(), authority=False, names=names, days=days)
        file = self.folder / f"{abs(hash((names, days)))}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + signed.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        return context

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool, names: tuple[str, ...],
        days: int = 2,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._subject).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(now - 9 * DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(_usage(authority), critical=True)
        )  # fmt: skip
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        return builder.sign(self._key, hashes.SHA256())


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Peer:
    """A server of the town; it remembers the requests it got."""

    def __init__(self, tls: ssl.SSLContext, handler: Handler | None = None) -> None:
        self._tls = tls
        self._handler = handler
        self.seen: list[tuple[str, str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.names: list[str | None] = []
        self.connections: set[object] = set()
        tls.sni_callback = lambda _, name, __: self.names.append(name)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.method, request.raw_path, request.headers["Host"]))
        self.headers.append(dict(request.headers))
        self.connections.add(request.transport)
        return await self._handler(request) if self._handler else web.json_response({"host": request.headers["Host"]})

    async def __aenter__(self) -> "Peer":
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


def closed_port() -> int:
    """Give a port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
