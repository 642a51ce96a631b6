"""The client-server API. Each chapter offers `routes(...)`; house.py puts them together."""
