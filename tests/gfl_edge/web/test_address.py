"""Where pages are served, and what can be a token."""

from __future__ import annotations

import socket

import pytest

from gfl_edge.errors import InputError
from gfl_edge.web.address import Address, listen, new_token, read_address, read_token


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("8080", "127.0.0.1", 8080, True),
        ("0", "127.0.0.1", 0, True),
        ("localhost:80", "localhost", 80, True),
        ("127.0.0.5:1", "127.0.0.5", 1, True),
        ("[::1]:8080", "::1", 8080, True),
        ("0.0.0.0:8080", "0.0.0.0", 8080, False),
        ("[::]:8080", "::", 8080, False),
        ("192.168.1.7:65535", "192.168.1.7", 65535, False),
        ("cam-3.local:8080", "cam-3.local", 8080, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = read_address(text)
    assert (address, address.loopback) == (Address(host, port), loopback)


NO_ADDRESSES = """
:  :8080  8080:  65536  -1  +80  8080/x  http://localhost:8080  ::1:8080  [::1]  [nonsense]:80  ٨٠
user:password@host:80  999999999999
"""


@pytest.mark.parametrize("text", [*NO_ADDRESSES.split(), "", "8 0", "a b:80", "x" * 300 + ":80", "host:80\n:90"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InputError, match="expected") as error:
        read_address(text)
    assert "password" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("8080", "http://127.0.0.1:8080/"),
        ("[::1]:80", "http://[::1]:80/"),
        ("0.0.0.0:80", f"http://{socket.gethostname()}:80/"),
    ],
)
def test_what_a_browser_opens(address: str, url: str) -> None:
    assert read_address(address).url == url


def test_tokens() -> None:
    assert read_token("a.B_c~d-e012345678") == "a.B_c~d-e012345678"
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(read_token(token) == token and len(token) == 32 for token in made)
    for bad in ("", "short", "x" * 201, "with space 0123456789", "ü" * 20, "x" * 20 + "\n", "x" * 20 + ";"):
        with pytest.raises(InputError, match="16 to 200") as error:
            read_token(bad)
        assert not bad or bad not in str(error.value)


def test_a_port_in_use_and_a_foreign_host() -> None:
    with listen(Address("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127.0.0.1 port {port} \(Address already in use\)"):
            listen(Address("127.0.0.1", port))
    listen(Address("127.0.0.1", port)).close()  # free again at once
    with pytest.raises(InputError, match=r"cannot be served at 192\.0\.2\.1"):
        listen(Address("192.0.2.1", 8080))
