"""make demo: one appliance on loopback, two people, real encrypted messages before your eyes."""

import argparse
import asyncio
import io
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from rich.text import Text

from appliance.guests.cli.words import words_for
from tests.world.demo_words import DE, EN, Words
from tests.world.people import Person, Refused, provision
from tests.world.progress import Progress
from tests.world.server import Schleuse, ServerDied

SERVER_NAME = "klinik.example"
USUAL_PORT = 8008


@dataclass(frozen=True, slots=True)
class LogIn:
    """How somebody logs in."""

    localpart: str
    display_name: str
    password: str

    @property
    def user_id(self) -> str:
        """The full Matrix id."""
        return f"@{self.localpart}:{SERVER_NAME}"


def usual_port_or_any() -> int:
    """Prefer the port that Matrix clients guess; take a free one if somebody else has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", USUAL_PORT))
        except OSError:
            return 0
    return USUAL_PORT


def draw_picture() -> Image.Image:
    """Draw the sort of picture people send each other on a ward: a heart trace on paper."""
    width, height = 480, 160
    image = Image.new("RGB", (width, height), "#fff4f0")
    pen = ImageDraw.Draw(image)
    for x in range(0, width, 20):
        pen.line([(x, 0), (x, height)], fill="#f3c9bf")
    for y in range(0, height, 20):
        pen.line([(0, y), (width, y)], fill="#f3c9bf")
    beat = [(0, 100), (24, 100), (32, 90), (40, 100), (50, 108), (58, 20), (66, 135), (74, 100), (92, 78), (108, 100)]
    trace = [(x + 120 * turn, y) for turn in range(4) for x, y in beat]
    pen.line([*trace, (width, 100)], fill="#1d2b53", width=4, joint="curve")
    return image


def as_text(picture: bytes, columns: int = 60) -> Text:
    """Render a PNG with half blocks, two pixels in one character, for terminals that know colours."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    rows = max(2, columns * image.height // image.width // 2 * 2)
    pixels = image.resize((columns, rows), Image.Resampling.LANCZOS).tobytes().hex()
    text = Text()
    for y in range(0, rows, 2):
        text.append("     ")
        for x in range(columns):
            upper, lower = 6 * (y * columns + x), 6 * ((y + 1) * columns + x)  # six hex digits a pixel
            text.append("▀", style=f"#{pixels[upper : upper + 6]} on #{pixels[lower : lower + 6]}")
        text.append("\n")
    return text


def readable_traces(folder: Path, clear: list[bytes]) -> tuple[list[str], int, int]:
    """Search every file below a folder for clear text; return the files that hold some, files seen, bytes seen."""
    guilty, count, size = [], 0, 0
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            count, size = count + 1, size + len(content)
            if any(piece in content for piece in clear):
                guilty.append(path.name)
    return guilty, count, size


