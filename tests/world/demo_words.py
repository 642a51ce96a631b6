"""What the demo says, in both languages."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """The sentences of one language; braces are filled in by the demo."""

    title: str
    start: str
    started: str
    provision: str
    log_in: str
    directory: str
    room: str
    room_name: str
    accept: str
    question: str
    answer: str
    says: str
    same: str
    picture: str
    picture_result: str
    secret: str
    secret_result: str
    secret_broken: str
    secret_blind: str
    done: str
    address: str
    person: str
    password: str
    hint: str
    stay: str
    stopping: str
    stopped: str
    failed: str
    unchanged: str
    next_step: str


DE = Words(
    title="Schleuse: zwei Menschen, eine Station, verschlüsselt",
    start="Schleuse starten",
    started="antwortet auf {address} (Prozess {pid})",
    provision="Zwei Personen anlegen",
    log_in="Zwei Geräte anmelden und ihre Schlüssel veröffentlichen",
    directory="Anna sucht „{term}“ im Personenverzeichnis",
    room="Anna öffnet einen verschlüsselten Raum und lädt Bernd ein",
    room_name="Station 3B",
    accept="Bernd nimmt die Einladung an",
    question="Bett 12: Die Laborwerte sind da, Kalium 5,9. Kommst du kurz?",
    answer="Bin in zwei Minuten da. Bitte EKG schreiben.",
    says="{who}: „{text}“",
    same="bei {who} entschlüsselt",
    picture="Anna schickt ein verschlüsseltes Bild, Bernd sieht es",
    picture_result="{size} Byte, bei Bernd Bit für Bit gleich",
    secret="In der Ablage des Servers nach den Worten und dem Bild suchen",
    secret_result="nichts davon in {count} Dateien ({size} kB); der unverschlüsselte Raumname steht dort",
    secret_broken="Klartext gefunden in {where}",
    secret_blind="Die Suche fand nicht einmal den Raumnamen, der dort stehen muss",
    done="Alles angekommen, der Server konnte nichts davon lesen.",
    address="Adresse",
    person="Person",
    password="Passwort",
    hint="Mit jedem Matrix-Client anmelden: Server {address} eintragen (eigener Homeserver).",
    stay="Die Schleuse läuft weiter. Beenden mit Strg-C; danach sind die Vorführdaten gelöscht.",
    stopping="Schleuse anhalten",
    stopped="Angehalten, Vorführdaten gelöscht.",
    failed="Die Vorführung ist nicht gelungen: {problem}",
    unchanged="Außerhalb des Vorführordners wurde nichts verändert; er ist wieder gelöscht.",
    next_step="Nächster Schritt: make check, dann noch einmal make demo.",
)

EN = Words(
    title="Schleuse: two people, one ward, encrypted",
    start="Start Schleuse",
    started="answers at {address} (process {pid})",
    provision="Create two people",
    log_in="Log two devices in and publish their keys",
    directory="Anna searches the directory for “{term}”",
    room="Anna opens an encrypted room and invites Bernd",
    room_name="Ward 3B",
    accept="Bernd accepts the invitation",
    question="Bed 12: the lab is back, potassium 5.9. Can you come?",
    answer="Two minutes. Please run an ECG.",
    says="{who}: “{text}”",
    same="decrypted by {who}",
    picture="Anna sends an encrypted picture, Bernd sees it",
    picture_result="{size} bytes, identical at Bernd's",
    secret="Search the server's storage for the words and the picture",
    secret_result="none of it in {count} files ({size} kB); the room's name, never encrypted, is there",
    secret_broken="readable text found in {where}",
    secret_blind="the search did not even find the room's name, which has to be there",
    done="Everything arrived, and the server could read none of it.",
    address="Address",
    person="Person",
    password="Password",
    hint="Log in with any Matrix client: enter {address} as the homeserver.",
    stay="Schleuse stays up. Stop it with Ctrl-C; the demo's data is deleted then.",
    stopping="Stop Schleuse",
    stopped="Stopped, the demo's data is deleted.",
    failed="The demo did not succeed: {problem}",
    unchanged="Nothing outside the demo's folder was changed, and that folder is gone again.",
    next_step="Next step: make check, then make demo again.",
)
