"""The test kit itself: people with real clients, server processes, and the demo."""
