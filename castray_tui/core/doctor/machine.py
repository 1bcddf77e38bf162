"""The doctor's checks of this machine and this run: versions, configuration, folders, proxies."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from castray_tui import __version__
from castray_tui.core.config_loading import LoadedSettings
from castray_tui.core.doctor.finding import Finding
from castray_tui.core.state_folder import state_path
from castray_tui.core.text_safety import safe_text

_LOW_SPACE_BYTES = 1_000_000_000
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
# What Ray's clients in libraries need here beside castray's own, which ignore proxies.
_LOOPBACK_NAMES = {"localhost", "127.0.0.1"}


def check_versions() -> list[Finding]:
    """Python, castray, and the Ray that is installed beside it, without importing it."""
    findings = [
        Finding(
            "versions",
            "ok",
            f"castray {__version__} on Python {platform.python_version()}, {platform.system()} "
            f"{platform.release()}",
        )
    ]
    try:
        findings.append(Finding("versions", "ok", f"Ray {metadata.version('ray')} beside castray"))
    except metadata.PackageNotFoundError:
        findings.append(
            Finding(
                "versions",
                "warn",
                "No Ray is installed beside castray, so clusters without a dashboard cannot be "
                "read and `castray demo` cannot start",
                "Install it into castray's environment: pip install 'ray[default]'",
            )
        )
    return findings


def check_configuration(loaded: LoadedSettings) -> list[Finding]:
    """Where the settings come from, and switches that keep clusters from being found."""
    settings = loaded.settings
    where = "no configuration file" if loaded.file is None else f"read {loaded.file}"
    changed = sum(origin != "default" for origin in loaded.origins.values())
    findings = [
        Finding(
            "configuration",
            "ok",
            f"{where}; {changed} settings were given, the others are defaults",
        )
    ]
    for key, switched_on in (
        ("external_cluster.enabled", settings.external_cluster.enabled),
        ("ray_cluster.external_discovery", settings.ray_cluster.external_discovery),
        ("external_cluster.auto_discover", settings.external_cluster.auto_discover),
    ):
        if not switched_on:
            findings.append(
                Finding(
                    "configuration",
                    "fail" if key == "external_cluster.enabled" else "warn",
                    f"{key} is false ({loaded.origins[key]})",
                    "Set it to true to have clusters found at the start",
                )
            )
    return findings


def check_state(loaded: LoadedSettings) -> list[Finding]:
    """Whether the journal can be written."""
    folder = state_path(loaded.settings)
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not existing.is_dir():
        return [
            Finding(
                "state folder",
                "fail",
                f"{existing} is no folder, so {folder} cannot be made",
                "Set state_dir or XDG_STATE_HOME to a folder of your own",
            )
        ]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [
            Finding(
                "state folder",
                "fail",
                f"{existing} cannot be written to by this user",
                "Set state_dir or XDG_STATE_HOME to a folder of your own",
            )
        ]
    return [Finding("state folder", "ok", f"{folder} can be written to")]


def check_space(loaded: LoadedSettings) -> list[Finding]:
    """Whether there is room where Ray and castray write. Ray stops working on a full /tmp."""
    findings = []
    for name, folder in (
        ("temporary files", Path(tempfile.gettempdir())),
        ("castray's state", state_path(loaded.settings)),
    ):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        try:
            free_bytes = shutil.disk_usage(existing).free
        except OSError as error:
            findings.append(Finding("disk", "warn", f"{existing} cannot be asked: {error}"))
            continue
        message = f"{free_bytes / 1e9:.1f} GB free for {name} ({folder})"
        if free_bytes < _LOW_SPACE_BYTES:
            findings.append(Finding("disk", "warn", message, "Free some space there"))
        else:
            findings.append(Finding("disk", "ok", message))
    return findings


def check_proxies(environ: Mapping[str, str]) -> list[Finding]:
    """Proxy variables: castray ignores them for clusters, Ray's own commands do not."""
    lowered = {name.lower(): value for name, value in environ.items() if value}
    proxies = [name for name in _PROXY_VARIABLES if name in lowered]
    if not proxies:
        return [Finding("proxies", "ok", "no proxy variables are set")]
    exempt = {part.strip() for part in lowered.get("no_proxy", "").split(",")}
    shown = ", ".join(f"{name} ({_proxy_host(lowered[name])})" for name in proxies)
    if "*" in exempt or exempt & _LOOPBACK_NAMES:
        return [Finding("proxies", "ok", f"{shown}; loopback is exempt")]
    return [
        Finding(
            "proxies",
            "warn",
            f"{shown} and no_proxy does not exempt loopback: gRPC clients, Ray's among them, may "
            "ask the proxy for clusters on this host",
            "Add localhost,127.0.0.1 and the clusters' hosts to no_proxy",
        )
    ]


def _proxy_host(value: str) -> str:
    """The host of a proxy's URL, without the password that may stand in it."""
    try:
        return safe_text(urlsplit(value).hostname or "unreadable", limit=100)
    except ValueError:
        return "unreadable"
