"""What one address on the network gives: a file of a known size, in blocks, or a reason why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from chainrule.files import reason

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from urllib.error import HTTPError

__all__ = ["BLOCK", "Refusal", "receive"]

BLOCK = 1 << 18
"""Bytes that are read at once."""
_SLOWEST = 500.0  # bytes a second; an address that gives less is given up


class Refusal(Exception):
    """An address does not give what it should; the next one may."""


def receive(
    address: str, size: int, stream: IO[bytes], *, timeout: float, progress: Callable[[int, int | None], None]
) -> None:
    """Copy what an address gives to a stream, as far as it can be a file that has so many bytes unpacked.

    Args:
        address: an http or file URL.
        size: bytes of the file, unpacked; the answer may be packed.
        stream: where to write.
        timeout: seconds of silence after which the address is given up.
        progress: told, block by block, the bytes so far and those that were announced.

    Raises:
        Refusal: the address does not answer, breaks off, is too slow, or gives something else.
        OSError: the stream cannot be written.
    """
    most = size + size // 100 + (1 << 16)  # packed, it is never larger by more
    began, received = time.monotonic(), 0
    with _answer(address, timeout) as answer:
        total = _announced(answer)
        while block := _next_block(answer, timeout):
            if not received and block.lstrip()[:1] == b"<":
                raise Refusal("the answer is a web page, not the file")
            stream.write(block)
            received += len(block)
            if received > most:
                raise Refusal(f"the answer is longer than the {size} bytes that were expected")
            seconds = time.monotonic() - began
            if seconds > timeout and received < seconds * _SLOWEST:
                raise Refusal(f"too slow, {received} bytes in {seconds:.0f} s")
            progress(received, total)
    if total is not None and received != total:
        raise Refusal(f"the connection ended after {received} of {total} bytes")
    stream.flush()


def _answer(address: str, timeout: float) -> HTTPResponse:
    import urllib.request  # late, since few programs download
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError

    try:
        request = urllib.request.Request(address, headers={"User-Agent": "chainrule", "Accept-Encoding": "identity"})
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
    except HTTPError as error:
        with error:
            raise Refusal(_refused(error)) from None
    except TimeoutError:
        raise Refusal(f"no answer within {timeout:g} s") from None
    except URLError as error:
        late = isinstance(error.reason, TimeoutError)
        why = reason(error.reason) if isinstance(error.reason, Exception) else str(error.reason)
        raise Refusal(f"no answer within {timeout:g} s" if late else f"no connection ({why})") from None
    except (OSError, HTTPException, ValueError) as error:
        raise Refusal(f"no connection ({_words(error)})") from None
    return answer


def _refused(error: HTTPError) -> str:
    """A server's refusal in one line."""
    if 300 <= error.code < 400 and "infinite loop" in str(error.reason):
        return f"the server redirects again and again ({error.code})"
    return " ".join(f"the server answers {error.code} {error.reason}".split())


def _announced(answer: HTTPResponse) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else None


def _next_block(answer: HTTPResponse, timeout: float) -> bytes:
    from http.client import HTTPException

    try:
        # One wait on the network, so that a slow address is noticed.
        return answer.read1(BLOCK)
    except TimeoutError:
        raise Refusal(f"silent for {timeout:g} s") from None
    except (OSError, HTTPException, ValueError) as error:
        raise Refusal(f"the connection broke ({_words(error)})") from None


def _words(error: Exception) -> str:
    return reason(error) or type(error).__name__
