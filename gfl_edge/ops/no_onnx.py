"""Files that are given for ONNX files and are something else: what they are, and what to do about it."""

from __future__ import annotations

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS. Fetch the file that it stands for with: git lfs pull"),
    (b"<?xml", "an XML file, as of OpenVINO. Give the ONNX file that it was made from"),
    (b"<", "a web page, as downloads leave that ask for something first. Download the file itself"),
    (b"PK\x03\x04", "a checkpoint of PyTorch or another zip archive. Give checkpoints to: python export/to_onnx.py"),
    (b"\x80\x02", "a checkpoint of PyTorch or another pickle. Give checkpoints to: python export/to_onnx.py"),
    (b"7767517", "a .param file of ncnn. Give the ONNX file that it was made from"),
    (b"\x1f\x8b", "a gzip archive. Unpack it, and give the ONNX file that is in it"),
    (b"ftrt", "a TensorRT engine. Give the ONNX file that it was built from"),
)
_TFLITE_AT, _TFLITE = 4, b"TFL3"


def recognize(content: bytes) -> str | None:
    """What a file is that is no ONNX file, and what to do, by its first bytes; None where they do not say."""
    if not content:
        return "empty (0 bytes). Download or copy it again"
    if content.startswith(_TFLITE, _TFLITE_AT):
        return "a file of TensorFlow Lite. Give the ONNX file that it was made from"
    return next((text for signature, text in _SIGNATURES if content.startswith(signature)), None)
