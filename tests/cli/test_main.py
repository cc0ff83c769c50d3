"""The command without its extra."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_missing_extra_is_named(missing: str) -> None:
    """One sentence names the extra; the exit code is 2, and there is no traceback."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None\nfrom rxdispatch.cli.main import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "demo"], capture_output=True, text=True, check=False
    )
    assert 2 == done.returncode
    assert "pip install 'rxdispatch[cli]'" in done.stderr
    assert missing in done.stderr
    assert "Traceback" not in done.stderr
