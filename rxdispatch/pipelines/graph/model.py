"""The parts of a graph: nodes with ports, and the edges between ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import attrs

from rxdispatch.checks import key_name
from rxdispatch.errors import ConfigError
from rxdispatch.operators._on_error import OnError
from rxdispatch.overflow import Overflow
from rxdispatch.pipelines.stages.stage import Stage

__all__ = ["AsyncNodeFunction", "Edge", "Gap", "GraphNode", "Join", "NodeFunction", "checked_ports"]

Join = Literal["merge", "zip", "latest"]


class Gap:
    """The placeholder of a failed item: the class, not an instance, so that it pickles by name."""


@attrs.frozen(kw_only=True, eq=False)
class GraphNode:
    """
    A node of a graph.

    Attributes:
        stage: What it does, and how; its function is a :class:`NodeFunction`.
        spread: Whether its function takes the items of several ports as arguments.
        inputs: The names of its input ports.
        outputs: The names of its output ports.
        join: How items of several inputs come together.
        ordered: Whether results leave in the order of arrival.
    """

    stage: Stage
    spread: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    join: Join
    ordered: bool

    @property
    def name(self) -> str:
        """Its name."""
        return self.stage.name


@attrs.frozen
class Edge:
    """An edge from an output port to an input port; edges with equal ends are equal."""

    source: str
    from_port: str
    target: str
    to_port: str
    overflow: Overflow[Any] = attrs.field(default="wait", eq=False)

    def __str__(self) -> str:
        return f"{self.source}.{self.from_port} -> {self.target}.{self.to_port}"


class NodeFunction:
    """
    The user's function of a node, with checks of its result; a gap skips the function.

    Args:
        fn: The user's function.
        spread: Whether to pass a tuple of items as that many arguments.
        outputs: The output ports. If there are several, *fn* returns a dict by port; if there is
            one, it returns the value itself.
    """

    def __init__(self, fn: Callable[..., Any], spread: bool, outputs: tuple[str, ...]) -> None:
        self.fn = fn
        self.spread = spread
        self.outputs = outputs

    def __call__(self, item: Any) -> Any:
        """Return the value, or the values by port."""
        if item is Gap:
            return Gap
        return self.checked(self.fn(*item) if self.spread else self.fn(item))

    def checked(self, value: Any) -> Any:
        """Return *value*; with several outputs, it must be a dict by port."""
        if len(self.outputs) == 1:
            return value
        if not isinstance(value, dict):
            raise ConfigError(
                "fn of a node with several outputs must return a dict by port", type(value)
            )
        for port in value:  # pyright: ignore[reportUnknownVariableType]
            if port not in self.outputs:
                rule = f"ports that fn returns must be among {', '.join(self.outputs)}"
                raise ConfigError(rule, port)
        return value  # pyright: ignore[reportUnknownVariableType]

    def checked_replacement(self, on_error: OnError[Any, Any]) -> OnError[Any, Any]:
        """Return *on_error*, with the same checks of its replacements as of results."""
        if len(self.outputs) == 1 or not callable(on_error):
            return on_error
        replace = on_error
        return lambda item, error: self.checked(replace(item, error))


class AsyncNodeFunction(NodeFunction):
    """A :class:`NodeFunction` of a coroutine function."""

    async def __call__(self, item: Any) -> Any:
        """Return the value, or the values by port."""
        if item is Gap:
            return Gap
        return self.checked(await (self.fn(*item) if self.spread else self.fn(item)))


def checked_ports(what: str, ports: Any) -> tuple[str, ...]:
    """
    Return *ports*.

    Raises:
        ConfigError: If they are not a tuple or list of one or more distinct names.
    """
    if not isinstance(ports, (tuple, list)) or not ports:
        raise ConfigError(f"{what} must be a tuple of port names", ports)
    names = tuple(key_name(f"each of {what}", port) for port in ports)  # pyright: ignore[reportUnknownVariableType]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{what} must be distinct", name)
    return names
