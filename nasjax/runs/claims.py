"""Which processes use an archive: each holds a lock while it runs, so that claims of ended processes are recognised.

The lock is `flock` on a file in `ARCHIVE.claims/`. The kernel releases it when the process ends, even if it is killed, so no
timeouts are needed. On a network file system this needs working locks, as SQLite itself does.
"""

import fcntl
import os
import socket
import uuid
from pathlib import Path
from typing import IO


class Claimant:
    """One run that claims architectures of an archive.

    `name` identifies it in the archive's claims: host, process id and random letters.
    """

    def __init__(self, archive: Path):
        self._folder = archive.with_name(f"{archive.name}.claims")
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock_file: IO[str] | None = None

    def acquire(self) -> None:
        """Takes the lock, unless it is held already."""
        while self._lock_file is None:
            self._folder.mkdir(exist_ok=True)
            try:
                file = (self._folder / self.name).open("w", encoding="utf-8")
            except FileNotFoundError:  # Another process has just removed the folder, see `release`.
                continue
            fcntl.flock(file, fcntl.LOCK_EX)
            # Before it was locked, another process may have removed the file as that of an ended process.
            if (self._folder / self.name).exists():
                self._lock_file = file
            else:
                file.close()

    def is_running(self, name: str) -> bool:
        """Whether the claimant of that name still runs; if not, its lock file is removed."""
        path = self._folder / name
        try:
            with path.open("r+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def release(self) -> None:
        """Releases the lock, and removes the lock files of killed processes; the last claimant removes the folder."""
        if self._lock_file is not None:
            (self._folder / self.name).unlink(missing_ok=True)
            self._lock_file.close()
            self._lock_file = None
        try:
            for other in self._folder.iterdir():
                self.is_running(other.name)
            self._folder.rmdir()
        except OSError:  # It does not exist, or is in use by others.
            return
