"""Taking in a tree: into a staging folder, and from there under its real names.

The staging folder ``.castray-<id>-<random>.part`` lies beside the tree to be, which one rename then
publishes; or, where that folder is there already, inside it, and ``tree_merge.py`` puts one by one
what is new into its place.
"""

# ruff: noqa: D102  (the methods are documented at Destination)

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import Dict, List, Optional, Tuple

from . import files, janitor
from .disk_sync import sync_file_system
from .folders import FolderCache, open_folder
from .manifest import Manifest, part_name
from .part_file import SpaceCheck
from .patterns import Patterns
from .staging import Destination, Json
from .tree_merge import Survey, complete, move_all, refuse_existing, remove_others, set_folders
from .written_file import FLUSH_EVERY_BYTES as FILE_FLUSH_BYTES
from .written_file import Flusher, WrittenFile

_OPEN_FILES = 8
# Up to so many files are synced one by one, which leaves alone what others write to the disk.
_SYNCED_SINGLY = 32
_FLUSH_EVERY_BYTES = 64 * 1024 * 1024
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LARGE_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TreeDestination(Destination):
    """A tree of folders, files and links. Arguments and errors are those of ``Destination``."""

    def __init__(self, order: Json, manifest: Manifest) -> None:
        super().__init__(order, manifest)
        self._deletes = bool(order.get("delete"))
        try:
            self._patterns = Patterns(order.get("include") or [], order.get("exclude") or [])
        except ValueError as error:
            raise files.FileRefusedError("pattern", str(error)) from error
        self._files = manifest.files
        self._space = SpaceCheck(self.path, self.reserve_bytes)
        self._lock = threading.RLock()
        self._written_bytes = 0
        self._whole = bytearray(len(self._files))
        self._ends: Dict[int, int] = {}
        self._open: Dict[int, WrittenFile] = {}
        self._holds_mode: Dict[int, bool] = {}
        self._flusher: Optional[Flusher] = None
        self._made_folders: List[str] = []
        self._part = ""
        self._janitor: Optional[janitor.Janitor] = None
        self._staged: Optional[FolderCache] = None
        self._target: Optional[FolderCache] = None
        self._is_published = False
        try:
            self._make()
        except OSError as error:
            self.discard()
            raise files.refusal_of(error, self.path) from error
        except files.FileRefusedError:
            self.discard()
            raise

    @property
    def written_bytes(self) -> int:
        return self._written_bytes

    def write(self, number: int, offset: int, view: memoryview) -> None:
        try:
            file = self._large(number)
            self._space.check(self._staging().top_fd, len(view))
            file.write_at(offset, view)
            self._note_end(number, file)
        except OSError as error:
            raise self._refusal(error, number) from error
        # Larger ones see to it themselves.
        if file.end < FILE_FLUSH_BYTES and self._written_bytes >= _FLUSH_EVERY_BYTES:
            self._flush()

    def skip_hole(self, number: int, offset: int, length: int) -> None:
        try:
            file = self._large(number)
            file.skip(offset, length)
            self._note_end(number, file)
        except OSError as error:
            raise self._refusal(error, number) from error

    def write_whole(self, number: int, view: memoryview) -> None:
        entry = self._files[number]
        size = len(view)
        if size != entry.size:
            raise files.FileRefusedError("digest", "{} is not whole".format(self._name(number)))
        folder, _, name = entry.path.rpartition("/")
        try:
            with self._lock:
                self._space.check(self._staging().top_fd, size)
                # This is done for every small file: each call into the kernel would be felt.
                fd = self._create(name, self._staging().fd(folder), entry.mode)
                try:
                    if size and os.write(fd, view) != size:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
                finally:
                    os.close(fd)
                if not self._whole[number]:
                    self._whole[number] = 1
                    self._written_bytes += size
        except OSError as error:
            raise self._refusal(error, number) from error
        if self._written_bytes >= _FLUSH_EVERY_BYTES:
            self._flush()

    def truncate_to(self, number: int, offset: int) -> None:
        try:
            file = self._large(number)
            file.truncate_to(offset)
            self._note_end(number, file)
        except OSError as error:
            raise self._refusal(error, number) from error

    def descriptor(self, number: int) -> int:
        folder, _, name = self._files[number].path.rpartition("/")
        try:
            with self._lock:
                cache = self._staging()
                if self._is_published or number in self.skip:
                    cache = self._target or cache
                return os.open(name, _READ, dir_fd=cache.fd(folder))
        except OSError as error:
            raise self._refusal(error, number) from error

    def publish(self) -> None:
        try:
            with self._lock:
                self._finish_files()
            is_done = False
            while not is_done:
                with self._lock:
                    survey, folders = self._complete()
                # Others may go on reading while the disk takes its time.
                self._sync(folders)
                with self._lock:
                    is_done = self._give_names(survey)
        except OSError as error:
            if error.errno == errno.EEXIST:
                reason = "exists: {}".format(error.filename2 or error.filename or self.path)
                raise files.FileRefusedError("exists", reason) from error
            raise files.refusal_of(error, self.path) from error

    def discard(self) -> None:
        with self._lock:
            if self._flusher is not None:
                self._flusher.stop()
                self._flusher = None
            for file in self._open.values():
                file.close()
            self._open.clear()
            for cache in (self._staged, self._target):
                if cache is not None:
                    cache.close()
            self._staged = self._target = None
            self._clear_away()

    # --- the staging folder -------------------------------------------------------------------

    def _make(self) -> None:
        # Names that this node's file names could not spell; UnicodeError is no OSError.
        try:
            os.fsencode(self.path + "".join(entry.path for entry in self.manifest.entries))
        except UnicodeError as error:
            raise files.FileRefusedError("name", "{}: {}".format(self.path, error)) from error
        holder = self.path
        try:
            self._target = FolderCache(self.path, open_folder(self.path), False)
        except FileNotFoundError:
            entries = self.manifest.entries
            if entries and not entries[0].path:
                holder = os.path.dirname(self.path)
                self._made_folders = janitor.make_folders(holder)
            else:  # Several sources side by side: what they go into is none of them.
                self._made_folders = janitor.make_folders(holder)
                self._target = FolderCache(self.path, open_folder(self.path), False)
        janitor.sweep(holder)
        part = os.path.join(holder, part_name(self.part_id))
        # Before it is there, so that there is no moment at which it would be left behind.
        self._janitor = janitor.Janitor(part, self._made_folders)
        os.mkdir(part, 0o700)
        self._part = part
        self._staged = FolderCache(part, open_folder(part), True)
        janitor.lock(self._staged.top_fd)

    def _clear_away(self) -> None:
        """Removes what is still staged, and says that nothing is left to be removed."""
        if self._part:
            janitor.remove_tree(self._part)
            self._part = ""
        if not self._is_published:
            janitor.remove_folders(self._made_folders)
            self._made_folders = []
        if self._janitor is not None:
            self._janitor.dismiss()
            self._janitor = None

    def _staging(self) -> FolderCache:
        if self._staged is None:
            raise files.FileRefusedError("gone", "{}: this target has ended".format(self.path))
        return self._staged

    def _name(self, number: int) -> str:
        return os.path.join(self.path, self._files[number].path)

    def _refusal(self, error: OSError, number: int) -> files.FileRefusedError:
        return files.refusal_of(error, self._name(number))

    # --- files --------------------------------------------------------------------------------

    def _create(self, name: str, folder_fd: int, mode: int) -> int:
        try:
            fd = os.open(name, _NEW_FILE, mode, dir_fd=folder_fd)
        except FileExistsError:
            os.unlink(name, dir_fd=folder_fd)  # It came before, in another attempt.
            fd = os.open(name, _NEW_FILE, mode, dir_fd=folder_fd)
        # What umask and default ACLs leave of a mode is the same for every file in here.
        holds = self._holds_mode.get(mode)
        if holds is None:
            holds = stat.S_IMODE(os.fstat(fd).st_mode) == mode
            self._holds_mode[mode] = holds
        if not holds:
            os.fchmod(fd, mode)
        return fd

    def _large(self, number: int) -> WrittenFile:
        """The open file; of those that were opened before, the oldest is closed."""
        with self._lock:
            file = self._open.get(number)
            if file is not None:
                return file
            while len(self._open) >= _OPEN_FILES:
                self._open.pop(next(iter(self._open))).close(tells_errors=True)
            folder, _, name = self._files[number].path.rpartition("/")
            fd = os.open(name, _LARGE_FILE, 0o600, dir_fd=self._staging().fd(folder))
            file = self._open[number] = WrittenFile(fd)
            file.end = self._ends.setdefault(number, 0)
            return file

    def _note_end(self, number: int, file: WrittenFile) -> None:
        with self._lock:
            self._written_bytes += file.end - self._ends[number]
            self._ends[number] = file.end

    def _flush(self) -> None:
        with self._lock:
            if self._flusher is None:
                fd = self._staging().top_fd
                self._flusher = Flusher(lambda: sync_file_system(fd), _FLUSH_EVERY_BYTES)
            self._flusher.flush_up_to(self._written_bytes)

    def _finish_files(self) -> None:
        """Gives large files their modes and times. Raises where not all of it has come."""
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            flusher.stop()
            if flusher.error is not None:
                raise flusher.error
        for number, entry in enumerate(self._files):
            if not self._whole[number] and number not in self.skip:
                if self._ends.get(number) != entry.size:
                    reason = "{} is not whole".format(self._name(number))
                    raise files.FileRefusedError("digest", reason)
                self._large(number).finish(entry.size, entry.mode, entry.mtime_ns)
        while self._open:
            self._open.popitem()[1].close(tells_errors=True)

    # --- publishing ---------------------------------------------------------------------------

    def _complete(self) -> Tuple[Optional[Survey], List[str]]:
        """Makes what nothing has come for: folders and links, with their modes and times.

        Returns:
            What is there already, where something is, and the folders that will be new.
        """
        entries = self.manifest.entries
        folders = [entry for entry in entries if entry.kind == "folder"]
        if self._target is None:
            complete(self._staging(), folders, [one for one in entries if one.kind == "link"])
            set_folders(self._staging(), folders)
            return None, [entry.path for entry in folders]
        survey = Survey(self.path, self.manifest, self._target)
        if self.overwrite == "never":
            refuse_existing(survey, self.manifest)
        new = [entry for entry in folders if entry.path not in survey.existing]
        complete(self._staging(), new, survey.links_to_make)
        # A folder that nobody may write to could not be moved; it gets its mode afterwards.
        tops = {entry.path for entry in survey.new_tops}
        set_folders(self._staging(), [one for one in new if one.path not in tops])
        return survey, [entry.path for entry in new]

    def _give_names(self, survey: Optional[Survey]) -> bool:
        """Publishes what is complete and synced. Whether that is done, and not to be merged."""
        if survey is not None and self._target is not None:
            self._merge(survey, self._target)
            return True
        try:
            os.rename(self._part, self.path)  # The usual case: a tree where there was none.
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Somebody else made it meanwhile.
            os.fchmod(self._staging().top_fd, 0o700)
            self._target = FolderCache(self.path, open_folder(self.path), False)
            return False
        self._part = ""
        self._is_published = True
        _sync_path(os.path.dirname(self.path))
        self._clear_away()
        return True

    def _merge(self, survey: Survey, target: FolderCache) -> None:
        caches = (self._staging(), target)
        move_all(self.manifest, survey, caches, self.skip, self.overwrite != "never")
        self._is_published = True
        set_folders(target, survey.new_tops)
        if self._deletes:
            remove_others(self.path, self.manifest, survey, target, self._patterns)
        # It lies in the target's folder, whose time is set next.
        janitor.remove_tree(self._part)
        old = [one for one in self.manifest.entries if one.path in survey.existing]
        set_folders(target, [one for one in old if one.kind == "folder"], keeps_others=True)
        tops = {entry.path for entry in survey.new_tops}
        touched = survey.to_write | tops | {path.rpartition("/")[0] for path in tops}
        if len(touched) <= _SYNCED_SINGLY or not sync_file_system(target.top_fd):
            for path in touched:
                os.fsync(target.fd(path))
        self._clear_away()

    def _sync(self, folders: List[str]) -> None:
        """Returns when all that is staged is on the disk."""
        numbers = [n for n in range(len(self._files)) if self._whole[n] or n in self._ends]
        if len(numbers) > _SYNCED_SINGLY and sync_file_system(self._staging().top_fd):
            return
        try:
            for number in numbers:
                folder, _, name = self._files[number].path.rpartition("/")
                with self._lock:
                    fd = os.open(name, _READ, dir_fd=self._staging().fd(folder))
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            for path in folders:
                with self._lock:
                    os.fsync(self._staging().fd(path))
        except PermissionError:
            os.sync()  # Their modes keep even their owner from opening them.


def _sync_path(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
