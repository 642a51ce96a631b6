"""The laboratory door keeps its contract: one line with the address that was asked for, TLS, and a quick goodbye."""

from __future__ import annotations

import datetime
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.world.server import REPO, free_port


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ))
    return cert_file, key_file


def _start(folder: Path, listen: str, *more: str) -> tuple[subprocess.Popen[bytes], str]:
    command = [sys.executable, "-m", "appliance", "homeserver", "--server-name", "localhost", "--data",
               str(folder / "data"), "--listen", listen, "--profile", "matrix", "--open-registration", *more]
    process = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE)
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())
    assert line["pid"] == process.pid
    return process, line["address"]


def _call(base: str, path: str, body: object = None, token: str = "", context: ssl.SSLContext | None = None) -> object:
    request = urllib.request.Request(base + path, data=None if body is None else json.dumps(body).encode())  # noqa: S310
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=60, context=context) as answer:  # noqa: S310
        return json.load(answer)


def test_tls_under_a_name_with_a_checked_certificate(tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path)
    port = free_port()
    process, address = _start(tmp_path, f"localhost:{port}", "--tls-cert", str(cert), "--tls-key", str(key))
    try:
        assert address == f"localhost:{port}"
        context = ssl.create_default_context(cafile=str(cert))
        base = f"https://{address}"
        assert "v1.11" in _call(base, "/_matrix/client/versions", context=context)["versions"]  # type: ignore[index]
        found = _call(base, "/.well-known/matrix/client", context=context)
        assert found == {"m.homeserver": {"base_url": base}}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_within_five_seconds_while_somebody_waits(tmp_path: Path, number: signal.Signals) -> None:
    process, address = _start(tmp_path, "127.0.0.1:0")
    base = f"http://{address}"
    account = _call(base, "/_matrix/client/v3/register", {
        "username": "ada", "password": "long enough", "auth": {"type": "m.login.dummy"}
    })
    token = account["access_token"]  # type: ignore[index]
    since = _call(base, "/_matrix/client/v3/sync", token=token)["next_batch"]  # type: ignore[index]
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(
        _call(base, f"/_matrix/client/v3/sync?timeout=60000&since={since}", token=token)
    ))
    waiting.start()
    waiting.join(0.5)
    begin = time.monotonic()
    process.send_signal(number)
    assert process.wait(10) == 0
    assert time.monotonic() - begin < 5
    waiting.join(5)
    assert answers, "whoever waits for news is answered before the door closes"
