"""``Sequencer``: applies messages in order, and notices when one is missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from rxdispatch.log import get_logger
from rxdispatch.nodes.feed.stats import Counters
from rxdispatch.nodes.records import MESSAGE_LIMIT, Message, MessageReader
from rxdispatch.nodes.replica.replica import Replica
from rxdispatch.throttled_warning import ThrottledWarning

__all__ = ["Sequencer"]

log = get_logger(__name__)

_HELD: Final = 4096


class Sequencer:
    """
    Applies messages in the order of their numbers.

    After a gap it is *behind*: it holds messages back, the newest 4,096, until the missing changes
    have been fetched and :meth:`caught_up` is called.

    Args:
        replica: The replica to which messages are applied.
        counters: Counts messages and gaps.
        on_gap: Called when changes were missed.

    Attributes:
        behind: Whether changes are missing.
        confirmed: Whether the server has confirmed the subscription.
        resubscribed: True from a new subscription until the next pulse: messages that were
            published before it may have been missed.
    """

    def __init__(self, replica: Replica, counters: Counters, on_gap: Callable[[], None]) -> None:
        self.reader = MessageReader()
        self.behind = True
        self.confirmed = False
        self.resubscribed = False
        self._replica = replica
        self._counters = counters
        self._on_gap = on_gap
        self._held: deque[Message] = deque(maxlen=_HELD)
        self._dropped_warning = ThrottledWarning(log, "node_message_dropped")

    def receive(self, data: bytes | None) -> None:
        """Apply a message from Pub/Sub; None means that the channel was subscribed again."""
        if data is None:
            if self.confirmed:
                self._counters.reconnects += 1
            self.confirmed = self.resubscribed = self.behind = True
            self._on_gap()
            return
        message = self.read(data)
        if message is None:
            return
        if self.behind:
            self._held.append(message)
        else:
            self._follow(message)

    def receive_own(self, data: bytes) -> None:
        """Apply a message that this process has published, before Pub/Sub delivers it."""
        message = self.read(data)
        replica = self._replica
        if message is None or message.epoch != replica.epoch:
            return
        if message.first <= replica.high + 1 and not self.behind:
            self._follow(message)
        else:
            # Only unseen rows: a row that adds a node must not undo a later removal of the node.
            unseen = [row for row in message.rows if row.seq > replica.high]
            replica.fill(unseen, message.first + message.length - 1)

    def receive_refusals(self, data: bytes) -> None:
        """Apply the state of nodes that refused a reservation, from the registry's reply."""
        message = self.read(data, trusted=True)
        if message is not None and message.epoch == self._replica.epoch:
            self._replica.fill(message.rows, message.first)

    @property
    def held(self) -> int:
        """The number of messages that are held back."""
        return len(self._held)

    def caught_up(self, bogus: int = 0) -> None:
        """
        Apply the messages that were held back, up to the next gap.

        Args:
            bogus: How many of the oldest messages to drop, because their numbers are not the
                registry's.
        """
        self.behind = False
        held, self._held = self._held, deque(maxlen=_HELD)
        for _ in range(min(bogus, len(held))):
            held.popleft()
        while held:
            message = held.popleft()
            if message.epoch == self._replica.epoch:
                self._follow(message)
            if self.behind:
                self._held.extend(held)
                return

    def _follow(self, message: Message) -> None:
        self._counters.messages += 1
        if not self._replica.follow(message):
            self._counters.gaps += 1
            self.behind = True
            self._held.append(message)
            self._on_gap()

    def read(self, data: bytes, *, trusted: bool = False) -> Message | None:
        """
        Parse a message, and count what cannot be parsed.

        Args:
            data: The message.
            trusted: Whether it is a script's reply, which may be large and skip numbers.
        """
        try:
            if len(data) > MESSAGE_LIMIT and not trusted:
                raise ValueError(f"message must be at most {MESSAGE_LIMIT} bytes, got {len(data)}")
            message = self.reader.message(data)
            if message.length and not trusted:
                last = message.first + message.length - 1
                if message.last != last:
                    raise ValueError(f"message must end with number {last}, got {message.last}")
        except ValueError as error:
            self._dropped(1, str(error))
            return None
        if message.bad:
            self._dropped(message.bad, "a row could not be read")
        return message

    def _dropped(self, count: int, reason: str) -> None:
        # Any client may publish on the channel; a foreign message must not end the stream.
        self._counters.malformed += count
        self._dropped_warning.tell(reason, count)
