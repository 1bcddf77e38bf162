"""Reading the settings: what wins, where it came from, and what is refused with which words."""

# ruff: noqa: E501  tables of cases, one a line
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from castray_tui.core.config import KnownClusterSettings, Settings
from castray_tui.core.config_loading import (
    LoadedSettings,
    effective_settings,
    load_settings,
    state_dir,
)
from castray_tui.core.errors import ConfigError

ON_POSIX = os.name == "posix"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


def load(
    folder: Path,
    text: str | None = None,
    *,
    name: str = "castray.toml",
    environ: Mapping[str, str] | None = None,
    config_path: Path | None = None,
    **overrides: object,
) -> LoadedSettings:
    if text is not None:
        (folder / name).write_text(text, encoding="utf-8")
        if name != "castray.toml":
            config_path = Path(name)
    return load_settings(
        config_path=config_path,
        overrides={key.replace("__", "."): value for key, value in overrides.items()},
        environ={"HOME": str(folder.parent / "home"), **(environ or {})},
        working_dir=folder,
    )


def refusal(folder: Path, text: str | None = None, **more: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **more)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    return caught.value


# --- what wins --------------------------------------------------------------------------------


def test_without_anything_all_is_default(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.settings == Settings()
    assert loaded.file is None
    assert set(loaded.origins.values()) == {"default"}


def test_each_place_wins_over_those_after_it(folder: Path) -> None:
    text = "[ui]\ntheme = 'file'\n"
    variable = {"CASTRAY_UI_THEME": "variable"}
    steps = [
        (load(folder), "castray-dark", "default"),
        (load(folder, text), "file", "castray.toml:2"),
        (load(folder, text, environ=variable), "variable", "environment CASTRAY_UI_THEME"),
        (load(folder, text, environ=variable, ui__theme="line"), "line", "command line"),
    ]
    for loaded, theme, origin in steps:
        assert (loaded.settings.ui.theme, loaded.origins["ui.theme"]) == (theme, origin)


def test_what_the_command_line_did_not_say_changes_nothing(folder: Path) -> None:
    assert load(folder, ui__theme=None, read_only=None).settings == Settings()


def test_the_first_file_there_is_is_read(folder: Path) -> None:
    home = folder.parent / "home"
    personal = home / ".config" / "castray" / "castray.toml"
    elsewhere = folder.parent / "xdg" / "castray" / "castray.toml"
    named = folder.parent / "named.toml"
    option = folder.parent / "option.toml"
    for path, theme in ((personal, "home"), (elsewhere, "xdg"), (named, "named"), (option, "opt")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"ui.theme = '{theme}'")

    def theme(**more: object) -> str:
        return load(folder, **more).settings.ui.theme  # type: ignore[arg-type]

    xdg = {"XDG_CONFIG_HOME": str(folder.parent / "xdg")}
    assert theme() == "home"
    assert theme(environ={"XDG_CONFIG_HOME": "relative/is/ignored"}) == "home"
    assert theme(environ=xdg) == "xdg"
    (folder / "castray.toml").write_text("ui.theme = 'beside'")
    assert theme(environ=xdg) == "beside"
    xdg["CASTRAY_CONFIG"] = str(named)
    assert theme(environ=xdg) == "named"
    assert theme(environ=xdg, config_path=option) == "opt"
    assert theme(environ={"CASTRAY_CONFIG": "~/.config/castray/castray.toml"}) == "home"


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_named_file_must_be_there(folder: Path, how: str) -> None:
    more: dict[str, object] = {"environ": {"CASTRAY_CONFIG": "no.toml"}}
    if how == "option":
        more = {"config_path": Path("no.toml")}
    assert "no.toml does not exist" in refusal(folder, **more).message


# --- variables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("RAY_ADDRESS", "10.0.0.5:6379", "ray_cluster.address", "10.0.0.5:6379"),
        ("EXTERNAL_CLUSTER_ENABLED", "False", "external_cluster.enabled", False),
        ("CLUSTER_DISCOVERY_TIMEOUT", "2.5", "external_cluster.discovery_timeout", 2.5),
        ("NO_COLOR", "1", "ui.color", False),
        ("CASTRAY_READ_ONLY", "yes", "read_only", True),
        ("CASTRAY_EXTERNAL_CLUSTER_HOSTS", "gpu1, 10.0.0.5", "external_cluster.hosts", ["gpu1", "10.0.0.5"]),
        ("CASTRAY_EXTERNAL_CLUSTER_HOSTS", '["::1"]', "external_cluster.hosts", ["::1"]),
        ("CASTRAY_EXTERNAL_CLUSTER_PORT_SCAN_RANGE", "9000-9010", "external_cluster.port_scan_range", [9000, 9010]),
        ("CASTRAY_EXTERNAL_CLUSTER_DISCOVERY_METHODS", "temp_dir", "external_cluster.discovery_methods", ["temp_dir"]),
        ("CASTRAY_WEB_SERVER_PORT", "0", "web_server.port", 0),
        ("CASTRAY_TRANSFER_RATE_LIMIT", "100MB", "transfer.rate_limit", "100MB"),
        ("CASTRAY_UI_KEYMAP", '{"discover": "f5"}', "ui.keymap", {"discover": "f5"}),
        ("CASTRAY_CLUSTERS", '[{"name": "ml", "address": "h:1"}]', "clusters", [{"name": "ml", "address": "h:1"}]),
    ],
)  # fmt: skip
def test_variables(folder: Path, variable: str, text: str, key: str, value: object) -> None:
    loaded = load(folder, environ={variable: text})
    assert (key, value, f"environment {variable}") in effective_settings(loaded)


