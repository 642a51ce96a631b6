"""Who may come in, and what belongs to a person: log-ins, devices, keys, and what clients keep for themselves.

    registration login uia passwords   the ways in, and proving who one is
    tokens                             who is behind a request, answered from memory
    devices account profile openid     what a person has and shows
    e2ee_keys cross_signing dehydrated key_backup to_device   what end-to-end encryption needs of a server
    account_data                       documents of clients
    limits                             how often somebody may ask

A secret lives here only as long as it is needed: passwords as argon2id, tokens as SHA-256, never in a log.
"""
