"""Which processes are at work on an archive: each holds a lock of its own beside it for as long as it lives.

The lock is `flock` on a file in `ARCHIVE.claims/`. The kernel drops it when the process ends, however it ends, so nobody
waits for the dead and no clock is compared. On a network file system that needs working locks, as SQLite itself does.
"""

import fcntl
import os
import socket
import uuid
from pathlib import Path
from typing import IO


class Claimant:
    """One run at work on an archive, by a name that others find in its claims (host, process, and some random letters)."""

    def __init__(self, archive: Path):
        self._folder = archive.with_name(f"{archive.name}.claims")
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._held: IO[str] | None = None

    def appear(self) -> None:
        """Takes the lock, where it is not held yet."""
        while self._held is None:
            self._folder.mkdir(exist_ok=True)
            try:
                file = (self._folder / self.name).open("w")
            except FileNotFoundError:  # Another one, leaving, has just removed the folder.
                continue
            fcntl.flock(file, fcntl.LOCK_EX)
            # Another one may have taken the file for that of a dead process before it was locked.
            if (self._folder / self.name).exists():
                self._held = file
            else:
                file.close()

    def lives(self, name: str) -> bool:
        """Whether the claimant of that name is still at work; if not, what is left of it is removed."""
        path = self._folder / name
        try:
            with path.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def leave(self) -> None:
        """Lets go of the lock, and removes those of processes that were killed; the last one takes the folder away."""
        if self._held is not None:
            (self._folder / self.name).unlink(missing_ok=True)
            self._held.close()
            self._held = None
        try:
            for other in self._folder.iterdir():
                self.lives(other.name)
            self._folder.rmdir()
        except OSError:  # There is none, others are still at work, or another one was quicker.
            return
