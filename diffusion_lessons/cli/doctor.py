"""Is this machine ready? Looks at versions, device, data sets and weights. Changes and downloads nothing."""

import importlib.metadata
import os
import platform
import shutil
import sys
import textwrap

import torch

from diffusion_lessons import __version__, runtime, weights
from diffusion_lessons.datasets.captions import WORDS
from diffusion_lessons.datasets.files import data_folder, read_npz, read_torchvision

NEEDED = ("torch", "torchvision", "numpy", "matplotlib", "ipywidgets", "ipython", "safetensors", "scikit-image", "tqdm")
SHIPPED = (  # what the lessons cannot do without
    "critters", "critters_critic", "critters_second", "digits", "digits_judge", "digits_real",
    "gan_healthy", "gan_collapsed", "gan_no_noise",
)  # fmt: skip
DATA_SETS = {
    # name: (file in the Keras layout, shape of a picture, torchvision's class and folder, what to do without)
    "MNIST": ("mnist.npz", (28, 28), "MNIST", "MNIST", "the lessons draw their own digits instead"),
    "CIFAR-10": ("cifar10.npz", (32, 32, 3), "CIFAR10", "cifar-10-batches-py",
                 "the cells that need it use shipped weights and results"),
}  # fmt: skip


def examine():
    """Print the findings.  -> 0, or 1 when something is broken or missing that the lessons need"""
    print(f"Diffusion Lessons {__version__}")
    advice = look_at_software()
    look_at_machine()
    advice += look_at_data()
    advice += look_at_weights()
    look_at_words()
    print()
    if not advice:
        print("All is well.")
    for line in advice:
        print(f"What to do: {line}")
    return 1 if advice else 0


def look_at_software():
    """Print the versions.  -> what to do about what is not installed"""
    print(f"  {'Python':<12} {platform.python_version()}  ({sys.executable})")
    missing = []
    for name in (*NEEDED, "jupyterlab"):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
            if name == "jupyterlab":  # Colab and editors bring their own notebook
                found += " (needed only to open the notebooks here: pip install -e '.[lab]')"
            else:
                missing.append(name)
        print(f"  {name:<12} {found}")
    return [f"{name} is not installed: call pip install -e . in the course's folder" for name in missing]


def look_at_machine():
    print("\nMachine")
    print(f"  {'system':<12} {platform.system()} {platform.release()}, {platform.machine()}")
    print(f"  {'device':<12} {runtime.name(runtime.device())}")
    print(f"  {'CPU':<12} {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    print(f"  {'memory':<12} {main_memory()}")


def main_memory():
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return "not known on this system"
    return f"{pages * size / 2**30:.1f} GiB"


def look_at_data():
    """Print which data sets are there.  -> what to do about broken ones"""
    folder, advice = data_folder(), []
    named = "" if os.environ.get("DIFFUSION_LESSONS_DATA") else "not "
    print(f"\nData in {folder}  (DIFFUSION_LESSONS_DATA is {named}set)")
    print(f"  {'free space':<12} {free_space(folder)}")
    for name, (file, shape, dataset, subfolder, without) in DATA_SETS.items():
        try:
            if (folder / file).exists():
                found = f"there: {read_npz(folder / file, 'test', shape).source}"
            elif (folder / subfolder).exists():
                import torchvision.datasets as known

                dataset = getattr(known, dataset)
                found = f"there: {read_torchvision(dataset, folder, subfolder, 'test', shape).source}"
            else:
                found = f"not there: {without}.\n{'':15}Its first use downloads it, or put {file} there."
        except ValueError as error:
            found = "broken"
            advice.append(str(error))
        print(f"  {name:<12} {found}")
    return advice


def free_space(folder):
    while not folder.exists():
        folder = folder.parent
    return f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB"


def look_at_words():
    """Print all words that a sentence about critters may have."""
    print(f"\nWords that critters can be asked for with ({len(WORDS)})")
    print(textwrap.fill(" ".join(WORDS), 100, initial_indent="  ", subsequent_indent="  "))


def look_at_weights():
    """Print which weights are there and whether they are whole.  -> what to do about the others"""
    print(f"\nWeights in {weights.FOLDER}")
    advice = []
    for name in sorted({*weights.available(), *SHIPPED}):
        try:
            tensors, card = weights.load(name)
        except (ValueError, OSError) as error:
            print(f"  {name:<23} missing or broken")
            advice.append(f"{error}" if name in weights.available() else
                          f"the weights {name!r} are missing: get them again, for instance with git checkout")
            continue
        numbers = sum(x.numel() for x in tensors.values())
        size = (weights.FOLDER / f"{name}.safetensors").stat().st_size
        about = card.get("data", "no data named")
        print(f"  {name:<23} whole: {numbers:,} numbers, {size / 2**20:.1f} MiB; {about}")
    return advice
