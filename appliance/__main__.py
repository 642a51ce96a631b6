"""`schleuse` and `python -m appliance`: the command line, plus the laboratory verbs that live at the roof."""

import os
import sys

from appliance.guests.cli.main import Elsewhere, build, run
from appliance.guests.cli.words import words_for


def main() -> None:
    """Run the command line and leave with its exit code."""
    words = words_for(os.environ)
    laboratory = {"homeserver": Elsewhere("appliance.laboratory", "homeserver", words.homeserver)}
    sys.exit(run(build(words, laboratory), words))


if __name__ == "__main__":
    main()
