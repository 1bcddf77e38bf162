"""Every key of the configuration: its name, its variable, what it takes and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from castray_tui.core.config import Settings
from castray_tui.core.config_values import (
    Choice,
    ClusterName,
    FilePath,
    Host,
    ListOf,
    Number,
    PortRange,
    Size,
    Switch,
    Text,
    TextTable,
    ValueKind,
)
from castray_tui.core.models import DISCOVERY_METHODS, Overwrite

_KIB, _MIB, _GIB, _TIB = 1024, 1024**2, 1024**3, 1024**4
_DAY_SECONDS = 86_400.0
ADDRESS = Text(
    'an address such as "10.0.0.5:8265", "http://head:8265", "head:6379" or "ray://head:10001"',
    spaces=False,
)


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One key of the configuration.

    Attributes:
        name: Dotted, as in the file: ``transfer.chunk_size``.
        attribute: Dotted, as in Settings: ``transfer.chunk_size_bytes``.
        meaning: One sentence for users, without a final full stop.
        other_variables: Environment variables besides ``variable``, which wins over them.
    """

    name: str
    kind: ValueKind
    meaning: str
    attribute: str = ""
    other_variables: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """The table it stands in; empty for the top of the file."""
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        """Its name within its table."""
        return self.name.rpartition(".")[2]

    @property
    def variable(self) -> str:
        """``CASTRAY_<TABLE>_<KEY>``."""
        return "CASTRAY_" + self.name.replace(".", "_").upper()

    def value_in(self, settings: Settings) -> object:
        """What the settings hold for it."""
        value: object = settings
        for attribute in (self.attribute or self.name).split("."):
            value = getattr(value, attribute)
        return value


