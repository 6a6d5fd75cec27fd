"""Your own pictures as a data set: a folder, with class folders or captions if there are any, or an npz.

What makes a text of each picture, by `condition`:

- "captions": captions.csv, captions.txt or metadata.csv in the folder, each line with a file and its caption; else a
  text file beside each picture, cat.txt beside cat.jpg. Pictures without a caption are learned without text
- "labels": the name of the class folder that a picture lies in
- "none": nothing; the network learns to draw such pictures, and takes no prompt
- "auto": captions if there are any, else labels if there are two class folders or more, else nothing
"""

import csv
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from diffusion_lessons.images import open_picture
from diffusion_lessons.limits import TooLong, within

CONDITIONS = ("auto", "captions", "labels", "none")
FITS = ("crop", "pad")
ENDINGS = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif", "avif")
CAPTION_FILES = ("captions.csv", "captions.txt", "metadata.csv")
FILE_COLUMNS = ("file_name", "file", "filename", "image", "path", "picture")    # of a table with a header
TEXT_COLUMNS = ("caption", "text", "description", "prompt")
PATIENCE = 30.0            # seconds for one file, after which it is skipped
LARGEST_TEXT = 1_000_000   # bytes of a caption beside a picture; such a text file is something else
SIZES = (8, 256)           # sides of the square pictures that a network of the course can learn


class Entry(NamedTuple):
    """A picture's file, and its caption or label: "" where it has none."""

    path: Path
    text: str


class OwnPictures(NamedTuple):
    """Square pictures of one size, and what is known of each.

    x: (N, C, S, S) uint8, C = 1 if all are grey, else 3;  texts: N captions or labels, "" where there is none
    kind: "captions", "labels" or "none";  source: where they come from;  notes: sentences for whoever trains on them
    """

    x: Tensor
    texts: list[str]
    kind: str
    source: str
    notes: list[str]


