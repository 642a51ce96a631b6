"""Guests: programs outside the house. They ring at doors/local and know nothing of the rooms behind it."""
