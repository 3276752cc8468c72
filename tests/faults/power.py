"""Power loss: an ext4 disk in a file, of which only that survives which had reached the file.

The kernel writes to the file what was synced (and what it writes back by itself). The copy of the
file at the moment of the loss is then mounted, as a disk is after a power loss.
"""

import shutil
import subprocess
from pathlib import Path

SIZE = "160M"


class Disk:
    """An ext4 file system in a file, mounted on a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.image = folder, folder.with_suffix(".img")
        self.options = ("loop", "commit=900", *options)  # seconds between commits of the journal
        subprocess.run(["truncate", "-s", SIZE, self.image], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", self.image], check=True)
        folder.mkdir(parents=True)
        self.mount()

    def mount(self) -> None:
        """Mount the disk."""
        command = ["mount", "-o", ",".join(self.options), str(self.image), str(self.folder)]
        subprocess.run(command, check=True)

    def unmount(self) -> None:
        """Unmount the disk, also where it is busy."""
        subprocess.run(["umount", "-l", str(self.folder)], check=False)

    def sync(self) -> None:
        """Write everything to the file."""
        subprocess.run(["sync", "-f", str(self.folder)], check=True)

    def lose_power(self) -> None:
        """Go back to what has reached the file. The processes that write must be dead."""
        survived = self.image.with_suffix(".survived")
        shutil.copyfile(self.image, survived)
        self.unmount()
        survived.replace(self.image)
        self.mount()


def available() -> bool:
    """Return whether a disk can be made here: needs root, mount and mkfs.ext4."""
    import os

    return os.geteuid() == 0 and all(map(shutil.which, ("mount", "mkfs.ext4")))
