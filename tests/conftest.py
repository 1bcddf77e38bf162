"""What several test modules need: real Ray clusters, and a home of its own for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from ray_lab import python_with_ray

from castray_tui.core.own_cluster import OwnCluster

StartCluster = Callable[..., Awaitable[OwnCluster]]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the state, configuration or tokens of whoever runs it."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
async def start_cluster() -> AsyncIterator[StartCluster]:
    """Starts real Ray clusters, ended after the test, whichever way it goes.

    Call ``await start_cluster(version="2.9.3", node_count=2, …)``; further arguments are those of
    ``OwnCluster.start``.
    """
    async with AsyncExitStack() as stack:

        async def start(*, version: str | None = None, **options: Any) -> OwnCluster:
            cluster = await OwnCluster.start(python=python_with_ray(version), **options)
            return await stack.enter_async_context(cluster)

        yield start


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_clusters() -> AsyncIterator[StartCluster]:
    """As ``start_cluster``, for clusters that the tests of one module share.

    Tests that use it run on the module's event loop:
    ``pytestmark = pytest.mark.asyncio(loop_scope="module")``.
    """
    async with AsyncExitStack() as stack:

        async def start(*, version: str | None = None, **options: Any) -> OwnCluster:
            cluster = await OwnCluster.start(python=python_with_ray(version), **options)
            return await stack.enter_async_context(cluster)

        yield start