def test_castrays_own_variable_wins_over_a_shared_one(folder: Path) -> None:
    environ = {"RAY_ADDRESS": "ray:1", "CASTRAY_RAY_CLUSTER_ADDRESS": "castray:1"}
    assert load(folder, environ=environ).settings.ray_cluster.address == "castray:1"
    environ = {"NO_COLOR": "1", "CASTRAY_UI_COLOR": "true"}
    assert load(folder, environ=environ).settings.ui.color is True


def test_empty_variables_say_nothing(folder: Path) -> None:
    environ = {"RAY_ADDRESS": "", "NO_COLOR": "", "CASTRAY_UI_THEME": " ", "CASTRAY_CONFIG": ""}
    assert load(folder, environ=environ).settings == Settings()
    assert load(folder, environ={"RAY_ADDRESS": "local"}).settings == Settings()


def test_a_variable_that_is_no_setting_is_refused(folder: Path) -> None:
    error = refusal(folder, environ={"CASTRAY_EXTERNAL_CLUSTER_HOST": "gpu1"})
    assert "CASTRAY_EXTERNAL_CLUSTER_HOST:" in error.message
    assert 'Did you mean "CASTRAY_EXTERNAL_CLUSTER_HOSTS"?' in str(error.remedy)


def test_variables_of_others_that_begin_alike_are_not(folder: Path) -> None:
    kubernetes = {
        "CASTRAY_SERVICE_HOST": "10.96.0.1",
        "CASTRAY_SERVICE_PORT": "8000",
        "CASTRAY_SERVICE_PORT_HTTP": "8000",
        "CASTRAY_PORT": "tcp://10.96.0.1:8000",
        "CASTRAY_PORT_8000_TCP": "tcp://10.96.0.1:8000",
        "CASTRAY_PORT_8000_TCP_ADDR": "10.96.0.1",
        "CASTRAY_PORT_8000_TCP_PROTO": "tcp",
        "CASTRAY_TEST_VENVS": "/x",
    }
    assert load(folder, environ=kubernetes).settings == Settings()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CASTRAY_READ_ONLY", "maybe"),
        ("CLUSTER_DISCOVERY_TIMEOUT", "soon"),
        ("CLUSTER_DISCOVERY_TIMEOUT", "nan"),
        ("EXTERNAL_CLUSTER_ENABLED", "2"),
        ("CASTRAY_EXTERNAL_CLUSTER_PORT_SCAN_RANGE", "a-b"),
        ("CASTRAY_UI_KEYMAP", "discover=f5"),
        ("CASTRAY_CLUSTERS", "ml=h:1"),
        ("CASTRAY_CLUSTERS", '{"name": "ml"}'),
    ],
)
def test_a_variable_with_a_bad_value_is_named(folder: Path, variable: str, text: str) -> None:
    assert refusal(folder, environ={variable: text}).message.startswith(f"environment {variable}:")


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("\n[externl_cluster]\n", 'castray.toml:2: unknown table "externl_cluster"', '"[external_cluster]"?'),
        ("[cluster]\n", "unknown table", '"[[clusters]]"?'),
        ("[ui]\n\nasci = true", 'castray.toml:3: unknown key "ui.asci"', 'Did you mean "ui.ascii"?'),
        ("theme = 'x'", 'castray.toml:1: unknown key "theme"', 'Did you mean "ui.theme"?'),
        ("[transfer]\npoll_interval = 3", '"transfer.poll_interval"', '"external_cluster.poll_interval"?'),
        ("[ui]\nqqqq = 1", 'unknown key "ui.qqqq"', "[ui] takes theme, refresh_rate"),
        ("ui.ascii = 'yes'", 'castray.toml:1: ui.ascii is "yes", which is neither', "true or false"),
        ("transfer = 5", "castray.toml:1: transfer is 5, which is no table", "[transfer]"),
        ("read_only = {}", "read_only is {}", "true or false"),
        ("[transfer]\noverwrite = 'sometimes'", 'castray.toml:2: transfer.overwrite is "sometimes"',
         'one of "never", "if-different", "always"'),
        ("[external_cluster]\ndiscovery_methods = ['ray_status', 'dns']", 'in which "dns" is wrong', "temp_dir"),
        ("external_cluster.port_scan_range = [9, 2]", "the first is above the last", "[8265, 8275]"),
        ("external_cluster.port_scan_range = [0, 0]", "out of range", "1 to 65535"),
        ("external_cluster.port_scan_range = [1, 2, 3]", "not two ports", "two ports"),
        ("external_cluster.poll_interval = 0", "is 0, which is out of range", "from 0.2 to 3,600 seconds"),
        ("external_cluster.poll_interval = true", "is true, which is no number", "seconds"),
        ("external_cluster.connection_timeout = inf", "which is no number", "seconds"),
        ("external_cluster.hosts = ['http://gpu1']", "in which", "without scheme or port"),
        ("external_cluster.hosts = 'gpu1'", "which is no list", "a list"),
        ("web_server.port = 65536", "is 65536, which is out of range", "65,535"),
        ("web_server.port = 80.5", "which is no whole number", "a whole number"),
        ("transfer.chunk_size = '4 parsecs'", 'is "4 parsecs", which is no size', '"4MiB"'),
        ("transfer.chunk_size = 1", "out of range", "from 64KiB to 64MiB"),
        ("transfer.allowed_roots = ['data']", 'in which "data" is wrong', "absolute"),
        ("transfer.allowed_roots = ['/data/../etc']", "is wrong", "absolute"),
        ("ray_cluster.address = 'a b'", "blanks", "10.0.0.5:8265"),
        ('ui.theme = "a\\nb"', "control characters", "name of a theme"),
        ("[ui.keymap]\ndiscover = 5", "discover", "table of text"),
        ("clusters = 3", "castray.toml:1: clusters is no list", "[[clusters]]"),
        ("\n[[clusters]]\nname = 'a'", "castray.toml:2: this [[clusters]] entry has no address", "Add address"),
        ("[[clusters]]\naddress = 'a:1'", "has no name", "Add name"),
        ("[[clusters]]\nname = 'local'\naddress = 'a:1'", 'castray.toml:2: clusters.name is "local"', "letters"),
        ("[[clusters]]\nname = 'a/b'\naddress = 'a:1'", "no cluster name", "letters"),
        ("[[clusters]]\nname = '..'\naddress = 'a:1'", "no cluster name", "letters"),
        ("[[clusters]]\nname = 'a'\naddress = 'a:1'\ntokenfile = 'x'", 'castray.toml:4: unknown key "clusters.tokenfile"',
         '"clusters.token_file"?'),
        ("[[clusters]]\nname = 'a'\naddress = 'a:1'\n[[clusters]]\nname = 'a'\naddress = 'b:1'",
         'castray.toml:4: another cluster is named "a" too, at castray.toml:1', "of its own"),
        ("[ui]\n\ntheme = = 3", "castray.toml:3: this is no TOML", "Correct"),
        ("[ui]\ntheme = 'a'\ntheme = 'b'", "castray.toml:3: this is no TOML", "Correct"),
        ("[ui", "castray.toml:1: this is no TOML", "Correct"),
        ("a = " + "[" * 100_000, "castray.toml", "Correct"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(folder: Path, text: str, message: str, remedy: str) -> None:
    error = refusal(folder, text)
    assert message in error.message
    assert remedy in str(error.remedy)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"ui": {\n"asci": true}}', 'c.json:2: unknown key "ui.asci"'),
        ('{"ui": {"ascii": 1,\n "ascii": 2}}', '"ascii" stands twice'),
        ('{"ui": {"refresh_rate": NaN}}', "NaN is no JSON number"),
        ('{"ui":\n {"theme": "x",}}', "c.json:2: this is no JSON"),
        ("[]", "no JSON object"),
        ('{"read_only": null}', "read_only is None"),
        ("[" * 100_000, "c.json"),
    ],
)
def test_mistakes_in_json(folder: Path, text: str, message: str) -> None:
    assert message in refusal(folder, text, name="c.json").message


