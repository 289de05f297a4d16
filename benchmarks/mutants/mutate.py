"""The mutants of a module: its source with one small change each, by mutmut's operators.

mutmut itself changes the bodies of undecorated functions alone. Here many rules stand elsewhere: in constants, in
fields of dataclasses and their limits, in functions under ``@torch.no_grad()``. So its operators go over the whole
module, except for the annotations of functions and variables, which nothing evaluates.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst
from mutmut.mutation.mutators import mutation_operators

LEFT_ALONE = (
    "len",
    "isinstance",
    "cast",
)  # what is called so; mutmut leaves the first two alone, too


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    Attributes:
        place: the function or class that it lies in, "Class.method"; empty at the level of the module.
        before: the lines that are changed, without their indentation.
        after: what they become.
        source: of the whole module.
    """

    place: str
    before: str
    after: str
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is known by, wherever in the file it comes to stand."""
        return self.place, self.before, self.after


def mutants_of(source: str) -> list[Mutant]:
    """Every mutant of a module, in order of its text; of several that read the same, one."""
    module = cst.parse_module(source)
    found = {}
    for place, original, changed in _Changes.of(module):
        mutated = module.deep_replace(original, changed)
        assert isinstance(mutated, cst.Module)
        if mutated.code != source:
            found[mutated.code] = Mutant(place, *_difference(source, mutated.code), mutated.code)
    return list(found.values())


def _difference(source: str, mutated: str) -> tuple[str, str]:
    """The lines that are taken out and those that are put in, each on one line."""
    lines = list(difflib.unified_diff(source.splitlines(), mutated.splitlines(), lineterm="", n=0))[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    return before, after


class _Changes(cst.CSTVisitor):
    """Collects every node with what an operator makes of it, and the place that it lies in."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[tuple[str, cst.CSTNode, cst.CSTNode]] = []
        self._places: list[cst.FunctionDef | cst.ClassDef] = []

    @classmethod
    def of(cls, module: cst.Module) -> Iterator[tuple[str, cst.CSTNode, cst.CSTNode]]:
        visitor = cls()
        module.visit(visitor)
        yield from visitor.changes

    @property
    def _place(self) -> str:
        return ".".join(node.name.value for node in self._places)

    @property
    def _in_class(self) -> bool:
        """Whether annotations are those of fields, which what reads files evaluates."""
        return bool(self._places) and isinstance(self._places[-1], cst.ClassDef)

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Import | cst.ImportFrom) or (isinstance(node, cst.Annotation) and not self._in_class):
            return False
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in LEFT_ALONE:
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._places.append(node)
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                self.changes += [(self._place, node, changed) for changed in operator(node)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._places.pop()
