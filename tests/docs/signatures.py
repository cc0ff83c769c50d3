"""
The signatures in the reference, generated from the code.

A code host does not run Sphinx, so each page contains the signatures of its names as Markdown,
above the directives for Sphinx. ``python -m tests.docs.signatures`` (or ``make reference``) writes
them, and a test compares them with the code.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import attrs
import msgspec
import reactivex

from tests.docs.examples import ROOT

__all__ = ["PAGES", "generate"]

PAGES: Final = sorted((ROOT / "docs" / "reference").glob("*.md"))

_BEGIN: Final = "<!-- signatures: `make reference` writes them -->"
_END: Final = "<!-- end of signatures -->"
_WRITTEN: Final = re.compile(rf"^{re.escape(_BEGIN)}\n.*?^{_END}\n\n", re.MULTILINE | re.DOTALL)
_BLOCK: Final = re.compile(r"^```\{eval-rst\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DIRECTIVE: Final = re.compile(
    r"^\.\. auto(class|function|module):: ([\w.]+)(\(.*\))?\n((?:   .*\n)*)", re.MULTILINE
)
_ROLE: Final = re.compile(r":\w+:`~?([^`]+)`")
_WIDTH: Final = 96
_STARS: Final[dict[Any, str]] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}
_UNTOLD: Final = (Any, "Any", inspect.Parameter.empty)
_KNOWN: Final = (enum.Enum, reactivex.Observable, Exception)
_SIMPLE: Final = (bool, int, float, str, bytes, type(None), tuple)


def generate(text: str) -> str:
    """Return the text of a page with the signatures of the names that it documents."""
    return _BLOCK.sub(_with_signatures, _WRITTEN.sub("", text))


def _with_signatures(block: re.Match[str]) -> str:
    found = [_entry(*directive.groups()) for directive in _DIRECTIVE.finditer(block[1])]
    entries = "\n\n\n".join(entry for entry in found if entry)
    if not entries:
        return block[0]
    return f"{_BEGIN}\n\n```py\n{entries}\n```\n\n{_END}\n\n{block[0]}"


def _entry(kind: str, path: str, made: str | None, options: str) -> str:
    value = _found(path)
    if kind == "module":
        names: list[str] = sorted(value.__all__) if ":members:" in options else []
        return "\n\n\n".join("\n".join(_function(name, getattr(value, name))) for name in names)
    name = path.rpartition(".")[2]
    if kind == "function":
        return "\n".join(_function(name, value))
    return "\n".join(_class(name, value, made is None or len(made) > 2, options))


def _found(path: str) -> Any:
    """Import what *path* names."""
    module, _, name = path.rpartition(".")
    if not module or path in ("rxdispatch.operators", "rxdispatch.testing", "rxdispatch.errors"):
        return importlib.import_module(path)
    return getattr(importlib.import_module(module), name)


# ---------------------------------------------------------------- classes


def _class(name: str, cls: type[Any], made: bool, options: str) -> Iterator[str]:
    bases = ", ".join(_bases(cls))
    yield f"class {name}({bases}):" if bases else f"class {name}:"
    yield from _doc(cls) or ["    ..."]
    if issubclass(cls, enum.Enum):
        yield ""
        members: Iterable[enum.Enum] = cls
        yield from (f"    {member.name} = {_default(member.value)}" for member in members)
        return
    if not made:
        fields = [f"    {field}" for field in _fields(cls)]
        yield from ["", *fields] if fields else []
    elif not issubclass(cls, Exception) or "__init__" in vars(cls):
        yield from ("", *_indent(_stub("__init__", _signature(cls), "", [])))
    for member in _members(cls, options):
        lines = list(_member(member, cls))
        yield from ["", *_indent(lines)] if lines else []


def _bases(cls: type[Any]) -> Iterator[str]:
    """Yield the base classes that matter to a reader."""
    ours = importlib.import_module("rxdispatch").__all__
    for base in getattr(cls, "__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base) or base
        if origin in (typing.Generic, typing.Protocol):
            parameters = ", ".join(one.__name__ for one in typing.get_args(base))
            yield f"{origin.__name__}[{parameters}]" if parameters else origin.__name__
        elif issubclass(origin, _KNOWN):
            # A reader does not see a private base class, so use its nearest public one.
            public = (one for one in origin.__mro__ if _is_public(one))
            yield next(public).__name__
        elif origin.__name__ in ours:
            yield origin.__name__


def _is_public(base: type[Any]) -> bool:
    ours = importlib.import_module("rxdispatch").__all__
    return base.__name__ in ours or not base.__module__.startswith("rxdispatch")


def _fields(cls: type[Any]) -> Iterator[str]:
    """Yield the public fields of a class whose objects users receive but do not make."""
    names: list[str] = []
    if attrs.has(cls):
        names = [field.name for field in attrs.fields(cls)]
    elif issubclass(cls, msgspec.Struct):
        names = [field.name for field in msgspec.structs.fields(cls)]
    written = _annotations(cls)
    return (f"{name}: {written[name]}" for name in names if name[0] != "_" and name in written)


def _annotations(cls: type[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found |= inspect.get_annotations(base)
    return found


def _members(cls: type[Any], options: str) -> list[str]:
    """Return the names that the directive selects, in the order of the source."""
    if ":members:" not in options:
        return []
    asked, without = _option("members", options), _option("exclude-members", options)
    ours = [base for base in cls.__mro__ if base.__module__.startswith("rxdispatch")]
    known = {*_annotations(cls), *_attributes(cls)}.union(*map(vars, ours))
    if missing := [name for name in asked if name not in known]:
        raise LookupError(f"{cls.__name__} has no {', '.join(missing)}; see docs/reference")
    public = [name for name in vars(cls) if name[0] != "_" and inspect.getdoc(getattr(cls, name))]
    return [name for name in asked or public if name not in without]


def _attributes(cls: type[Any]) -> dict[str, str]:
    """Return the attributes that ``__init__`` sets, with their types where these are written."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("rxdispatch"):
            source = inspect.getsource(base)
            found |= dict(re.findall(r"^ {8}self\.(\w+)(?:: (.+?))? = ", source, re.MULTILINE))
    return found


