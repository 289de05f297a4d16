"""Checkpoints made to do harm: none runs code, and all end within bounds, in a sentence."""

from __future__ import annotations

import pickle
import resource
import struct
import time
import zipfile
from io import BytesIO

import pytest
import torch

from gfl_edge.errors import CheckpointError
from tests.support import hostile_pickles as by_hand
from tests.support.hostile_pickles import archive, dict_of, integer, legacy, named, tensor, text, tuple_of, write
from train.weights import load_detector
from train.weights.reading import read_content

pytestmark = pytest.mark.usefixtures("one_thread")

MAX_SECONDS, MAX_GROWTH_BYTES = 5, 1 << 30  # of computing; as the fuzz harness has it
LONG = 1_500_000  # bytes of a pickle that takes a second, and is only tried in one of the formats
LIST, DICT, NONE = pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.NONE


def put(index):
    return pickle.LONG_BINPUT + struct.pack("<I", index)


def get(index):
    return pickle.LONG_BINGET + struct.pack("<I", index)


def length(opcode, count, form="<Q"):
    return opcode + struct.pack(form, count)


def entries(*parts):
    """A dictionary of which only this is known: its items."""
    return DICT + pickle.MARK + b"".join(parts) + pickle.SETITEMS


def weights(**state):
    return dict_of({"model": dict_of({f"head.{key}": value for key, value in state.items()})})


LAUGHS = LIST + put(0) + b"".join(LIST + pickle.MARK + get(i) * 2 + pickle.APPENDS + put(i + 1) for i in range(40))
SAME_OBJECTS = DICT + b"".join(
    entries(*(text(f"ema_{depth}_{i}") + get(depth) for i in range(300))) + put(depth + 1) for depth in range(3)
)
SAME_ENTRIES = DICT + put(0) + SAME_OBJECTS
MANY_PAIRS = LIST + pickle.MARK + tuple_of(integer(1), NONE) * 20_000 + pickle.APPENDS + pickle.TUPLE1 + put(1)

