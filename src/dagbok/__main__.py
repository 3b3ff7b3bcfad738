"""`python -m dagbok`: the program `dagbok`."""

from __future__ import annotations

from dagbok.cli.main import main

if __name__ == "__main__":
    main()