def _option(name: str, options: str) -> list[str]:
    found = re.search(rf"^   :{name}:((?: .*\n|\n)(?:    +.*\n)*)", options, re.MULTILINE)
    return re.findall(r"\w+", found[1]) if found else []


def _member(name: str, cls: type[Any]) -> Iterator[str]:
    value: Any = inspect.getattr_static(cls, name, None)
    if isinstance(value, property):
        yield "@property"
        signature = inspect.signature(typing.cast("Any", value.fget))
        yield from _stub(name, signature, "", _doc(value))
    elif type(value) in (classmethod, staticmethod):
        yield f"@{type(value).__name__}"
        yield from _function(name, value.__func__)
    elif callable(value):
        yield from _function(name, value)
    elif told := _annotations(cls).get(name) or _attributes(cls).get(name):
        yield f"{name}: {told}"


# ---------------------------------------------------------------- functions


def _function(name: str, function: Callable[..., Any]) -> Iterator[str]:
    inner = inspect.unwrap(function)
    prefix = ""
    if inner is not function and inspect.isasyncgenfunction(inner):
        yield "@asynccontextmanager"
        prefix = "async "
    elif inspect.iscoroutinefunction(inner):
        prefix = "async "
    doc = _doc(function)
    forms = typing.get_overloads(inner)
    for number, form in enumerate(forms):
        yield from ("", "@overload") if number else ("@overload",)
        yield from _stub(name, inspect.signature(form), prefix, doc)
        doc = []
    if not forms:
        yield from _stub(name, inspect.signature(inner), prefix, doc)


def _signature(cls: type[Any]) -> inspect.Signature:
    """Return the signature of the constructor; a converter's parameter has the attribute's type."""
    signature = inspect.signature(cls)
    written = _annotations(cls)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [
        parameter.replace(annotation=written[parameter.name])
        if parameter.name in written
        and (parameter.annotation in _UNTOLD or not isinstance(parameter.annotation, str))
        else parameter
        for parameter in signature.parameters.values()
        if parameter.name[0] != "_"
    ]
    return inspect.Signature([own, *parameters], return_annotation="None")


def _stub(name: str, signature: inspect.Signature, prefix: str, doc: list[str]) -> Iterator[str]:
    """Yield a definition, on one line or with one line per parameter, and its docstring."""
    arguments = list(_arguments(signature))
    result = _type(signature.return_annotation)
    end = f"){f' -> {result}' if result else ''}:{'' if doc else ' ...'}"
    line = f"{prefix}def {name}({', '.join(arguments)}{end}"
    if len(line) <= _WIDTH - 4:
        yield line
    else:
        yield f"{prefix}def {name}("
        yield from (f"    {argument}," for argument in arguments)
        yield end
    yield from doc


def _arguments(signature: inspect.Signature) -> Iterator[str]:
    kinds = inspect.Parameter
    starred = False
    positional = [
        one.name for one in signature.parameters.values() if one.kind is kinds.POSITIONAL_ONLY
    ]
    for one in signature.parameters.values():
        if one.kind is kinds.KEYWORD_ONLY and not starred:
            yield "*"
            starred = True
        stars = _STARS.get(one.kind, "")
        starred = starred or stars == "*"
        told = _type(one.annotation)
        text = f"{stars}{one.name}: {told}" if told else f"{stars}{one.name}"
        if one.default is not kinds.empty:
            text += f" = {_default(one.default)}" if told else f"={_default(one.default)}"
        yield text
        if positional and one.name == positional[-1] and one.name != "self":
            yield "/"


def _type(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    told = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return told.strip("'\"").replace("typing.", "").replace("'", '"')


def _default(value: Any) -> str:
    """Return the source of a simple default; one that is made for each call becomes ``...``."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if not isinstance(value, _SIMPLE):
        return "..."
    text: str = repr(typing.cast("object", value))
    return text.replace("'", '"')


# ---------------------------------------------------------------- text


def _doc(value: Any) -> list[str]:
    """Return the first paragraph of a docstring, as one line."""
    summary = (inspect.getdoc(value) or "").partition("\n\n")[0]
    told = _ROLE.sub(r"\1", " ".join(summary.split())).replace("``", "`")
    if not told:
        return []
    lines = textwrap.wrap(f'    """{told}"""', _WIDTH, subsequent_indent="    ")
    return lines if len(lines) == 1 else ['    """', *_wrapped(told), '    """']


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="    ")


def _indent(lines: Iterable[str]) -> Iterator[str]:
    return (f"    {line}" if line else line for line in lines)


def main() -> None:
    """Write the signatures of all pages."""
    for page in PAGES:
        text = page.read_text("utf-8")
        page.write_text(generate(text), "utf-8")


if __name__ == "__main__":
    main()
