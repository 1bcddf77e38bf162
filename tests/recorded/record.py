"""Records what a live dashboard answers, for the tests, without anything of this machine in it.

    python tests/recorded/record.py http://127.0.0.1:8265 [NODE_ID …]

writes ``tests/recorded/<ray version>/<endpoint>.json``. Host names, addresses, user names and paths
of the machine are replaced by neutral ones; node IDs, sizes and times stay as they were.
"""

from __future__ import annotations

import getpass
import json
import re
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ENDPOINTS = {
    "version": "/api/version",
    "cluster_id": "/cluster_id",
    "nodes_summary": "/nodes?view=summary&nocache=1",
    "state_nodes": "/api/v0/nodes?limit=10000&detail=1",
    "cluster_status": "/api/cluster_status",
    "jobs": "/api/jobs/",
}
_ADDRESS = re.compile(r"\b(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}\b")
# Folders that hold an installation or a session: what comes after them is Ray's own and stays.
_PYTHON = re.compile(r"/[^\s\"',:=]*?/bin/(python[0-9.]*)")
_PACKAGES = re.compile(r"/[^\s\"',:=]*?/site-packages")
_SESSION = re.compile(r"/[^\s\"',:=]*?/(session_\d{4}-\d\d-\d\d[0-9_-]*)")
_TEMP_DIR = re.compile(r"/tmp/[A-Za-z][\w.-]*")


def main() -> None:
    url, *node_ids = sys.argv[1:]
    answers: dict[str, Any] = {name: ask(url + path) for name, path in ENDPOINTS.items()}
    if not node_ids:
        node_ids = [answers["nodes_summary"]["body"]["data"]["summary"][0]["raylet"]["nodeId"]]
    answers["node_detail"] = ask(f"{url}/nodes/{node_ids[0]}?nocache=1")
    answers["log_files"] = ask(f"{url}/api/v0/logs?node_id={node_ids[0]}&timeout=10")
    folder = Path(__file__).parent / answers["version"]["body"]["ray_version"]
    folder.mkdir(exist_ok=True)
    for name, answer in answers.items():
        text = json.dumps(neutral(trimmed(answer)), indent=1, sort_keys=True)
        (folder / f"{name}.json").write_text(text + "\n")


def ask(url: str) -> dict[str, Any]:
    """``{"status": …, "body": …}``; the body is text where it is no JSON."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            status, raw = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, raw = error.code, error.read()
    try:
        body = json.loads(raw)
    except ValueError:
        body = raw.decode("utf-8", "replace")
    return {"status": status, "body": body}


def trimmed(value: Any) -> Any:
    """Without the hundreds of empty arguments that processes which renamed themselves have."""
    if isinstance(value, dict):
        return {key: trimmed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        kept = [trimmed(entry) for entry in value if entry != ""]
        return kept if all(isinstance(entry, str) for entry in value) else list(map(trimmed, value))
    return value


def neutral(value: Any) -> Any:
    """The same shape with neutral names of hosts, users and folders in it."""
    if isinstance(value, dict):
        return {neutral(key): neutral(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [neutral(entry) for entry in value]
    if not isinstance(value, str):
        return value
    text = _ADDRESS.sub("10.0.0.1", value)
    text = _PYTHON.sub(r"/opt/ray/bin/\1", text)
    text = _PACKAGES.sub("/opt/ray/lib/site-packages", text)
    text = _SESSION.sub(r"/tmp/ray/\1", text)
    text = _TEMP_DIR.sub("/tmp/ray", text)
    text = re.sub(rf"(?<![\w.-]){re.escape(socket.gethostname())}(?![\w.-])", "host-1", text)
    return re.sub(rf"(?<![\w.-]){re.escape(getpass.getuser())}(?![\w.-])", "someone", text)


if __name__ == "__main__":
    main()
