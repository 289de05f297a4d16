"""Inputs made from seeds by a few changes of bytes, lines, numbers, words or JSON values; each has a number."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tests.fuzz import nasty
from tests.fuzz.reader import Reader

MAX_BYTES = 200_000  # of an input; more is no longer small
JSON_SHARE = 0.5  # of the inputs from a JSON seed that stay JSON
_NUMBER = re.compile(rb"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_WORD = re.compile(rb"[A-Za-z_][\w./-]{2,}")

Change = Callable[[Random, bytes, Sequence[bytes]], bytes]


def input_of(reader: Reader, seeds: Sequence[bytes], seed: int, number: int) -> bytes:
    """Input ``number`` of a run with ``seed``; the first ones are the seeds as they are, then the empty file."""
    if number < len(seeds):
        return seeds[number]
    if number == len(seeds):
        return b""
    random = Random(f"{reader.name} {seed} {number}")
    content = random.choice(seeds)
    if reader.mutate is not None and random.random() < 0.75:
        return reader.mutate(random, content)[:MAX_BYTES]
    if random.random() < JSON_SHARE and (changed := _change_json(random, content)) is not None:
        return changed[:MAX_BYTES]
    for _ in range(min(1 + int(random.expovariate(0.7)), 12)):
        content = random.choice(CHANGES)(random, content, seeds)
    return content[:MAX_BYTES]


def flip(random: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """One bit."""
    at = _place(random, content)
    return content[:at] + bytes(byte ^ 1 << random.randrange(8) for byte in content[at : at + 1]) + content[at + 1 :]


def put_byte(random: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """A byte of any value, or one that means something, over what is there or between."""
    at = _place(random, content)
    put = random.choice(nasty.BYTES) if random.random() < 0.5 else random.randbytes(1)
    return content[:at] + put + content[at + random.randrange(2) :]


def put_integer(random: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """A binary integer at a limit over what is there."""
    at, width = _place(random, content), random.choice((1, 2, 4, 8))
    value = random.choice(nasty.INTEGERS) & ((1 << 8 * width) - 1)
    return content[:at] + value.to_bytes(width, random.choice(("little", "big"))) + content[at + width :]


def cut(random: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """The rest of the file, or a part of it, is missing."""
    start = _place(random, content)
    end = len(content) if random.random() < 0.4 else start + random.randrange(1, 40)
    return content[:start] + content[end:]


def repeat(random: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """A part comes again, some hundred times now and then."""
    start = _place(random, content)
    part = content[start : start + random.randrange(1, 60)]
    return content[:start] + part * random.choice((2, 2, 3, 300)) + content[start + len(part) :]


def splice(random: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """The start of one seed and the end of another."""
    other = random.choice(seeds)
    return content[: _place(random, content)] + other[_place(random, other) :]


def change_line(random: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """A line is gone, doubled, empty, moved, or some text."""
    lines = content.split(b"\n")
    at = random.randrange(len(lines))
    line = lines.pop(at)
    how = random.randrange(5)
    if how == 1:
        lines[at:at] = [line] * random.choice((2, 2, 1000 if len(line) < 100 else 3))
    elif how == 2:
        lines.insert(at, b"")
    elif how == 3:
        lines.insert(random.randrange(len(lines) + 1), line)
    elif how == 4:
        lines.insert(at, random.choice(nasty.TEXTS).encode())
    return b"\n".join(lines)


def change_number(random: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """A number in text is another one, or none."""
    return _change_match(random, content, _NUMBER, nasty.NUMBERS)


def change_word(random: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """A word in text is some other text."""
    return _change_match(random, content, _WORD, nasty.TEXTS)


def swap_words(random: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """A word stands where another one stood."""
    words = [match[0] for match in _WORD.finditer(content[:MAX_BYTES])]
    return _change_match(random, content, _WORD, [random.choice(words).decode("latin-1")] if words else nasty.TEXTS)


def recode(random: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """The same text in another encoding."""
    encoding = random.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "cp1252"))
    return content.decode("latin-1").encode(encoding, "replace")


CHANGES: tuple[Change, ...] = (
    *(flip, put_byte, put_integer, cut, repeat, splice),
    *(change_line, change_number, change_number, change_word, swap_words),
    recode,
)


def _place(random: Random, content: bytes) -> int:
    """Somewhere in it; more often near the start, where headers are."""
    limit = len(content) if random.random() < 0.7 else min(len(content), 64)
    return random.randrange(limit + 1)


def _change_match(random: Random, content: bytes, pattern: re.Pattern[bytes], choices: Sequence[str]) -> bytes:
    matches = list(pattern.finditer(content[:MAX_BYTES]))
    if not matches:
        return content
    match = random.choice(matches)
    return content[: match.start()] + random.choice(choices).encode() + content[match.end() :]


def _change_json(random: Random, content: bytes) -> bytes | None:
    """JSON with a few other values, keys or nestings; None where the seed is none."""
    try:
        tree = [json.loads(content)]
    except (ValueError, RecursionError):
        return None
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        holder, key = random.choice(_places(tree))
        _change_place(random, tree, holder, key)
    text = json.dumps(tree[0], ensure_ascii=random.random() < 0.5)
    text = text.replace('"\N{SYMBOL FOR NULL}', "").replace('\N{SYMBOL FOR NULL}"', "")
    return text.encode("utf-8", "surrogatepass")


def _change_place(random: Random, tree: list[Any], holder: Any, key: Any) -> None:
    how = random.randrange(8)
    if how == 0 and holder is not tree:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[random.choice(nasty.TEXTS)] = holder.pop(key)
    elif how == 2 and isinstance(holder, list):
        holder.append(holder[key])
    elif how == 3:
        holder[key] = [holder[key]] if random.random() < 0.5 else {"a": holder[key]}
    elif how == 4:
        other_holder, other_key = random.choice(_places(tree))
        holder[key] = json.loads(json.dumps(other_holder[other_key]))
    else:
        holder[key] = _value(random)


def _value(random: Random) -> Any:
    how = random.randrange(6)
    if how == 0:
        return random.choice(nasty.TEXTS + nasty.NUMBERS)
    if how == 1:
        return random.choice((None, True, False, [], {}, [[]], [None], {"": ""}, "\ud800"))
    if how == 2:
        return random.choice((0, -1, 1, 1 << 31, 1 << 63, -(1 << 63), 1 << 64, 10**400, 10**9))
    if how == 3:
        return random.choice((float("nan"), float("inf"), -float("inf"), 1e308, -0.0, 5e-324, 0.5))
    if how == 4:
        return [random.choice((0, "a", None, 1.5))] * random.choice((1, 2, 3, 4, 5, 1000))
    return (
        _raw(nasty.deep(random.choice((10, 500, 2000, 50_000)))) if random.random() < 0.2 else random.randrange(-9, 9)
    )


def _raw(text: str) -> str:
    """Text that goes into the file without quotes, for what ``json.dumps`` cannot write."""
    return f"\N{SYMBOL FOR NULL}{text}\N{SYMBOL FOR NULL}"


def _places(tree: list[Any]) -> list[tuple[Any, Any]]:
    """Where values stand, as (list or dict, index or key)."""
    found: list[tuple[Any, Any]] = []
    left: list[Any] = [tree]
    while left:
        holder = left.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], list | dict):
                left.append(holder[key])
    return found
