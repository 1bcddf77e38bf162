"""Bounded, patient HTTP towards one Ray server: every failure becomes an error of castray's own.

The client never follows redirects, never uses a proxy from the environment, sends the token to the
one address it belongs to, reads no more than it was told to, and gives up after a time that covers
the whole exchange, however slowly the bytes come.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from castray_tui.core.errors import (
    AuthError,
    ConnectError,
    NotFoundError,
    RayAnswerError,
    UnreachableError,
)
from castray_tui.core.ray_api.tokens import REMEDY_FOR_MISSING, REMEDY_FOR_WRONG, Token
from castray_tui.core.text_safety import safe_text

if TYPE_CHECKING:
    import httpx

DEFAULT_MAX_BODY_BYTES = 8 * 1024 * 1024
THREAD_DECODE_BYTES = 256 * 1024
"""Bodies above this size are decoded off the event loop (0.13 s for a summary of 1,000 nodes)."""
_CONNECT_TIMEOUT_SECONDS = 5.0
_ERROR_TEXT_CHARACTERS = 300


class RefusedError(UnreachableError):
    """Nobody listens at the address, or its host cannot be reached at all."""


class SilentError(UnreachableError):
    """Somebody listens at the address and does not answer in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    reason: str
    body: bytes
    headers: Mapping[str, str]
    """Names in lower case."""
    url: str

    @property
    def content_type(self) -> str:
        """What the server calls the body; empty where it does not say."""
        return self.headers.get("content-type", "")


def load_httpx() -> None:
    """Imports httpx without its command line.

    ``httpx/__init__`` imports ``httpx._main`` if it can, and that drags in click, rich and
    pygments: 100 ms and more that castray has no use for, and a terminal library inside the core.
    None in ``sys.modules`` makes that one import fail, which httpx is prepared for.
    """
    if "httpx" in sys.modules:
        return
    blocked = "httpx._main" not in sys.modules
    if blocked:
        sys.modules["httpx._main"] = None  # type: ignore[assignment]  # the documented way to block
    try:
        import httpx  # noqa: F401, PLC0415 - late: nothing before the first frame needs it
    finally:
        if blocked:
            sys.modules.pop("httpx._main", None)


