"""The entry point: checks that the command's dependencies are installed, then runs it."""

from __future__ import annotations

import sys

from rxdispatch.cli.leaving import leave_in_time
from rxdispatch.errors import ConfigError

__all__ = ["main"]


def main() -> None:
    """
    Run the ``rxdispatch`` command; does not return.

    Exit codes: 0 when done or interrupted gracefully, 1 when the server cannot be reached or files
    are missing at the end, 2 for a bad argument or a missing extra, 128 plus the number of the
    signal when aborted.
    """
    # Imported here: worker processes import this module too and need none of it, and without the
    # extra the command must print a sentence instead of a traceback.
    try:
        from rxdispatch.cli.commands import rxdispatch  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        missing = ConfigError(
            "the command must have click and rich; install them with pip install 'rxdispatch[cli]'"
        )
        print(f"Error: {missing} (no module named {error.name!r})", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        rxdispatch(prog_name="rxdispatch")
    except SystemExit as ending:
        leave_in_time(ending.code if isinstance(ending.code, int) else ending.code is not None)
        raise


if __name__ == "__main__":
    main()
