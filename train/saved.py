"""The state that a run goes on from: the same for all of its processes, on storage that all of them see."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Literal

from gfl_edge.errors import CheckpointError, InputError
from gfl_edge.files import cannot_write, check_output
from gfl_edge.files.partial import PartialFile, try_lock
from train.checkpoint import LAST, Checkpoint
from train.distributed import Process, from_main, gather
from train.weights.naming import listed, short

logger = logging.getLogger(__name__)

Resume = bool | Literal["auto"]

# A network file system may show for so long what was there before
SETTLING_S = 60.0
LOOK_EVERY_S = 1.0


def find_state(folder: Path, resume: Resume, process: Process) -> Checkpoint | None:
    """What ``last.pt`` of a run's folder holds; to be called by all processes together.

    Args:
        folder: of the run.
        resume: True: there has to be a state; "auto": there may be one; False: there must be none.
        process: this one.

    Returns:
        The state, the same in all processes; None where the run starts.

    Raises:
        CheckpointError: there is none, or it is damaged or holds only weights.
        InputError: there is one that must not be; the processes do not see the same folder.
        OutputError: nothing can be written there.
    """
    last = folder / LAST
    if process.is_main:
        check_output(last)
    if not resume:
        if last.exists():
            raise InputError(
                f"{folder} holds a run already. Go on with it by --resume, or by --auto-resume if the same command is "
                "to start and to go on, or choose another folder with --set 'train.output=\"...\"'"
            )
        return None
    check_shared(folder, process)
    end = time.monotonic() + SETTLING_S
    while True:
        saved = Checkpoint.load(last) if resume is True or last.exists() else None
        if saved is not None and saved.training is None:
            raise CheckpointError(f"{last} holds only weights, from which no run can go on")
        found = gather("no state" if saved is None else short((saved.training or {}).get("position")), process)
        if len(set(found)) == 1:
            return saved
        # A process of the run that is not stopped yet has written it between two readings
        if time.monotonic() > end:
            read = listed(sorted(set(found)))
            raise CheckpointError(f"{last} keeps changing, the processes read {read}. Stop the other run there")
        time.sleep(LOOK_EVERY_S)


def check_shared(folder: Path, process: Process) -> None:
    """Raise InputError unless all processes see the same folder, which is there; all of them call it together.

    Without that, a run would go on from nothing wherever its first process comes to another node.
    """
    if process.is_only:
        return
    with closing(PartialFile(folder)) if process.is_main else nullcontext() as marker:
        name = from_main(None if marker is None else marker.path.name, process)
        blind = gather(None if _appears(folder, str(name)) else socket.gethostname(), process)
    hosts = sorted({host for host in blind if host is not None})
    if hosts:
        raise InputError(
            f"{folder.absolute()} is another folder on {listed(hosts)} than on the node of the first process. Expected "
            "storage that all nodes share, such as NFS, to go on with the run on: name its path in train.output"
        )


@contextmanager
def alone_in(folder: Path, resume: Resume, process: Process) -> Iterator[None]:
    """Keep other runs from writing into a folder meanwhile, which nothing else would where a command is given twice.

    A network file system that knows no such locks keeps nobody away.

    Raises:
        InputError: another run writes there. One that is about to end, as before a restart, is waited for.
        OutputError: the folder cannot be made.
    """
    if not process.is_main or sys.platform == "win32":  # which opens no folders
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(folder / LAST, error) from error
    try:
        _lock(descriptor, folder, SETTLING_S if resume else 0)
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()  # where nothing came into it
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, patience_s: float) -> None:
    """Have the lock of a folder, unless its file system has none; raise InputError where another keeps it."""
    end = time.monotonic() + patience_s
    with suppress(OSError):
        if not try_lock(descriptor):
            logger.info("another run writes into %s; waiting %.0f s for it to end", folder, patience_s)
        while not try_lock(descriptor):
            if time.monotonic() > end:
                raise InputError(f"another run writes into {folder}. Stop it, or choose another train.output")
            time.sleep(LOOK_EVERY_S)


def _appears(folder: Path, name: str) -> bool:
    """Whether a file is in a folder, or comes within the time that a network file system takes to show it."""
    end = time.monotonic() + SETTLING_S
    while True:
        with suppress(OSError):
            # asks the server, where looking for the file may not
            if any(path.name == name for path in folder.iterdir()):
                return True
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_EVERY_S)
