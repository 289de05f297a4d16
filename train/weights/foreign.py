"""Files that are given for checkpoints and are something else: what they are, and what to do about it."""

from __future__ import annotations

from collections.abc import Collection

HEAD_BYTES = 512  # of a file, which show what it is

SAVE_WEIGHTS = "Where it was made, save only the tensors with: torch.save(model.state_dict(), PATH)"

_DOWNLOAD = "Download the checkpoint itself"
_UNPACK = "Unpack it, and give the checkpoint that is in it"
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS. Fetch the file that it stands for with: git lfs pull"),
    (b"<!doctype", f"a web page, as downloads leave that ask for something first. {_DOWNLOAD}"),
    (b"<html", f"a web page, as downloads leave that ask for something first. {_DOWNLOAD}"),
    (b"\x1f\x8b", f"a gzip archive. {_UNPACK}"),
    (b"bzh", f"a bzip2 archive. {_UNPACK}"),
    (b"\xfd7zxz", f"an xz archive. {_UNPACK}"),
    (b"7z\xbc\xaf", f"a 7z archive. {_UNPACK}"),
    (b"(\xb5/\xfd", f"a zstd archive. {_UNPACK}"),
    (b"rar!", f"a rar archive. {_UNPACK}"),
    (b"\x89hdf", "an HDF5 file, as of Keras. Expected a checkpoint of PyTorch"),
    (b"\x93numpy", "an array of NumPy. Expected a checkpoint of PyTorch"),
    (b"gguf", "a file of GGUF. Expected a checkpoint of PyTorch"),
    (b"7767517", "a .param file of ncnn. Expected a checkpoint of PyTorch"),
    (b"ftrt", "a TensorRT engine. Run it as it is, or give the checkpoint that it was built from"),
    (b"\x08", "an ONNX model, or another file of protobuf. Give ONNX to export/to_trt.py with --onnx"),
)
_TAR_AT, _TAR = 257, b"ustar"


def recognize(head: bytes) -> str | None:
    """What a file is that is no checkpoint, and what to do, by its first bytes; None where they do not say."""
    if head[_TAR_AT:].startswith(_TAR):
        return (
            "a tar archive. Unpack it, and give the checkpoint that is in it; if PyTorch wrote it, before version "
            "0.1.11, save it again with a later one"
        )
    start = head.lstrip().lower() if head.lstrip().startswith(b"<") else head.lower()
    return next((text for signature, text in _SIGNATURES if start.startswith(signature)), None)


def recognize_archive(names: Collection[str]) -> str | None:
    """What a zip archive is that is no checkpoint, and what to do, by the names of its members."""
    folders = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") or name == "constants.pkl" for name in folders):
        return f"a TorchScript program (torch.jit.save), whose weights are part of its code. {SAVE_WEIGHTS}"
    if any(name.endswith((".data/extern_modules", ".data/python_version")) for name in names):
        return f"a package of torch.package, which is code. {SAVE_WEIGHTS}"
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        return f"an exported program (torch.export), whose weights are part of its code. {SAVE_WEIGHTS}"
    if any(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays. Expected a checkpoint of PyTorch"
    if any(name.endswith("/.metadata") or name == ".metadata" for name in names):
        return f"a distributed checkpoint of several files. {SAVE_WEIGHTS}"
    return None
