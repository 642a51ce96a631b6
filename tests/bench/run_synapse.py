"""Start the pinned Synapse on loopback as the measured peer, print one JSON line, run until Ctrl-C or SIGTERM.

python -m tests.bench.run_synapse --venv .bench/venv --data .bench/synapse --port 18008
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.bench.loadkit import sample
from tests.world.server import Synapse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    server = Synapse(options.venv.absolute(), options.data.absolute(), port=options.port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    healthy = server.start()
    try:
        print(json.dumps({"pid": server.pid, "address": server.base, "first_healthy_s": round(healthy, 2)}), flush=True)
        print(json.dumps(sample([server.pid])), flush=True)
        return server.process.wait()
    except KeyboardInterrupt:
        return server.stop()


if __name__ == "__main__":
    sys.exit(main())
