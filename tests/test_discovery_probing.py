"""What stands at a port: Ray, something else, nothing, or something that means harm."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace

import pytest
from fake_servers import (
    DENIED,
    NOT_FOUND,
    SETTINGS,
    FakeServer,
    Reply,
    gcs_replies,
    grpc_reply,
    http,
    locked_dashboard,
    ray_dashboard,
)

from castray_tui.core.discovery import identify as identify_module
from castray_tui.core.discovery import ray_processes, surroundings
from castray_tui.core.discovery.gcs_wire import ask_gcs
from castray_tui.core.discovery.identify import identify
from castray_tui.core.discovery.probing import Standing, probe, probe_dashboard
from castray_tui.core.discovery.ray_processes import LocalProcesses, LocalSession
from castray_tui.core.discovery.run import DiscoveryRequest, discover
from castray_tui.core.discovery.sightings import Claim
from castray_tui.core.discovery.surroundings import Surroundings
from castray_tui.core.discovery.verification import verify
from castray_tui.core.errors import AddressError, AuthError, NotRayError, UnreachableError

SECONDS = 0.5
SESSION = "session_2026-01-01_10-00-00_1_11"
HTML = http("<!doctype html><html>hello</html>", headers="Server: nginx/1.25\r\n")


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which no Ray process runs, whatever else does."""
    empty = LocalProcesses(own_hosts=frozenset({"127.0.0.1"}), me="ann")
    monkeypatch.setattr(surroundings, "list_local_processes", lambda: empty)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def look(server: FakeServer, *, with_nodes: bool = False) -> Standing:
    return await probe_dashboard(
        "127.0.0.1", server.port, timeout_seconds=SECONDS, with_nodes=with_nodes
    )


async def test_a_dashboard_says_who_it_is() -> None:
    async with FakeServer(ray_dashboard()) as server:
        standing = await look(server)
    assert standing.kind == "dashboard"
    assert (standing.ray_version, standing.session_name) == ("2.60.0", SESSION)
    assert standing.cluster_id == "ab" * 28
    assert (standing.needs_token, standing.gcs_healthy) == (False, True)
    assert all("authorization" not in request.lower() for request in server.requests)


async def test_an_old_dashboard_is_known_by_how_its_head_was_started() -> None:
    node = '{"node_id": "c0ffee", "is_head_node": true, "state": "ALIVE",'
    node += ' "resources_total": {"CPU": 4.0, "node:10.0.0.1": 1.0}}'
    replies = ray_dashboard(version="2.9.3", session=None, cluster_id=None) | {
        "/api/v0/nodes?limit=10000": http('{"data": {"result": {"result": [' + node + "]}}}"),
        "/nodes/c0ffee": http(
            '{"data": {"detail": {"cmdline": ["/x/raylet", "--gcs-address=10.0.0.1:6379",'
            ' "--session-name=session_9", "--cluster-id=%s", "--temp_dir=/tmp/ray",'
            ' "--python_worker_command=/opt/py/bin/python /x/setup_worker.py"]}}}' % ("cd" * 28)
        ),
    }
    async with FakeServer(replies) as server:
        standing = await look(server)
    assert standing.cluster_id == "cd" * 28
    assert standing.session_name == "session_9"
    assert standing.gcs_address == "10.0.0.1:6379"
    assert standing.python == "/opt/py/bin/python"
    assert (standing.node_count, standing.resources) == (1, {"CPU": 4.0})


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (HTML, "HTTP server (nginx/1.25)"),
        (http("[1, 2, 3]"), "HTTP server"),
        (http("7"), "HTTP server"),
        (http("{" * 100_000), "HTTP server"),
        (http("[" * 100_000), "HTTP server"),
        (http('{"ray_version": 7}'), "HTTP server"),
        (http('{"ray_version": "2.6', length=500), "HTTP server"),
        (http('{"ray_version": "' + "x" * 10_000_000 + '"}'), "HTTP server with an oversized"),
        (http("# HELP ray_node_cpu x\n# TYPE ray_node_cpu gauge\n"), "Ray metrics"),
        (http("# HELP go_threads x\n# TYPE go_threads gauge\n"), "Prometheus metrics"),
        (http("no", status="401 No", headers="Server: Apache\r\n"), "HTTP server (Apache), wants"),
        (http("", status="500 Oops"), "HTTP server"),
        (b"HTTP/1.1 banana\r\n\r\n", "TCP service, not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, "TCP service, not HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "TCP service, not HTTP"),
        (b"\x00\x01\x02\x03\xff", "TCP service, not HTTP"),
        (b"", "TCP service, not HTTP"),
    ],
)
async def test_everything_else_is_told_apart(reply: bytes, what: str) -> None:
    async with FakeServer(default=reply) as server:
        standing = await look(server)
    assert standing.kind == "other"
    assert standing.what.startswith(what)


