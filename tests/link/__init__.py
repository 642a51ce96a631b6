"""The hands on the wire: real sockets and real TLS on loopback, a domain name system made of dictionaries."""
