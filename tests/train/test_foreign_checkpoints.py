"""Files that are no checkpoints, and checkpoints of things that are no weights: what they are, and what to do."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile

import pytest
import torch

from gfl_edge.errors import CheckpointError
from tests.support.hostile_pickles import write
from train.models.nanodet import NanoDet, NanoDetConfig
from train.weights import load_detector
from train.weights.reading import read_content

pytestmark = pytest.mark.usefixtures("one_thread")

KEY = "head.gfl_cls.0.weight"
SAVE = r"save only the tensors with: torch\.save\(model\.state_dict\(\), PATH\)"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    config = NanoDetConfig("nanodet", num_classes=3, stage_channels=(16, 32, 64), neck_channels=32)
    return NanoDet(config).eval().state_dict()


def tar(path):
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("storages"))
    return path.read_bytes()


def zipped(*names):
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as file:
        for name in names:
            file.writestr(name, "x")
    return buffer.getvalue()


FOREIGN = {
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS.*git lfs pull"),
    "a web page": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page.*Download the checkpoint itself"),
    "gzip": (b"\x1f\x8b\x08\x00", "a gzip archive. Unpack it"),
    "zstd": (b"\x28\xb5\x2f\xfd\x00", "a zstd archive. Unpack it"),
    "ONNX": (b"\x08\x08\x12\x07pytorch", "an ONNX model.*--onnx"),
    "HDF5": (b"\x89HDF\r\n", "an HDF5 file"),
    "an engine": (b"ftrt\x00\x00", "a TensorRT engine"),
    "TorchScript": (zipped("m/data.pkl", "m/constants.pkl", "m/code/m.py"), f"a TorchScript program.*{SAVE}"),
    "torch.package": (zipped("m/.data/extern_modules", "m/x.py"), f"a package of torch.package.*{SAVE}"),
    "torch.export": (zipped("m/archive_format", "m/models/model.json"), f"an exported program.*{SAVE}"),
    "npz": (zipped("arr_0.npy"), "an archive of NumPy arrays"),
    "a pickle": (pickle.dumps({KEY: [1.0]}, 2), "a pickle that torch.save did not write.*torch.save"),
    "another zip file": (zipped("readme.txt"), "it has no member data.pkl"),
    "text": (b"hello", "truncated or not a PyTorch checkpoint"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_kinds(tmp_path, name):
    content, expected = FOREIGN[name]
    with pytest.raises(CheckpointError, match=rf"x\.pth is .*{expected}"):
        load_detector(write(tmp_path / "x.pth", content))


def test_tar_archives(tmp_path):
    with pytest.raises(CheckpointError, match=r"a tar archive\. Unpack it"):
        load_detector(write(tmp_path / "x.pth", tar(tmp_path / "x.tar")))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_itself(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "x.pt"))
    with pytest.raises(CheckpointError, match=rf"x\.pt is a TorchScript program.*{SAVE}"):
        load_detector(tmp_path / "x.pt")


def test_a_suffix_does_not_decide(state, tmp_path):
    from safetensors.torch import save_file

    save_file(state, tmp_path / "x.pth")
    torch.save(state, tmp_path / "x.safetensors")
    for name in ("x.pth", "x.safetensors"):
        assert torch.equal(load_detector(tmp_path / name).state_dict()[KEY], state[KEY])


class Subclass(torch.Tensor):
    pass


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:The PyTorch API of nested", "ignore:Sparse CSR")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda value: value.to(torch.float8_e4m3fn), r"torch\.float8_e4m3fn"),
        (lambda value: value.to(torch.int32), r"torch\.int32"),
        (lambda value: value.to(torch.uint16), r"torch\.uint16"),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "a quantized tensor"),
        (lambda value: value.flatten(1).to_sparse_csr(), "a sparse tensor"),
        (lambda value: torch.nested.nested_tensor([value.flatten()]), "a nested tensor|float8|of the class"),
        (lambda value: value.as_subclass(Subclass), r"a tensor of the class .*Subclass"),
        (lambda value: value.numpy(), r"a NumPy array.*torch\.from_numpy"),
        (lambda value: None, "None"),
        (lambda value: value.tolist(), "the plain list"),
        (lambda value: 3.5, "the plain float"),
    ],
    ids=["float8", "int32", "uint16", "quantized", "csr", "nested", "subclass", "numpy", "none", "list", "float"],
)
def test_what_is_no_tensor_of_floats_is_named(state, tmp_path, change, kind, legacy):
    content = {"model": {**state, KEY: change(state[KEY])}}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError) as caught:
        load_detector(tmp_path / "x.pth")
    message = str(caught.value)
    assert KEY in message
    assert any(part in message for part in kind.replace("\\", "").replace(".*", "|").split("|")), message
    assert "\n" not in message


def test_integer_buffers_stay_fine(state, tmp_path):
    assert any(key.endswith("num_batches_tracked") and not state[key].is_floating_point() for key in state)
    torch.save({**state, "head.distribution_project.project": torch.arange(8)}, tmp_path / "x.pth")
    load_detector(tmp_path / "x.pth")


@pytest.mark.parametrize("options", [{"_use_new_zipfile_serialization": False}, {"pickle_protocol": 5}, {}])
def test_tensors_are_what_torch_reads(tmp_path, options):
    base = torch.arange(24.0)
    content = {
        "views": [base[2:8], base.reshape(4, 6).T, base[::3], base[:0], torch.tensor(3.0), torch.ones(1).expand(5)],
        "types": [base.to(kind) for kind in (torch.half, torch.bfloat16, torch.double, torch.uint8, torch.bool)],
        "wide": [base.to(torch.complex64), base.to(torch.int64)],
        **({} if "_use_new_zipfile_serialization" in options else {"float8": base.to(torch.float8_e5m2)}),
        "parameter": torch.nn.Parameter(base),
        "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "plain": {"a": [1, -(1 << 40), 1 << 70, 1.5, None, True, "b", ("c",)], 3: {}},
    }
    torch.save(content, tmp_path / "x.pth", **options)
    same(read_content(tmp_path / "x.pth"), torch.load(tmp_path / "x.pth", weights_only=False))


def same(found, expected):
    """Compare two contents; tensors by values, types and strides."""
    if isinstance(expected, torch.Tensor):
        assert (found.dtype, found.stride(), found.shape) == (expected.dtype, expected.stride(), expected.shape)
        wide = torch.complex128 if found.is_complex() else torch.float64
        assert torch.equal(found.detach().to(wide), expected.detach().to(wide))
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert (type(found), found) == (type(expected), expected)
