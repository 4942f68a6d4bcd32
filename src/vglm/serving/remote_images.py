"""Pictures from web addresses, for a server that allows them: only public hosts, never this network.

    content = await fetch_picture("https://example.org/cat.jpg", max_bytes=20_000_000, timeout_seconds=10)

A name is resolved once, all its addresses must be public, and the connection goes to a checked address. So a name that
resolves differently the second time cannot lead elsewhere. Redirects are checked again.
"""

import asyncio
import ipaddress
import socket
from urllib.parse import urljoin, urlsplit

import httpx

from vglm.errors import DataError

MAX_REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
_TRANSLATED, _UNICAST, _DOCUMENTS = map(ipaddress.IPv6Network, ("64:ff9b::/96", "2000::/3", "3fff::/20"))


async def fetch_picture(url: str, *, max_bytes: int, timeout_seconds: float, is_trusted: bool = False) -> bytes:
    """Fetch a file.

    Args:
        url: Beginning with http:// or https://, on the usual port.
        max_bytes: Its largest size.
        timeout_seconds: For everything together.
        is_trusted: Whether the address comes from this machine's own user, who may name private hosts and other ports.

    Raises:
        DataError: The address is not public, or the file cannot be had, is too large or takes too long.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            for _ in range(MAX_REDIRECTS + 1):
                content, target = await _get(url, max_bytes, is_trusted)
                if target is None:
                    return content
                url = urljoin(url, target)
    except TimeoutError as error:
        raise DataError(f"the image at the address took longer than {timeout_seconds:g} s.") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise DataError("the image could not be fetched from its address.") from error
    raise DataError(f"the image's address leads on more than {MAX_REDIRECTS} times.")


async def _get(url: str, max_bytes: int, is_trusted: bool) -> tuple[bytes, str | None]:
    """The content, or the target of a redirect."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.username or parts.password:
        raise DataError("an image's address must be http:// or https:// with a host and without a user.")
    port = parts.port or _PORTS[parts.scheme]
    if port != _PORTS[parts.scheme] and not is_trusted:
        raise DataError("an image's address must use the usual port.")
    address = await _resolve(parts.hostname, port, is_trusted)
    literal = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    async with (
        httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=None) as client,
        client.stream(
            "GET",
            f"{parts.scheme}://{literal}{path}",
            headers={"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity"},
            extensions={"sni_hostname": parts.hostname},
        ) as response,
    ):
        if response.has_redirect_location:
            return b"", response.headers["location"]
        if response.status_code != 200:
            raise DataError(f"the image's address answered with status {response.status_code}.")
        content = bytearray()
        async for piece in response.aiter_raw():
            content += piece
            if len(content) > max_bytes:
                raise DataError(f"the image at the address is larger than {max_bytes:,} bytes.")
        return bytes(content), None


async def _resolve(host: str, port: int, is_trusted: bool) -> str:
    """The first address of a host, all of whose addresses must be public unless it is trusted."""
    results = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(result[4][0]).partition("%")[0] for result in results]
    if not addresses or not (is_trusted or all(map(is_public, addresses))):
        raise DataError("the image's address is not public.")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet, also inside IPv6 forms of an IPv4 address.

    Source: the IANA registries of special-purpose addresses; of IPv6, 2000::/3 alone is given to hosts of the internet.
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if parsed in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if parsed not in _UNICAST or parsed in _DOCUMENTS:
            return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved
