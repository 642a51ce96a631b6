"""The steps of receiving an event of another server, in the order of `rooms.receive`."""
