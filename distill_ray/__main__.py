"""``python -m distill_ray``: the same as the command ``distill-ray``."""

from __future__ import annotations

import sys

from distill_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
