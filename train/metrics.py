"""The curves of a run: CSV files, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import importlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gfl_edge.files import cannot_write, check_output, write_atomically

LOSSES, METRICS = "losses.csv", "metrics.csv"


class Table:
    """A CSV file that grows by a row at a time; its columns are those of its first row.

    Args:
        path: the file.
        resume_at: keep the rows whose first column is at most this; None: start anew. A row that a run that was killed
            left unfinished is dropped.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, resume_at: int | None = None) -> None:
        self.path = path
        self.columns: list[str] = []
        rows: list[list[str]] = []
        if resume_at is not None and path.is_file():
            whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
            lines = (line for line in whole.splitlines() if "\0" not in line)  # which Python 3.10 does not read
            self.columns, *rows = list(csv.reader(lines)) or [[]]
        kept = [row for row in rows if _step_of(row, len(self.columns)) <= (resume_at or 0)]
        if not self.columns:  # the file comes with its first row, so that none is empty
            check_output(path)
            path.unlink(missing_ok=True)
            return
        text = io.StringIO(newline="")
        csv.writer(text).writerows([self.columns, *kept])
        write_atomically(path, text.getvalue().encode())

    def add(self, row: Mapping[str, float | None]) -> None:
        """Append a row; floats are written so that reading them gives the same number, None as nothing.

        Raises:
            OutputError: the disk is full, or gone.
        """
        first = not self.columns
        self.columns = self.columns or list(row)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        if first:
            writer.writeheader()
        writer.writerow(dict(row))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(text.getvalue().encode())
        except OSError as error:
            raise cannot_write(self.path, error) from error


def _step_of(row: Sequence[str], columns: int) -> float:
    """The first column of a row; infinite, so that the row is dropped, for one that is damaged."""
    try:
        return int(row[0]) if len(row) == columns else math.inf
    except ValueError:
        return math.inf


class RunLog:
    """Losses of every step and metrics of every evaluation.

    Args:
        folder: gets ``losses.csv``, ``metrics.csv`` and, where ``tensorboard`` is installed, its files.
        resume_at: step at which a run continues; later rows are cut off. None: a new run.
        enabled: write nothing where False, as in all processes but the main one.
        remeasure: the evaluation after step ``resume_at`` is to be repeated, so that its row is cut off, too.
    """

    def __init__(
        self, folder: Path, resume_at: int | None = None, enabled: bool = True, *, remeasure: bool = False
    ) -> None:
        kept = {LOSSES: resume_at, METRICS: resume_at if resume_at is None else resume_at - remeasure}
        self._tables = {name: Table(folder / name, at) for name, at in kept.items()} if enabled else {}
        self._board: Any = None
        if not enabled:
            return
        try:
            writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError:  # TensorBoard is not installed
            return
        self._board = writer(str(folder), purge_step=None if resume_at is None else resume_at + 1)

    def losses(self, step: int, values: Mapping[str, float | None]) -> None:
        """Note the values of a step of the optimizer, counted from 1."""
        self._add(LOSSES, "train", step, values)

    def metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """Note what an evaluation after a step gave."""
        self._add(METRICS, "val", step, values)

    def _add(self, table: str, group: str, step: int, values: Mapping[str, float | None]) -> None:
        if table in self._tables:
            self._tables[table].add({"step": step, **values})
        if self._board is not None:
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        """Finish the files."""
        if self._board is not None:
            self._board.close()
