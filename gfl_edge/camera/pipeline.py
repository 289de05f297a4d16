"""Stages that overlap: a thread each, and bounded queues between them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

STOP_SECONDS = 1.0  # that the threads of a run have to end in

logger = logging.getLogger(__name__)


class EndOfItems(Exception):  # noqa: N818  no error
    """Raised by ``get`` after the last item."""


class Stopped(Exception):  # noqa: N818  no error
    """Raised at a queue that was stopped: whoever works there leaves."""


class Giver(Protocol[T_co]):
    """Where a stage takes its items from."""

    def get(self) -> T_co:
        """Wait for the next item; raises EndOfItems, Stopped, or the error that ended the items."""
        ...


@dataclass(frozen=True)
class QueueDepth:
    """How full a queue was.

    Attributes:
        capacity: items that may wait.
        mean: items that waited, on average over the time from the first item on.
        most: items that waited at once.
    """

    capacity: int
    mean: float
    most: int


class BoundedQueue(Generic[T]):
    """Hands items from one thread to another, in order.

    Args:
        capacity: items that may wait.
        changed: what to wait at and to notify, shared with other queues where several are taken from.

    Attributes:
        capacity: may be changed before the first item.
        dropped: items that :meth:`put_newest` threw away.
        error: what ended the items; None if nothing did, or they just ended.
    """

    def __init__(self, capacity: int, changed: threading.Condition | None = None) -> None:
        self.capacity, self._changed = capacity, changed or threading.Condition()
        self._items: deque[T] = deque()
        self._ended = self._stopped = False
        self.dropped = 0
        self.error: BaseException | None = None
        self._deepest = 0
        self._first_s = self._changed_s = 0.0  # when the first item came, and when one last came or went
        self._item_seconds = 0.0

    def wait_for_room(self) -> None:
        """Wait until an item can be put. A stage does so before it takes one, which is as fresh as can be then.

        Raises:
            Stopped: the queue was stopped.
        """
        with self._changed:
            while len(self._items) >= self.capacity and not self._stopped:
                self._changed.wait()
            if self._stopped:
                raise Stopped

    def put(self, item: T) -> None:
        """Append ``item``, as soon as there is room; raises as :meth:`wait_for_room`."""
        with self._changed:
            self.wait_for_room()
            self._append(item)

    def put_newest(self, item: T) -> None:
        """Append ``item`` at once; where there is no room the oldest is dropped. Raises Stopped."""
        with self._changed:
            if self._stopped:
                raise Stopped
            if len(self._items) >= self.capacity:
                self._count_time()
                self._items.popleft()
                self.dropped += 1
            self._append(item)

    def _append(self, item: T) -> None:
        self._count_time()
        self._items.append(item)
        self._deepest = max(self._deepest, len(self._items))
        self._changed.notify_all()

    def _count_time(self) -> None:
        """Add up how long how many items waited; to be called before their number changes."""
        now = time.monotonic()
        self._first_s = self._first_s or now
        self._item_seconds += len(self._items) * (now - self._changed_s)
        self._changed_s = now

    def end(self, error: BaseException | None = None) -> None:
        """No more items come; ``error`` is raised to whoever takes, after the last."""
        with self._changed:
            self._ended, self.error = True, error
            self._changed.notify_all()

    def stop(self) -> None:
        """Throw away what waits, and send away whoever works at this queue."""
        with self._changed:
            self._stopped = True
            self._count_time()
            self._items.clear()
            self._changed.notify_all()

    def poll(self) -> T | None:
        """The next item, if one waits."""
        with self._changed:
            if not self._items:
                return None
            self._count_time()
            self._changed.notify_all()
            return self._items.popleft()

    def get(self) -> T:
        """Wait for the next item; see :meth:`Giver.get`."""
        item = self.get_within(None)
        assert item is not None
        return item

    def get_within(self, seconds: float | None) -> T | None:
        """:meth:`get`, or None if nothing comes within so many seconds; None = wait for ever."""
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while not self._items:
                if self._stopped:
                    raise Stopped
                if self._ended:
                    raise self.error or EndOfItems
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            return self.poll()

    @property
    def over(self) -> bool:
        """Whether nothing waits and nothing comes any more."""
        with self._changed:
            return self._ended and not self._items

    def __len__(self) -> int:
        return len(self._items)

    def depth(self) -> QueueDepth:
        """How full it has been so far."""
        with self._changed:
            seconds = self._changed_s - self._first_s
            return QueueDepth(self.capacity, self._item_seconds / seconds if seconds > 0 else 0.0, self._deepest)


class Pipeline:
    """Stages that pass items on from one to the next. Usable as a context manager, which stops them.

    The first error of a stage travels after the items before it to whoever takes from the last queue.

    Attributes:
        queues: by the name of the stage that takes from them.
    """

    def __init__(self) -> None:
        self.queues: dict[str, BoundedQueue[Any]] = {}
        self._threads: list[threading.Thread] = []

    def add(
        self, name: str, source: Giver[A], work: Callable[[A], Iterable[B]], next_name: str, capacity: int
    ) -> BoundedQueue[B]:
        """Add a stage, which starts at once.

        Args:
            name: of the stage.
            source: what it takes from.
            work: is called with every item, in one thread and in order; what it returns is passed on.
            next_name: of the stage that takes from the queue that is returned.
            capacity: of that queue.
        """
        target: BoundedQueue[B] = BoundedQueue(capacity)
        self.queues[next_name] = target
        thread = threading.Thread(target=_run_stage, args=(source, work, target), name=f"gfl_edge {name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return target

    def stop(self) -> None:
        """Send away all stages; what is under way is thrown away."""
        for queue in self.queues.values():
            queue.stop()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        join_all(self._threads, STOP_SECONDS)


def _run_stage(source: Giver[A], work: Callable[[A], Iterable[B]], target: BoundedQueue[B]) -> None:
    try:
        while True:
            target.wait_for_room()
            for result in work(source.get()):
                target.put(result)
    except EndOfItems:
        target.end()
    except Stopped:
        target.stop()
    except BaseException as error:  # an interruption, too, is raised to whoever takes from the last queue
        target.end(error)


def join_all(threads: Iterable[threading.Thread], seconds: float) -> None:
    """Wait for threads that were asked to leave, ``seconds`` in all.

    Those that are still in a call of a library then, such as the read of a camera that hangs, leave when it returns.
    """
    deadline = time.monotonic() + seconds
    for thread in threads:
        if thread.ident is None:  # the system let no more of them start
            continue
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            logger.warning("%s does not answer; it is left to end by itself", thread.name)
