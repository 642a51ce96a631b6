"""Which events concern a person, how many are unread, and waking devices up for them.

    defaults.py conditions.py globs.py rules.py   the specification's rules, compiled
    rule_book.py editing.py                       a person's own rules
    facts.py evaluate.py standing.py unread.py    unread counts, worked out when somebody asks
    history.py                                    the list of notifications, read from the timeline
    registration.py pushers.py owed.py message.py gateway.py   devices that want to be woken; the timeline is the queue
"""
