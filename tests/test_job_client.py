"""The job client against answers good and bad."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from castray_tui.core.errors import AuthError, NotFoundError, RayAnswerError
from castray_tui.core.ray_api.jobs import JobClient, job_info

Handler = Callable[[httpx.Request], httpx.Response]


def client_of(handler: Handler, **options: Any) -> JobClient:
    return JobClient("http://ray.test:8265", transport=httpx.MockTransport(handler), **options)


async def test_submitting_says_what_was_asked_for_and_nothing_more() -> None:
    bodies: list[Any] = []

    def accept(request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("POST", "/api/jobs/")
        # Ray refuses what looks like a browser with 405.
        assert "mozilla" not in request.headers["user-agent"].lower()
        assert "origin" not in request.headers
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json={"job_id": "castray-1", "submission_id": "castray-1"})

    client = client_of(accept)
    assert await client.submit("python -c pass") == "castray-1"
    assert await client.submit("x", submission_id="a", metadata={"b": "c"}, runtime_env={}) == (
        "castray-1"
    )
    assert bodies == [
        {"entrypoint": "python -c pass"},
        {"entrypoint": "x", "submission_id": "a", "metadata": {"b": "c"}, "runtime_env": {}},
    ]


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (500, "No available agent to submit job", RayAnswerError, "No available agent"),
        (400, "Traceback\n  x\nValueError: taken", RayAnswerError, "ValueError: taken"),
        (405, "Browser requests not allowed", RayAnswerError, "takes no such request"),
        (401, "Unauthorized", AuthError, "wants an authentication token"),
        (200, "<html>", RayAnswerError, "HTML"),
        (200, "{}", RayAnswerError, "without telling its ID"),
        (200, "[]", RayAnswerError, "shape"),
    ],
)
async def test_a_job_that_is_not_taken(status: int, body: str, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        await client_of(lambda request: httpx.Response(status, text=body)).submit("x")


async def test_ids_stay_inside_the_path() -> None:
    paths: list[bytes] = []

    def note(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(404, text="does not exist")

    client = client_of(note)
    with pytest.raises(NotFoundError):
        await client.info("../../x?y=1")
    assert await client.delete("a/b"), "what is unknown is gone"
    assert paths == [b"/api/jobs/..%2F..%2Fx%3Fy%3D1", b"/api/jobs/a%2Fb"]


def scripted(logs: list[str], statuses: list[str]) -> Handler:
    """A job whose log and status go through the given states, the last one staying."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/logs"):
            return httpx.Response(200, json={"logs": logs.pop(0) if len(logs) > 1 else logs[0]})
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        return httpx.Response(200, json={"submission_id": "a", "status": status})

    return answer


async def test_the_log_is_followed_by_whole_lines_to_its_very_end() -> None:
    logs = ["", "one\ntw", "one\ntwo\n", "one\ntwo\nx\u2028y\n\nlast"]
    client = client_of(scripted(logs, ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]))
    lines = [line async for line in client.tail("a", interval_seconds=0, info_interval_seconds=0)]
    assert lines == ["one", "two", "x\u2028y", "", "last"]


async def test_the_log_of_an_unknown_job_is_empty() -> None:
    client = client_of(lambda request: httpx.Response(404, text="does not exist"))
    assert [line async for line in client.tail("a")] == []


async def test_an_agent_tells_no_status_so_the_gcs_is_asked() -> None:
    asked: list[str] = []

    async def record(submission_id: str) -> Mapping[str, object] | None:
        asked.append(submission_id)
        return {"status": "SUCCEEDED", "driver_exit_code": 0} if submission_id == "a" else None

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/job_agent/jobs/a/stop"
        return httpx.Response(200, json={"stopped": True})

    client = client_of(answer, agent=True, record_reader=record)
    assert await client.stop("a")
    info = await client.info("a")
    assert (info.submission_id, info.finished, info.driver_exit_code) == ("a", True, 0)
    with pytest.raises(NotFoundError):
        await client.info("b")
    assert asked == ["a", "b"]


@pytest.mark.parametrize("value", [None, [], {}, -1, True, "\x1b[2J", float("nan"), 10**30])
def test_a_job_s_record_may_hold_anything(value: Any) -> None:
    names = ["submission_id", "status", "job_id", "message", "metadata", "start_time", "end_time"]
    info = job_info(dict.fromkeys([*names, "driver_exit_code", "entrypoint"], value))
    assert info.status.isprintable()
    assert info.started_at is None
    assert info.metadata == {}