async def test_a_nodes_dashboard_agent_is_no_dashboard() -> None:
    async with FakeServer({"/api/local_raylet_healthz": http("success")}) as server:
        assert (await look(server)).what == "Ray dashboard agent of a node"


async def test_nothing_and_silence() -> None:
    standing = await probe_dashboard("127.0.0.1", free_port(), timeout_seconds=SECONDS)
    assert standing.kind == "nothing"
    async with FakeServer(default=None) as server:
        started = time.monotonic()
        assert (await look(server)).kind == "silent"
        assert time.monotonic() - started < SECONDS + 0.5
    # Headers that never end are silence as well.
    async with FakeServer({"/api/version": None}, greeting=b"HTTP/1.1 200 OK\r\nX:") as server:
        assert (await look(server)).kind == "silent"


async def test_escape_sequences_and_long_text_are_made_safe() -> None:
    replies = ray_dashboard(version="\x1b[31m" + "9" * 500, session="\x1b]0;x\x07" + "s" * 9_000)
    async with FakeServer(replies) as server:
        standing = await look(server)
    assert standing.ray_version is not None
    assert standing.session_name is not None
    assert standing.ray_version.isprintable()
    assert standing.session_name.isprintable()
    assert len(standing.ray_version) <= 60
    assert len(standing.session_name) <= 300


@pytest.mark.parametrize("cluster_id", ["", "zz" * 28, "ab" * 27, "ff" * 28, "00" * 28])
async def test_a_cluster_id_that_is_none_is_not_taken_for_one(cluster_id: str) -> None:
    async with FakeServer(ray_dashboard(cluster_id=cluster_id)) as server:
        assert (await look(server)).cluster_id is None


async def test_chunked_answers_are_read() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b'10\r\n{"ray_version": \r\n8\r\n"2.60.0"\r\n1\r\n}\r\n0\r\n\r\n'
    async with FakeServer({"/api/version": chunked}) as server:
        assert (await look(server)).ray_version == "2.60.0"
    for broken in (chunked[:-20], chunked.replace(b"10\r\n", b"zz\r\n")):
        async with FakeServer({"/api/version": broken}) as server:
            assert (await look(server)).kind == "other"


async def test_a_dashboard_behind_a_token_is_recognised_without_one() -> None:
    async with FakeServer(locked_dashboard(), default=DENIED) as server:
        standing = await look(server)
    assert standing.kind == "dashboard"
    assert standing.needs_token is True
    page = {"/": http("<html><head><title>Ray Dashboard</title></head>")}
    async with FakeServer(page, default=DENIED) as server:
        assert (await look(server)).needs_token is True


# --- the GCS --------------------------------------------------------------------------------------


async def test_a_gcs_tells_identity_version_and_nodes() -> None:
    async with FakeServer(default=gcs_replies(dashboard="10.0.0.1:8265")) as server:
        answer = await ask_gcs("127.0.0.1", server.port, timeout_seconds=SECONDS)
    assert answer.state == "answers"
    assert (answer.cluster_id, answer.session_name) == ("ab" * 28, SESSION)
    assert (answer.dashboard, answer.ray_version) == ("10.0.0.1:8265", "2.60.0")
    assert (answer.node_count, answer.resources) == (2, {"CPU": 4.0})


@pytest.mark.parametrize(
    ("reply", "state"),
    [
        (grpc_reply(dict.fromkeys((1, 3, 5, 7, 9), "16")), "wants_token"),
        (grpc_reply(dict.fromkeys((1, 3, 5, 7, 9), "12")), "not_gcs"),
        (grpc_reply({1: b"\xff" * 40, 3: b"\x12\x7f"}), "not_gcs"),
        (SETTINGS + b"\xff" * 5_000, "not_gcs"),
        (SETTINGS, "not_gcs"),
        (HTML, "not_gcs"),
        (b"", "not_gcs"),
        (None, "silent"),
    ],
)
async def test_what_only_might_be_a_gcs(reply: Reply, state: str) -> None:
    async with FakeServer(default=reply) as server:
        answer = await ask_gcs("127.0.0.1", server.port, timeout_seconds=SECONDS)
    assert answer.state == state


