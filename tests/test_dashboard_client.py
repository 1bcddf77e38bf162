"""The dashboard client against answers good, slow, broken and hostile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from castray_tui.core.errors import (
    AuthError,
    CastrayError,
    NotFoundError,
    NotRayError,
    RayAnswerError,
)
from castray_tui.core.ray_api.dashboard import DashboardClient
from castray_tui.core.ray_api.http import RefusedError, SilentError
from castray_tui.core.ray_api.tokens import Token

URL = "http://ray.test:8265"
VERSION = {"version": "4", "ray_version": "2.60.0", "session_name": "session_1"}
Handler = Callable[[httpx.Request], httpx.Response]
Call = Callable[[DashboardClient], Any]

CALLS: dict[str, Call] = {
    "version": lambda client: client.version(),
    "cluster_id": lambda client: client.cluster_id(),
    "gcs_healthy": lambda client: client.gcs_healthy(),
    "nodes_summary": lambda client: client.nodes_summary(),
    "node_detail": lambda client: client.node_detail("ab" * 28),
    "state_nodes": lambda client: client.state_nodes(),
    "cluster_status": lambda client: client.cluster_status(),
    "jobs": lambda client: client.jobs(),
    "log_files": lambda client: client.log_files("ab" * 28),
    "log_tail": lambda client: client.log_tail("ab" * 28, "raylet.out"),
}
JSON_CALLS = [name for name in CALLS if name not in {"gcs_healthy", "log_tail"}]


def client_of(handler: Handler, **options: Any) -> DashboardClient:
    return DashboardClient(URL, transport=httpx.MockTransport(handler), **options)


def answering(content: bytes, status: int = 200, **headers: str) -> Handler:
    return lambda request: httpx.Response(status, content=content, headers=headers)


@pytest.mark.parametrize("name", CALLS)
async def test_nobody_there(name: str) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused") from ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(RefusedError, match="Connection refused"):
        await CALLS[name](client_of(refuse))


@pytest.mark.parametrize("name", CALLS)
async def test_nobody_answers_in_time(name: str) -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    client = DashboardClient(URL, transport=httpx.MockTransport(hang), timeout_seconds=0.05)
    with pytest.raises(SilentError):
        await CALLS[name](client)


async def test_a_server_that_drips_is_given_up_on_as_a_whole() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    client = client_of(lambda request: httpx.Response(200, content=drip()), timeout_seconds=0.2)
    with pytest.raises(SilentError):
        await client.state_nodes()


@pytest.mark.parametrize("name", JSON_CALLS)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"result": true, "data": {"summ', id="truncated"),
        pytest.param(b"<!doctype html><title>login</title>", id="html"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"null", id="null"),
        pytest.param(b"3", id="number"),
        pytest.param(b'"text"', id="text"),
        pytest.param(b'{"result": true, "data": null}', id="no data"),
        pytest.param(b'{"data": {"result": null, "summary": {}, "detail": []}}', id="shapes"),
        pytest.param(b'{"data": {"result": {"result": 5}, "summary": 1}}', id="other shapes"),
        pytest.param(b"\xff\xfe\x00", id="binary"),
        pytest.param(b"9" * 10_000, id="huge number"),
    ],
)
async def test_garbage_is_refused_or_read_as_nothing(name: str, body: bytes) -> None:
    try:
        told = await CALLS[name](client_of(answering(body)))
    except CastrayError as error:
        assert len(str(error)) < 1_000
        assert str(error).isprintable()
    else:
        assert not told or name == "cluster_status", "which hands on whatever object it got"


@pytest.mark.parametrize("name", CALLS)
async def test_a_body_without_end_is_not_read_to_the_end(name: str) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1 << 22
            yield b"x" * (1 << 22)

    client = client_of(lambda request: httpx.Response(200, content=endless()))
    with pytest.raises(RayAnswerError, match="more than"):
        await CALLS[name](client)
    assert given <= 200 << 20


@pytest.mark.parametrize("name", [name for name in CALLS if name != "gcs_healthy"])
async def test_a_server_error_is_told_in_its_own_words(name: str) -> None:
    body = json.dumps({"result": False, "msg": "it \x1b[31mbroke\u202e"}).encode()
    with pytest.raises(RayAnswerError, match="broke") as caught:
        await CALLS[name](client_of(answering(body, 500)))
    assert str(caught.value).isprintable()


async def test_a_traceback_is_told_by_its_last_line() -> None:
    body = b"Traceback (most recent call last):\n  File x\nKeyError: 'stateSnapshot'\n"
    with pytest.raises(RayAnswerError, match=r"answered 500: KeyError: 'stateSnapshot'$"):
        await client_of(answering(body, 500)).state_nodes()


@pytest.mark.parametrize("name", CALLS)
async def test_a_missing_token_and_a_wrong_one(name: str) -> None:
    with pytest.raises(AuthError, match="wants an authentication token") as missing:
        await CALLS[name](client_of(answering(b"Unauthorized", 401)))
    assert "RAY_AUTH_TOKEN" in (missing.value.remedy or "")
    secret = Token("hunter2hunter2", origin="a file")
    with pytest.raises(AuthError, match="from a file") as wrong:
        await CALLS[name](client_of(answering(b"Forbidden", 403), token=secret))
    assert "hunter2" not in str(wrong.value)


async def test_the_token_goes_to_the_address_and_never_after_a_redirect() -> None:
    asked: list[httpx.Request] = []

    def redirect(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(302, headers={"location": "http://elsewhere.test/"})

    client = client_of(redirect, token=Token("hunter2", origin="a test"))
    with pytest.raises(RayAnswerError, match="redirect"):
        await client.state_nodes()
    with pytest.raises(NotRayError):
        await client.version()
    assert [request.url.host for request in asked] == ["ray.test"] * 2
    assert asked[0].headers["authorization"] == "Bearer hunter2"


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server = await asyncio.start_server(_serve_version, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        client = DashboardClient(f"http://127.0.0.1:{port}")
        assert (await client.version()).ray_version == "2.60.0"
        await client.aclose()


async def _serve_version(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = json.dumps(VERSION).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>Grafana</html>"),
        (200, b'{"version": "1"}'),
        (404, b"not found"),
        (200, b"[]"),
    ],
)
async def test_what_is_no_ray_is_told_apart(status: int, body: bytes) -> None:
    with pytest.raises(NotRayError, match="is no Ray dashboard"):
        await client_of(answering(body, status)).version()


async def test_a_ray_without_cluster_id_has_none() -> None:
    assert await client_of(answering(b"404: Not Found", 404)).cluster_id() is None


async def test_the_gcs_behind_the_dashboard() -> None:
    assert await client_of(answering(b"success")).gcs_healthy()
    assert not await client_of(answering(b"", 503)).gcs_healthy()


async def test_the_summary_is_asked_past_every_cache() -> None:
    queries: list[httpx.QueryParams] = []

    def note(request: httpx.Request) -> httpx.Response:
        queries.append(request.url.params)
        return httpx.Response(200, json={"result": True, "data": {"summary": []}})

    client = client_of(note)
    await client.nodes_summary()
    await client.nodes_summary()
    assert all(query["nocache"] == "1" for query in queries)
    assert queries[0] != queries[1]


async def test_not_a_number_is_no_number() -> None:
    body = b'{"result": true, "data": {"summary": [{"cpu": NaN, "mem": [Infinity]}]}}'
    summary = await client_of(answering(body)).nodes_summary()
    assert summary.records == ({"cpu": None, "mem": [None]},)


async def test_an_unknown_node_is_not_found() -> None:
    body = {"result": True, "data": {"detail": {"workers": [], "actors": {}}}}
    client = client_of(lambda request: httpx.Response(200, json=body))
    with pytest.raises(NotFoundError):
        await client.node_detail("ff" * 28)


async def test_a_listing_of_jobs_holds_no_environment() -> None:
    jobs = [{"submission_id": "a", "runtime_env": {"env_vars": {"KEY": "secret"}}}, 5]
    client = client_of(lambda request: httpx.Response(200, json=jobs))
    assert await client.jobs() == ({"submission_id": "a"},)


async def test_log_files_by_group_without_folders() -> None:
    told = {"raylet": ["raylet.out", "old/", 5], "agent": ["a\x1b.log"], "odd": None}
    body = {"result": True, "data": {"result": told}}
    files = await client_of(lambda request: httpx.Response(200, json=body)).log_files("ab")
    assert [(file.group, file.name) for file in files] == [
        ("agent", "a\ufffd.log"),
        ("raylet", "raylet.out"),
    ]


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        pytest.param(b"1one\ntwo\n", {}, "one\ntwo\n", id="marked, up to 2.38"),
        pytest.param(
            b"1" + b"a" * 65536 + b"1" + b"b" * 10, {}, "a" * 65536 + "b" * 10, id="marked blocks"
        ),
        pytest.param(
            b"\n10 lines\n", {"content-disposition": "attachment"}, "10 lines\n", id="2.49 and 2.60"
        ),
        pytest.param(
            b"a\x1b[2J\tb\xff\n",
            {"content-disposition": "attachment"},
            "a\ufffd[2J\tb\ufffd\n",
            id="escape sequences",
        ),
    ],
)
async def test_the_end_of_a_log(body: bytes, headers: dict[str, str], text: str) -> None:
    assert await client_of(answering(body, **headers)).log_tail("ab", "raylet.out") == text


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, b"0Closing HTTP stream.\nA file is not found at: /x", id="up to 2.38"),
        pytest.param(500, b"A file is not found at: /x", id="2.60"),
    ],
)
async def test_a_log_that_is_not_there(status: int, body: bytes) -> None:
    with pytest.raises(NotFoundError, match="not found"):
        await client_of(answering(body, status)).log_tail("ab", "nothing.out")