BODIES = {
    "a memo index of 4 billion": (DICT + put((1 << 32) - 1), "holds no state dict"),
    "a text of 2^63 bytes": (length(pickle.BINUNICODE8, 1 << 63), "ends in the middle"),
    "bytes of 2^62 bytes": (length(pickle.BINBYTES8, 1 << 62), "ends in the middle"),
    "an array of bytes of 2^40 bytes": (length(pickle.BYTEARRAY8, 1 << 40), "ends in the middle"),
    "a frame of 2^64 bytes": (length(pickle.FRAME, (1 << 64) - 1) + DICT, "holds no state dict"),
    "a number of 2^31 bytes": (length(pickle.LONG4, (1 << 31) - 1, "<I"), "ends in the middle"),
    "a number of 10^6 bytes": (length(pickle.LONG4, 10**6, "<I") + b"1" * 10**6, "a number of 1000000 bytes"),
    "a million lists in lists": (LIST * 10**6 + pickle.APPEND * (10**6 - 1), "more than 524288 opcodes"),
    "30,000 lists in lists": (LIST * 30_000 + pickle.APPEND * 29_999, "nested more than 50 deep"),
    "30,000 tuples in tuples": (pickle.EMPTY_TUPLE + pickle.TUPLE1 * 30_000, "nested more than 50 deep"),
    "a key of 100,000 tuples": (
        DICT + pickle.EMPTY_TUPLE + pickle.TUPLE1 * 10**5 + NONE + pickle.SETITEM,
        "holds no state dict",
    ),
    "a dictionary in itself": (DICT + put(0) + text("model") + get(0) + pickle.SETITEM, "contains itself"),
    "2^40 lists": (LAUGHS, "stands for more than 524288 values"),
    "300^3 entries": (SAME_ENTRIES, "stands for more than 524288 values"),
    "25 GB of text": (
        pickle.MARK + text("a" * 250_000) + put(0) + get(0) * 10**5 + pickle.TUPLE,
        "stands for more than",
    ),
    "400 KB for a name, often": (
        text("a" * 200_000) + put(0) + (get(0) + get(0) + pickle.STACK_GLOBAL) * 10**4,
        "a name of 400000 characters",
    ),
    "a list that is made a dictionary, often": (
        named("collections", "OrderedDict") + put(0) + MANY_PAIRS + (get(0) + get(1) + pickle.REDUCE) * 10**4,
        "more than 524288 opcodes",
    ),
    "numbers with the same hash": (
        entries(*(integer(i * ((1 << 61) - 1) << 40) + NONE for i in range(1, 20_000))),
        "holds no state dict",
    ),
    "a registered extension": (pickle.EXT1 + b"\x01", "is in no file of torch.save"),
    "protocol 0": (b"\x80\x00N", "of protocol 0"),
    "nothing on the stack": (pickle.APPEND, "nothing is on the stack"),
    "an unknown memo index": (get(7), "KeyError: 7"),
    "a call of a list": (LIST + pickle.EMPTY_TUPLE + pickle.REDUCE, "a call of a list"),
    "10^12 values by strides of 0": (weights(x=tensor((10**6, 10**6), (0, 0))), "tensors stand for more than"),
    "a tensor beyond its storage": (weights(x=tensor((2, 3), (3, 1))), "2 x 3 lies beyond its storage of 4 values"),
    "a tensor behind its storage": (weights(x=tensor((2,), (1,), offset=3)), "lies beyond its storage"),
    "a negative stride": (weights(x=tensor((2,), (-1,), offset=2)), "no natural numbers"),
    "a negative offset": (weights(x=tensor((2,), (1,), offset=-1)), "no natural numbers|strides than dimensions"),
    "2^80 values of nothing": (weights(x=tensor((1 << 40, 1 << 40, 0), (0, 0, 0))), "than a memory has"),
    "200 dimensions": (weights(x=tensor((1,) * 200, (1,) * 200)), "no natural numbers"),
    "a storage of 2^60 values": (
        weights(x=tensor((2,), (1,), of=by_hand.storage(count=1 << 60))),
        "its pickle says 4611686018427387904|more bytes than the file",
    ),
    "a storage of -4 values": (weights(x=tensor((2,), (1,), of=by_hand.storage(count=-4))), "names a storage as no"),
    "a key of a megabyte": (weights(**{"x." * 500_000: NONE}), "holds no state dict"),
}


