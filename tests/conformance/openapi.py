"""The published Client-Server OpenAPI files as one document, and checks of answers and events against them.

The files stay outside this checkout: `merged` reads them from the folder it is given and inlines every reference.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import yaml
from jsonschema import Draft202012Validator, FormatChecker

METHODS = ("get", "put", "post", "delete")
FORMATS = FormatChecker(formats=())


def _starts(name: str, pattern: str) -> None:
    rule = re.compile(pattern)
    FORMATS.checks(name)(lambda value: not isinstance(value, str) or bool(rule.match(value)))


_starts("mx-user-id", r"@[^:\0]*:.+$")
_starts("mx-room-id", r"![^\0]+$")
_starts("mx-event-id", r"\$[^\0]+$")
_starts("mx-room-alias", r"#[^:\0]+:.+$")
_starts("mx-mxc-uri", r"(mxc://[^/]+/[A-Za-z0-9_-]+)?$")  # an avatar may be cleared with the empty string
_starts("mx-unpadded-base64", r"[A-Za-z0-9+/]*$")
_starts("mx-urlsafe-unpadded-base64", r"[A-Za-z0-9_-]*$")


@functools.cache
def _load(path: Path) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(), Loader=loader)  # noqa: S506 - the safe loader, in C where there is one


def _dig(document: Any, fragment: str) -> Any:
    for part in filter(None, fragment.split("/")):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def inline(node: Any, base: Path, above: tuple[tuple[Path, str], ...] = ()) -> Any:
    """Return the node with references replaced by what they name; a schema that contains itself accepts anything."""
    if isinstance(node, list):
        return [inline(part, base, above) for part in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return {name: _inline_part(name, part, base, above) for name, part in node.items() if not _example(name, part)}
    path, fragment = urldefrag(reference)
    target = (base.parent / path).resolve() if path else base
    key = (target, fragment)
    rest = {
        name: inline(part, base, above) for name, part in node.items() if name not in ("$ref", "example", "examples")
    }
    if key in above or not target.exists():  # the identity service's descriptions are not among the data
        return rest
    found = inline(_dig(_load(target), fragment), target, (*above, key))
    return {**found, **rest} if isinstance(found, dict) else found


def _example(name: str, part: Any) -> bool:
    """Examples are not constraints; a property that is called so has a type."""
    return name in ("example", "examples") and not (isinstance(part, dict) and "type" in part)


def _inline_part(name: str, part: Any, base: Path, above: tuple[tuple[Path, str], ...]) -> Any:
    if name == "properties" and isinstance(part, dict):
        return {prop: inline(schema, base, above) for prop, schema in part.items()}
    return inline(part, base, above)


def merged(spec_data: Path, api: str = "client-server") -> dict[str, Any]:
    """Return one self-contained OpenAPI 3.1 document of a whole API."""
    paths: dict[str, dict[str, Any]] = {}
    schemes: dict[str, Any] = {}
    for file in sorted((spec_data / "matrix/api" / api).glob("*.yaml")):
        document = _load(file.resolve())
        server = (document.get("servers") or [{}])[0]
        prefix = server.get("variables", {}).get("basePath", {}).get("default", "").rstrip("/")
        for name, scheme in (document.get("components", {}).get("securitySchemes") or {}).items():
            schemes[name] = inline(scheme, file.resolve())
        for path, operations in document.get("paths", {}).items():
            known = paths.setdefault(prefix + path.strip(), {})  # a trailing space tells two descriptions of one apart
            for method, operation in operations.items():
                known.setdefault(method, inline(operation, file.resolve()))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Matrix Client-Server API", "version": "published"},
        "paths": paths,
        "components": {"securitySchemes": schemes},
    }


class Specification:
    """Finds the operation of a request and tells what is wrong with its answer."""

    def __init__(self, spec_data: Path, api: str = "client-server") -> None:
        self.document = merged(spec_data, api)
        self._events = spec_data / "matrix/event-schemas/schema"
        self._operations = [
            (method.upper(), re.compile(re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(path)) + "$"), path, operation)
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
            if method in METHODS
        ]
        self._operations.sort(key=lambda found: found[2].count("{"))  # literal paths win over placeholders

    def operations(self) -> set[str]:
        """Return every operation as "GET /path/{of}/it"."""
        return {f"{method} {path}" for method, _, path, _ in self._operations}

    def find(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        """Return the name and the description of the operation that a percent-encoded request path belongs to."""
        for wanted, pattern, template, operation in self._operations:
            if wanted == method and pattern.match(path):
                return f"{method} {template}", operation
        return None

    def answer_faults(self, operation: dict[str, Any], status: int, content_type: str, body: Any) -> list[str]:
        """Return what the answer has wrong by its operation's description."""
        responses = operation["responses"]
        described = responses.get(str(status)) or responses.get(f"{str(status)[0]}XX") or {}
        schema = described.get("content", {}).get("application/json", {}).get("schema")
        faults = []
        if schema is not None:
            if content_type != "application/json":
                return [f"content type {content_type!r} instead of application/json"]
            faults += schema_faults(schema, body)
        if status >= 400 and not (isinstance(body, dict) and isinstance(body.get("errcode"), str)) and status != 401:
            faults.append("no errcode")
        return faults + [fault for event in events_in(body) for fault in self.event_faults(event)]

    def event_faults(self, event: dict[str, Any]) -> list[str]:
        """Return what the content of an event of a published type has wrong."""
        schema = self._content_schema(event["type"])
        if schema is None or not event["content"]:
            return []  # an empty content is a redacted event, or one whose meaning is that it was taken back
        return [f"{event['type']}: {fault}" for fault in schema_faults(schema, event["content"])]

    @functools.cache  # noqa: B019 - one specification lives as long as the test run
    def _content_schema(self, kind: str) -> Any:
        path = self._events / f"{kind}.yaml"
        if "/" in kind or not path.exists():
            return None
        schema = inline(_load(path.resolve()), path.resolve())
        return schema.get("properties", {}).get("content")


def schema_faults(schema: Any, value: Any) -> list[str]:
    validator = Draft202012Validator(schema, format_checker=FORMATS)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:160]}" for e in validator.iter_errors(value)]


def events_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield everything in an answer that looks like an event: an object with a type and a content object."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str) and isinstance(value.get("content"), dict):
            yield value
        else:
            for part in value.values():
                yield from events_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from events_in(part)
