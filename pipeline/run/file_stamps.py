"""Path, time, size and inode of files: equal stamps count as equal content, as in DVC."""

import os
import stat


def file_stamps(path: str) -> tuple[tuple[str, int, int, int], ...]:
    """Return path, time of the last change in ns, size and inode of a file, or of all in a folder.

    The result changes whenever the file, or a file in the folder, is written.
    """
    info = os.stat(path)  # noqa: PTH116 - asked for every input of every stage
    if not stat.S_ISDIR(info.st_mode):
        return ((path, info.st_mtime_ns, info.st_size, info.st_ino),)
    with os.scandir(path) as entries:
        inside = sorted(entry.path for entry in entries)
    return tuple(stamp for each in inside for stamp in file_stamps(each))
