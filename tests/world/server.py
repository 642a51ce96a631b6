"""Real homeserver processes on loopback: start, stop, kill, start again on the same data.

`Schleuse` runs `schleuse homeserver` out of this checkout. `Synapse` runs an installed peer, for the comparison in
tests/bench and to prove a harness against a second implementation: set HARNESS_SYNAPSE_VENV to a virtual environment
that holds matrix-synapse, and `homeserver()` gives that one instead.
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

REPO = Path(__file__).resolve().parents[2]
LABORATORY = ("--profile", "matrix", "--open-registration", "--no-rate-limits")
_FAST = "{per_second: 100000, burst_count: 100000}"


class ServerDied(RuntimeError):
    """The process ended, or did not answer in time; the message carries the end of its log."""


class Homeserver(Protocol):
    """What tests may do with a homeserver process."""

    name: str
    data: Path
    port: int

    @property
    def base(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def spawn(self) -> None: ...
    def start(self) -> float: ...
    def wait_until_healthy(self) -> float: ...
    def stop(self) -> int: ...
    def kill(self) -> None: ...


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Process:
    """One server process and its log; the port is chosen once, so that a restart answers at the same address."""

    def __init__(self, data: Path, *, name: str = "localhost", port: int = 0) -> None:
        self.data = data
        self.name = name
        self.port = port or free_port()
        self.log = data.parent / f"{data.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def log_tail(self, lines: int = 12) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def wait_until_healthy(self, timeout: float = 120) -> float:
        """Return the seconds until GET /_matrix/client/versions answers 200, asking every 5 ms."""
        begin = time.perf_counter()
        while time.perf_counter() - begin < timeout and self.process.poll() is None:
            link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                link.request("GET", "/_matrix/client/versions")
                if link.getresponse().status == 200:
                    return time.perf_counter() - begin
            except (OSError, http.client.HTTPException):
                select.select([], [], [], 0.005)
            finally:
                link.close()
        raise ServerDied(f"no healthy answer within {timeout} s\n{self.log_tail()}")

    def stop(self, timeout: float = 20) -> int:
        """Ask the process to end (SIGTERM), wait for it and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerDied(f"did not stop within {timeout} s of SIGTERM\n{self.log_tail()}") from None

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a power cut would."""
        self.process.kill()
        self.process.wait()

    def _leave_nothing_behind(self) -> None:
        """A test run that ends badly must not leave a server on the machine."""
        if self.process.poll() is None:
            self.kill()

    def _spawn(self, command: Sequence[str], stdout: int | IO[bytes], log: IO[bytes]) -> None:
        if self._process is None:
            atexit.register(self._leave_nothing_behind)
        self._process = subprocess.Popen(command, cwd=REPO, stdout=stdout, stderr=log, stdin=subprocess.DEVNULL)


class Schleuse(_Process):
    """`schleuse homeserver` of this checkout in the laboratory profile, or with the flags given."""

    def __init__(
        self, data: Path, *, name: str = "localhost", port: int = 0, flags: Sequence[str] = LABORATORY
    ) -> None:
        super().__init__(data, name=name, port=port)
        self.flags = tuple(flags)

    def spawn(self) -> None:
        """Start the process without waiting for it to answer."""
        command = [sys.executable, "-m", "appliance", "homeserver", "--server-name", self.name]
        command += ["--data", str(self.data), "--listen", f"127.0.0.1:{self.port}", *self.flags]
        with self.log.open("ab") as log:
            self._spawn(command, subprocess.PIPE, log)

    def start(self, timeout: float = 60) -> float:
        """Start, wait for the JSON line with pid and address, and return the seconds that took."""
        begin = time.perf_counter()
        self.spawn()
        line = self._first_line(timeout)
        ready = json.loads(line)
        assert ready["pid"] == self.pid, f"the line names another process: {line!r}"
        assert str(self.port) in str(ready["address"]), f"the line names another address: {line!r}"
        return time.perf_counter() - begin

    def _first_line(self, timeout: float) -> bytes:
        out = self.process.stdout
        assert out is not None
        line, deadline = b"", time.monotonic() + timeout
        while b"\n" not in line:
            ready, _, _ = select.select([out], [], [], max(0.0, deadline - time.monotonic()))
            got = os.read(out.fileno(), 4096) if ready else b""
            if not got:
                if self.process.poll() is None:
                    self.kill()
                raise ServerDied(f"no JSON line on standard output within {timeout} s\n{self.log_tail()}")
            line += got
        threading.Thread(target=self._drain, args=(out,), daemon=True).start()
        return line.split(b"\n")[0]

    def _drain(self, out: IO[bytes]) -> None:
        """Keep the pipe empty: a server that writes more lines must never block on its reader."""
        with self.log.open("ab") as log, out:
            while block := os.read(out.fileno(), 65536):
                log.write(block)


class Synapse(_Process):
    """matrix-synapse out of a virtual environment: one process, SQLite, rate limits off."""

    def __init__(self, venv: Path, data: Path, *, name: str = "localhost", port: int = 0) -> None:
        super().__init__(data, name=name, port=port)
        self._python = venv / "bin" / "python"

    def spawn(self) -> None:
        """Write the settings and keys (not part of any timed start) and start the process."""
        self.data.mkdir(parents=True, exist_ok=True)
        settings = self.data / "homeserver.yaml"
        command = [str(self._python), "-m", "synapse.app.homeserver", "-c", str(settings)]
        if not settings.exists():
            settings.write_text(synapse_settings(self.name, self.port, self.data))
            (self.data / "log.yaml").write_text(_SYNAPSE_LOG.format(path=self.data.parent / f"{self.data.name}.hs.log"))
            subprocess.run([*command, "--generate-keys"], check=True, capture_output=True)
        with self.log.open("ab") as log:
            self._spawn(command, log, log)

    def start(self, timeout: float = 120) -> float:
        """Start, wait for the first healthy answer and return the seconds that took."""
        self.spawn()
        return self.wait_until_healthy(timeout)


_SYNAPSE_LOG = """version: 1
handlers: {{f: {{class: logging.FileHandler, filename: {path}}}}}
root: {{level: WARNING, handlers: [f]}}
disable_existing_loggers: false
"""


def synapse_settings(name: str, port: int, data: Path) -> str:
    """Return a homeserver.yaml for a measured run: its defaults, with open registration and no rate limits."""
    limits = "\n".join(f"{key}: {_FAST}" for key in ("rc_message", "rc_registration", "rc_joins_per_room"))
    return f"""server_name: "{name}"