async def test_an_address_that_may_be_anything_is_worked_out() -> None:
    async with FakeServer(default=gcs_replies(), greeting=SETTINGS) as server:
        standing = await probe("127.0.0.1", server.port, timeout_seconds=SECONDS)
    assert standing.kind == "gcs"
    unimplemented = grpc_reply(dict.fromkeys((1, 3, 5, 7, 9), "12"))
    async with FakeServer(default=unimplemented, greeting=SETTINGS) as server:
        standing = await probe("127.0.0.1", server.port, timeout_seconds=SECONDS)
    assert (standing.kind, standing.what) == ("other", "gRPC server")


# --- living or dead -------------------------------------------------------------------------------


def local(session_name: str, port: int, *, has_gcs: bool = True) -> LocalSession:
    return LocalSession(
        session_name=session_name,
        gcs=(("127.0.0.1", port),),
        has_gcs=has_gcs,
        raylet_count=1,
    )


@pytest.mark.usefixtures("nobody")
async def test_a_session_lives_if_its_own_gcs_answers() -> None:
    async with FakeServer(default=gcs_replies()) as server:
        place = (("127.0.0.1", server.port),)
        mine = Claim(sources=("temp_dir",), session_name=SESSION, gcs=place)
        stale = Claim(sources=("temp_dir",), session_name="session_old", gcs=place)
        sighting = await verify(mine, Surroundings(probe_seconds=SECONDS))
        assert sighting is not None
        assert sighting.cluster_id == "ab" * 28
        # The port was given to a newer session: two folders, one cluster.
        assert await verify(stale, Surroundings(probe_seconds=SECONDS)) is None
        raylet_of_old = Claim(
            sources=("process_scan",),
            session_name="session_old",
            gcs=place,
            local=local("session_old", server.port, has_gcs=False),
        )
        assert await verify(raylet_of_old, Surroundings(probe_seconds=SECONDS)) is None


@pytest.mark.usefixtures("nobody")
async def test_a_session_whose_gcs_is_gone_is_dead() -> None:
    port = free_port()
    claim = Claim(
        sources=("process_scan",),
        session_name=SESSION,
        gcs=(("127.0.0.1", port),),
        local=local(SESSION, port, has_gcs=False),
    )
    assert await verify(claim, Surroundings(probe_seconds=SECONDS)) is None
    async with FakeServer(default=HTML) as server:
        claim = Claim(
            sources=("temp_dir",), session_name=SESSION, gcs=(("127.0.0.1", server.port),)
        )
        assert await verify(claim, Surroundings(probe_seconds=SECONDS)) is None


@pytest.mark.usefixtures("nobody")
async def test_a_hung_gcs_lives_if_its_process_does() -> None:
    async with FakeServer(default=None) as server:
        claim = Claim(
            sources=("temp_dir",), session_name=SESSION, gcs=(("127.0.0.1", server.port),)
        )
        assert await verify(claim, Surroundings(probe_seconds=SECONDS)) is None
        claim = Claim(
            sources=("process_scan",),
            session_name=SESSION,
            gcs=(("127.0.0.1", server.port),),
            local=local(SESSION, server.port),
        )
        sighting = await verify(claim, Surroundings(probe_seconds=SECONDS))
    assert sighting is not None
    assert "does not answer" in sighting.notes[0]


@pytest.mark.usefixtures("nobody")
async def test_a_gcs_in_another_namespace_lives_though_our_loopback_says_otherwise() -> None:
    async with FakeServer(default=gcs_replies()) as server:
        theirs = replace(local("session_theirs", server.port), maybe_elsewhere=True)
        claim = Claim(
            sources=("process_scan",), session_name="session_theirs", gcs=theirs.gcs, local=theirs
        )
        sighting = await verify(claim, Surroundings(probe_seconds=SECONDS))
    assert sighting is not None
    assert (sighting.session_name, sighting.gcs_address) == ("session_theirs", None)
    assert sighting.cluster_id is None


@pytest.mark.usefixtures("nobody")
async def test_a_dashboard_of_another_cluster_is_not_taken_for_ones_own() -> None:
    async with (
        FakeServer(default=gcs_replies()) as gcs,
        FakeServer(ray_dashboard(session="session_other", cluster_id="cd" * 28)) as dashboard,
    ):
        claim = Claim(
            sources=("process_scan",),
            session_name=SESSION,
            gcs=(("127.0.0.1", gcs.port),),
            dashboards=(("127.0.0.1", dashboard.port),),
        )
        sighting = await verify(claim, Surroundings(probe_seconds=SECONDS))
    assert sighting is not None
    assert sighting.dashboard_url is None


