"""Builds broken on purpose: `python -m tests.chaos.broken HOW serve …` runs Nightbell with one promise taken out.

The checker must find fault with each of them; a suite that passes a broken build proves nothing.
"""

from __future__ import annotations

import sys

from runtime.main import main
from tests.chaos.breaks import BREAKS

if __name__ == "__main__":
    how = sys.argv.pop(1)
    BREAKS[how]()
    main()
