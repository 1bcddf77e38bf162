"""The journal's SQLite file: its tables, what is written there and what is read back.

Synchronous, for one thread; ``castray_tui.core.journal`` runs it and deals with what goes wrong.
Errors are those of ``sqlite3`` and OSError.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from castray_tui.core.models import Event, EventDraft, OrderKind, Transfer, TransferOrder

MAX_EVENTS = 100_000
MAX_TRANSFERS = 10_000
MAX_TRANSFER_BYTES = 128 * 1024 * 1024
_PRUNE_EVERY_EVENTS = 1_000
_BUSY_TIMEOUT_SECONDS = 5.0
_LOCK_RETRY_SECONDS = 0.01

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            type TEXT NOT NULL, time REAL NOT NULL, message TEXT NOT NULL,
            cluster TEXT, node TEXT, data TEXT NOT NULL)""",
        """CREATE TABLE transfers (
            id TEXT PRIMARY KEY, state TEXT NOT NULL, started REAL NOT NULL, ended REAL,
            size INTEGER NOT NULL, body TEXT NOT NULL)""",
        "CREATE INDEX transfers_by_start ON transfers (started)",
        "CREATE INDEX transfers_by_state ON transfers (state, started)",
    ),
    (
        """CREATE TABLE orders (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            transfer_id TEXT NOT NULL, kind TEXT NOT NULL, time REAL NOT NULL)""",
    ),
)
"""The statements that lead from each schema version to the next; only ever added to. The version,
the number of those that ran, is the file's ``user_version``."""

SCHEMA_VERSION = len(MIGRATIONS)

# Write-ahead logging needs memory that all users of the file share, which hosts on a network do
# not (https://www.sqlite.org/wal.html); homes on such file systems are usual on compute clusters.
_NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.beegfs", "fuse.ceph", "fuse.glusterfs"}
    | {"fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "pvfs2", "smb3"}
    | {"smbfs", "virtiofs"}
)


class NewerSchemaError(Exception):
    """The file was written by a newer castray.

    Args:
        version: The schema version of the file.
    """

    def __init__(self, version: int) -> None:
        super().__init__(f"schema {version}")
        self.version = version


