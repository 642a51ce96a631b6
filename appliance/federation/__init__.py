"""One federation with the rest of the Matrix world: what this house says to other homeservers and believes of them.

    requests.py    X-Matrix: a request signed by one server for one other
    key_object.py  what a server publishes about its keys, read and checked
    own_keys.py    what we publish about ours
    keyring.py     whose key is which, until when; signatures of events and requests
    wire.py        one signed request over a transport, one of two errors back
    client.py      every call that one server makes to another, by name
    answers.py     what comes back, with limits
    multipart.py   media as they arrive from a peer
"""