def load_pictures(path: str | Path, size: int | None = None, fit: str = "crop", condition: str = "auto", *,
                  channels: int | None = None, largest: int = 32, progress: bool = False) -> OwnPictures:
    """Read a folder of pictures, an npz, or shards (see `shards`), as squares of one size; what cannot be read is
    skipped and reported.

    size: of a side in pixels; if left out, that of the pictures themselves, but at most `largest`
    fit: "crop" scales a picture until its shorter side fits and keeps the middle, "pad" scales the longer side and
    fills up with white;  condition: see above;  channels: 1 for grey, 3 for colour, by the pictures if left out
    Raises FileNotFoundError, and ValueError that says what to do, when there is nothing to train on.
    """
    path = Path(path).expanduser()
    for name, value, known in (("fit", fit, FITS), ("condition", condition, CONDITIONS)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
    if size is not None and (size % 4 or not SIZES[0] <= size <= SIZES[1]):
        raise ValueError(f"the size must be a multiple of 4 from {SIZES[0]} to {SIZES[1]}, not {size}")
    from diffusion_lessons.datasets import shards  # which uses what stands below

    if found := shards.find(path):
        return shards.load(found, path.resolve().stem, size, fit, condition, channels=channels, largest=largest,
                           progress=progress)
    if not path.exists():
        raise FileNotFoundError(f"there is no {str(path)!r}: name a folder with pictures, or an .npz file")
    if path.is_dir():
        entries, kind, notes = find_pictures(path, condition)
        size = size or natural_size([entry.path for entry in entries], largest)
        squares, skipped = read_all(entries, size, fit, progress)
        texts = [entries[k].text for k in squares]
    elif path.suffix.lower() == ".npz":
        arrays, texts, kind, notes = read_arrays(path, condition)
        sides = min(arrays.shape[1:3])
        size, skipped = size or as_size(sides, largest), []
        squares = {k: square(Image.fromarray(array), size, fit) for k, array in enumerate(arrays)}
    else:
        raise ValueError(f"{path} is neither a folder nor an .npz file: put pictures into a folder and name that")
    if not squares:
        raise ValueError(f"none of the {len(skipped)} pictures in {path} can be read: {skipped[0]}")
    if skipped:
        notes.append(f"skipped {len(skipped)} of {len(entries)} files that cannot be read: {some(skipped, 3)}")
    x = torch.from_numpy(np.stack(list(squares.values()))).permute(0, 3, 1, 2).contiguous()      # (N, 3, S, S)
    if channels == 1 or channels is None and (x == x[:, :1]).all():
        x = x.float().mean(1, keepdim=True).round().to(torch.uint8)
    if kind == "labels" and len(set(texts)) < 2:
        notes.append(f"all that can be read is of one class, {texts[0]!r}: learned without labels")
        texts, kind = [""] * len(texts), "none"
    return OwnPictures(x, texts, kind, path.resolve().name, notes)


# Which pictures there are

def find_pictures(folder: Path, condition: str) -> tuple[list[Entry], str, list[str]]:
    """All picture files in and below a folder, in the order of their names.  -> (entries, kind, notes)

    Raises ValueError when there are none, and when it is not clear what their labels are.
    """
    files = sorted(picture_files(folder))
    if not files:
        raise ValueError(f"there are no pictures in {folder}: it should hold files such as "
                         f"{', '.join('.' + ending for ending in ENDINGS[:5])}, in it or in one folder for each class")
    captions, notes = read_captions(folder, files) if condition in ("auto", "captions") else ({}, [])
    classes = {file: file.relative_to(folder).parts[0] for file in files if file.parent != folder}
    if condition == "captions" and not captions:
        raise ValueError(f"there are no captions in {folder}: write captions.csv with lines such as "
                         f"{files[0].name},a red house, or a text file beside each picture, {files[0].stem}.txt")
    if captions:
        missing = len(files) - len(captions)
        if missing and classes and condition == "auto":
            raise ValueError(f"{folder} has captions for {len(captions)} of {len(files)} pictures, and class folders: "
                             "choose with --condition captions or --condition labels")
        if missing:
            notes.append(f"{missing} of {len(files)} pictures have no caption: they are learned without text")
        return [Entry(file, captions.get(file, "")) for file in files], "captions", notes
    if condition == "none" or condition == "auto" and not classes:
        return [Entry(file, "") for file in files], "none", notes
    loose = [file.name for file in files if file not in classes]
    if loose and classes:
        names = some(sorted(set(classes.values())), 3)
        raise ValueError(f"{len(loose)} pictures lie beside the class folders {names}: "
                         f"{some(loose, 3)}. Move them into one, or choose --condition none to train without labels")
    if len(set(classes.values())) < 2:
        if condition == "labels":
            raise ValueError(f"labels need two class folders or more in {folder}: put the pictures of each class into "
                             "a folder with its name, or leave --condition out")
        notes.append("there is one class folder, so there is nothing to choose: learned without labels")
        return [Entry(file, "") for file in files], "none", notes
    return [Entry(file, classes[file]) for file in files], "labels", notes


def picture_files(folder: Path) -> Iterator[Path]:
    """The regular files below a folder whose names end as pictures' do, but for hidden ones."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in names:
            path = Path(place, name)
            if path.suffix[1:].lower() in ENDINGS and not name.startswith(".") and path.is_file():
                yield path


def read_captions(folder: Path, files: list[Path]) -> tuple[dict[Path, str], list[str]]:
    """The captions of a table in the folder, or else of text files beside the pictures.  -> ({file: caption}, notes)"""
    table = next((folder / name for name in CAPTION_FILES if (folder / name).is_file()), None)
    if table is None:
        beside = {file: file.with_suffix(".txt") for file in files}
        texts = {file: one_line(text.read_text(encoding="utf-8-sig", errors="replace"))
                 for file, text in beside.items() if text.is_file() and text.stat().st_size <= LARGEST_TEXT}
        return {file: text for file, text in texts.items() if text}, []
    known, unknown, again = by_name(folder, files), 0, 0
    found: dict[Path, str] = {}
    for name, caption in table_rows(table):
        file = known.get(name.strip().replace("\\", "/").removeprefix("./"))
        unknown, again = unknown + (file is None), again + (file in found)
        if file is not None and one_line(caption):
            found.setdefault(file, one_line(caption))
    notes = [f"{unknown} lines of {table.name} name no picture in the folder"] * bool(unknown)
    notes += [f"{again} pictures have more than one caption in {table.name}: the first one counts"] * bool(again)
    return found, notes


def by_name(folder: Path, files: list[Path]) -> dict[str, Path]:
    """Files by their path within the folder, and by their mere name where no other has it."""
    counts = Counter(file.name for file in files)
    short = {file.name: file for file in files if counts[file.name] == 1}
    return short | {file.relative_to(folder).as_posix(): file for file in files}


def table_rows(path: Path) -> Iterator[tuple[str, str]]:
    """(file, caption) of each line: of a .csv by its columns, of a .txt by the ending of the file's name."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if path.suffix == ".txt":
        line_of = re.compile(rf"\s*[\"']?(.+?\.(?:{'|'.join(ENDINGS)}))[\"']?[\s,;:|]+(.*)", re.IGNORECASE)
        yield from ((match[1], match[2]) for line in text.splitlines() if (match := line_of.match(line)))
        return
    first = text.split("\n", 1)[0]
    rows = csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count))
    file_at, text_at = 0, 1
    for k, row in enumerate(rows):
        names = [cell.strip().lower() for cell in row]
        if k == 0 and set(names) & {*FILE_COLUMNS, *TEXT_COLUMNS}:
            file_at = next((names.index(name) for name in FILE_COLUMNS if name in names), 0)
            text_at = next((names.index(name) for name in TEXT_COLUMNS if name in names), 1)
        elif len(row) > max(file_at, text_at):
            yield row[file_at], row[text_at]


