"""What happened, kept beyond a run: events and transfers in one SQLite file.

Nothing that is wrong with the file takes castray down: the journal goes on in memory and says why
in ``problem``. Several castrays may write the same file at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from castray_tui.core.errors import NotFoundError
from castray_tui.core.models import Event, EventDraft, OrderKind, Transfer, TransferOrder

if TYPE_CHECKING:
    from castray_tui.core.journal_store import JournalStore

_Answer = TypeVar("_Answer")
_SHOWN_MATCHES = 5


class Journal:
    """Events and transfers, written and read by one thread of the journal's own.

    The file is opened with the first thing that is asked of it. Make one by ``Journal.open``.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._store: JournalStore | None = None
        # The file that gave out while it was written may still be read.
        self._past: JournalStore | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._closed = False
        self._last_id = 0
        self.problem: str | None = None
        """Why what happens is not kept where it should be, as a sentence with its remedy; None
        where all is well. Known once something was written or read."""

    @classmethod
    def open(cls, path: Path | None) -> Journal:
        """A journal in a file, which is made, with its folder, if it is not there; None keeps it in
        memory only. Never fails: see ``problem``.
        """
        return cls(path)

    async def add_event(self, draft: EventDraft) -> Event:
        """Writes an event and gives it its number, above those of all before it."""
        return await self._run(lambda store: store.add_event(draft))

    async def events(self, limit: int = 200, before_id: int | None = None) -> list[Event]:
        """Events, newest first.

        Args:
            limit: The most that are returned.
            before_id: Only those numbered below it, for the next page.
        """

        def read(store: JournalStore) -> list[Event]:
            found = store.events(limit, before_id)
            if len(found) < limit:
                lowest = found[-1].id if found else before_id
                found += self._of_past(lambda past: past.events(limit - len(found), lowest))
            return found

        return await self._run(read)

    async def save_transfer(self, transfer: Transfer) -> None:
        """Writes a transfer in place of what was written of it before."""
        await self._run(lambda store: store.save_transfer(transfer))

    async def transfers(
        self,
        limit: int = 200,
        state: str | None = None,
        *,
        cluster: str | None = None,
        since: float | None = None,
    ) -> list[Transfer]:
        """Transfers, newest first, of one state or of all.

        Args:
            limit: The most that are returned.
            state: Only those in this state.
            cluster: Only those with a source or a target on this cluster.
            since: Only those that started at this time, in seconds since the epoch, or later.
        """

        def read(store: JournalStore) -> list[Transfer]:
            found = {each.id: each for each in store.transfers(limit, state, cluster, since)}
            for each in self._of_past(lambda past: past.transfers(limit, state, cluster, since)):
                if each.id not in found and not store.transfers_named(each.id, 1):
                    found[each.id] = each
            return list(found.values())[:limit]

        return await self._run(read)

    async def transfer(self, id_or_prefix: str) -> Transfer:
        """One transfer by its ID or a prefix that no other has.

        Raises:
            NotFoundError: None is so called, or several are.
        """

        def read(store: JournalStore) -> list[Transfer]:
            found = store.transfers_named(id_or_prefix, _SHOWN_MATCHES)
            if [transfer.id for transfer in found] == [id_or_prefix]:
                return found
            named = {transfer.id: transfer for transfer in found}
            for transfer in self._of_past(
                lambda past: past.transfers_named(id_or_prefix, _SHOWN_MATCHES)
            ):
                named.setdefault(transfer.id, transfer)
            return list(named.values())

        found = await self._run(read) if id_or_prefix else []
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(transfer.id for transfer in found))
            raise NotFoundError(
                f'Several transfers begin with "{id_or_prefix}": {names}',
                remedy="Give more of the ID",
            )
        raise NotFoundError(
            f'No transfer "{id_or_prefix}" is known',
            remedy="`castray transfers` lists those that are",
        )

    async def was_changed_by_others(self) -> bool:
        """Whether anybody but this castray wrote to the file since this was last asked."""
        return await self._run(lambda store: store.was_changed_by_others())

    async def add_order(self, transfer_id: str, kind: OrderKind) -> int:
        """Leaves an order for the castray that runs a transfer; its number."""
        return await self._run(lambda store: store.add_order(transfer_id, kind))

    async def take_orders(self, transfer_ids: Collection[str]) -> list[TransferOrder]:
        """The orders that others left for these transfers, oldest first; each is given once."""
        return await self._run(lambda store: store.take_orders(transfer_ids))

    async def is_order_open(self, number: int) -> bool:
        """Whether nobody has taken an order yet."""
        return await self._run(lambda store: store.is_order_open(number))

    async def withdraw_order(self, number: int) -> bool:
        """Takes an order back; whether nobody had taken it."""
        return await self._run(lambda store: store.withdraw_order(number))

    async def close(self) -> None:
        """Writes what is under way and closes the file. What is asked afterwards fails."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_stores)
        self._thread.shutdown(wait=False)

    # --- in the journal's thread --------------------------------------------------------------

    async def _run(self, work: Callable[[JournalStore], _Answer]) -> _Answer:
        if self._closed:
            raise RuntimeError("the journal is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[JournalStore], _Answer]) -> _Answer:
        import sqlite3  # noqa: PLC0415  in this thread it does not hold up the first frame

        store = self._open_store()
        try:
            return work(store)
        except (sqlite3.Error, OSError) as error:
            return work(self._in_memory(str(error), past=store))

    def _open_store(self) -> JournalStore:
        import sqlite3  # noqa: PLC0415

        from castray_tui.core.journal_store import JournalStore  # noqa: PLC0415

        if self._store is not None and self._store.was_deleted:
            self._last_id = max(self._last_id, self._store.last_id)
            self._store.close()
            self._store = None
        if self._store is not None:
            return self._store
        if self._path is None:
            self._store = JournalStore(None)
            return self._store
        try:
            self._store = self._newest_usable(self._path)
        except (sqlite3.Error, OSError) as error:
            return self._in_memory(str(error), past=None)
        return self._store

    def _newest_usable(self, path: Path) -> JournalStore:
        from castray_tui.core.journal_store import (  # noqa: PLC0415
            SCHEMA_VERSION,
            JournalStore,
            NewerSchemaError,
        )

        try:
            return JournalStore(path, first_id=self._last_id + 1)
        except NewerSchemaError as newer:
            own = path.with_name(f"{path.stem}-{SCHEMA_VERSION}{path.suffix}")
            self.problem = (
                f"The journal {path} was written by a newer castray (format {newer.version}) and "
                f"is left alone; this castray (format {SCHEMA_VERSION}) keeps its own in {own}. "
                "Update castray to see both runs' history in one"
            )
            return JournalStore(own, first_id=self._last_id + 1)

    def _in_memory(self, reason: str, *, past: JournalStore | None) -> JournalStore:
        """Goes on without the file."""
        from castray_tui.core.journal_store import JournalStore  # noqa: PLC0415

        self.problem = (
            f"The journal {self._path} cannot be used ({reason}); what happens is kept in memory "
            f"and forgotten when castray ends. {_remedy(reason)}"
        )
        self._past = past
        if past is not None:
            self._last_id = max(self._last_id, past.last_id)
        self._store = JournalStore(None, first_id=self._last_id + 1)
        return self._store

    def _of_past(self, read: Callable[[JournalStore], list[_Answer]]) -> list[_Answer]:
        import sqlite3  # noqa: PLC0415

        if self._past is None:
            return []
        try:
            return read(self._past)
        except (sqlite3.Error, OSError):
            self._past.close()
            self._past = None
            return []

    def _close_stores(self) -> None:
        for store in (self._store, self._past):
            if store is not None:
                store.close()
        self._store = self._past = None


def _remedy(reason: str) -> str:
    if "full" in reason or "No space" in reason:
        return "Make room on that disk and start castray again"
    if "not a database" in reason or "malformed" in reason:
        return "Move the file away or delete it, and start castray again"
    if "locked" in reason:
        return "See which other castray holds it, and start castray again"
    return "Make the file and its folder writable, or set state_dir to another folder"
