"""diffusion-lessons doctor: is this machine ready? Changes and downloads nothing."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
import textwrap
from pathlib import Path

from diffusion_lessons import __version__

SUMMARY = "is this machine ready? versions, device, data sets, weights, and what to do about what is missing"
DESCRIPTION = "Is this machine ready? Looks and reports; changes nothing and downloads nothing."
EXAMPLES = """examples:
  {prog} doctor
"""

NEEDED = ("torch", "torchvision", "numpy", "matplotlib", "ipywidgets", "ipython", "safetensors", "scikit-image", "tqdm")
SHIPPED = (  # what the lessons need
    "critters", "critters_classifier", "critters_second", "digits", "digits_classifier", "digits_real",
    "gan_healthy", "gan_collapsed", "gan_no_noise",
)  # fmt: skip
DATA_SETS = {
    # name: (file in the Keras layout, shape of a picture, torchvision's class and folder, what to do without)
    "MNIST": ("mnist.npz", (28, 28), "MNIST", "MNIST", "the lessons use synthetic digits instead"),
    "CIFAR-10": ("cifar10.npz", (32, 32, 3), "CIFAR10", "cifar-10-batches-py",
                 "the cells that need it use shipped weights and results"),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This command has no options."""


def run(options: argparse.Namespace) -> int:
    """Print the findings.  -> 0, or 1 if something that the lessons need is broken or missing"""
    print(f"Diffusion Lessons {__version__}")
    advice = check_software()
    print_machine()
    advice += check_data()
    advice += check_weights()
    print_vocab()
    print()
    if not advice:
        print("All is well.")
    for line in advice:
        print(f"What to do: {line}")
    return 1 if advice else 0


def check_software() -> list[str]:
    """Print the versions.  -> what to do about what is not installed"""
    print(f"  {'Python':<12} {platform.python_version()}  ({sys.executable})")
    missing = []
    for name in (*NEEDED, "jupyterlab"):
        found = version(name)
        if found is None:
            found = "not installed"
            if name == "jupyterlab":  # Colab and editors bring their own notebook
                found += " (needed only to open the notebooks here: pip install -e '.[lab]')"
            else:
                missing.append(name)
        print(f"  {name:<12} {found}")
    return [f"{name} is not installed: run pip install -e . in the course's folder" for name in missing]


def version(name: str) -> str | None:
    """The version of an installed package, None if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def print_machine() -> None:
    """Print the system, the device, the cores and the memory."""
    import torch

    from diffusion_lessons import runtime

    print("\nMachine")
    print(f"  {'system':<12} {platform.system()} {platform.release()}, {platform.machine()}")
    print(f"  {'device':<12} {runtime.name(runtime.device())}")
    print(f"  {'CPU':<12} {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    print(f"  {'memory':<12} {main_memory()}")


def main_memory() -> str:
    """The main memory, in words."""
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return "unknown on this system"
    return f"{pages * size / 2**30:.1f} GiB"


def check_data() -> list[str]:
    """Print which data sets are there.  -> what to do about broken ones"""
    from diffusion_lessons.datasets.files import Unreadable, data_folder

    folder, advice = data_folder(), []
    named = "" if os.environ.get("DIFFUSION_LESSONS_DATA") else "not "
    print(f"\nData in {folder}  (DIFFUSION_LESSONS_DATA is {named}set)")
    print(f"  {'free space':<12} {free_space(folder)}")
    for name in DATA_SETS:
        try:
            found = data_set(name, folder)
        except PermissionError as error:    # the folder that it lies in cannot even be looked into
            found = "cannot be read: permission denied"
            advice.append(str(Unreadable(error.filename or folder)))
        except ValueError as error:
            found = "cannot be read: permission denied" if isinstance(error, Unreadable) else "damaged"
            advice.append(str(error))
        print(f"  {name:<12} {found}")
    return list(dict.fromkeys(advice))


def data_set(name: str, folder: Path) -> str:
    """Read the training and the test pictures of a data set.  -> whether it is in this folder, in words

    Raises ValueError that says what to do if it is damaged, Unreadable or PermissionError if it may not be read.
    """
    from diffusion_lessons.datasets.files import check_readable, read_npz, read_torchvision

    file, shape, dataset, subfolder, without = DATA_SETS[name]
    if folder.is_dir():
        check_readable(folder, inside=False)
    if (folder / file).exists():
        return "there: " + [read_npz(folder / file, split, shape).source for split in ("train", "test")][0]
    if (folder / subfolder).exists():
        import torchvision.datasets

        kind = getattr(torchvision.datasets, dataset)
        read = [read_torchvision(kind, folder, subfolder, split, shape).source for split in ("train", "test")]
        return "there: " + read[0]
    return f"not there: {without}, unless a download works.\n{'':15}To bring it, put {file} into {folder}."


def free_space(folder: Path) -> str:
    """The free space of the disk that a folder is on, or will be on."""
    try:
        while not folder.exists():
            folder = folder.parent
        return f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB"
    except OSError as error:
        return f"unknown ({error.strerror})"


def print_vocab() -> None:
    """Print all words that a prompt about critters may have."""
    from diffusion_lessons.datasets.captions import VOCAB

    print(f"\nWords that a prompt about critters may have ({len(VOCAB)})")
    print(textwrap.fill(" ".join(VOCAB), 100, initial_indent="  ", subsequent_indent="  "))


def check_weights() -> list[str]:
    """Print which weights are there and whether they are intact.  -> what to do about the others"""
    from diffusion_lessons import weights

    print(f"\nWeights in {weights.FOLDER}")
    advice = []
    for name in sorted({*weights.available(), *SHIPPED}):
        try:
            tensors, card = weights.load(name)
        except (ValueError, OSError) as error:
            print(f"  {name:<23} missing or broken")
            advice.append(about_weights(name, error))
            continue
        numbers = sum(x.numel() for x in tensors.values())
        size = (weights.FOLDER / f"{name}.safetensors").stat().st_size
        print(f"  {name:<23} intact: {numbers:,} numbers, {size / 2**20:.1f} MiB; {card.get('data', 'no data named')}")
    return advice


def about_weights(name: str, error: Exception) -> str:
    """What to do about weights that could not be loaded."""
    from diffusion_lessons import weights

    return (str(error) if name in weights.available() else
            f"the weights {name!r} are missing: get them again, for instance with git checkout")
