"""WebDataset shards as a data set: tar files in which the files of one picture share a name.

    000042.jpg, and where there is one a caption, 000042.txt, or a label, 000042.cls

Such sets can be far larger than the memory. The library webdataset reads them once, as a stream. Each picture becomes
its square at once, and the squares go to a temporary file (in the folder that TMPDIR names), which is then mapped into
memory as one tensor: 3 KB for a picture of 32x32 in colour. The system keeps there what it has room for.
"""

import io
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from diffusion_lessons.datasets.folder import (
    ENDINGS,
    OwnPictures,
    natural_size,
    one_line,
    picture_files,
    some,
    square,
)
from diffusion_lessons.images import open_picture

MISSING = "reading WebDataset shards needs the package webdataset: pip install webdataset"


def find(path: Path) -> list[Path]:
    """The shards that a path names: a .tar, all of a folder without pictures, or photos-{000..099}.tar.  [] if none.

    Raises FileNotFoundError when one of a list is missing, ImportError without the package webdataset.
    """
    if "{" in path.name and path.suffix == ".tar":
        names = library().shardlists.expand_urls(str(path))
        missing = [name for name in names if not Path(name).is_file()]
        if missing:
            raise FileNotFoundError(f"{len(missing)} of {len(names)} shards are not there: {some(missing, 3)}")
        return [Path(name) for name in names]
    if path.is_dir() and next(picture_files(path), None) is None:
        return sorted(file for file in path.glob("*.tar") if file.is_file())
    return [path] if path.suffix == ".tar" and path.is_file() else []


def library() -> Any:
    """The library webdataset. Raises ImportError that says how to get it."""
    try:
        import webdataset
    except ImportError as error:
        raise ImportError(MISSING) from error
    return webdataset


def samples(shards: Sequence[Path], damaged: list[str]) -> Iterator[tuple[str, bytes, str, str]]:
    """The pictures of the shards, one after the other: (name, file, caption, label), "" for what there is not.

    damaged: gets a line for each shard that cannot be read to its end
    """
    def note(error: Exception) -> bool:
        damaged.append(f"a shard is damaged ({one_line(str(error))[:100]})")
        return True

    stream = library().WebDataset([str(shard) for shard in shards], shardshuffle=False, handler=note,
                                  nodesplitter=lambda urls: urls)    # several processes read the same
    for sample in stream:
        picture = next((content for ending, content in sample.items() if ending.lower() in ENDINGS), None)
        if picture is not None:
            caption, label = (one_line(sample.get(ending, b"").decode(errors="replace")) for ending in ("txt", "cls"))
            yield sample["__key__"], picture, caption, label


def load(shards: Sequence[Path], source: str, size: int | None, fit: str, condition: str, *,
         channels: int | None = None, largest: int = 32, progress: bool = False) -> OwnPictures:
    """Read all pictures of some shards; see `folder.load_pictures` for the arguments.

    Raises ValueError that says what to do, when there is nothing to train on.
    """
    if size is None:
        first = itertools.islice(samples(shards, []), 100)
        size = natural_size([io.BytesIO(file) for _, file, *_ in first], largest)
    captions, labels, grey = [], [], channels != 3
    skipped: list[str] = []
    with tempfile.TemporaryFile() as squares:
        bar = tqdm(samples(shards, skipped), desc="reading", unit="picture", disable=not progress, leave=False)
        for name, file, caption, label in bar:
            try:
                array = square(open_picture(io.BytesIO(file), at_least=2 * size), size, fit)
            except Exception as error:    # whatever it is, the other pictures count
                skipped.append(f"{name} ({one_line(str(error.__cause__ or error))[:100]})")
                continue
            if channels == 1:
                array = array.mean(2, keepdims=True).round().astype(np.uint8).repeat(3, 2)
            grey = grey and bool((array == array[..., :1]).all())
            squares.write(array.transpose(2, 0, 1).tobytes())
            captions.append(caption)
            labels.append(label)
        if not captions:
            raise ValueError(f"there is no picture in {some([shard.name for shard in shards], 3)} that can be read: "
                             f"{some(skipped, 1) or 'files should be named 000000.jpg, 000000.txt or 000000.cls'}")
        squares.flush()
        x = torch.from_numpy(np.memmap(squares, np.uint8, "r+", shape=(len(captions), 3, size, size)))
    notes = [f"skipped {len(skipped)} that cannot be read: {some(skipped, 3)}"] if skipped else []
    texts, kind = chosen(captions, labels, condition, notes)
    return OwnPictures(x[:, :1] if grey else x, texts, kind, source, notes)


def chosen(captions: list[str], labels: list[str], condition: str, notes: list[str]) -> tuple[list[str], str]:
    """What makes the texts, as in `folder`.  -> (texts, "captions", "labels" or "none"); adds to the notes

    Raises ValueError when the condition asks for what is not there.
    """
    for kind, texts, ending in (("captions", captions, "txt"), ("labels", labels, "cls")):
        missing = texts.count("")
        enough = missing < len(texts) if kind == "captions" else not missing and len(set(texts)) > 1
        if condition in (kind, "auto") and enough:
            if missing:
                notes.append(f"{missing} of {len(texts)} pictures have no caption: they are learned without text")
            return texts, kind
        if condition == kind:
            raise ValueError(f"--condition {kind} needs a file 000000.{ending} for each picture 000000.jpg"
                             + (", and two labels or more" if kind == "labels" else ""))
    return [""] * len(captions), "none"
