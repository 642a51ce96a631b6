"""Where each room version's specification prints its authorisation rules, and the refusal that names one.

The rules move as versions insert new ones; a refusal is read by people with the specification beside them, so it says
the number of *that* version.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from appliance.matrix.errors import Forbidden


class Rejected(Forbidden):
    """An event that the authorisation rules do not allow; `rule` is the number in its room version's specification."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason

    def __str__(self) -> str:
        return f"rule {self.rule}: {self.reason}"


class RuleNumbers(msgspec.Struct, frozen=True):
    """The numbers of one room version. Empty where the version has no such rule."""

    create_missing: str = "2.4"
    wrong_room: str = "2.5"
    auth_events: str = "2"
    federate: str = "3"
    member_form: str = "4.1"
    authorised: str = ""
    join: str = "4.2"
    join_restricted: str = ""
    join_otherwise: str = "4.2.6"
    invite: str = "4.3"
    leave: str = "4.4"
    ban: str = "4.5"
    knock: str = ""
    unknown_membership: str = "4.6"
    not_joined: str = "5"
    third_party_invite: str = "6.1"
    level: str = "7"
    foreign_state_key: str = "8"
    power_integers: str = ""
    power_integer_maps: str = ""
    power_users: str = "9.1"
    power_creators: str = ""
    power_scalars: str = "9.3"
    power_maps_old: str = "9.4"
    power_maps_new: str = "9.5"
    power_users_old: str = "9.6"
    power_users_new: str = "9.7"


V6_RULES: Final = RuleNumbers()
V7_RULES: Final = replace(V6_RULES, knock="4.6", unknown_membership="4.7")
V8_RULES: Final = replace(
    V7_RULES,
    authorised="4.2.1",
    join="4.3",
    join_restricted="4.3.5.2",
    join_otherwise="4.3.7",
    invite="4.4",
    leave="4.5",
    ban="4.6",
    knock="4.7",
    unknown_membership="4.8",
)
V10_RULES: Final = replace(
    V8_RULES,
    power_integers="9.1",
    power_integer_maps="9.2",
    power_users="9.3",
    power_scalars="9.5",
    power_maps_old="9.6",
    power_maps_new="9.7",
    power_users_old="9.8",
    power_users_new="9.9",
)
V12_RULES: Final = RuleNumbers(
    create_missing="2",
    wrong_room="3.5",
    auth_events="3",
    federate="4",
    member_form="5.1",
    authorised="5.2.1",
    join="5.3",
    join_restricted="5.3.5.2",
    join_otherwise="5.3.7",
    invite="5.4",
    leave="5.5",
    ban="5.6",
    knock="5.7",
    unknown_membership="5.8",
    not_joined="6",
    third_party_invite="7.1",
    level="8",
    foreign_state_key="9",
    power_integers="10.1",
    power_integer_maps="10.2",
    power_users="10.3",
    power_creators="10.4",
    power_scalars="10.6",
    power_maps_old="10.7",
    power_maps_new="10.8",
    power_users_old="10.9",
    power_users_new="10.10",
)
