"""``Sequencer``: messages about changes, put in order; what is missing is noticed here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from rxdispatch.flood import Flood
from rxdispatch.log import get_logger
from rxdispatch.nodes.feed.stats import Counters
from rxdispatch.nodes.records import MESSAGE_LIMIT, Message, MessageReader
from rxdispatch.nodes.replica.replica import Replica

__all__ = ["Sequencer"]

log = get_logger(__name__)

_HELD: Final = 4096


class Sequencer:
    """
    Applies messages in the order of their numbers.

    Where numbers are missing it is *behind*: what comes then is held back, newest kept, until
    whoever was woken by *on_gap* has fetched the rest and says so.

    Args:
        replica: What the messages change.
        counters: Where messages and gaps are counted.
        on_gap: Called when something was missed.
    """

    def __init__(self, replica: Replica, counters: Counters, on_gap: Callable[[], None]) -> None:
        self.reader = MessageReader()
        self.behind = True
        self.confirmed = False
        #: True from when it was subscribed anew until somebody has asked where things stand.
        self.anew = False
        self._replica = replica
        self._counters = counters
        self._on_gap = on_gap
        self._held: deque[Message] = deque(maxlen=_HELD)
        self._flood = Flood(log, "node_message_dropped")

    def heard(self, data: bytes | None) -> None:
        """Take what Pub/Sub brings: a message, or None when it was subscribed anew."""
        if data is None:
            # Whatever was published before this has been missed, or has come already.
            if self.confirmed:
                self._counters.reconnects += 1
            self.confirmed = self.anew = self.behind = True
            self._on_gap()
            return
        message = self.read(data)
        if message is None:
            return
        if self.behind:
            self._held.append(message)
        else:
            self._follow(message)

    def wrote(self, data: bytes) -> None:
        """Take what this process has published, before Pub/Sub brings it."""
        message = self.read(data)
        replica = self._replica
        if message is None or message.epoch != replica.epoch:
            return
        if message.first <= replica.high + 1 and not self.behind:
            self._follow(message)
        else:
            # Of a node that came and went in it, the first row must not bring it back.
            unseen = [row for row in message.rows if row.seq > replica.high]
            replica.fill(unseen, message.first + message.length - 1)

    def refused(self, data: bytes) -> None:
        """Take the nodes that have refused a reservation, as the registry's reply brings them."""
        message = self.read(data, trusted=True)
        if message is not None and message.epoch == self._replica.epoch:
            self._replica.fill(message.rows, message.first)

    @property
    def held(self) -> int:
        """How many messages are held back."""
        return len(self._held)

    def caught_up(self, bogus: int = 0) -> None:
        """
        Go on with what was held back; there may be another gap in it.

        Args:
            bogus: How many of the oldest speak of numbers that the registry never had.
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
        Read a message; what cannot be read is counted.

        Args:
            data: The message.
            trusted: It is a reply of a script, which may be large, and leave numbers out.
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
        # Anybody may publish on a channel; what is not ours must not end the stream.
        self._counters.malformed += count
        self._flood.tell(reason, count)
