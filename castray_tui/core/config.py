"""The settings that everything else is built with, and their defaults.

Only the shape is here; reading them from a file, the environment and the command line is
``castray_tui.core.config_loading``. The annotated ``castray.toml`` at the top of the project shows
the same keys; a test keeps the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from castray_tui.core.models import DISCOVERY_METHODS, Overwrite, Source


@dataclass(frozen=True, slots=True)
class RayClusterSettings:
    """``[ray_cluster]``: what to connect to at the start."""

    address: str = "auto"
    external_discovery: bool = True
    fallback_to_local: bool = False


@dataclass(frozen=True, slots=True)
class ExternalClusterSettings:
    """``[external_cluster]``: finding clusters and asking them. Times in seconds."""

    enabled: bool = True
    auto_discover: bool = True
    connection_timeout: float = 10.0
    discovery_methods: tuple[Source, ...] = DISCOVERY_METHODS
    discovery_timeout: float = 5.0
    port_scan_range: tuple[int, int] = (8265, 8275)
    hosts: tuple[str, ...] = ()
    discovery_interval: float = 30.0
    poll_interval: float = 2.0


@dataclass(frozen=True, slots=True)
class KnownClusterSettings:
    """One ``[[clusters]]`` entry. ``read_only`` None: as its owner suggests."""

    name: str
    address: str
    token_file: Path | None = None
    read_only: bool | None = None


@dataclass(frozen=True, slots=True)
class WebServerSettings:
    """``[web_server]``: where ``castray serve`` listens."""

    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """``[transfer]``: how files move. A rate limit of 0 is no limit. One node feeds ``streams``
    others at once, at most, and what is lost is tried again for ``patience_seconds``.
    ``port_range`` (0, 0) leaves the port to the operating system, ``allowed_roots`` empty allows
    every path that the agent's user may use.
    """

    chunk_size_bytes: int = 4 * 1024 * 1024
    rate_limit_bytes_per_second: int = 0
    link_rate_limit_bytes_per_second: int = 0
    streams: int = 4
    patience_seconds: float = 60.0
    port_range: tuple[int, int] = (0, 0)
    overwrite: Overwrite = "if-different"
    allowed_roots: tuple[Path, ...] = ()
    agent_idle_seconds: float = 60.0
    disk_reserve_bytes: int = 64 * 1024 * 1024
    niceness: int = 0


@dataclass(frozen=True, slots=True)
class UiSettings:
    """``[ui]``: how the screen looks. ``refresh_rate`` is redraws a second at most; ``color`` False
    is what ``NO_COLOR`` asks for; ``keymap`` maps a binding's id to keys, ``"d,ctrl+d"``.
    """

    theme: str = "castray-dark"
    refresh_rate: float = 2.0
    ascii: bool = False
    color: bool = True
    mouse: bool = True
    keymap: Mapping[str, str] = field(default_factory=dict)

    @property
    def refresh_interval(self) -> float:
        """Seconds between two redraws."""
        return 1.0 / self.refresh_rate


@dataclass(frozen=True, slots=True)
class Settings:
    """Every effective setting of one run of castray."""

    ray_cluster: RayClusterSettings = field(default_factory=RayClusterSettings)
    external_cluster: ExternalClusterSettings = field(default_factory=ExternalClusterSettings)
    clusters: tuple[KnownClusterSettings, ...] = ()
    web_server: WebServerSettings = field(default_factory=WebServerSettings)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    ui: UiSettings = field(default_factory=UiSettings)
    read_only: bool = False
    state_dir: Path | None = None
    """Where journal and logs lie; None for the platform's place
    (``$XDG_STATE_HOME/castray`` on Linux)."""