class RayHttp:
    """Requests to one Ray server.

    Args:
        base_url: ``http://host:port`` or https, perhaps with a path in front of Ray's own.
        token: Sent with every request to this address, and nowhere else.
        timeout_seconds: For one whole exchange, connecting included.
        transport: Stands in for the network in tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: Token | None = None,
        timeout_seconds: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout_seconds = timeout_seconds
        self._token = token
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self.shown_url = _without_credentials(self.base_url)
        """The address as messages may show it."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json_body: object | None = None,
        content: bytes | None = None,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """One exchange, whatever status it ends with.

        Args:
            path: Begins with ``/``; whatever came from a cluster is already quoted in it.
            max_body_bytes: A longer body is refused, and its rest never read.
            timeout_seconds: Instead of the client's own.

        Raises:
            RefusedError: Nobody listens there.
            SilentError: No whole answer within the time.
            RayAnswerError: The body is too long, or the exchange broke off.
        """
        limit_seconds = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        client = await self._opened()
        shown = f"{self.shown_url}{path}"
        try:
            return await asyncio.wait_for(
                self._exchange(
                    client,
                    method,
                    path,
                    params=params,
                    json_body=json_body,
                    content=content,
                    max_body_bytes=max_body_bytes,
                ),
                limit_seconds,
            )
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise SilentError(
                f"{shown} did not answer within {limit_seconds:g} s",
                remedy="It may be hung or overloaded; castray keeps asking at a slower pace",
            ) from error

    async def get_json(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        timeout_seconds: float | None = None,
    ) -> object:
        """The decoded JSON of an answer with status 200.

        Raises:
            ConnectError: As ``request``, and AuthError for 401 and 403.
            NotFoundError: For 404.
            RayAnswerError: For any other status, and for what is no JSON.
        """
        answer = await self.request(
            "GET",
            path,
            params=params,
            max_body_bytes=max_body_bytes,
            timeout_seconds=timeout_seconds,
        )
        self.check(answer)
        return await decode_json(answer)

    def check(self, answer: Answer) -> None:
        """Raises what an answer's status means; returns for 200 to 299."""
        if 200 <= answer.status < 300:
            return
        if answer.status == 401:
            raise AuthError(
                f"{self.shown_url} wants an authentication token"
                if self._token is None
                else f"{self.shown_url} does not accept the token from {self._token.origin}",
                remedy=REMEDY_FOR_MISSING if self._token is None else REMEDY_FOR_WRONG,
            )
        if answer.status == 403:
            with_token = "" if self._token is None else f" from {self._token.origin}"
            raise AuthError(
                f"{self.shown_url} refuses the authentication token{with_token}",
                remedy=REMEDY_FOR_MISSING if self._token is None else REMEDY_FOR_WRONG,
            )
        words = error_words(answer)
        text = f"{answer.url} answered {answer.status}" + (f": {words}" if words else "")
        if answer.status == 404:
            raise NotFoundError(text)
        if 300 <= answer.status < 400:
            raise RayAnswerError(
                f"{answer.url} answered {answer.status}, a redirect, which castray does not follow",
                remedy="Connect to the address it leads to, if you trust it",
            )
        raise RayAnswerError(text)

    async def aclose(self) -> None:
        """Closes the connections; the client opens new ones if it is used again."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            if "httpx" not in sys.modules:
                await asyncio.to_thread(load_httpx)
            import httpx  # noqa: PLC0415 - see load_httpx

            headers = {"Accept-Encoding": "identity", "User-Agent": "castray"}
            if self._token is not None:
                headers["Authorization"] = f"Bearer {self._token.reveal()}"
            if self._client is None:
                try:
                    self._client = httpx.AsyncClient(
                        headers=headers,
                        # Certificates are read (some 30 ms) only where there are any to check.
                        verify=self.base_url.startswith("https:"),
                        trust_env=False,
                        follow_redirects=False,
                        timeout=httpx.Timeout(
                            None, connect=min(_CONNECT_TIMEOUT_SECONDS, self.timeout_seconds)
                        ),
                        limits=httpx.Limits(max_connections=8, max_keepalive_connections=4),
                        transport=self._transport,
                    )
                except (httpx.InvalidURL, ValueError) as error:
                    raise ConnectError(f"{self.shown_url} is no address castray can ask") from error
        return self._client

    async def _exchange(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None,
        json_body: object | None,
        content: bytes | None,
        max_body_bytes: int,
    ) -> Answer:
        import httpx  # noqa: PLC0415 - loaded by _opened

        shown = f"{self.shown_url}{path}"
        try:
            async with client.stream(
                method,
                self.base_url + path,
                params=dict(params) if params else None,
                json=json_body,
                content=content,
            ) as response:
                if response.headers.get("content-encoding", "identity") not in {"", "identity"}:
                    raise RayAnswerError(f"{shown} sent a compressed answer that was not asked for")
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > max_body_bytes:
                        raise RayAnswerError(
                            f"{shown} answered with more than {max_body_bytes:,} bytes"
                        )
                return Answer(
                    status=response.status_code,
                    reason=safe_text(response.reason_phrase, limit=_ERROR_TEXT_CHARACTERS),
                    body=bytes(body),
                    headers={name.lower(): value for name, value in response.headers.items()},
                    url=shown,
                )
        except (httpx.ConnectTimeout, httpx.ConnectError) as error:
            raise RefusedError(
                f"Nothing answers at {self.shown_url} ({_cause_words(error)})",
                remedy="Check that the cluster runs and that host and port are right",
            ) from error
        except httpx.TimeoutException as error:
            raise SilentError(f"{shown} did not answer in time") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ConnectError(f"{self.shown_url} is no address castray can ask") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise RayAnswerError(
                f"The answer of {shown} broke off ({_cause_words(error)})"
            ) from error


async def decode_json(answer: Answer) -> object:
    """The JSON in an answer's body; large ones are decoded in a thread.

    Raises:
        RayAnswerError: The body is no JSON.
    """
    try:
        if len(answer.body) > THREAD_DECODE_BYTES:
            return await asyncio.to_thread(_decode, answer.body)
        return _decode(answer.body)
    except (ValueError, RecursionError) as error:
        what = "an HTML page" if looks_like_html(answer) else "something that is no JSON"
        raise RayAnswerError(
            f"{answer.url} answered with {what}",
            remedy="Check that a Ray dashboard, and no proxy or other program, stands there",
        ) from error


def _decode(body: bytes) -> object:
    import msgspec  # noqa: PLC0415 - late: nothing before the first frame needs it

    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        # Ray's JSON comes from Python and may hold NaN and Infinity, which JSON does not know.
        return json.loads(body.decode("utf-8", "replace"), parse_constant=lambda _: None)


def looks_like_html(answer: Answer) -> bool:
    """Whether the body is a web page, by its label or its first character."""
    return "html" in answer.content_type.lower() or answer.body[:200].lstrip().startswith(b"<")


def error_words(answer: Answer) -> str:
    """The server's own words in an answer that failed: JSON's ``msg``, else the plain text."""
    if looks_like_html(answer):
        return "an HTML page"
    text = answer.body[:8192].decode("utf-8", "replace").strip()
    if text.startswith("{"):
        try:
            message = json.loads(answer.body).get("msg")
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, str):
            text = message
    # A traceback's last line is what it says; the rest is where in Ray it happened.
    if text.startswith("Traceback"):
        text = text.splitlines()[-1]
    return safe_text(text, limit=_ERROR_TEXT_CHARACTERS)


def _cause_words(error: BaseException) -> str:
    """The innermost reason of a connection's failure, as the operating system puts it."""
    seen: BaseException | None = error
    words = ""
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            words = seen.strerror
        seen = seen.__cause__ or seen.__context__
    return safe_text(words or str(error) or type(error).__name__, limit=200)


def _without_credentials(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the address"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
