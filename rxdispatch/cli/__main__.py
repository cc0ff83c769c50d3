"""``python -m rxdispatch.cli``: runs the command where ``rxdispatch`` is not on the PATH."""

from __future__ import annotations

from rxdispatch.cli.main import main

if __name__ == "__main__":
    main()
