"""`python -m charedge.runtime` is the same program as `python -m charedge`."""

from __future__ import annotations

from ..__main__ import main

if __name__ == "__main__":
    main()
