"""`python -m tests`: all that must hold before a change lands, in two runs side by side.

Whole systems as processes, killed and well, mostly wait: for servers to start and to come back, for leases to end.  All the rest
computes, and takes about as long.  Each of the two starts the servers that it needs; the report of the systems is printed whole
behind the other one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

SYSTEMS = ["tests/chaos", "tests/flow"]
PYTEST = [sys.executable, "-m", "pytest", "-m", "not slow"]


def main() -> int:
    """The worse of the two exit codes."""
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile() as report:
        beside = [*PYTEST, "-p", "no:cacheprovider", *SYSTEMS]
        systems = subprocess.Popen(beside, stdout=report, stderr=subprocess.STDOUT, env=env)
        try:
            rest = subprocess.run([*PYTEST, *(f"--ignore={folder}" for folder in SYSTEMS)], check=False, env=env).returncode
            print(f"--- {' and '.join(SYSTEMS)}, which run beside this:", flush=True)
            worse = max(rest, systems.wait(), key=abs)
        finally:
            systems.terminate()
            report.seek(0)
            sys.stdout.buffer.write(report.read())
            sys.stdout.flush()
    return worse


if __name__ == "__main__":
    sys.exit(main())