def test_files_that_cannot_be_read(folder: Path) -> None:
    (folder / "castray.toml").write_bytes(b"[ui]\ntheme = '\xff'\n")
    assert refusal(folder).message == "castray.toml:2: this is not UTF-8"
    (folder / "castray.toml").write_bytes(b"#" * 2_000_000)
    assert "larger than" in refusal(folder).message
    assert "is a folder" in refusal(folder, config_path=folder).message


def test_a_secret_under_a_wrong_key_is_not_repeated(folder: Path) -> None:
    error = refusal(folder, "[web_server]\ntoken = 'hunter2'")
    assert "hunter2" not in str(error)
    assert "web_server.token_file" in str(error)


def test_text_in_messages_does_nothing_to_a_terminal(folder: Path) -> None:
    error = refusal(folder, '[ui]\n"\\u001b[2J" = 1')
    assert str(error).isprintable()


@pytest.mark.skipif(not ON_POSIX or os.getuid() != 0, reason="only root can give files away")
def test_a_strangers_file_in_a_public_folder_is_not_obeyed(folder: Path) -> None:
    (folder / "castray.toml").write_text("ui.theme = 'theirs'")
    os.chown(folder / "castray.toml", 12345, 12345)
    assert load(folder).settings.ui.theme == "theirs"  # a folder that not everybody may write to
    folder.chmod(0o1777)
    assert "belongs to another user" in refusal(folder).message
    assert load(folder, config_path=Path("castray.toml")).settings.ui.theme == "theirs"


