"""The form of numbers and names in the command's output."""

from __future__ import annotations

__all__ = ["number", "visible"]


def number(count: int, one: str, many: str = "") -> str:
    """
    Return *count* with its noun.

    Example:
        >>> number(1, "file"), number(1200, "file")
        ('1 file', '1,200 files')
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def visible(text: str) -> str:
    r"""
    Return *text* with unprintable and terminal control characters escaped.

    Example:
        >>> print(visible("bad\udcff\x1b[2Jname"))
        bad\udcff\x1b[2Jname
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
