"""Schleuse: a messenger appliance for hospitals."""

__version__ = "0.1.0"