# --- a whole discovery ----------------------------------------------------------------------------


def scan_of(server: FakeServer) -> DiscoveryRequest:
    return DiscoveryRequest(
        methods=("dashboard_scan",), ports=(server.port, server.port), timeout_seconds=2 * SECONDS
    )


@pytest.mark.usefixtures("nobody")
async def test_a_scan_finds_dashboards_and_names_what_else_answers() -> None:
    async with FakeServer(ray_dashboard()) as server:
        report = await discover(scan_of(server))
    (cluster,) = report.clusters
    assert cluster.key == "ab" * 28
    assert cluster.name == f"localhost-{server.port}"
    assert cluster.sources == ("dashboard_scan",)
    async with FakeServer(default=HTML) as server:
        report = await discover(scan_of(server))
    assert report.clusters == ()
    assert [(one.address, one.what) for one in report.foreign] == [
        (f"127.0.0.1:{server.port}", "HTTP server (nginx/1.25)")
    ]


@pytest.mark.usefixtures("nobody")
async def test_a_scan_sends_no_token_and_reports_no_dead_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "sesame")
    async with FakeServer(locked_dashboard(), default=DENIED) as server:
        report = await discover(scan_of(server))
    assert [cluster.needs_token for cluster in report.clusters] == [True]
    assert not [request for request in server.requests if "sesame" in request]
    async with FakeServer(ray_dashboard(healthy=False)) as server:
        report = await discover(scan_of(server))
    assert report.clusters == ()
    assert [one.what for one in report.foreign] == ["Ray dashboard whose GCS does not answer"]


@pytest.mark.usefixtures("nobody")
async def test_a_host_that_cannot_be_read_hides_no_other() -> None:
    async with FakeServer(ray_dashboard()) as server:
        report = await discover(
            DiscoveryRequest(
                methods=("dashboard_scan",),
                ports=(server.port, server.port),
                hosts=("me:secret@host", f"127.0.0.2:{server.port}"),
            )
        )
    assert [cluster.key for cluster in report.clusters] == ["ab" * 28]
    assert "password" in (report.methods[0].error or "")
    assert "secret" not in (report.methods[0].error or "")


async def test_a_method_that_fails_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> LocalProcesses:
        raise RuntimeError("no such thing as a process")

    monkeypatch.setattr(surroundings, "list_local_processes", broken)
    async with FakeServer(ray_dashboard()) as server:
        report = await discover(
            DiscoveryRequest(ports=(server.port, server.port), environ={"RAY_TMPDIR": "/none"})
        )
    assert "ab" * 28 in {cluster.key for cluster in report.clusters}
    outcomes = {outcome.method: outcome for outcome in report.methods}
    assert "no such thing" in (outcomes["process_scan"].error or "")
    assert outcomes["dashboard_scan"].error is None


async def test_a_method_out_of_time_keeps_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow() -> LocalProcesses:
        time.sleep(1.0)
        return ray_processes.LocalProcesses()

    monkeypatch.setattr(surroundings, "list_local_processes", slow)
    seen: list[int] = []
    async with FakeServer(locked_dashboard(), default=DENIED) as server:
        report = await discover(
            DiscoveryRequest(
                methods=("dashboard_scan", "process_scan"),
                ports=(server.port, server.port),
                timeout_seconds=0.4,
            ),
            on_found=lambda clusters: seen.append(len(clusters)),
        )
    assert [cluster.needs_token for cluster in report.clusters] == [True]
    assert seen == [1]
    outcomes = {outcome.method: outcome for outcome in report.methods}
    assert "ran out of time" in (outcomes["process_scan"].error or "")


# --- one address ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("nobody")
async def test_identify_says_what_is_wrong_and_what_to_do() -> None:
    with pytest.raises(UnreachableError, match="nothing listens") as unreachable:
        await identify(f"127.0.0.1:{free_port()}", timeout_seconds=3)
    assert unreachable.value.remedy
    async with FakeServer(default=HTML) as server:
        with pytest.raises(NotRayError, match="nginx") as foreign:
            await identify(f"http://127.0.0.1:{server.port}", timeout_seconds=3)
        assert foreign.value.remedy
    async with FakeServer(default=None) as server:
        with pytest.raises(UnreachableError, match="does not answer"):
            await identify(f"127.0.0.1:{server.port}", timeout_seconds=1.5)
    async with FakeServer(ray_dashboard(healthy=False)) as server:
        with pytest.raises(UnreachableError, match="its GCS does not"):
            await identify(f"127.0.0.1:{server.port}", timeout_seconds=3)


