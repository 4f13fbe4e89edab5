"""``python -m minibert`` is the command ``minibert``."""

from __future__ import annotations

import sys

from minibert.cli import main

if __name__ == "__main__":
    sys.exit(main())
