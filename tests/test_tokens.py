"""Where tokens come from, which cluster may see one, and that they never show."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from castray_tui.core.config import KnownClusterSettings
from castray_tui.core.errors import ConfigError
from castray_tui.core.models import DiscoveredCluster, Source
from castray_tui.core.ray_api.tokens import Token, may_have_token, token_for, users_token

ENVIRONMENT = {"RAY_AUTH_TOKEN": "from-environment"}


def cluster(
    *sources: Source,
    on_this_host: bool = False,
    mine: bool | None = None,
    dashboard: str | None = None,
    vouched: bool = False,
) -> DiscoveredCluster:
    return DiscoveredCluster(
        key="k",
        name="lab",
        sources=sources,
        on_this_host=on_this_host,
        owned_by_me=mine,
        dashboard_url=dashboard,
        dashboard_vouched=vouched,
    )


def test_a_token_never_shows() -> None:
    token = Token("hunter2", origin="a file")
    assert "hunter2" not in f"{token} {token!r} {[token]} {token:}"
    assert "a file" in repr(token)
    assert not hasattr(token, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(token)
    assert token.reveal() == "hunter2"
    assert token == Token("hunter2", origin="elsewhere")
    assert token != Token("hunter3", origin="a file")


@pytest.mark.parametrize(
    ("found", "named", "allowed"),
    [
        pytest.param(cluster("dashboard_scan"), False, False, id="answers on a scanned port"),
        pytest.param(cluster("dashboard_scan"), True, True, id="named in this run"),
        pytest.param(cluster("manual"), False, True, id="named by hand"),
        pytest.param(cluster("config"), False, True, id="named in the configuration"),
        pytest.param(
            cluster("process_scan", on_this_host=True, mine=True), False, True, id="the user's own"
        ),
        pytest.param(
            cluster("process_scan", on_this_host=True, mine=False), False, False, id="another's"
        ),
        pytest.param(
            cluster("process_scan", on_this_host=True, mine=True, dashboard="http://x"),
            False,
            False,
            id="the user's own, behind a dashboard that only says so",
        ),
        pytest.param(
            cluster("process_scan", on_this_host=True, mine=True, dashboard="x", vouched=True),
            False,
            True,
            id="the user's own, behind its own dashboard",
        ),
        pytest.param(
            cluster("config", "dashboard_scan", dashboard="http://x"),
            False,
            False,
            id="a dashboard that says it is a configured cluster",
        ),
        pytest.param(
            cluster("temp_dir", on_this_host=True, mine=None), False, False, id="owner unknown"
        ),
    ],
)
def test_who_may_see_it(found: DiscoveredCluster, named: bool, allowed: bool) -> None:
    assert may_have_token(found, named_by_user=named) is allowed
    token = token_for(found, named_by_user=named, environ=ENVIRONMENT)
    assert (token is not None) is allowed


def test_the_order_of_places(tmp_path: Path) -> None:
    entry_file, named_file = tmp_path / "entry", tmp_path / "named"
    entry_file.write_text("from-entry\n")
    named_file.write_text("  from-path \n")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("from-home")
    everything = {**ENVIRONMENT, "RAY_AUTH_TOKEN_PATH": str(named_file)}
    entry = KnownClusterSettings("lab", "lab:8265", token_file=entry_file)
    found = cluster("config")

    def value(token: Token | None) -> str | None:
        return token and token.reveal()

    assert value(token_for(found, entry=entry, environ=everything, home=tmp_path)) == "from-entry"
    assert value(token_for(found, environ=everything, home=tmp_path)) == "from-environment"
    del everything["RAY_AUTH_TOKEN"]
    assert value(users_token(environ=everything, home=tmp_path)) == "from-path"
    assert value(users_token(environ={}, home=tmp_path)) == "from-home"
    assert users_token(environ={}, home=tmp_path / "nobody") is None


def test_a_file_that_was_named_must_be_readable_and_hold_a_token(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    for content in (b"", b"  \n", b"\xff\xfe", b"two\nlines", b"x" * 100_000):
        bad.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            users_token(environ={"RAY_AUTH_TOKEN_PATH": str(bad)})
        assert "lines" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        users_token(environ={"RAY_AUTH_TOKEN_PATH": str(tmp_path / "absent")})


def test_ray_s_own_file_is_nobody_s_fault(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_bytes(b"\xff")
    assert users_token(environ={}, home=tmp_path) is None