public_baseurl: http://127.0.0.1:{port}/
pid_file: {data}/hs.pid
report_stats: false
listeners:
  - {{port: {port}, type: http, bind_addresses: ['127.0.0.1'], resources: [{{names: [client, federation]}}]}}
database: {{name: sqlite3, args: {{database: '{data}/hs.db'}}}}
log_config: {data}/log.yaml
media_store_path: {data}/media
signing_key_path: {data}/signing.key
macaroon_secret_key: bench
registration_shared_secret: bench
enable_registration: true
enable_registration_without_verification: true
suppress_key_server_warning: true
trusted_key_servers: []
presence: {{enabled: true}}
{limits}
rc_login: {{address: {_FAST}, account: {_FAST}, failed_attempts: {_FAST}}}
rc_joins: {{local: {_FAST}, remote: {_FAST}}}
rc_invites: {{per_room: {_FAST}, per_user: {_FAST}, per_issuer: {_FAST}}}
rc_room_creation: {_FAST}
rc_key_requests: {_FAST}
rc_presence: {{per_user: {_FAST}}}
room_list_publication_rules: [{{action: allow}}]
"""


def homeserver(data: Path) -> Homeserver:
    """Return the server under test: this checkout's, or the peer that HARNESS_SYNAPSE_VENV names."""
    venv = os.environ.get("HARNESS_SYNAPSE_VENV")
    return Synapse(Path(venv), data) if venv else Schleuse(data)
