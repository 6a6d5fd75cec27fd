"""WebDataset shards become the same pictures as a folder, and never fill the memory."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lessons.datasets.folder import load_pictures

ROOT = Path(__file__).resolve().parent.parent


def png(rng, grey=False):
    """A small picture of noise, with a shape of its own, as the bytes of a file."""
    size = (int(rng.integers(8, 20)), int(rng.integers(8, 20)))
    array = rng.integers(0, 256, size if grey else (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def write_shard(path, files):
    """A tar of {name: bytes}."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [png(rng) for _ in range(5)]


@pytest.fixture
def photos(tmp_path, pictures):
    """Two shards with labels and captions, one picture without a caption, one broken; and the same as a folder."""
    pytest.importorskip("webdataset")
    folder, tars = tmp_path / "folder", tmp_path / "tars"
    folder.mkdir()
    tars.mkdir()
    files = [{}, {}]
    for k, content in enumerate(pictures):
        files[k // 3] |= {f"{k:06}.png": content, f"{k:06}.cls": str(k % 2).encode()}
        if k != 4:
            files[k // 3][f"{k:06}.txt"] = f"picture\nnumber {k}".encode()
        (folder / f"{k:06}.png").write_bytes(content)
    files[1] |= {"000009.png": b"broken", "000009.cls": b"1", "000010.json": b"{}"}
    for k, some in enumerate(files):
        write_shard(tars / f"photos-{k:03}.tar", some)
    return tars


def test_shards_hold_the_same_squares_as_a_folder(photos):
    found = load_pictures(photos, 8)
    assert torch.equal(found.x, load_pictures(photos.parent / "folder", 8).x)
    assert found.kind == "captions"
    assert found.texts == [f"picture number {k}" for k in range(4)] + [""]
    assert found.source == "tars"
    assert "1 of 5 pictures have no caption" in " ".join(found.notes)
    assert "skipped 1 that cannot be read: 000009 (cannot identify" in " ".join(found.notes)
    assert load_pictures(photos, 8, condition="labels").texts == ["0", "1", "0", "1", "0"]
    assert load_pictures(photos, 8, condition="none").kind == "none"


def test_a_shard_or_a_list_of_shards_is_named(photos):
    assert len(load_pictures(photos / "photos-000.tar", 8).x) == 3
    assert len(load_pictures(photos / "photos-{000..001}.tar", 8).x) == 5
    with pytest.raises(FileNotFoundError, match=r"1 of 3 shards are not there: .*photos-002.tar"):
        load_pictures(photos / "photos-{000..002}.tar", 8)


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize("channels", [1, 3, None])
def test_colours_are_those_of_a_folder(grey, channels, tmp_path):
    pytest.importorskip("webdataset")
    content = png(np.random.default_rng(1), grey)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(content)
    write_shard(tmp_path / "a.tar", {"a.png": content})
    one, other = (load_pictures(tmp_path / name, 8, channels=channels).x for name in ("folder", "a.tar"))
    assert torch.equal(one, other)


def test_a_shard_that_is_cut_off_gives_what_it_has_and_says_so(photos):
    path = photos / "photos-000.tar"
    path.write_bytes(path.read_bytes()[:5000])
    found = load_pictures(path, 8)
    assert 1 <= len(found.x) < 3
    assert "a shard is damaged" in " ".join(found.notes)
    assert len(load_pictures(photos, 8).x) == len(found.x) + 2    # and the next shard is read


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    write_shard(tmp_path / "a.tar", {"a.xml": b"nothing"})
    with pytest.raises(ValueError, match="no picture in a.tar that can be read: files should be named 000000.jpg"):
        load_pictures(tmp_path / "a.tar", 8)
    write_shard(tmp_path / "b.tar", {"a.png": png(np.random.default_rng(0))})
    with pytest.raises(ValueError, match="--condition labels needs a file 000000.cls for each picture 000000.jpg, and"):
        load_pictures(tmp_path / "b.tar", 8, condition="labels")


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    write_shard(tmp_path / "a.tar", {"a.png": png(np.random.default_rng(0))})
    with pytest.raises(ImportError, match="pip install webdataset"):
        load_pictures(tmp_path / "a.tar", 8)


def test_a_training_on_shards_is_that_on_the_folder(photos):
    """The squares are mapped from a file; the trainer does not see that, and memory is copied for its batch alone."""
    from killable_run import denoiser

    from diffusion_lessons import training

    losses = []
    for path in (photos, photos.parent / "folder"):
        trainer = training.Trainer(denoiser(in_channels=3), load_pictures(path, 8).x, steps=2, batch=4)
        losses.append([step.loss for step in trainer])
    assert losses[0] == losses[1]


MEASURE = """
import sys, threading, time
from pathlib import Path
from diffusion_lessons.datasets.folder import load_pictures

def anonymous():    # MiB that belong to the process alone: what is mapped from a file is not among it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

most = 0.0
def watch():
    global most
    while True:
        most = max(most, anonymous())
        time.sleep(0.05)

folder = Path(sys.argv[1])
load_pictures(folder / "few.tar", 32)
before = anonymous()
threading.Thread(target=watch, daemon=True).start()
found = load_pictures(folder / "many", 32)
from diffusion_lessons.training import own_pictures
start = own_pictures.begin(found)
print(len(found.x), found.kind, most - before)
"""


@pytest.mark.long
@pytest.mark.slow(seconds=120)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_100_000_pictures_need_little_memory(tmp_path):
    """As an array they are 293 MiB; up to 100 MiB more than for ten of them are needed, for labels and the network."""
    pytest.importorskip("webdataset")
    rng, many = np.random.default_rng(0), tmp_path / "many"
    many.mkdir()
    few = [png(rng) for _ in range(50)]
    write_shard(tmp_path / "few.tar", {f"{k}.png": few[k] for k in range(10)})
    for shard in range(10):
        files = {}
        for k in range(10_000):
            files |= {f"{shard}-{k:05}.png": few[k % 50], f"{shard}-{k:05}.cls": b"%d" % (k % 7)}
        write_shard(many / f"{shard}.tar", files)
    ran = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, timeout=900,
                         env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"})
    assert ran.returncode == 0, ran.stderr
    count, kind, more = ran.stdout.split()[-3:]
    assert (count, kind) == ("100000", "labels")
    print(f"{float(more):.0f} MiB more")
    assert float(more) < 100
