"""The curves of a run: CSV files, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOSSES, METRICS = "losses.csv", "metrics.csv"


class Table:
    """A CSV file that grows by a row at a time; its columns are those of its first row.

    Args:
        path: the file.
        resume_at: keep the rows whose first column is at most this; None: start anew.
    """

    def __init__(self, path: Path, resume_at: int | None = None) -> None:
        self.path = path
        self.columns: list[str] = []
        rows: list[list[str]] = []
        if resume_at is not None and path.is_file():
            with path.open(newline="") as file:
                self.columns, *rows = list(csv.reader(file)) or [[]]
        kept = [row for row in rows if int(row[0]) <= (resume_at or 0)]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([self.columns, *kept] if self.columns else [])

    def add(self, row: Mapping[str, float | None]) -> None:
        """Append a row; floats are written so that reading them gives the same number, None as nothing."""
        first = not self.columns
        self.columns = self.columns or list(row)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            if first:
                writer.writeheader()
            writer.writerow(dict(row))


class RunLog:
    """Losses of every step and metrics of every evaluation.

    Args:
        folder: gets ``losses.csv``, ``metrics.csv`` and, where ``tensorboard`` is installed, its files.
        resume_at: step at which a run continues; later rows are cut off. None: a new run.
        enabled: write nothing where False, as in all processes but the main one.
    """

    def __init__(self, folder: Path, resume_at: int | None = None, enabled: bool = True) -> None:
        self._tables = {name: Table(folder / name, resume_at) for name in (LOSSES, METRICS)} if enabled else {}
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
