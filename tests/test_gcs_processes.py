"""The processes that ask GCS servers: what they answer, how they die, and that they end."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from castray_tui.core.errors import AuthError, RayAnswerError
from castray_tui.core.ray_api.gcs_process import GcsProcesses
from castray_tui.core.ray_api.http import RefusedError, SilentError
from castray_tui.core.ray_api.tokens import Token

_CHILD = """
import json, os, sys
token = json.loads(sys.stdin.readline())["token"]
print("noise", file=sys.stderr)
for line in sys.stdin:
    request = json.loads(line)
    address = request["address"]
    if address == "die":
        os._exit(7)
    if address == "garbage":
        print("no json", flush=True)
        continue
    if address == "hang":
        continue
    if address == "refuse":
        told = {"error": "refused", "message": "Connection \\x1b[31mrefused"}
    elif address == "locked":
        told = {"error": "auth", "message": token or ""}
    else:
        told = {"ok": {"cluster_id": str(os.getpid()), "session_name": token, "nodes": [3, {}],
                       "usage": {"a": {}, "b": 1},
                       "draining": {"a": {"deadline_ms": 5000}, "b": 0}}}
    print(json.dumps({"id": request["id"], **told}), flush=True)
"""


@pytest.fixture
def processes(tmp_path: Path) -> GcsProcesses:
    child = tmp_path / "child.py"
    child.write_text(_CHILD)
    return GcsProcesses((sys.executable, str(child)))


async def pid(processes: GcsProcesses, token: Token | None = None) -> int:
    return int((await processes.poll("any", token=token)).cluster_id or "")


async def test_one_child_for_all_without_a_token_and_one_each_token(
    processes: GcsProcesses,
) -> None:
    one, other = Token("one", origin="x"), Token("other", origin="x")
    told = await asyncio.gather(*(pid(processes, token) for token in (None, None, one, other)))
    assert told[0] == told[1]
    assert len(set(told)) == 3
    assert (await processes.poll("any", token=one)).session_name == "one"
    for process in map(psutil.Process, told):
        assert "one" not in process.cmdline()
        assert "RAY_AUTH_TOKEN" not in process.environ()
    await processes.close()
    assert not any(psutil.pid_exists(one_pid) for one_pid in told)


async def test_what_is_told_is_read_tolerantly(processes: GcsProcesses) -> None:
    told = await processes.poll("any")
    assert told.rows == ({},)
    assert told.usage == {"a": {}}
    assert told.draining == {"a": 5.0, "b": None}
    await processes.close()


async def test_failures_become_errors_of_castray(processes: GcsProcesses) -> None:
    with pytest.raises(RefusedError, match="refuse") as refused:
        await processes.poll("refuse")
    assert str(refused.value).isprintable()
    with pytest.raises(AuthError, match="wants an authentication token"):
        await processes.poll("locked")
    with pytest.raises(AuthError, match="from a file") as locked:
        await processes.poll("locked", token=Token("hunter2", origin="a file"))
    assert "hunter2" not in str(locked.value)
    await processes.poll("any")
    with pytest.raises(SilentError):
        await processes.poll("hang", timeout_seconds=0.1)
    await processes.close()


@pytest.mark.parametrize("end", ["die", "garbage"])
async def test_a_child_that_dies_fails_its_questions_and_comes_back(
    processes: GcsProcesses, end: str
) -> None:
    first = await pid(processes)
    hanging = asyncio.create_task(processes.poll("hang"))
    await asyncio.sleep(0)
    with pytest.raises(RayAnswerError, match="died"):
        await processes.poll(end)
    with pytest.raises(RayAnswerError, match="died"):
        await hanging
    with pytest.raises(RayAnswerError, match="starts again in"):
        await processes.poll("any")
    while True:
        try:
            assert await pid(processes) != first
            break
        except RayAnswerError:
            await asyncio.sleep(0.1)
    await processes.close()


async def test_a_child_that_cannot_start_is_an_error_too() -> None:
    processes = GcsProcesses(("/nonexistent/python",))
    with pytest.raises(RayAnswerError, match="cannot start: No such file"):
        await processes.poll("any")
    await processes.close()


@pytest.mark.ray
async def test_the_real_child_tells_a_dead_address_at_once_and_ends_with_its_input() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    processes = GcsProcesses()
    with pytest.raises(RefusedError):
        await processes.poll(f"127.0.0.1:{port}")
    with pytest.raises(RefusedError):
        await processes.poll("no port")
    children = [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and "castray_tui.core.ray_api.gcs_reader" in child.cmdline()
    ]
    assert children
    await processes.close()
    assert not any(child.is_running() for child in children)