def one_line(text: str) -> str:
    """A caption without line breaks and double spaces."""
    return " ".join(text.split())


# What is in them

def natural_size(paths: Sequence[Path | BinaryIO], largest: int) -> int:
    """The size of the pictures themselves, by the headers of up to 100 of them, but at most `largest`."""
    sides = []
    for path in paths[::-(-len(paths) // 100)]:
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(path) as file:
                sides.append(min(file.size))
        except Exception:    # reported when it is read
            continue
    return as_size(int(np.median(sides)) if sides else largest, largest)


def as_size(side: int, largest: int) -> int:
    """The multiple of 4 nearest below a side, within SIZES and at most `largest`."""
    return min(largest, max(SIZES[0], side - side % 4))


def read_all(entries: list[Entry], size: int, fit: str, progress: bool) -> tuple[dict[int, np.ndarray], list[str]]:
    """Read the pictures one by one.  -> ({number of the entry: (S, S, 3) uint8}, ["name: why it is skipped"])"""
    squares, skipped = {}, []
    bar = tqdm(entries, desc="reading", unit="picture", disable=not progress, leave=False)
    with warnings.catch_warnings(action="ignore"):    # of damaged EXIF data and of large pictures
        for k, entry in enumerate(bar):
            try:
                squares[k] = within(PATIENCE, read_square, entry.path, size, fit)
            except TooLong:
                skipped.append(f"{entry.path.name} (takes more than {PATIENCE:g} seconds)")
            except Exception as error:    # whatever it is, the other pictures count
                skipped.append(f"{entry.path.name} ({reason(entry.path, error)})")
    return squares, skipped


def read_square(path: Path, size: int, fit: str) -> np.ndarray:
    """One picture file as a square.  -> (S, S, 3) uint8"""
    return square(open_picture(path, at_least=2 * size), size, fit)


def square(image: Image.Image, size: int, fit: str) -> np.ndarray:
    """A picture scaled to size x size: its middle ("crop"), or all of it on white ("pad").  -> (S, S, 3) uint8"""
    if image.mode == "F":
        image = Image.fromarray(np.asarray(image).round().clip(0, 255).astype(np.uint8))
    image = image.convert("RGB")
    if fit == "crop":
        return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))
    return np.asarray(ImageOps.pad(image, (size, size), Image.Resampling.LANCZOS, color="white"))


def reason(path: Path, error: Exception) -> str:
    """Why a picture is skipped, in a few words."""
    if path.suffix.lower() in (".heic", ".heif"):
        return "HEIC: export it as JPEG"
    if path.stat().st_size == 0:
        return "the file is empty"
    cause = error.__cause__ or error
    said = one_line(str(cause)).replace(str(path), "it").replace(repr(str(path)), "it")
    return "no picture, or damaged" if "cannot identify" in said else said[:100] or type(cause).__name__


def some(names: list[str], count: int) -> str:
    """ "a, b, c and 7 more" """
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")


# Arrays

def read_arrays(path: Path, condition: str) -> tuple[np.ndarray, list[str], str, list[str]]:
    """The pictures of an npz: x (N, H, W) or (N, H, W, 3) uint8; y (N,) labels or captions (or x_train, y_train).

    Labels are numbers or words; words that are nearly all different are captions.  -> (pictures, texts, kind, notes)
    Raises ValueError.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = (next((file[key] for key in (name, f"{name}_train") if key in file), None) for name in "xy")
    except Exception as error:    # one changed byte can raise almost any error
        raise ValueError(f"{path} is damaged, or not an npz file of arrays ({type(error).__name__})") from error
    if x is None:
        raise ValueError(f"{path} has no array x: save it with np.savez(path, x=pictures, y=labels)")
    if x.dtype != np.uint8 or not (x.ndim == 3 or x.ndim == 4 and x.shape[3] in (1, 3)) or 0 in x.shape:
        raise ValueError(f"{path}: x must be (N, H, W) or (N, H, W, 3) uint8 from 0 to 255, not {x.shape} {x.dtype}")
    x = x[..., 0] if x.shape[3:] == (1,) else x
    if y is None or condition == "none":
        return x, [""] * len(x), "none", []
    if y.shape not in ((len(x),), (len(x), 1)) or y.dtype.kind not in "iuU":
        raise ValueError(f"{path}: y must be {len(x)} whole numbers or words, one for each picture, not {y.shape} "
                         f"{y.dtype}; choose --condition none to do without")
    texts = [one_line(str(word)) for word in y.ravel().tolist()]
    if condition == "auto":
        condition = "captions" if y.dtype.kind == "U" and len(set(texts)) > len(texts) / 2 else "labels"
    return x, texts, condition, []
