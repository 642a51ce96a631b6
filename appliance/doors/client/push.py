"""Push rules, pushers and the list of notifications (client-server API, "Push notifications")."""

from __future__ import annotations

from collections.abc import Callable

from appliance.doors import fields
from appliance.doors.web import Call, Json, Route
from appliance.matrix import tokens
from appliance.matrix.canonical import MAX_INTEGER
from appliance.matrix.client_event import render
from appliance.matrix.errors import InvalidParam, MissingParam
from appliance.push.editing import Wish
from appliance.push.history import History
from appliance.push.registration import PusherSpec, Registration
from appliance.push.rule_book import RuleBook
from appliance.push.unread import Judged

V3 = "/_matrix/client/v3"
PAGE = 50


def routes(book: RuleBook, registration: Registration, history: History, clock: Callable[[], int]) -> list[Route]:
    """Return the operations about push."""
    rules = _Rules(book)
    rule = V3 + "/pushrules/global/{kind}/{rule}"
    pushers = _Pushers(registration)
    return [
        Route("GET", V3 + "/pushrules", rules.everything),
        Route("GET", V3 + "/pushrules/", rules.everything),
        Route("GET", V3 + "/pushrules/global", rules.ruleset),
        Route("GET", V3 + "/pushrules/global/", rules.ruleset),
        Route("GET", rule, rules.get),
        Route("PUT", rule, rules.put),
        Route("DELETE", rule, rules.delete),
        Route("GET", rule + "/enabled", rules.is_enabled),
        Route("PUT", rule + "/enabled", rules.enable),
        Route("GET", rule + "/actions", rules.actions),
        Route("PUT", rule + "/actions", rules.act),
        Route("GET", V3 + "/pushers", pushers.all),
        Route("POST", V3 + "/pushers/set", pushers.set),
        Route("GET", V3 + "/notifications", _Notifications(history, clock).page),
    ]


class _Rules:
    def __init__(self, book: RuleBook) -> None:
        self._book = book

    async def everything(self, call: Call) -> Json:
        return {"global": await self._book.all(call.requester.user_id)}

    async def ruleset(self, call: Call) -> Json:
        return await self._book.all(call.requester.user_id)

    async def get(self, call: Call) -> Json:
        return await self._book.find(call.requester.user_id, call.path("kind"), call.path("rule"))

    async def put(self, call: Call) -> Json:
        wish = Wish(call.path("rule"), await call.json(), call.query("before"), call.query("after"))
        await self._book.put(call.requester.user_id, call.path("kind"), wish)
        return {}

    async def delete(self, call: Call) -> Json:
        await self._book.delete(call.requester.user_id, call.path("kind"), call.path("rule"))
        return {}

    async def is_enabled(self, call: Call) -> Json:
        return {"enabled": (await self.get(call))["enabled"]}

    async def enable(self, call: Call) -> Json:
        enabled = fields.boolean(await call.json(), "enabled")
        await self._book.enable(call.requester.user_id, call.path("kind"), call.path("rule"), enabled)
        return {}

    async def actions(self, call: Call) -> Json:
        return {"actions": (await self.get(call))["actions"]}

    async def act(self, call: Call) -> Json:
        actions = (await call.json()).get("actions")
        await self._book.act(call.requester.user_id, call.path("kind"), call.path("rule"), actions)
        return {}


class _Pushers:
    def __init__(self, registration: Registration) -> None:
        self._registration = registration

    async def all(self, call: Call) -> Json:
        return {"pushers": await self._registration.of(call.requester.user_id)}

    async def set(self, call: Call) -> Json:
        body = await call.json()
        app_id = fields.string(body, "app_id", maximum=64)
        pushkey = fields.string(body, "pushkey", maximum=512)
        if len(pushkey.encode()) > 512:
            raise InvalidParam("pushkey must not be longer than 512 bytes")
        if "kind" not in body:
            raise MissingParam("Missing field kind")
        if body["kind"] is None:
            await self._registration.remove(call.requester.user_id, app_id, pushkey)
            return {}
        await self._registration.set(call.requester, PusherSpec(
            app_id=app_id, pushkey=pushkey, kind=fields.string(body, "kind"),
            app_display_name=fields.string(body, "app_display_name"),
            device_display_name=fields.string(body, "device_display_name"),
            lang=fields.string(body, "lang", maximum=64), profile_tag=fields.optional_string(body, "profile_tag"),
            append=fields.boolean(body, "append", False), data=fields.mapping(body, "data"),
        ))
        return {}


class _Notifications:
    def __init__(self, history: History, clock: Callable[[], int]) -> None:
        self._history = history
        self._clock = clock

    async def page(self, call: Call) -> Json:
        start = call.query("from")
        below = MAX_INTEGER if start is None else tokens.timeline_point(start) + 1
        limit = call.query_int("limit", 20, 1, PAGE)
        page = await self._history.page(call.requester.user_id, below, limit, call.query("only") == "highlight")
        answer: dict[str, Json] = {"notifications": [self._shown(judged) for judged in page.items]}
        if page.below is not None:
            answer["next_token"] = tokens.timeline_token(page.below - 1)
        return answer

    def _shown(self, judged: Judged) -> Json:
        event = judged.row.event
        age = max(0, self._clock() - event.origin_server_ts)
        return {
            "actions": list(judged.outcome.actions),
            "event": render(event, room_id=False, unsigned={"age": age}),
            "read": judged.read,
            "room_id": event.room_id,
            "ts": event.origin_server_ts,
        }
