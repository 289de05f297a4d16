"""Values that readers have stumbled over."""

from __future__ import annotations

_WRITTEN = """
0 -0 1 -1 2 0.5 -0.0 1.0 7 127 128 255 256 32767 65535 65536 2147483647 -2147483648 4294967296 9007199254740993
9223372036854775807 9223372036854775808 18446744073709551616 99999999999999999999999999 1e9 1e39 1e308 1e309 -1e309
1e-320 1E5 1e99999 nan NaN -nan inf Infinity -Infinity 0x10 0b1 1_000 1,5 \u0661 \u00bd +1 .5 5. 1e e1 -- 00
true false null None
"""
NUMBERS = [*_WRITTEN.split(), "9" * 400, "1" * 5000, "", " ", "0." + "0" * 300 + "1"]

TEXTS = [
    "",
    " ",
    "a" * 300,
    "x" * 5000,
    ".",
    "..",
    "/",
    "../../../../etc/passwd",
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/environ",
    "~",
    "C:\\windows\\win.ini",
    "a/b/c",
    "a\\b",
    "-rf",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\r",
    "\n",
    "\t",
    "\0",
    "\x7f",
    "\u202egnp",
    "\ufeff",
    "\ufffe",
    "e\u0301",
    "名前",
    "😀",
    "<script>alert(1)</script>",
    "$\\frac$",
    "%s%n",
    "{0.__class__}",
    "{}",
    "| a | b |",
    "`",
    "'",
    '"',
    "\\",
    "!!python/object/apply:os.system [true]",
    "&a [*a]",
    "null",
    "NaN",
    "__proto__",
    "__class__",
]

INTEGERS = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    0x7FFF,
    0xFFFF,
    (1 << 31) - 1,
    (1 << 32) - 1,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
BYTES = [*(bytes([byte]) for byte in b'\x00\xff\x80\n\r"{[<,: '), b"\xef\xbb\xbf", b"\xed\xa0\x80"]


def deep(depth: int, opening: str = "[", closing: str = "]") -> str:
    """Brackets in brackets."""
    return opening * depth + closing * depth