def test_overrides_are_checked_like_everything_else(folder: Path) -> None:
    assert refusal(folder, ui__thme="x").message == 'command line: unknown key "ui.thme"'
    error = refusal(folder, external_cluster__port_scan_range="x")
    assert error.message.startswith("command line: external_cluster.port_scan_range is")


# --- values -----------------------------------------------------------------------------------


def test_paths_start_where_they_are_said(folder: Path) -> None:
    nested = folder / "etc"
    nested.mkdir()
    (nested / "c.toml").write_text(
        "web_server.token_file = 'token'\nstate_dir = '~/state'\n"
        "[[clusters]]\nname = 'a'\naddress = 'a:1'\ntoken_file = '../secret'"
    )
    loaded = load(folder, config_path=Path("etc/c.toml"))
    assert loaded.settings.web_server.token_file == nested / "token"
    assert loaded.settings.state_dir == folder.parent / "home" / "state"
    assert loaded.settings.clusters == (
        KnownClusterSettings("a", "a:1", token_file=nested / ".." / "secret"),
    )
    assert loaded.origins["clusters"] == "etc/c.toml:3"
    line = load(folder, web_server__token_file="token")
    assert line.settings.web_server.token_file == folder / "token"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("'64KiB'", 65536), ("'64k'", 65536), ("'1MB'", 1_000_000), ("'1.5 MiB'", 1_572_864),
        ("'2 mb'", 2_000_000), ("'100000B'", 100_000), ("131072", 131_072), ("'131072'", 131_072),
    ],
)  # fmt: skip
def test_sizes(folder: Path, text: str, size: int) -> None:
    assert load(folder, f"transfer.chunk_size = {text}").settings.transfer.chunk_size_bytes == size


