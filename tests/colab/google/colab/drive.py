"""The drive of nobody: a folder."""

from pathlib import Path


def mount(mountpoint, force_remount=False):
    (Path(mountpoint) / "MyDrive").mkdir(parents=True, exist_ok=True)
    print(f"Mounted at {mountpoint}")