class JournalStore:
    """One open journal.

    Args:
        path: The file, made if it is not there; None keeps everything in memory.
        first_id: The least number that the next event may get.

    Raises:
        NewerSchemaError: The file is a newer castray's; it was not touched.
    """

    def __init__(self, path: Path | None, *, first_id: int = 1) -> None:
        self._path = path
        self._inode: tuple[int, int] | None = None
        self._data_version: int | None = None
        self.last_id = first_id - 1
        if path is None:
            self._connection = _connected(":memory:")
            self._migrate()
        else:
            with _opening(path):
                self._connection = self._opened(path)
                self.last_id = max(self.last_id, self._last_number() or 0)
        if first_id > 1:
            self._number_from(first_id)

    def _opened(self, path: Path) -> sqlite3.Connection:
        if not path.exists():
            for ending in ("-wal", "-shm"):  # left by a file that was deleted: not of the new one
                path.with_name(path.name + ending).unlink(missing_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        self._connection = _connected(str(path))
        try:
            version = self._version()
            if version > SCHEMA_VERSION:
                raise NewerSchemaError(version)
            mode = "DELETE" if on_network_file_system(path) else "WAL"
            self._connection.execute(f"PRAGMA journal_mode={mode}")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._migrate()
        except BaseException:
            self._connection.close()
            raise
        self._inode = _inode(path)
        return self._connection

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    @property
    def was_deleted(self) -> bool:
        """Whether the file is not at its place any more: what is written now would be lost."""
        return self._path is not None and _inode(self._path) != self._inode

    # --- events -------------------------------------------------------------------------------

    def add_event(self, draft: EventDraft) -> Event:
        """Writes an event and gives it the next number."""
        cursor = self._connection.execute(
            "INSERT INTO events (type, time, message, cluster, node, data)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                draft.type,
                draft.time,
                _storable(draft.message),
                _storable(draft.cluster),
                _storable(draft.node),
                json.dumps(dict(draft.data), default=str),
            ),
        )
        assert cursor.lastrowid is not None
        self.last_id = cursor.lastrowid
        if self.last_id % _PRUNE_EVERY_EVENTS == 0:
            self._prune_events()
        return Event(
            id=self.last_id,
            type=draft.type,
            time=draft.time,
            message=draft.message,
            cluster=draft.cluster,
            node=draft.node,
            data=draft.data,
        )

    def events(self, limit: int, before_id: int | None) -> list[Event]:
        """The newest events, newest first, of those numbered below ``before_id``."""
        rows = self._connection.execute(
            "SELECT id, type, time, message, cluster, node, data FROM events"
            " WHERE id < ? ORDER BY id DESC LIMIT ?",
            (before_id if before_id is not None else 2**62, max(limit, 0)),
        )
        return [
            Event(
                id=number,
                type=kind,
                time=moment,
                message=message,
                cluster=cluster,
                node=node,
                data=_object(data),
            )
            for number, kind, moment, message, cluster, node, data in rows
        ]

    # --- transfers ----------------------------------------------------------------------------

    def save_transfer(self, transfer: Transfer) -> None:
        """Writes a transfer, in place of what was written of it before."""
        # Names of files may hold bytes that are no UTF-8; the json module keeps them, escaped.
        body = json.dumps(msgspec.to_builtins(transfer))
        self._connection.execute(
            "INSERT INTO transfers (id, state, started, ended, size, body)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state,"
            " ended = excluded.ended, size = excluded.size, body = excluded.body",
            (
                transfer.id,
                transfer.state,
                transfer.started if transfer.started is not None else time.time(),
                transfer.ended,
                len(body),
                body,
            ),
        )
        if transfer.ended is not None:
            self._prune_transfers()

    def transfers(
        self,
        limit: int,
        state: str | None,
        cluster: str | None = None,
        since: float | None = None,
    ) -> list[Transfer]:
        """The newest transfers, newest first, of one state or of all.

        Args:
            cluster: Only those with a source or a target on this cluster.
            since: Only those that started at this time or later.
        """
        rows = self._connection.execute(
            "SELECT body FROM transfers WHERE (?1 IS NULL OR state = ?1)"
            " AND (?2 IS NULL OR started >= ?2)"
            # As json.dumps writes it; in a file's name the quotes would be escaped.
            " AND (?3 IS NULL OR instr(body, ?3) OR instr(body, ?4))"
            " ORDER BY started DESC, rowid DESC LIMIT ?5",
            (
                state,
                since,
                None if cluster is None else f'"cluster": {json.dumps(cluster)}',
                None if cluster is None else f'"source": {json.dumps(cluster)[:-1]}/',
                max(limit, 0),
            ),
        )
        return [transfer for (body,) in rows if (transfer := _transfer(body)) is not None]

    def transfers_named(self, prefix: str, limit: int) -> list[Transfer]:
        """The transfer of that ID alone, else those whose ID begins so."""
        exact = self._connection.execute("SELECT body FROM transfers WHERE id = ?", (prefix,))
        rows = exact.fetchall() or self._connection.execute(
            "SELECT body FROM transfers WHERE substr(id, 1, ?) = ? LIMIT ?",
            (len(prefix), prefix, limit),
        )
        return [transfer for (body,) in rows if (transfer := _transfer(body)) is not None]

    def was_changed_by_others(self) -> bool:
        """Whether another connection wrote to the file since this was last asked."""
        version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        before, self._data_version = self._data_version, version
        return version != before

    # --- orders of one castray to another -----------------------------------------------------

    def add_order(self, transfer_id: str, kind: OrderKind) -> int:
        """Leaves an order for the castray that runs a transfer; its number."""
        cursor = self._connection.execute(
            "INSERT INTO orders (transfer_id, kind, time) VALUES (?, ?, ?)",
            (transfer_id, kind, time.time()),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def take_orders(self, transfer_ids: Collection[str]) -> list[TransferOrder]:
        """The orders for these transfers, oldest first; they are taken off the table."""
        rows = self._connection.execute("SELECT id, transfer_id, kind FROM orders").fetchall()
        if not rows:  # The usual case: nothing is locked or written for it.
            return []
        taken = []
        for number, transfer_id, kind in sorted(rows):
            if transfer_id in transfer_ids and self.withdraw_order(number):
                taken.append(TransferOrder(number, transfer_id, kind))
        return taken

    def is_order_open(self, number: int) -> bool:
        """Whether nobody has taken an order yet."""
        found = self._connection.execute("SELECT 1 FROM orders WHERE id = ?", (number,))
        return found.fetchone() is not None

    def withdraw_order(self, number: int) -> bool:
        """Takes an order off the table; whether it was there."""
        cursor = self._connection.execute("DELETE FROM orders WHERE id = ?", (number,))
        return cursor.rowcount > 0

    # --- upkeep -------------------------------------------------------------------------------

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _migrate(self) -> None:
        if self._version() == SCHEMA_VERSION:
            return
        with self._transaction():
            for version in range(self._version(), SCHEMA_VERSION):  # another may have been first
                for statement in MIGRATIONS[version]:
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _last_number(self) -> int | None:
        """The highest number that an event ever got; None before the first."""
        row = self._connection.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
        ).fetchone()
        return None if row is None else int(row[0])

    def _number_from(self, first_id: int) -> None:
        with self._transaction():
            last = self._last_number()
            if last is None:
                self._connection.execute(
                    "INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (first_id - 1,)
                )
            elif last < first_id - 1:
                self._connection.execute(
                    "UPDATE sqlite_sequence SET seq = ? WHERE name = 'events'", (first_id - 1,)
                )

    def _prune_events(self) -> None:
        self._connection.execute(
            "DELETE FROM events WHERE id <="
            " (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (MAX_EVENTS,),
        )

    def _prune_transfers(self) -> None:
        """Drops the oldest beyond the bounds, those under way never."""
        self._connection.execute(
            "DELETE FROM transfers WHERE ended IS NOT NULL AND id IN (SELECT id FROM"
            " (SELECT id, row_number() OVER newest AS number, sum(size) OVER newest AS bytes"
            " FROM transfers WINDOW newest AS (ORDER BY started DESC, rowid DESC))"
            " WHERE number > ? OR (bytes > ? AND number > 1))",
            (MAX_TRANSFERS, MAX_TRANSFER_BYTES),
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def on_network_file_system(path: Path) -> bool:
    """Whether a file lies on a file system that other hosts write to as well. Linux only; elsewhere
    False.
    """
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        device = path.stat().st_dev
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in text.splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split(" ", 3)[2:3] == [number]:
            return kind.split(" ", 1)[0] in _NETWORK_FILE_SYSTEMS
    return False


def _connected(name: str) -> sqlite3.Connection:
    return sqlite3.connect(name, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None)


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Lets one castray at a time make, change or clear up the file, where the system has locks."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        import fcntl  # noqa: PLC0415  not on Windows
    except ImportError:
        yield
        return
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + _BUSY_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOCK_RETRY_SECONDS)
            except OSError:  # some network file systems have no locks
                break
        yield  # without the lock, too: one castray that was stopped must not stop them all
    finally:
        os.close(lock)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _storable(text: str | None) -> str | None:
    """SQLite holds UTF-8 only; bytes of file names that are none are shown as escapes."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _transfer(body: str) -> Transfer | None:
    """None for what no castray of this version can have written."""
    try:
        return msgspec.convert(json.loads(body), Transfer)
    except (ValueError, msgspec.ValidationError):
        return None
