"""The hands on the wire to other homeservers: find them, connect to the right one, never to a forbidden address.

A request goes through four stations, each a file that can be tried alone: `resolve.py` turns a server name into
endpoints, a `Host` header and the name that the certificate must carry; `addresses.py` says which addresses may be
connected to; `dial.py` owns sockets and TLS and checks the policy on the address it really connects to; `direct.py`
sends the request and reads the answer within limits of size and time. What the rest of the house knows of all this are
the values in `exchange.py` and the errors in `errors.py`.
"""
