"""``python -m distill_ray``: the same as the command ``distill-ray``."""

from __future__ import annotations

import sys

from distill_ray.cli.dependencies import what_is_missing

if __name__ == "__main__":
    try:
        from distill_ray.cli.main import main
    except ModuleNotFoundError as error:
        sys.stderr.write(f"distill-ray: {what_is_missing(error)}\n")
        sys.exit(4)
    sys.exit(main())