def limited(path):
    """Read it; returns the error's message, and the memory and seconds that it took are within the bounds."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CheckpointError) as caught:
        load_detector(path)
    assert time.process_time() - start < MAX_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_GROWTH_BYTES
    assert len(str(caught.value)) < 2000
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(name, form, id=f"{name}, {form.__name__}")
        for name, (body, _) in BODIES.items()
        for form in ((archive, legacy) if len(body) < LONG else (archive,))
    ],
)
def test_pickles(tmp_path, name, form):
    body, expected = BODIES[name]
    message = limited(write(tmp_path / "x.pth", form(body)))
    missing_storage = form is legacy and "of its storages are missing" in message
    assert missing_storage or any(part in message for part in expected.split("|")), message


@pytest.mark.parametrize("form", [archive, legacy], ids=["zip", "legacy"])
def test_names_are_printed_as_what_they_are(tmp_path, form, caplog):
    body = weights(**{"\x1b[31mred\n": named("os\x1b]0;", "sys\rtem") + pickle.EMPTY_TUPLE + pickle.REDUCE})
    message = limited(write(tmp_path / "x.pth", form(body)))
    assert r"the Python object os\x1b]0;.sys\rtem at 'head.\x1b[31mred\n'" in message
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_thousands_of_names_and_keys_are_not_all_listed(tmp_path, caplog):
    calls = {f"k{i}": named("x", f"f{i}") for i in range(5000)}
    with pytest.raises(CheckpointError, match=r"and 4992 more"):
        load_detector(write(tmp_path / "x.pth", archive(weights(**calls))))
    assert len(caplog.text) < 2000


# --- zip files -------------------------------------------------------------------------------------------------------


def test_compressed_members_are_not_unpacked(tmp_path):
    body, members = weights(x=tensor((4,), (1,))), {"data/0": bytes(1 << 24)}
    content = archive(body, members, zipfile.ZIP_DEFLATED)
    assert "compressed or encrypted" in limited(write(tmp_path / "x.pth", content))


def test_a_storage_that_is_larger_than_the_file(tmp_path):
    content = archive(weights(x=tensor((4,), (1,))))
    for lie in (1 << 20, 0xFFFFFFFE):
        lying = content.replace(struct.pack("<II", 16, 16), struct.pack("<II", lie, lie))
        assert lying != content
        assert "its pickle says 16" in limited(write(tmp_path / "x.pth", lying))


def overlapping(count):
    """A zip file whose members are all the same bytes."""
    body = weights(**{f"x{i}": tensor((1 << 18,), (1,), of=by_hand.storage(str(i), 1 << 18)) for i in range(count)})
    with zipfile.ZipFile(buffer := BytesIO(), "w") as file:
        file.writestr("x/data.pkl", by_hand.PROTO + body + pickle.STOP)
        file.writestr("x/data/0", bytes(1 << 20))
        info = file.infolist()[1]
        for index in range(1, count):
            same = zipfile.ZipInfo(f"x/data/{index}")
            same.file_size = same.compress_size = info.file_size
            same.CRC, same.header_offset = info.CRC, info.header_offset
            file.filelist.append(same)
            file.NameToInfo[same.filename] = same
    return buffer.getvalue()


def test_overlapping_members(tmp_path):
    assert "is not where its directory says" in limited(write(tmp_path / "x.pth", overlapping(50)))


def test_more_members_than_a_checkpoint_has(tmp_path):
    content = archive(DICT)
    end = content.rindex(b"PK\x05\x06")
    many = content[: end + 8] + struct.pack("<HHI", 0xFFFF, 0xFFFF, 1 << 30) + content[end + 16 :]
    assert "its directory" in limited(write(tmp_path / "x.pth", many))


def test_every_byte_of_a_zip_file_that_is_cut_off_or_changed(tmp_path):
    torch.save({"model": {"head.x": torch.arange(4.0)}}, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    path = tmp_path / "x.pth"
    for at in range(0, len(content), 19):
        for damaged in (content[:at], content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :]):
            try:
                value = read_content(write(path, damaged))["model"]["head.x"]
            except (CheckpointError, LookupError, TypeError):
                continue
            assert torch.equal(value, torch.arange(4.0)), f"byte {at} changed a weight in silence"


# --- architectures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("stacked_convs", 10**7), ("reg_max", 10**9), ("num_classes", 10**9), ("neck_channels", 1 << 40), ("groups", -1)],
)
def test_architectures_that_no_checkpoint_has(tmp_path, field, value):
    content = {
        "format": 1,
        "state_dict": {"head.gfl_cls.0.weight": torch.ones(2, 2, 1, 1)},
        "architecture": {"gfl": {field: value}},
    }
    torch.save(content, tmp_path / "x.pt")
    assert "architecture" in limited(tmp_path / "x.pt")


def test_keys_that_stand_for_many_layers(tmp_path):
    one = torch.ones(1)
    state = {f"head.cls_convs.0.{i}.depthwise.weight": one for i in range(3000)}
    state |= {"fpn.reduce_layers.0.conv.weight": one, "head.gfl_cls.0.weight": torch.ones(35, 8, 1, 1)}
    state |= {f"backbone.{stage}.0.branch2.0.weight": torch.ones(8) for stage in ("stage2", "stage3", "stage4")}
    state["backbone.conv1.0.weight"] = one
    torch.save(state, tmp_path / "x.pt")
    assert "stacked_convs 3000, expected at most 64" in limited(tmp_path / "x.pt")


def test_shapes_of_no_values_take_no_memory(tmp_path):
    state = {"fpn.reduce_layers.0.conv.weight": torch.ones(1), "backbone.conv1.0.weight": torch.ones(1)}
    state |= {f"backbone.{stage}.0.branch2.0.weight": torch.ones(60_000, 0) for stage in ("stage2", "stage3", "stage4")}
    state |= {"head.gfl_cls.0.weight": torch.ones(35, 60_000), "head.cls_convs.0.0.depthwise.weight": torch.ones(1)}
    torch.save(state, tmp_path / "x.pt")
    assert "architecture" in limited(tmp_path / "x.pt")
