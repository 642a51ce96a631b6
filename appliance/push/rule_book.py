"""Reading and changing push rules. They are written nowhere else, and always as one value in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appliance.push import defaults, editing
from appliance.push.defaults import Rule, Ruleset
from appliance.push.editing import Wish
from appliance.store import account_data
from appliance.store.database import Store
from appliance.store.readers import Rx
from appliance.store.writer import Tx

Change = Callable[[Ruleset], None]


def ruleset_of(rx: Rx | Tx, user_id: str) -> Ruleset:
    """Return a person's ruleset as their clients see it."""
    stored = account_data.get(rx, user_id, account_data.GLOBAL, editing.TYPE)
    return defaults.personal(editing.load(stored), user_id)


def untouched(user_id: str) -> dict[str, bytes]:
    """Return the account data of somebody who never changed a rule: clients read their rules from sync."""
    return {editing.TYPE: editing.dump(defaults.default_ruleset(user_id))}


def _change(tx: Tx, user_id: str, change: Change) -> None:
    ruleset = ruleset_of(tx, user_id)
    change(ruleset)
    account_data.put(tx, user_id, account_data.GLOBAL, editing.TYPE, editing.dump(ruleset))


class RuleBook:
    """The push rules of everybody."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def all(self, user_id: str) -> Ruleset:
        """Return a person's whole ruleset."""
        return await self._store.read(ruleset_of, user_id)

    async def find(self, user_id: str, kind: str, rule_id: str) -> Rule:
        """Return one rule; `NotFound`."""
        return editing.find(await self.all(user_id), kind, rule_id)

    async def put(self, user_id: str, kind: str, wish: Wish) -> None:
        """Add or replace a rule of the person's own."""
        await self._store.write(_change, user_id, lambda ruleset: editing.put(ruleset, kind, wish))

    async def delete(self, user_id: str, kind: str, rule_id: str) -> None:
        """Remove a rule of the person's own; `NotFound`."""
        await self._store.write(_change, user_id, lambda ruleset: editing.delete(ruleset, kind, rule_id))

    async def enable(self, user_id: str, kind: str, rule_id: str, enabled: bool) -> None:
        """Switch any rule on or off; `NotFound`."""
        await self._set(user_id, kind, rule_id, "enabled", enabled)

    async def act(self, user_id: str, kind: str, rule_id: str, actions: Any) -> None:
        """Change what any rule does; `NotFound`."""
        await self._set(user_id, kind, rule_id, "actions", editing.actions_of(actions))

    async def _set(self, user_id: str, kind: str, rule_id: str, field: str, value: Any) -> None:
        def change(ruleset: Ruleset) -> None:
            editing.find(ruleset, kind, rule_id)[field] = value

        await self._store.write(_change, user_id, change)
