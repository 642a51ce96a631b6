"""The doors: they translate between HTTP and the house, and decide nothing.

    listener.py   the socket: what a connection may take, and JSON even for what is not HTTP
    web.py        routes, the parsed call, the one place where a refusal becomes an answer
    fields.py     reading members of a JSON body
    client/       the client-server API, one file per chapter
"""
