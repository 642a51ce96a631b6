"""What other homeservers may ask: one file per chapter, every request but a few proved by a signature (`entry.py`)."""
