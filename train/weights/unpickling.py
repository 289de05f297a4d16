"""An interpreter of pickles that executes nothing: it knows tensors and plain values, and names everything else.

It is no subclass of Python's: no module is imported, no attribute looked up, no object of a file's choosing made or
called. What a pickle calls is looked up in :data:`train.weights.rebuilding.REBUILD`; a name that is not there becomes a
:class:`Placeholder`, which ignores all that is done to it.

Bounds: each opcode takes at most some hundred bytes and constant time, or is paid for by the bytes it stands for.

    MAX_OPCODES  of a file; the largest detectors with their optimizers and averages take 110,000
    MAX_TEXT     bytes of one text; a longer one, such as the log of a run, is left out unread
    MAX_TEXTS    bytes of all texts that are kept

so that a pickle of n bytes takes at most 512 MiB besides its n bytes, and some seconds. What it returns can stand for
more than that, as its parts may be the same object many times: :func:`train.weights.bounds.check_tree` is for that.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from train.weights.placeholder import Placeholder

MAX_OPCODES = 1 << 19
MAX_TEXT = 1 << 18
MAX_TEXTS = 1 << 26
MAX_NAME = 1 << 10  # bytes of the name of a class or function, and of a key
MAX_INTEGER_BYTES = 16
MAX_PROTOCOL = 5

_MARK = object()

# Formats of arguments; little-endian, except numbers with a point
_BYTE, _SHORT, _FOUR, _EIGHT, _SIGNED = (struct.Struct(f"<{letter}") for letter in "BHIQi")
_DOUBLE = struct.Struct(">d")


class DamagedError(Exception):
    """Bytes that no pickling writes; says what is wrong with them."""


class Unpickler:
    """Interprets pickles of protocols 2 to 5.

    Args:
        data: of one or more pickles, one after the other.
        rebuild: what calls of known names give: from their arguments, a tensor, a plain value or a placeholder.
        storage: what stands for a persistent id, which is how torch names the storage of a tensor.

    Attributes:
        position: after the last pickle, in bytes.
        names: of all classes and functions that were mentioned.
    """

    def __init__(
        self,
        data: bytes,
        rebuild: Mapping[str, Callable[..., Any]] | None = None,
        storage: Callable[[Any], Any] | None = None,
    ) -> None:
        self._data, self._rebuild, self._storage = data, rebuild or {}, storage
        self.position = 0
        self.names: dict[str, Placeholder] = {}
        self._opcodes, self._texts = MAX_OPCODES, MAX_TEXTS
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The value of the next pickle: dictionaries, lists, tuples, texts, bytes, numbers, tensors, placeholders.

        Raises:
            DamagedError: no pickle, cut off, or larger than the bounds.
        """
        self._stack, self._memo = [], {}
        try:
            while (opcode := self._take(1)) != pickle.STOP:
                self._pay(1)
                action = _ACTIONS.get(opcode)
                if action is None:
                    raise DamagedError(f"the opcode {opcode!r} at byte {self.position - 1} is in no file of torch.save")
                action(self)
            return self._pop()
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            place = f"at byte {self.position} of its pickle"
            raise DamagedError(f"{place}: {type(error).__name__}: {error}") from error

    def _pay(self, opcodes: int) -> None:
        self._opcodes -= opcodes
        if self._opcodes < 0:
            raise DamagedError(f"its pickle has more than {MAX_OPCODES} opcodes")

    # --- bytes ---

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._data):
            raise DamagedError(f"its pickle ends in the middle, after {len(self._data)} bytes")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def _skip(self, count: int) -> None:
        if count > len(self._data) - self.position:
            raise DamagedError(f"its pickle ends in the middle, after {len(self._data)} bytes")
        self.position += count

    def _unpack(self, number: struct.Struct) -> Any:
        return number.unpack(self._take(number.size))[0]

    def _line(self) -> str:
        end = self._data.find(b"\n", self.position, self.position + MAX_NAME)
        if end < 0:
            raise DamagedError(f"a name at byte {self.position} of its pickle does not end")
        line = self._take(end - self.position).decode(errors="replace")
        self.position += 1
        return line

    def _text(self, length: struct.Struct, is_text: bool = True) -> None:
        count = self._unpack(length)
        if count > MAX_TEXT:
            self._skip(count)
            self._stack.append(Placeholder(f"a text of {count} bytes"))
            return
        taken = self._take(count)
        self._texts -= count
        if self._texts < 0:
            raise DamagedError(f"its texts have more than {MAX_TEXTS} bytes")
        self._stack.append(taken.decode(errors="replace") if is_text else taken)

    def _integer(self, length: struct.Struct) -> None:
        count = self._unpack(length)
        if count > MAX_INTEGER_BYTES:
            self._skip(count)
            self._stack.append(Placeholder(f"a number of {count} bytes"))
        else:
            self._stack.append(int.from_bytes(self._take(count), "little", signed=True))

    def _protocol(self) -> None:
        protocol = self._unpack(_BYTE)
        if not 2 <= protocol <= MAX_PROTOCOL:
            raise DamagedError(f"its pickle is of protocol {protocol}, expected 2 to {MAX_PROTOCOL}")

    # --- stack ---

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise IndexError("nothing is on the stack")
        return self._stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        self._stack.pop()
        return value

    def _make_tuple(self, count: int) -> None:
        self._stack.append(tuple(reversed([self._pop() for _ in range(count)])))

    def _pop_mark(self) -> list[Any]:
        """All above the last mark."""
        index = len(self._stack) - 1
        while self._stack[index] is not _MARK:  # a mark that is not there ends in an IndexError
            index -= 1
        above = self._stack[index + 1 :]
        del self._stack[index:]
        return above

    def _append(self, values: Sequence[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Placeholder):
            raise TypeError(f"values for a {type(target).__name__}, which takes none")

    def _set(self, keys: Sequence[Any], values: Sequence[Any]) -> None:
        target = self._top()
        if isinstance(target, dict):
            target.update(zip(map(plain_key, keys), values, strict=True))
        elif not isinstance(target, Placeholder):
            raise TypeError(f"entries for a {type(target).__name__}, which takes none")

    def _set_many(self) -> None:
        items = self._pop_mark()
        self._set(items[::2], items[1::2])

    def _set_one(self) -> None:
        value, key = self._pop(), self._pop()
        self._set((key,), (value,))

    def _make_dict(self) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._set(items[::2], items[1::2])

    def _make_frozenset(self) -> None:
        self._pop_mark()
        self._stack.append(Placeholder("builtins.frozenset"))

    def _drop(self) -> None:
        if self._stack.pop() is _MARK:
            raise IndexError("a mark is no value")

    # --- names and calls ---

    def _mention(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is no text")
        if len(module) + len(name) > MAX_NAME:
            raise ValueError(f"a name of {len(module) + len(name)} characters")
        full = f"{module}.{name}"
        self._stack.append(self.names.setdefault(full, Placeholder(full)))

    def _mention_on_stack(self) -> None:
        name, module = self._pop(), self._pop()
        self._mention(module, name)

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Placeholder) or not isinstance(arguments, (tuple, Placeholder)):
            raise TypeError(f"a call of a {type(function).__name__}")
        rebuild = self._rebuild.get(function.original)
        if rebuild is None or isinstance(arguments, Placeholder):
            self._stack.append(function)
            return
        self._pay(len(arguments))  # as they may be on the stack many times, but were paid for once
        self._pay(sum(len(value) for value in arguments if isinstance(value, (list, tuple, dict))))
        self._stack.append(rebuild(*arguments))

    def _make(self, count: int) -> None:
        """An object of a class, which takes ``count`` arguments from the stack."""
        for _ in range(count):
            self._pop()
        cls = self._pop()
        if not isinstance(cls, Placeholder):
            raise TypeError(f"an object of a {type(cls).__name__}")
        self._stack.append(cls)

    def _find_storage(self) -> None:
        identifier = self._pop()
        if self._storage is None:
            raise TypeError("a persistent id where none is expected")
        self._stack.append(self._storage(identifier))


def plain_key(key: Any) -> Any:
    """A key that takes no time in a dictionary, nor for who splits it; in place of others one that is equal to none."""
    if isinstance(key, str) and len(key) <= MAX_NAME:
        return key
    if isinstance(key, int) and -(1 << 63) <= key < 1 << 63:  # more bits can be chosen to have the same hash
        return key
    return key if isinstance(key, Placeholder) else Placeholder(f"a key that is a {type(key).__name__}")


Action = Callable[[Unpickler], Any]


def _number(form: struct.Struct) -> Action:
    return lambda self: self._stack.append(self._unpack(form))


def _constant(value: Any) -> Action:
    return lambda self: self._stack.append(value)


def _text(length: struct.Struct, is_text: bool = True) -> Action:
    return lambda self: self._text(length, is_text)


def _tuple(count: int) -> Action:
    return lambda self: self._make_tuple(count)


def _remember(index: struct.Struct) -> Action:
    return lambda self: self._memo.update({self._unpack(index): self._top()})


def _recall(index: struct.Struct) -> Action:
    return lambda self: self._stack.append(self._memo[self._unpack(index)])


# Those that are missing are of protocols 0 and 1, of registered extensions, or of buffers outside the file
_ACTIONS: dict[bytes, Action] = {
    pickle.PROTO: Unpickler._protocol,
    pickle.FRAME: lambda self: self._take(_EIGHT.size),  # a length, of no use where all bytes are here
    pickle.NONE: _constant(None),
    pickle.NEWTRUE: _constant(True),
    pickle.NEWFALSE: _constant(False),
    pickle.BININT: _number(_SIGNED),
    pickle.BININT1: _number(_BYTE),
    pickle.BININT2: _number(_SHORT),
    pickle.BINFLOAT: _number(_DOUBLE),
    pickle.LONG1: lambda self: self._integer(_BYTE),
    pickle.LONG4: lambda self: self._integer(_FOUR),
    pickle.SHORT_BINUNICODE: _text(_BYTE),
    pickle.BINUNICODE: _text(_FOUR),
    pickle.BINUNICODE8: _text(_EIGHT),
    pickle.SHORT_BINSTRING: _text(_BYTE),  # Python 2 kept its texts as bytes
    pickle.BINSTRING: _text(_FOUR),
    pickle.SHORT_BINBYTES: _text(_BYTE, False),
    pickle.BINBYTES: _text(_FOUR, False),
    pickle.BINBYTES8: _text(_EIGHT, False),
    pickle.BYTEARRAY8: _text(_EIGHT, False),
    pickle.MARK: _constant(_MARK),
    pickle.POP: Unpickler._drop,
    pickle.POP_MARK: Unpickler._pop_mark,
    pickle.DUP: lambda self: self._stack.append(self._top()),
    pickle.BINPUT: _remember(_BYTE),
    pickle.LONG_BINPUT: _remember(_FOUR),
    pickle.MEMOIZE: lambda self: self._memo.update({len(self._memo): self._top()}),
    pickle.BINGET: _recall(_BYTE),
    pickle.LONG_BINGET: _recall(_FOUR),
    pickle.EMPTY_LIST: lambda self: self._stack.append([]),
    pickle.LIST: lambda self: self._stack.append(self._pop_mark()),
    pickle.APPEND: lambda self: self._append((self._pop(),)),
    pickle.APPENDS: lambda self: self._append(self._pop_mark()),
    pickle.EMPTY_TUPLE: _constant(()),
    pickle.TUPLE: lambda self: self._stack.append(tuple(self._pop_mark())),
    pickle.TUPLE1: _tuple(1),
    pickle.TUPLE2: _tuple(2),
    pickle.TUPLE3: _tuple(3),
    pickle.EMPTY_DICT: lambda self: self._stack.append({}),
    pickle.DICT: Unpickler._make_dict,
    pickle.SETITEM: Unpickler._set_one,
    pickle.SETITEMS: Unpickler._set_many,
    pickle.EMPTY_SET: _constant(Placeholder("builtins.set")),
    pickle.FROZENSET: Unpickler._make_frozenset,
    pickle.ADDITEMS: lambda self: self._append(self._pop_mark()),
    pickle.GLOBAL: lambda self: self._mention(self._line(), self._line()),
    pickle.STACK_GLOBAL: Unpickler._mention_on_stack,
    pickle.REDUCE: Unpickler._call,
    pickle.BUILD: lambda self: self._pop(),
    pickle.NEWOBJ: lambda self: self._make(1),
    pickle.NEWOBJ_EX: lambda self: self._make(2),
    pickle.BINPERSID: Unpickler._find_storage,
}
