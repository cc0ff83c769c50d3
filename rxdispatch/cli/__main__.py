"""``python -m rxdispatch.cli``: the command, if it is not on the path."""

from __future__ import annotations

from rxdispatch.cli.main import main

if __name__ == "__main__":
    main()