@pytest.mark.usefixtures("nobody")
async def test_identify_gives_the_token_only_to_a_dashboard_that_asks() -> None:
    async with FakeServer(locked_dashboard(), default=DENIED) as server:
        with pytest.raises(AuthError, match="wants a token"):
            await identify(f"127.0.0.1:{server.port}", timeout_seconds=3)
        with pytest.raises(AuthError, match="refused the token"):
            await identify(f"127.0.0.1:{server.port}", timeout_seconds=3, token="sesame")
        asked: list[str] = []

        def token_for(place: str) -> str:
            asked.append(place)
            return "sesame\n"

        with pytest.raises(AuthError):
            await identify(f"127.0.0.1:{server.port}", timeout_seconds=3, token=token_for)
        assert asked == [f"http://127.0.0.1:{server.port}"]
        assert any("Authorization: Bearer sesame\r\n" in request for request in server.requests)
    for replies, default in ((ray_dashboard(), NOT_FOUND), ({}, DENIED), ({}, HTML)):
        async with FakeServer(replies, default=default) as server:
            try:
                await identify(f"127.0.0.1:{server.port}", timeout_seconds=3, token="sesame")
            except NotRayError:
                assert not replies
            assert not [request for request in server.requests if "sesame" in request]


@pytest.mark.usefixtures("nobody")
async def test_a_host_alone_means_its_only_cluster_and_gets_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeServer(ray_dashboard()) as one, FakeServer(default=HTML) as foreign:
        monkeypatch.setattr(identify_module, "_DASHBOARD_PORTS", (one.port, foreign.port))
        assert (await identify("127.0.0.2", timeout_seconds=3)).key == "ab" * 28
        async with FakeServer(ray_dashboard(cluster_id="cd" * 28, session="session_2")) as two:
            monkeypatch.setattr(identify_module, "_DASHBOARD_PORTS", (one.port, two.port))
            with pytest.raises(AddressError, match="2 Ray clusters"):
                await identify("127.0.0.2", timeout_seconds=3)
    async with FakeServer(locked_dashboard(), default=DENIED) as server:
        monkeypatch.setattr(identify_module, "_DASHBOARD_PORTS", (server.port,))
        with pytest.raises(AuthError) as locked:
            await identify("127.0.0.2", timeout_seconds=3, token="sesame")
        assert "port" in (locked.value.remedy or "")
        assert not [request for request in server.requests if "sesame" in request]


@pytest.mark.usefixtures("nobody")
async def test_identify_of_a_gcs_finds_the_dashboard_that_it_names() -> None:
    async with FakeServer(ray_dashboard()) as dashboard:
        replies = gcs_replies(dashboard=f"127.0.0.1:{dashboard.port}")
        async with FakeServer(default=replies, greeting=SETTINGS) as gcs:
            cluster = await identify(f"127.0.0.1:{gcs.port}", timeout_seconds=3)
    assert cluster.dashboard_url == f"http://127.0.0.1:{dashboard.port}"
    assert cluster.gcs_address == f"127.0.0.1:{gcs.port}"
    assert cluster.sources == ("manual",)
    assert cluster.node_count == 2


async def test_nothing_is_left_running_after_a_discovery() -> None:
    before = asyncio.all_tasks()
    async with FakeServer(default=None) as server:
        await discover(
            DiscoveryRequest(
                methods=("dashboard_scan",),
                ports=(server.port, server.port),
                timeout_seconds=0.2,
            )
        )
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() - before if "_serve" not in repr(task)} == set()


@pytest.mark.usefixtures("nobody")
async def test_identify_waits_for_a_head_that_is_still_starting() -> None:
    replies = ray_dashboard(healthy=False)
    async with FakeServer(replies) as server:
        identifying = asyncio.create_task(identify(f"127.0.0.1:{server.port}", timeout_seconds=8))
        while "/api/gcs_healthz" not in server.paths:
            await asyncio.sleep(0.01)
        replies.update(ray_dashboard(healthy=True))
        found = await identifying
        assert found.cluster_id == "ab" * 28
        assert server.paths.count("/api/gcs_healthz") > 1