class Demo:
    """The exchange, step by step."""

    def __init__(self, words: Words, console: Console, folder: Path) -> None:
        self.words = words
        self.console = console
        self.progress = Progress(console)
        self.folder = folder
        self.secret = secrets.token_urlsafe(24)
        flags = ("--profile", "matrix", "--registration-secret", self.secret)
        self.server = Schleuse(folder / "server", name=SERVER_NAME, port=usual_port_or_any(), flags=flags)
        self.log_ins = [
            LogIn("anna", "Anna Berger (Station 3B)", secrets.token_urlsafe(9)),
            LogIn("bernd", "Bernd Sommer (Innere)", secrets.token_urlsafe(9)),
        ]
        self.people: list[Person] = []

    async def start(self) -> None:
        """Start the appliance as its own process and wait for its line of JSON."""
        with self.progress.step(self.words.start) as step:
            await asyncio.to_thread(self.server.start)
            step.result = self.words.started.format(address=self.server.base, pid=self.server.pid)

    async def bring_people_in(self) -> None:
        """Create the accounts, log the devices in."""
        with self.progress.step(self.words.provision) as step:
            for who in self.log_ins:
                await provision(self.server.base, self.secret, who.localpart, who.password, who.display_name)
            step.result = ", ".join(who.user_id for who in self.log_ins)
        with self.progress.step(self.words.log_in) as step:
            devices = []
            for who in self.log_ins:
                person = Person(self.server.base, who.user_id, self.folder / who.localpart)
                self.people.append(person)
                devices.append(await person.log_in(who.password, "Schleuse-Demo"))
            step.result = ", ".join(devices)

    async def meet(self) -> str:
        """Find each other, open the encrypted room; return its id."""
        anna, bernd = self.people
        with self.progress.step(self.words.directory.format(term="sommer")) as step:
            results = await anna.find("sommer")
            if bernd.user_id not in [result["user_id"] for result in results]:
                raise Refused(f"user directory: {results}")
            step.result = next(r.get("display_name", "") for r in results if r["user_id"] == bernd.user_id)
        with self.progress.step(self.words.room) as step:
            room = await anna.open_encrypted_room(self.words.room_name, bernd.user_id)
            step.result = room
        with self.progress.step(self.words.accept):
            await bernd.accept(room)
            await anna.sees_member(room, bernd.user_id)
            await bernd.sees_member(room, anna.user_id)
        return room

    async def talk(self, room: str) -> None:
        """Exchange messages both ways, then a picture; every arrival is a decryption on the other device."""
        anna, bernd = self.people
        for speaker, name, listener, other, text in (
            (anna, "Anna", bernd, "Bernd", self.words.question),
            (bernd, "Bernd", anna, "Anna", self.words.answer),
        ):
            with self.progress.step(self.words.says.format(who=name, text=text)) as step:
                await speaker.say(room, text)
                await listener.read(room, text)
                step.result = self.words.same.format(who=other)
        image = draw_picture()
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        with self.progress.step(self.words.picture) as step:
            await anna.show(room, "ekg.png", buffer.getvalue(), image.size)
            seen = await bernd.look(room, "ekg.png")
            if seen != buffer.getvalue():
                raise Refused("the picture arrived changed")
            step.result = self.words.picture_result.format(size=len(seen))
        if self.console.is_terminal and self.console.color_system in ("256", "truecolor"):
            self.console.print(as_text(seen))
        self._prove_secrecy([self.words.question.encode(), self.words.answer.encode(), seen[:64]])

    def _prove_secrecy(self, clear: list[bytes]) -> None:
        with self.progress.step(self.words.secret) as step:
            guilty, count, size = readable_traces(self.server.data, clear)
            if guilty:
                raise Refused(self.words.secret_broken.format(where=", ".join(guilty)))
            # The room's name is not encrypted, so a search that works must find it.
            known, _, _ = readable_traces(self.server.data, [self.words.room_name.encode()])
            if not known:
                raise Refused(self.words.secret_blind)
            step.result = self.words.secret_result.format(count=count, size=size // 1024)

    def print_log_ins(self, *, stays: bool) -> None:
        """Print where to go and how to log in."""
        table = Table(self.words.person, self.words.address, self.words.password, box=None, padding=(0, 3, 0, 2))
        for who in self.log_ins:
            table.add_row(who.user_id, self.server.base, who.password)
        self.console.print()
        self.console.print(table)
        self.console.print(f"\n  {self.words.hint.format(address=self.server.base)}", soft_wrap=True)
        self.console.print(f"  {self.words.stay}\n" if stays else "", soft_wrap=True)

    async def stop(self) -> None:
        """Take the people off the line, then stop the server."""
        for person in self.people:
            await person.leave_the_line()
        with self.progress.step(self.words.stopping):
            await asyncio.to_thread(self.server.stop)


@asynccontextmanager
async def appliance(words: Words, console: Console) -> AsyncIterator[Demo]:
    """Run one appliance in a folder of its own; stop it and delete the folder whatever happens."""
    with tempfile.TemporaryDirectory(prefix="schleuse-demo-") as name:
        demo = Demo(words, console, Path(name))
        try:
            await demo.start()
            yield demo
        finally:
            await demo.stop()


async def run(words: Words, console: Console, *, once: bool) -> None:
    """Show everything; then stay until Ctrl-C or SIGTERM, unless it is to be done once."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    this = asyncio.current_task()
    assert this is not None
    async with appliance(words, console) as demo:
        await demo.bring_people_in()
        await demo.talk(await demo.meet())
        console.print(f"\n  [bold]{words.done}[/]", soft_wrap=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        demo.print_log_ins(stays=not once)
        if not once:
            await ended.wait()


def main() -> int:
    """Return 0 after the exchange (or a clean stop), 1 when something did not work, 130 when interrupted before."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the exchange")
    once = parser.parse_args().once
    words = DE if words_for(os.environ).language == "de" else EN
    console = Console(highlight=False)
    logging.getLogger("nio").setLevel(logging.CRITICAL)  # its remarks about keys still on their way confuse onlookers
    console.print(f"\n  [bold]{words.title}[/]\n")
    begin = time.perf_counter()
    try:
        asyncio.run(run(words, console, once=once))
    except KeyboardInterrupt:
        return 130
    except (Refused, ServerDied, OSError, TimeoutError, subprocess.SubprocessError) as problem:
        for line in (words.failed.format(problem=problem), words.unchanged, words.next_step):
            console.print(f"  {line}", markup=False, soft_wrap=True)
        return 1
    console.print(f"  {words.stopped} [dim]({time.perf_counter() - begin:.1f} s)[/]\n", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
