"""Matrix as mathematics: what an event is, whether it is allowed, and what state a forked room has.

Pure functions on frozen values; nothing here waits, reads a clock, rolls dice or touches a disk, so every rule can be
tested by the thousand per second.

    ids.py            identifiers: parsed once at the door, trusted inside
    canonical.py      strict reading, canonical writing
    errors.py         refusals in the protocol's own form
    versions.py       room versions as rows of switches; rules.py: where each prints its authorisation rules
    event.py          build, parse, redact, hash and name events; pdu_form.py: what a foreign PDU must look like
    signing.py        Ed25519 over canonical JSON
    power.py          power levels
    auth.py           the authorisation rules (essay), with auth_member.py, auth_power.py and the table membership.py
    resolve.py        state resolution 2 and 2.1 (essay)
    client_event.py   events as clients see them; tokens.py: positions as clients hold them
    requester.py      who asks
"""
