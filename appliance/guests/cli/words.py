"""Every sentence the command line says, in both languages: mypy refuses a language with a sentence missing."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """The sentences of one language."""

    language: str
    about: str
    commands: str
    version_option: str
    version: str
    version_json: str
    completion: str
    homeserver: str
    nothing_changed: str
    unknown_kept: str
    next_step: str
    look_there: str
    stopped: str


DE = Words(
    language="de",
    about="Schleuse, der Messenger-Server für Krankenhäuser.",
    commands="Befehle",
    version_option="Zeigt die Version.",
    version="Version von Schleuse und ihren tragenden Teilen.",
    version_json="Als ein JSON-Objekt.",
    completion="Befehlsvervollständigung für die Shell; einbinden mit: source <(schleuse completion bash)",
    homeserver="Laborbetrieb: ein Homeserver in einem Prozess (nicht im Produktivabbild).",
    nothing_changed="Es wurde nichts verändert.",
    unknown_kept="Bestätigte Nachrichten sind gespeichert und bleiben es.",
    next_step="Nächster Schritt:",
    look_there="Nächster Schritt: Adresse, Rechte und Platz prüfen, dann denselben Befehl noch einmal.",
    stopped="Abgebrochen.",
)

EN = Words(
    language="en",
    about="Schleuse, the messenger server for hospitals.",
    commands="Commands",
    version_option="Show the version.",
    version="Version of Schleuse and of the parts it stands on.",
    version_json="As one JSON object.",
    completion="Shell completion; switch it on with: source <(schleuse completion bash)",
    homeserver="Laboratory: one homeserver in one process (not part of the production image).",
    nothing_changed="Nothing was changed.",
    unknown_kept="Acknowledged messages are stored and stay stored.",
    next_step="Next step:",
    look_there="Next step: check the address, the permissions and the free space, then the same command again.",
    stopped="Stopped.",
)


def words_for(environment: Mapping[str, str]) -> Words:
    """Choose the language as POSIX does (LC_ALL, LC_MESSAGES, LANG); German unless the locale names another one."""
    locale = next((environment[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environment.get(name)), "")
    language = locale.partition(".")[0].partition("_")[0]
    return DE if language in ("", "C", "POSIX", "de") else EN