KEYS: tuple[ConfigKey, ...] = (
    ConfigKey(
        "read_only",
        Switch(),
        "Refuse everything that would change a cluster or write to a node",
    ),
    ConfigKey(
        "state_dir",
        FilePath(optional=True),
        "Folder of journal and logs; empty for the platform's place",
    ),
    ConfigKey(
        "ray_cluster.address",
        Text('"auto" or ' + ADDRESS.what, spaces=False),
        "An address to connect to at the start, besides what is discovered; "
        '"auto" leaves it to discovery',
        other_variables=("RAY_ADDRESS",),
    ),
    ConfigKey(
        "ray_cluster.external_discovery",
        Switch(),
        "Look for clusters at the start",
    ),
    ConfigKey(
        "ray_cluster.fallback_to_local",
        Switch(),
        "Start a small cluster of castray's own where none is found, and stop it at the end",
    ),
    ConfigKey(
        "external_cluster.enabled",
        Switch(),
        "Deal with external clusters at all",
        other_variables=("EXTERNAL_CLUSTER_ENABLED",),
    ),
    ConfigKey(
        "external_cluster.auto_discover",
        Switch(),
        "Discover at the start, and connect to what is found",
    ),
    ConfigKey(
        "external_cluster.connection_timeout",
        Number(0.1, 600, "seconds"),
        "Seconds that one request to a cluster may take",
    ),
    ConfigKey(
        "external_cluster.discovery_methods",
        ListOf(Choice(DISCOVERY_METHODS)),
        "Ways of finding clusters that are used",
    ),
    ConfigKey(
        "external_cluster.discovery_timeout",
        Number(0.1, 600, "seconds"),
        "Seconds that a whole discovery may take",
        other_variables=("CLUSTER_DISCOVERY_TIMEOUT",),
    ),
    ConfigKey(
        "external_cluster.port_scan_range",
        PortRange(),
        "Dashboard ports that are tried, both ends included",
    ),
    ConfigKey(
        "external_cluster.hosts",
        ListOf(Host()),
        "Hosts whose dashboard ports are tried besides this machine's own",
    ),
    ConfigKey(
        "external_cluster.discovery_interval",
        Number(1, _DAY_SECONDS, "seconds", zero=True),
        "Seconds between discoveries in the background; 0 for never",
    ),
    ConfigKey(
        "external_cluster.poll_interval",
        Number(0.2, 3600, "seconds"),
        "Seconds between polls of a cluster",
    ),
    ConfigKey(
        "web_server.host",
        Host(),
        "Address that the service listens on; any but loopback needs a token",
    ),
    ConfigKey(
        "web_server.port",
        Number(0, 65535, whole=True),
        "Port that the service listens on; 0 for any free one",
    ),
    ConfigKey(
        "web_server.token_file",
        FilePath(optional=True),
        "File that holds the service's token, readable by its owner only; empty for none",
    ),
    ConfigKey(
        "transfer.chunk_size",
        Size(64 * _KIB, 64 * _MIB),
        "Bytes that are read, sent and checked as one piece",
        attribute="transfer.chunk_size_bytes",
    ),
    ConfigKey(
        "transfer.rate_limit",
        Size(_KIB, _TIB, per_second=True, zero=True),
        "Bytes a second that one transfer may send; 0 for no limit",
        attribute="transfer.rate_limit_bytes_per_second",
    ),
    ConfigKey(
        "transfer.link_rate_limit",
        Size(_KIB, _TIB, per_second=True, zero=True),
        "Bytes a second that one node may send to another; 0 for no limit",
        attribute="transfer.link_rate_limit_bytes_per_second",
    ),
    ConfigKey(
        "transfer.streams",
        Number(1, 64, whole=True),
        "Nodes that one node may send to at the same time",
    ),
    ConfigKey(
        "transfer.patience",
        Number(0, _DAY_SECONDS, "seconds"),
        "Seconds that a target which was lost is tried again, before it has failed; "
        "0 for not at all",
        attribute="transfer.patience_seconds",
    ),
    ConfigKey(
        "transfer.data_port_range",
        PortRange(zero=True),
        "Ports that agents receive on, for firewalls; [0, 0] for any free one",
        attribute="transfer.port_range",
    ),
    ConfigKey(
        "transfer.overwrite",
        Choice(get_args(Overwrite)),
        "What happens to a file that is there already",
    ),
    ConfigKey(
        "transfer.allowed_roots",
        ListOf(FilePath(absolute=True)),
        "Folders that transfers may read and write; empty for all that the user may",
    ),
    ConfigKey(
        "transfer.agent_idle_time",
        Number(1, _DAY_SECONDS, "seconds"),
        "Seconds without work after which agents leave their nodes",
        attribute="transfer.agent_idle_seconds",
    ),
    ConfigKey(
        "transfer.disk_reserve",
        Size(1, 1024 * _TIB, zero=True),
        "Bytes that a transfer leaves free on a target's disk",
        attribute="transfer.disk_reserve_bytes",
    ),
    ConfigKey(
        "transfer.niceness",
        Number(0, 19, whole=True),
        "How far agents stand back for what else wants the processor, as of nice; 0 for not at all",
    ),
    ConfigKey(
        "ui.theme",
        Text("the name of a theme"),
        "Colours of the screen",
    ),
    ConfigKey(
        "ui.refresh_rate",
        Number(0.1, 30, "times a second"),
        "Times a second that the screen is drawn anew, at most",
    ),
    ConfigKey(
        "ui.ascii",
        Switch(),
        "Draw without box-drawing and other special characters",
    ),
    ConfigKey(
        "ui.color",
        Switch(),
        "Draw in colour; a NO_COLOR that is set and not empty means false",
    ),
    ConfigKey(
        "ui.mouse",
        Switch(),
        "Take the mouse; false leaves it to the terminal, for selecting text",
    ),
    ConfigKey(
        "ui.keymap",
        TextTable(),
        "Other keys for actions: the name of an action and its keys, with commas between them",
    ),
)

CLUSTER_KEYS: tuple[ConfigKey, ...] = (
    ConfigKey("name", ClusterName(), "Name that the cluster goes by"),
    ConfigKey("address", ADDRESS, "Where it is"),
    ConfigKey(
        "token_file",
        FilePath(optional=True),
        "File that holds the token that this cluster's Ray wants; empty for none",
    ),
    ConfigKey(
        "read_only",
        Switch(optional=True),
        "Whether everything that would change it is refused; left out, a cluster on this host "
        "that belongs to another user is read-only",
    ),
)
"""The keys of one ``[[clusters]]`` entry; the first two must be there."""

TABLES: tuple[str, ...] = tuple(dict.fromkeys(key.table for key in KEYS if key.table))

CLUSTERS_VARIABLE = "CASTRAY_CLUSTERS"
"""``[[clusters]]`` as a JSON list of objects."""

OTHER_VARIABLES = {
    "CASTRAY_CONFIG": "The configuration file, instead of those that are looked for",
    "CASTRAY_TOKEN": "Kept free for the token of a castray service; nothing reads it yet",
}
"""Variables that begin like settings and are none."""

TEST_VARIABLES = "CASTRAY_TEST_"
"""What the variables of castray's own tests begin with; no setting is named so."""