def test_a_known_cluster(folder: Path) -> None:
    text = '{"clusters": [{"name": "ml-1.x_y", "address": "http://h:8265", "read_only": true}]}'
    [cluster] = load(folder, text, name="c.json").settings.clusters
    assert cluster == KnownClusterSettings("ml-1.x_y", "http://h:8265", read_only=True)


def test_effective_settings_can_be_read_again(folder: Path) -> None:
    text = (
        "read_only = true\nstate_dir = '/var/castray'\n[transfer]\nchunk_size = '1MiB'\n"
        "rate_limit = 1234567\ndata_port_range = '4000-4010'\nallowed_roots = ['/data']\n"
        "[external_cluster]\nhosts = ['[::1]', 'b', 'b']\npoll_interval = 0.5\n"
        "[ui.keymap]\ndiscover = 'f5'\n[[clusters]]\nname = 'a'\naddress = 'a:1'\nread_only = false"
    )
    first = load(folder, text)
    assert first.settings.external_cluster.hosts == ("::1", "b")
    document: dict[str, object] = {}
    for name, value, _ in effective_settings(first):
        table, _, leaf = name.rpartition(".")
        place = document.setdefault(table, {}) if table else document
        assert isinstance(place, dict)
        place[leaf] = value
    again = load(folder, json.dumps(document), name="again.json")
    assert again.settings == first.settings
    assert {name for name, _, _ in effective_settings(again)} == set(again.origins)


# --- state ------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the XDG folders of Linux")
def test_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    path = state_dir(Settings())
    assert path == tmp_path / "xdg" / "castray"
    assert path.stat().st_mode & 0o777 == 0o700
    path.chmod(0o755)
    state_dir(Settings())
    assert path.stat().st_mode & 0o777 == 0o700

    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert state_dir(Settings()) == tmp_path / "home" / ".local" / "state" / "castray"

    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    assert state_dir(Settings(state_dir=shared)) == shared
    assert shared.stat().st_mode & 0o777 == 0o755

    (tmp_path / "file").touch()
    assert state_dir(Settings(state_dir=tmp_path / "file" / "x")) == tmp_path / "file" / "x"


# --- start-up ---------------------------------------------------------------------------------


def test_what_is_not_needed_is_not_imported(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from castray_tui.core.config_loading import load_settings, state_dir\n"
        "loaded = load_settings(config_path=None, overrides={}, environ={},"
        f" working_dir=Path({str(folder)!r}))\n"
        "state_dir(loaded.settings)\n"
        "print(sorted({'tomli', 'platformdirs', 'difflib', 'msgspec', 'sqlite3', 'asyncio', 'ray',"
        " 'textual', 'httpx', 'psutil'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
