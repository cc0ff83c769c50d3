"""
rxdispatch: reactive, event-driven task dispatch for asyncio.

A *board* is a shared list of tasks. A worker claims a task by changing its status mark in one
atomic step; there is no lock. Tasks flow through RxPY observables, and demand flows upstream from
the consumer to the source, so that streams stay bounded. A *feed* is a process's copy of the list
of nodes. The server pushes changes to it, and it proves regularly that it has missed none.

Start with :func:`connect`, ``hub.board(name)``, ``board.submit`` and ``board.claims()``, or with
``hub.nodes`` and ``hub.feed()``. The operators are in :mod:`rxdispatch.operators`.
"""

from rxdispatch.backoff import Backoff
from rxdispatch.boards.base import Board
from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.boards.redis.board import RedisBoard
from rxdispatch.boards.shm.board import SharedMemoryBoard
from rxdispatch.claim import Claim, Outcome, Settlement
from rxdispatch.clock import LoopScheduler
from rxdispatch.config import FeedSettings, Settings, StoreSettings
from rxdispatch.errors import (
    BoardFullError,
    BufferOverflowError,
    CodecError,
    ConfigError,
    ItemTimeoutError,
    NoCapacityError,
    NodeNotFoundError,
    ProcessCallError,
    RxDispatchError,
    StoreUnavailableError,
    TaskExecutionError,
    TaskRejectedError,
)
from rxdispatch.hub import Hub, connect
from rxdispatch.intakes import Intake
from rxdispatch.node import Mode, Node, NodeChange, NodeStatus, Slot
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.nodes.feed.stats import FeedStats, RedisLatency
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.explanation import Explanation
from rxdispatch.nodes.registry import Registry
from rxdispatch.operators._fluent import install_fluent
from rxdispatch.operators.flow._adaptive_limit import AdaptiveLimit
from rxdispatch.operators.flow._meter import Latency, Measurement, Meter
from rxdispatch.operators.flow._meters import measurements
from rxdispatch.operators.tasks._assignment import Assignment, current_node
from rxdispatch.operators.tasks._current_claim import current_claim
from rxdispatch.pipelines.actors.actor import Actor
from rxdispatch.pipelines.actors.messages import ActorError
from rxdispatch.pipelines.actors.ref import ActorRef
from rxdispatch.pipelines.graph.graph import Graph
from rxdispatch.pipelines.graph.run import GraphRun
from rxdispatch.pipelines.outbox.edge import EdgePipeline, EdgeResult
from rxdispatch.pipelines.outbox.events import Dedupe, OutboxEvent, OutboxStats
from rxdispatch.pipelines.outbox.outbox import Outbox
from rxdispatch.pipelines.outbox.spilling_ingress import SpillingIngress
from rxdispatch.pipelines.redis_list.held_entries import ListItem
from rxdispatch.pipelines.redis_list.source import from_redis_list
from rxdispatch.pipelines.remote.app import StageApp, serve_stages
from rxdispatch.pipelines.remote.client import RemoteError, RemoteFunction, remote
from rxdispatch.pipelines.shared.stage_error import StageError
from rxdispatch.pipelines.stages.pipeline import Pipeline
from rxdispatch.pipelines.stages.stage import Stage, stage
from rxdispatch.pipelines.stages.stats import PipelineStats, StageStats
from rxdispatch.pipelines.workflow.history import Move, Transition, WorkflowError, WorkflowResult
from rxdispatch.pipelines.workflow.workflow import Workflow
from rxdispatch.protocols import Limit, Valve
from rxdispatch.results import (
    BoardStats,
    Counts,
    DeadLetter,
    KindState,
    SubmitResult,
    TaskEvent,
    TaskState,
)
from rxdispatch.streams._broadcast_ingress import BroadcastIngress
from rxdispatch.streams._delayed_ingress import DelayedIngress
from rxdispatch.streams._from_async_iterable import from_async_iterable
from rxdispatch.streams._from_iterable import from_iterable
from rxdispatch.streams._ingress import Ingress
from rxdispatch.streams._kill_switch import KillSwitch
from rxdispatch.streams._priority_ingress import PriorityIngress
from rxdispatch.streams._run import run
from rxdispatch.streams._to_async_iterable import to_async_iterable
from rxdispatch.task import Status, Task
from rxdispatch.telemetry.metrics import Metrics
from rxdispatch.telemetry.tracing import inject_trace, traced

__all__ = [
    "Actor",
    "ActorError",
    "ActorRef",
    "AdaptiveLimit",
    "Assignment",
    "Backoff",
    "Board",
    "BoardFullError",
    "BoardStats",
    "BroadcastIngress",
    "BufferOverflowError",
    "Claim",
    "CodecError",
    "ConfigError",
    "Counts",
    "Criteria",
    "DeadLetter",
    "Dedupe",
    "DelayedIngress",
    "EdgePipeline",
    "EdgeResult",
    "Explanation",
    "Feed",
    "FeedSettings",
    "FeedStats",
    "Graph",
    "GraphRun",
    "Hub",
    "Ingress",
    "Intake",
    "ItemTimeoutError",
    "KillSwitch",
    "KindState",
    "Latency",
    "Limit",
    "ListItem",
    "LoopScheduler",
    "Measurement",
    "MemoryBoard",
    "Meter",
    "Metrics",
    "Mode",
    "Move",
    "NoCapacityError",
    "Node",
    "NodeChange",
    "NodeNotFoundError",
    "NodeStatus",
    "Outbox",
    "OutboxEvent",
    "OutboxStats",
    "Outcome",
    "Pipeline",
    "PipelineStats",
    "PriorityIngress",
    "ProcessCallError",
    "RedisBoard",
    "RedisLatency",
    "Registry",
    "RemoteError",
    "RemoteFunction",
    "RxDispatchError",
    "Settings",
    "Settlement",
    "SharedMemoryBoard",
    "Slot",
    "SpillingIngress",
    "Stage",
    "StageApp",
    "StageError",
    "StageStats",
    "Status",
    "StoreSettings",
    "StoreUnavailableError",
    "SubmitResult",
    "Task",
    "TaskEvent",
    "TaskExecutionError",
    "TaskRejectedError",
    "TaskState",
    "Transition",
    "Valve",
    "Workflow",
    "WorkflowError",
    "WorkflowResult",
    "connect",
    "current_claim",
    "current_node",
    "from_async_iterable",
    "from_iterable",
    "from_redis_list",
    "inject_trace",
    "install_fluent",
    "measurements",
    "remote",
    "run",
    "serve_stages",
    "stage",
    "to_async_iterable",
    "traced",
]
