"""Where a live page is served, and the token that lets in."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
import sys
from dataclasses import dataclass

from gfl_edge.errors import InputError
from gfl_edge.redact import shown_source

DEFAULT_HOST = "127.0.0.1"
LOCALHOST = "localhost"
MIN_TOKEN, MAX_TOKEN = 16, 200  # characters
_TOKEN = re.compile(rf"[A-Za-z0-9._~-]{{{MIN_TOKEN},{MAX_TOKEN}}}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
BACKLOG = 32  # connections that wait to be accepted


@dataclass(frozen=True)
class Address:
    """Where a page is served.

    Attributes:
        host: name or IP address, without brackets.
        port: 0 = any that is free.
    """

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == LOCALHOST:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """Of the page, as it is opened on this machine or, by its name, on another."""
        host = self.host
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


def read_address(text: str) -> Address:
    """The address in ``[HOST:]PORT``: ``8080``, ``0.0.0.0:8080``, ``[::]:8080``; without a host 127.0.0.1.

    Raises:
        InputError: it is none.
    """
    shown = repr(shown_source(text))
    host, colon, port = text.strip().rpartition(":")
    number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else -1
    if not 0 <= number <= 65535 or (colon and not host):
        raise InputError(f"{shown}: expected [HOST:]PORT with a port of 0..65535, as 8080 or 0.0.0.0:8080")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise InputError(f"{shown}: expected an IPv6 address in the brackets, as [::1]:8080") from None
    elif host and not _HOST.fullmatch(host):
        hint = f" IPv6 addresses are in brackets: [{host}]:{port}" if re.fullmatch(r"[0-9A-Fa-f:.]{2,45}", host) else ""
        raise InputError(f"{shown}: expected the name or IP address of this machine before the port.{hint}")
    return Address(host or DEFAULT_HOST, number)


def read_token(text: str) -> str:
    """``text`` if it can be a token; the InputError otherwise does not show it."""
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        raise InputError(
            f"the token: expected {MIN_TOKEN} to {MAX_TOKEN} letters, digits and . _ ~ - of ASCII, which addresses "
            "can hold; without one a random one is made"
        )
    return text


def new_token() -> str:
    """A random token that nobody guesses, of 32 characters."""
    return secrets.token_urlsafe(24)


def listen(address: Address) -> socket.socket:
    """A socket that listens there.

    Raises:
        InputError: the port is in use or reserved, or the host is not this machine.
    """
    host = DEFAULT_HOST if address.host == LOCALHOST else address.host
    found: socket.socket | None = None
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | _numeric(host)
        )[0]
        found = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # there it would share the port with whoever has it
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(where)
        found.listen(BACKLOG)
    except OSError as error:
        if found is not None:
            found.close()
        raise InputError(
            f"the live page cannot be served at {host} port {address.port} ({error.strerror or error}). Choose a "
            "port that is free, above 1023, and an address of this machine"
        ) from None
    return found


def _numeric(host: str) -> int:
    """Addresses in numbers are not looked up anywhere."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return 0
    return socket.AI_NUMERICHOST
