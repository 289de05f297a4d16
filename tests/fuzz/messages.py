"""Changes of Protobuf messages, as ONNX files are: of fields instead of bytes."""

from __future__ import annotations

from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from tests.fuzz import nasty

_INTEGERS = (0, 1, 2, 3, 4, 7, 16, -1, -2, 100, 1000, 1 << 16, 10**6, (1 << 31) - 1, -(1 << 31), 1 << 40, (1 << 63) - 1)
_FLOATS = (0.0, -1.0, 1.0, 0.5, 1e30, -1e38, float("nan"), float("inf"), -float("inf"), 1e-45)
_REAL = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)


def change(random: Random, message: Any) -> None:
    """One field somewhere in ``message``: another value, gone, doubled, moved, or taken from elsewhere."""
    holders = list(_messages(message))
    holder = random.choice(holders)
    field = random.choice(
        holder.DESCRIPTOR.fields if random.random() < 0.3 else _present(holder) or holder.DESCRIPTOR.fields
    )
    if field.is_repeated:
        _change_list(random, getattr(holder, field.name), field, holders)
    elif random.random() < 0.2:
        holder.ClearField(field.name)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        if others := [other for other in holders if other.DESCRIPTOR is field.message_type]:
            getattr(holder, field.name).CopyFrom(_copy(random.choice(others)))
        else:
            getattr(holder, field.name).SetInParent()
    else:
        setattr(holder, field.name, _value(random, field, holders))


def _change_list(random: Random, values: Any, field: Any, holders: list[Any]) -> None:
    how, is_message = random.randrange(6), field.type == FieldDescriptor.TYPE_MESSAGE
    at = random.randrange(len(values)) if values else 0
    if how == 0 and values:
        del values[at]
    elif how == 1 and values:
        values.extend([values[at]] * random.choice((1, 1, 2, 50)))
    elif how == 2 and len(values) > 1:
        kept = [_copy(value) if is_message else value for value in values]
        random.shuffle(kept)
        del values[:]
        values.extend(kept)
    elif is_message:
        others = [other for other in holders if other.DESCRIPTOR is field.message_type]
        values.add().CopyFrom(_copy(random.choice(others))) if others else values.add()
    elif values and how < 5:
        values[at] = _value(random, field, holders)
    else:
        values.append(_value(random, field, holders))


def _value(random: Random, field: Any, holders: list[Any]) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return random.choice(nasty.TEXTS if random.random() < 0.3 else _texts(holders))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return random.randbytes(random.choice((0, 1, 4, 7, 8, 64, 1000)))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return random.choice(field.enum_type.values).number
    if field.type in _REAL:
        return random.choice(_FLOATS)
    if field.type == FieldDescriptor.TYPE_INT32:
        return random.choice([value for value in _INTEGERS if -(1 << 31) <= value < 1 << 31])
    return random.choice([value for value in _INTEGERS if value >= 0 or field.type == FieldDescriptor.TYPE_INT64])


def _texts(holders: list[Any]) -> list[str]:
    """All that is said anywhere: names of tensors, nodes and operators, which so come to other places."""
    found = []
    for holder in holders:
        for field, value in holder.ListFields():
            if field.type == FieldDescriptor.TYPE_STRING:
                found += list(value) if field.is_repeated else [value]
    return found or [""]


def _messages(message: Any) -> Any:
    """It, and all within."""
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                yield from _messages(inner)


def _present(message: Any) -> list[Any]:
    return [field for field, _ in message.ListFields()]


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
