"""The command line as a process: exit codes, streams, errors, signals; no cluster needed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from castray_process import NOTHING_EXTERNAL, castray, command, environment

import castray_tui
from castray_tui.core.journal import Journal
from castray_tui.core.models import Transfer, TransferLeg, TransferTarget


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's own castray.toml must not be read by accident."""
    monkeypatch.chdir(tmp_path)


# --- usage ------------------------------------------------------------------------------------


def test_version_and_help() -> None:
    version = castray("--version")
    assert (version.code, version.out) == (0, f"castray {castray_tui.__version__}\n")
    top = castray("--help")
    assert top.code == 0
    assert "discover" in top.out
    assert "4 nothing reachable" in top.out


@pytest.mark.parametrize(
    "command_name",
    [
        "discover",
        "status",
        "nodes",
        "cp",
        "transfers",
        "resume",
        "retry",
        "pause",
        "cancel",
        "demo",
    ],
)
def test_every_command_has_help(command_name: str) -> None:
    ran = castray(command_name, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"usage: castray {command_name}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["discovr"], "Did you mean discover?"),
        (["discover", "--metods", "x"], "Did you mean --methods?"),
        (["--jsn", "discover"], "Did you mean --json?"),
        (["discover", "--methods", "temp_dri"], "temp_dir"),
        (["discover", "--ports", "9-2"], "'9-2' is no range of ports"),
        (["discover", "--timeout", "soon"], "'soon' is no number of seconds"),
        (["discover", "surplus"], "takes no argument 'surplus'"),
        (["nodes", "--sort", "memroy"], "Did you mean 'memory'?"),
        (["nodes", "--filter", "state:daed"], "Did you mean 'dead'?"),
        (["cp", "alone"], "without a target"),
        (["cp", "a", "b/c:/d", "--overwrite", "if-diferent"], "Did you mean if-different?"),
        (["cp", "a", "b/c:/d", "--rate-limit", "fast"], "'fast' is no rate"),
        (["cp", "a", "ml/head:relative"], "absolute"),
        (["cp", "a", "ml/head:relative", "--detach"], "absolute"),
        (["cp", "a", "b/c:/d", "--links", "folow"], "Did you mean follow?"),
        (["cp", "a", "b/c:/d", "--streams", "0"], "'0' is no whole number above 0"),
        (["cp", "a", "b/c:/d", "--streams", "1000"], "transfer.streams is 1000"),
        (["cp", "a", "b/c:/d", "--link-rate-limit", "1"], "transfer.link_rate_limit"),
        (["transfers", "--since", "soon"], "'soon' is no time"),
        (["transfers", "--state", "runing"], "Did you mean running?"),
        (["transfers", "abc", "--cluster", "ml"], "--cluster cannot be combined"),
        (["resume"], "required: ID"),
        (["completion", "bsh"], "Did you mean bash?"),
        (["discover", "--config", "missing.toml"], "missing.toml does not exist"),
        (["--connect", "x:1", "nodes"], "options of the screen"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_was_meant(arguments: list[str], said: str) -> None:
    ran = castray(*arguments)
    assert ran.code == 2
    assert said in ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err


def test_errors_come_as_json_too() -> None:
    ran = castray("nodes", "--sort", "memroy", "--json")
    assert ran.code == 2
    assert ran.json["success"] is False
    assert ran.json["error"]["code"] == "usage"
    assert ran.json["error"]["message"] in ran.err


def test_a_command_without_json_says_so() -> None:
    ran = castray("demo", "--json")
    assert ran.code == 2
    assert "prints no JSON" in ran.err


def test_an_unknown_key_of_the_configuration_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "castray.toml").write_text("[ui]\nthem = 'x'\n")
    ran = castray("config")
    assert ran.code == 2
    assert "castray.toml:2" in ran.err
    assert "ui.theme" in ran.err


@pytest.mark.parametrize("arguments", [["--debug", "status"], ["status", "--debug"]])
def test_only_debug_shows_a_traceback(arguments: list[str], unused_port: int) -> None:
    address = f"127.0.0.1:{unused_port}"
    assert "Traceback" not in castray("status", address).err
    assert "Traceback" in castray(*arguments, address).err


# --- addresses --------------------------------------------------------------------------------


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("command_name", ["status", "nodes"])
def test_nothing_at_the_address_exits_4(command_name: str, unused_port: int) -> None:
    ran = castray(command_name, f"127.0.0.1:{unused_port}", "--json")
    assert ran.code == 4
    assert ran.json["error"]["code"] == "unreachable"
    assert f"127.0.0.1:{unused_port}" in ran.err


@pytest.fixture
def garbage_port() -> Iterator[int]:
    """A server that answers everything with 10 MB of HTML and escape sequences."""

    class Garbage(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Server", "gar\x1b[31mbage")
            self.end_headers()
            with_escapes = b"<html>\x1b]0;owned\x07" * 500_000
            with contextlib.suppress(OSError):  # the reader had enough, as it should
                self.wfile.write(with_escapes)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Garbage)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_garbage_at_the_address_is_told_from_ray(garbage_port: int) -> None:
    ran = castray("nodes", f"127.0.0.1:{garbage_port}", "--json")
    assert ran.code == 4
    assert ran.json["error"]["code"] == "not_ray"
    assert "\x1b" not in ran.out + ran.err


def test_garbage_on_a_scanned_port_is_no_cluster(garbage_port: int) -> None:
    scan = ["--methods", "dashboard_scan", "--ports", str(garbage_port)]
    ran = castray("discover", *scan, "--json")
    assert ran.code == 0
    assert ran.json["clusters"] == []
    assert [each["address"] for each in ran.json["foreign"]] == [f"127.0.0.1:{garbage_port}"]
    told = castray("discover", *scan)
    assert told.code == 0
    assert told.out == ""
    assert "no Ray dashboard" in told.err
    assert "\x1b" not in told.err


def test_doctor_says_what_stands_at_an_address(garbage_port: int, unused_port: int) -> None:
    garbage = castray("doctor", f"127.0.0.1:{garbage_port}", "--json")
    assert garbage.code == 4
    (finding,) = garbage.json["findings"]
    assert finding["level"] == "fail"
    assert finding["remedy"]
    assert castray("doctor", f"127.0.0.1:{unused_port}").code == 4


@pytest.mark.parametrize("how", [[], ["--detach"], ["--dry-run"]])
def test_an_unknown_cluster_of_cp_exits_4(how: list[str]) -> None:
    ran = castray("cp", "x", "nosuch/head:/tmp/", *how, env={"CLUSTER_DISCOVERY_TIMEOUT": "2"})
    assert ran.code == 4
    assert "No cluster named 'nosuch'" in ran.err
    assert "Traceback" not in ran.err


# --- without any cluster ----------------------------------------------------------------------


def test_nodes_always_has_the_local_node() -> None:
    ran = castray("nodes", "--json", env=NOTHING_EXTERNAL)
    assert ran.code == 0
    (node,) = ran.json["nodes"]
    assert (node["name"], node["type"], node["status"]) == ("local", "local", "alive")
    assert node["last_seen"].endswith("Z")
    assert ran.json["count"] == 1


@pytest.mark.parametrize("words", [["--sort", "-cpu"], ["--sort=-cpu"], ["--sort", "cpu"]])
def test_nodes_sorts_either_way(words: list[str]) -> None:
    assert castray("nodes", *words, env=NOTHING_EXTERNAL).code == 0


def test_external_clusters_switched_off() -> None:
    found = castray("discover", "--json", env=NOTHING_EXTERNAL)
    assert (found.code, found.json["clusters"]) == (0, [])
    assert "EXTERNAL_CLUSTER_ENABLED" in found.err
    named = castray("nodes", "127.0.0.1:1", env=NOTHING_EXTERNAL)
    assert named.code == 2
    status = castray("status", "--json", env=NOTHING_EXTERNAL)
    assert status.json["totals"]["clusters"] == 0


def test_transfers_of_an_empty_journal() -> None:
    assert castray("transfers", "--json").json == {"transfers": [], "count": 0}
    assert castray("transfers", "nosuch").code == 1


@pytest.mark.parametrize("command_name", ["resume", "retry", "pause", "cancel"])
def test_orders_to_a_transfer_that_nobody_knows(command_name: str) -> None:
    ran = castray(command_name, "abcd", "--json")
    assert ran.code == 1
    assert ran.json["error"]["code"] == "not_found"
    assert "`castray transfers`" in ran.err


@pytest.fixture
async def kept(own_home: Path) -> list[Transfer]:
    """Transfers in the journal, newest first."""
    made = [
        Transfer(
            id=letter * 32,
            kind="unicast",
            state=state,
            source=f"local:/data/{name}",
            targets=(TransferTarget("ml", "head", f"/x/{name}", verdict=verdict, attempts=1),),
            started=time.time() - age,
            ended=time.time() - age + 1,
            legs=(TransferLeg("local", "local", (f"/data/{name}",)),),
        )
        for letter, state, name, verdict, age in (
            ("a", "done", "new\nname.bin", "verified", 60.0),
            ("b", "failed", "old.bin", "failed", 90_000.0),
        )
    ]
    journal = Journal.open(own_home / "state" / "castray" / "journal.sqlite3")
    for transfer in made:
        await journal.save_transfer(transfer)
    await journal.close()
    return made


def test_transfers_are_found_by_what_is_known_of_them(kept: list[Transfer]) -> None:
    def found(*words: str) -> str:
        listed = castray("transfers", *words, "--json").json
        assert listed["count"] == len(listed["transfers"])
        return "".join(each["id"][0] for each in listed["transfers"])

    assert found() == "ab"
    assert found("--state", "failed") == "b"
    assert found("--since", "2h") == "a"
    assert found("--since", "2d", "--limit", "1") == "a"
    assert found("--cluster", "ml", "--source", "OLD") == "b"
    assert found("--cluster", "web") == ""
    assert found("--node", "he*") == "ab"


def test_one_transfer_shows_everything_of_it(kept: list[Transfer]) -> None:
    shown = castray("transfers", "aaa")
    assert shown.code == 0
    assert "local:/data/new name.bin" in shown.out
    assert "verified" in shown.out
    assert castray("transfers", "aaa", "--json").json["id"] == "a" * 32


def test_transfers_are_exported_as_json(kept: list[Transfer], tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    written = castray("transfers", "--export", str(file))
    assert (written.code, written.out) == (0, "")
    assert json.loads(file.read_text()) == castray("transfers", "--json").json
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out.json"]
    one = castray("transfers", "bbb", "--export", "-")
    assert one.json["targets"][0]["verdict"] == "failed"
    refused = castray("transfers", "--export", str(tmp_path / "nosuch" / "out.json"))
    assert refused.code == 1
    assert "cannot be written" in refused.err


@pytest.mark.parametrize("command_name", ["cancel", "pause"])
def test_what_has_ended_is_left_alone(kept: list[Transfer], command_name: str) -> None:
    ran = castray(command_name, "aaa", "--json")
    assert ran.code == 0
    assert "has ended already" in ran.err
    assert ran.json["state"] == "done"


@pytest.mark.parametrize("command_name", ["resume", "retry"])
def test_what_is_done_needs_no_more(kept: list[Transfer], command_name: str) -> None:
    ran = castray(command_name, "aaa")
    assert ran.code == 0
    assert "Nothing is left to send" in ran.err


@pytest.mark.parametrize("command_name", ["resume", "retry"])
def test_what_an_older_castray_left_cannot_be_gone_on_with(
    kept: list[Transfer], command_name: str
) -> None:
    ran = castray(command_name, "bbb")
    assert ran.code != 0
    assert "older castray" in ran.err
    assert "castray cp" in ran.err


def test_config_tells_values_and_origins(tmp_path: Path) -> None:
    (tmp_path / "castray.toml").write_text("[ui]\nascii = true\n")
    ran = castray("config", "--json", env={"CASTRAY_UI_MOUSE": "false"})
    settings = ran.json["settings"]
    assert settings["ui.ascii"] == {"value": True, "origin": "castray.toml:2"}
    assert settings["ui.mouse"] == {"value": False, "origin": "environment CASTRAY_UI_MOUSE"}
    assert settings["read_only"]["origin"] == "default"
    flagged = castray("--read-only", "config", "--json").json["settings"]["read_only"]
    assert flagged == {"value": True, "origin": "command line"}


def test_completion_is_a_script_that_bash_accepts() -> None:
    script = castray("completion", "bash")
    assert script.code == 0
    checked = subprocess.run(["bash", "-n"], input=script.out, text=True, check=False)
    assert checked.returncode == 0
    assert "discover" in script.out
    assert "--link-rate-limit" in script.out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["castray", "resu"], ["resume"]),
        (["castray", "cp", "--over"], ["--overwrite"]),
        (["castray", "cp", "./loc"], ["./local.bin"]),
        (["castray", "transfers", "--state", "part"], ["partial"]),
    ],
)
def test_bash_completes_commands_options_and_files(
    words: list[str], completed: list[str], tmp_path: Path
) -> None:
    (tmp_path / "local.bin").touch()
    (tmp_path / "script").write_text(castray("completion", "bash").out)
    asked = (
        f"source {tmp_path}/script; COMP_WORDS=({' '.join(words)}); "
        f"COMP_CWORD={len(words) - 1}; $(complete -p castray | sed 's/.*-F //; s/ .*//') castray "
        f"{words[-1]} {words[-2]}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False)
    assert done.stdout.split() == completed, done.stderr


def test_doctor_examines_the_surroundings() -> None:
    ran = castray("doctor", "--json", env={**NOTHING_EXTERNAL, "HTTP_PROXY": "http://u:pw@p:1"})
    assert ran.code == 1
    checks = {finding["check"]: finding for finding in ran.json["findings"]}
    assert {"terminal", "versions", "configuration", "state folder", "disk"} <= set(checks)
    assert checks["proxies"]["level"] == "warn"
    assert "pw" not in ran.out
    assert any(
        finding["level"] == "fail" and "external_cluster.enabled" in finding["message"]
        for finding in ran.json["findings"]
    )


def test_doctor_tells_of_a_broken_configuration(tmp_path: Path) -> None:
    (tmp_path / "castray.toml").write_text("[ui]\nthem = 'x'\n")
    ran = castray("doctor", "--json")
    assert ran.code == 2
    assert ran.json["findings"][0]["check"] == "configuration"


# --- streams, terminals, signals --------------------------------------------------------------


def test_the_screen_without_a_terminal_says_what_to_run() -> None:
    ran = castray()
    assert ran.code == 2
    assert "castray nodes" in ran.err


def test_the_screen_on_a_dumb_terminal_says_what_to_run() -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            command(),
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            env=environment({"TERM": "dumb"}),
            timeout=30,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert "castray nodes" in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    running = subprocess.Popen(
        command("config", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    assert running.stderr.read() == ""
    assert running.wait(30) == 141
    running.stderr.close()


def test_a_full_disk_under_standard_output_is_told() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("config"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_watching_prints_one_object_a_line_until_a_signal(number: int, code: int) -> None:
    running = subprocess.Popen(
        command("nodes", "--watch", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({**NOTHING_EXTERNAL, "CASTRAY_EXTERNAL_CLUSTER_POLL_INTERVAL": "0.3"}),
    )
    assert running.stdout is not None
    lines = [json.loads(running.stdout.readline()) for _ in range(2)]
    running.send_signal(number)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == code
    assert errors == ""
    assert [line["count"] for line in lines] == [1, 1]
    assert lines[0]["time"] < lines[1]["time"]


def test_a_transfer_to_agents_that_run_imports_nothing_that_it_does_not_need() -> None:
    """The goal is 0.3 s from the command to the first byte; imports are most of them."""
    program = (
        "import sys\n"
        "import castray_tui.cli.cp, castray_tui.core.reunion\n"
        "import castray_tui.core.transfer.service, castray_tui.core.transfer_control\n"
        "print(' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    imported = set(done.stdout.split())
    core = "castray_tui.core"
    needless = {"ray", "textual", "rich", "httpx", "psutil", "shtab", "tomli", "importlib.metadata"}
    needless |= {f"{core}.connections", f"{core}.discovery.run", f"{core}.monitor"}
    needless |= {f"{core}.ray_api.http", f"{core}.local_node", "castray_tui.agent.node_agent"}
    assert not imported & needless


def test_discover_imports_nothing_it_does_not_need() -> None:
    """Its time is looked at closely; a module counts, not a second."""
    program = (
        "import sys\n"
        "from castray_tui.cli.command_line import run\n"
        "words = ['discover', '--json', '--methods', 'temp_dir,process_scan']\n"
        "code = run(words, open_screen=None)\n"
        "print(' '.join(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stderr.splitlines()[-1].split())
    needless = {"ray", "textual", "rich", "httpx", "msgspec", "sqlite3", "shutil", "shtab", "tomli"}
    assert not imported & needless
