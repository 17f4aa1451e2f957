"""`python -m charedge.runtime` is `python -m charedge`, for a device whose wheel has this room alone in mind."""

from __future__ import annotations

from ..__main__ import main

if __name__ == "__main__":
    main()
