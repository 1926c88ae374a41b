"""`python -m tests`: all that must hold before a change lands, in two runs side by side.

The fault runs mostly wait: for leases to end, for servers to come back.  All the rest computes.  Each of the two starts the servers
that it needs; the fault runs' report is printed whole behind the other's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

FAULTS = "tests/chaos"
PYTEST = [sys.executable, "-m", "pytest", "-m", "not slow"]


def main() -> int:
    """The worse of the two exit codes."""
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile() as report:
        faults = subprocess.Popen([*PYTEST, "-p", "no:cacheprovider", FAULTS], stdout=report, stderr=subprocess.STDOUT, env=env)
        try:
            rest = subprocess.run([*PYTEST, f"--ignore={FAULTS}"], check=False, env=env).returncode
            print(f"--- {FAULTS}, which ran beside this:", flush=True)
            worse = max(rest, faults.wait(), key=abs)
        finally:
            faults.terminate()
            report.seek(0)
            sys.stdout.buffer.write(report.read())
            sys.stdout.flush()
    return worse


if __name__ == "__main__":
    sys.exit(main())
