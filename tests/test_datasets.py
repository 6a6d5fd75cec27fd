"""Data sets: found, refused or synthetic, and never damaged."""

import contextlib
import gzip
import hashlib
import http.server
import importlib.util
import math
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_lessons import datasets
from diffusion_lessons.datasets import (
    cifar,
    digits,
    files,
    load_cifar,
    load_digits,
    rabbit,
    synthetic_digits,
    to_float,
    to_uint8,
    toy,
)
from diffusion_lessons.datasets.procedural import digits as procedural_digits

ROOT = Path(__file__).resolve().parents[1]


def small_set(shape=(28, 28), labels=(6,)):
    """Arrays in the Keras layout, six pictures to train and three to test."""
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (6, *shape), dtype=np.uint8),
        "y_train": np.arange(6, dtype=np.uint8).reshape(6, *labels[1:]),
        "x_test": rng.integers(0, 256, (3, *shape), dtype=np.uint8),
        "y_test": np.arange(3, dtype=np.uint8).reshape(3, *labels[1:]),
    }


@pytest.fixture
def offline(monkeypatch):
    """No server can be reached; returns the list of addresses that were tried."""
    tried = []

    def refuse(request, *rest, **named):
        tried.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tried


# ---------------------------------------------------------------- bytes and numbers


def test_bytes_to_numbers_and_back_for_all_256():
    x = torch.arange(256).to(torch.uint8)
    numbers = to_float(x)
    assert numbers.dtype == torch.float32
    assert numbers[0] == -1
    assert numbers[255] == 1
    assert torch.equal(to_uint8(numbers), x)


def test_to_uint8_clamps_and_rounds():
    x = torch.tensor([-7.0, 7.0, -1 + 2.4 / 255, -1 + 3.2 / 255])
    assert to_uint8(x).tolist() == [0, 255, 1, 2]


def test_the_door_refuses_what_is_not_a_picture():
    with pytest.raises(ValueError, match="uint8"):
        to_float(torch.zeros(3))
    with pytest.raises(ValueError, match="float"):
        to_uint8(torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(torch.tensor([math.nan]))


# ---------------------------------------------------------------- which folder


def test_folder_named_by_hand_then_by_variable_then_checkout_then_home(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSION_LESSONS_DATA", str(tmp_path / "named"))
    assert datasets.data_folder(tmp_path / "hand") == tmp_path / "hand"
    assert datasets.data_folder() == tmp_path / "named"
    monkeypatch.delenv("DIFFUSION_LESSONS_DATA")
    assert datasets.data_folder() == ROOT / "data"
    monkeypatch.setattr(files, "__file__", str(tmp_path / "lib/diffusion_lessons/datasets/files.py"))
    assert datasets.data_folder() == Path.home() / ".cache" / "diffusion_lessons"


# ---------------------------------------------------------------- local files


def test_local_mnist_by_the_variable(tmp_path, monkeypatch, capsys):
    arrays = small_set()
    np.savez(tmp_path / "mnist.npz", **arrays)
    monkeypatch.setenv("DIFFUSION_LESSONS_DATA", str(tmp_path))
    for split, count in (("train", 6), ("test", 3)):
        x, y, source = load_digits(split)
        assert x.shape == (count, 1, 28, 28)
        assert x.dtype == torch.uint8
        assert y.dtype == torch.int64
        assert np.array_equal(x[:, 0].numpy(), arrays[f"x_{split}"])
        assert y.tolist() == list(range(count))
        assert source == str(tmp_path / "mnist.npz")
        line = capsys.readouterr().out
        assert line.count("\n") == 1
        assert "MNIST" in line
        assert source in line


@pytest.mark.parametrize("labels", [(6,), (6, 1)])
def test_local_cifar_moves_colour_to_the_front(tmp_path, labels):
    arrays = small_set((32, 32, 3), labels)
    np.savez_compressed(tmp_path / "cifar10.npz", **arrays)
    x, y, _ = load_cifar("train", folder=tmp_path)
    assert x.shape == (6, 3, 32, 32)
    assert y.tolist() == list(range(6))
    assert np.array_equal(x[4, 2].numpy(), arrays["x_train"][4, :, :, 2])


def changed(**new):
    arrays = small_set()
    arrays.update(new)
    return {key: value for key, value in arrays.items() if value is not None}


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        (changed(y_test=None), "has no y_test"),
        (changed(x_train=np.ones((6, 32, 32), np.uint8)), r"not \(N, 28, 28\)"),
        (changed(x_train=np.full((5, 28, 28), 200, np.uint8)), "one label for each"),
        (changed(x_train=np.zeros((0, 28, 28), np.uint8), y_train=np.zeros(0, np.uint8)), "one label"),
        (changed(y_train=np.array([0, 1, 2, 3, 4, 10])), "whole numbers 0..9"),
        (changed(y_train=np.array([0, 1, 2, 3, 4, -1])), "whole numbers 0..9"),
        (changed(y_train=np.linspace(0, 1, 6)), "whole numbers 0..9"),
        (changed(x_train=np.ones((6, 28, 28), np.float32) * 200), "not bytes"),
        (changed(x_train=np.ones((6, 28, 28), np.uint8)), "not bytes"),
        (changed(x_train=np.array([{}] * 6, dtype=object)), "damaged"),
    ],
)
def test_a_wrong_npz_is_named_and_left_unchanged(tmp_path, offline, arrays, word):
    path = tmp_path / "mnist.npz"
    np.savez(path, **arrays)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=word) as caught:
        load_digits("train", folder=tmp_path)
    assert str(path) in str(caught.value)
    assert "move it away" in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["mnist.npz"]
    assert not offline


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("load", [load_digits, load_cifar])
def test_an_incomplete_npz_is_named_and_left_unchanged(tmp_path, offline, load, keep):
    name, shape = ("mnist.npz", (28, 28)) if load is load_digits else ("cifar10.npz", (32, 32, 3))
    path = tmp_path / name
    np.savez_compressed(path, **small_set(shape))
    part = path.read_bytes()[: int(path.stat().st_size * keep)]
    path.write_bytes(part)
    with pytest.raises(ValueError, match="damaged, incomplete") as caught:
        load("train", folder=tmp_path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == part
    assert os.listdir(tmp_path) == [name]
    assert not offline


@pytest.mark.parametrize("content", [b"<html>404</html>", b"PK\x03\x04" + b"\0" * 500, b"\x93NUMPY"])
def test_something_else_under_the_name_of_an_npz(tmp_path, content):
    (tmp_path / "mnist.npz").write_bytes(content)
    with pytest.raises(ValueError, match="not an npz file"):
        load_digits("test", folder=tmp_path)


def test_a_flipped_byte_in_the_pictures_is_noticed(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, **small_set())
    data = bytearray(path.read_bytes())
    data[2000] ^= 255  # within x_train, which the npz stores as it is
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        load_digits("train", folder=tmp_path)


def test_unknown_words_list_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'train' or 'test'"):
        load_digits("valid", folder=tmp_path)
    with pytest.raises(ValueError, match="'train' or 'test'"):
        load_cifar("valid", folder=tmp_path)
    with pytest.raises(ValueError, match="auto, mnist, synthetic"):
        load_digits("train", source="emnist", folder=tmp_path)


# ---------------------------------------------------------------- torchvision's files


def write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(head + array.tobytes())


def write_raw_mnist(raw):
    raw.mkdir(parents=True)
    arrays = small_set()
    for split, word in (("train", "train"), ("test", "t10k")):
        write_idx(raw / f"{word}-images-idx3-ubyte", arrays[f"x_{split}"])
        write_idx(raw / f"{word}-labels-idx1-ubyte", arrays[f"y_{split}"])
    return arrays


def test_what_torchvision_has_downloaded_is_used_offline(tmp_path, offline):
    arrays = write_raw_mnist(tmp_path / "MNIST" / "raw")
    x, y, source = load_digits("test", folder=tmp_path)
    assert np.array_equal(x[:, 0].numpy(), arrays["x_test"])
    assert y.tolist() == [0, 1, 2]
    assert source == str(tmp_path / "MNIST")
    assert not offline


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_torchvisions_folder_half_there_is_named_and_left_alone(tmp_path, offline, damage):
    raw = tmp_path / "MNIST" / "raw"
    write_raw_mnist(raw)
    victim = raw / "train-images-idx3-ubyte"
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:1000])
    else:
        victim.unlink()
    before = sorted((p.name, p.read_bytes()) for p in raw.iterdir())
    with pytest.raises(ValueError, match="incomplete") as caught:
        load_digits("train", folder=tmp_path)
    assert str(tmp_path / "MNIST") in str(caught.value)
    assert sorted((p.name, p.read_bytes()) for p in raw.iterdir()) == before
    assert not offline


def test_torchvisions_cifar_fails_its_checksum_and_is_left_alone(tmp_path, offline):
    folder = tmp_path / cifar.FOLDER
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"half of it")
    with pytest.raises(ValueError, match="incomplete") as caught:
        load_cifar("train", folder=tmp_path)
    assert str(folder) in str(caught.value)
    assert not offline
    assert (folder / "data_batch_1").read_bytes() == b"half of it"


# ---------------------------------------------------------------- the network


def test_offline_the_digits_are_drawn_and_a_line_says_so(tmp_path, offline, capsys, monkeypatch):
    monkeypatch.setitem(digits.SYNTHETIC, "test", (50, 1))
    x, y, source = load_digits("test", folder=tmp_path / "empty")
    line = capsys.readouterr().out
    assert x.shape == (50, 1, 28, 28)
    assert source == "synthetic digits"
    assert line.count("\n") == 1
    assert "synthetic digits" in line
    assert "no network" in line
    assert "mnist.npz" in line
    assert "DIFFUSION_LESSONS_DATA" in line
    assert len(offline) == 2
    assert not (tmp_path / "empty").exists()


def test_synthetic_digits_on_request_need_no_network(tmp_path, offline, capsys, monkeypatch):
    monkeypatch.setitem(digits.SYNTHETIC, "train", (50, 0))
    np.savez(tmp_path / "mnist.npz", **small_set())
    assert load_digits("train", source="synthetic", folder=tmp_path).source == "synthetic digits"
    assert "as requested" in capsys.readouterr().out
    assert not offline


def test_train_and_test_sets_are_different_samples():
    assert digits.SYNTHETIC["train"][1] != digits.SYNTHETIC["test"][1]


def test_forced_mnist_and_cifar_say_what_to_do_offline(tmp_path, offline):
    with pytest.raises(FileNotFoundError, match="mnist.npz") as caught:
        load_digits("train", source="mnist", folder=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "DIFFUSION_LESSONS_DATA" in str(caught.value)
    with pytest.raises(FileNotFoundError, match="cifar10.npz") as caught:
        load_cifar("train", folder=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "DIFFUSION_LESSONS_DATA" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_silent_network_counts_as_none_in_good_time(tmp_path, monkeypatch):
    asked, over = [], threading.Event()

    def hang(request, *rest, **named):
        asked.append(request.full_url)
        over.wait(60)
        raise urllib.error.URLError("at last")

    monkeypatch.setattr(files, "PATIENCE", 0.3)
    monkeypatch.setattr(files, "last_silence", {})
    monkeypatch.setattr(urllib.request, "urlopen", hang)
    start = time.perf_counter()
    for _ in range(2):  # the second call remembers the silence and does not knock again
        with pytest.raises(FileNotFoundError, match="no network"):
            load_digits("train", source="mnist", folder=tmp_path)
    over.set()
    assert time.perf_counter() - start < 20
    assert len(asked) == 2


# ---------------------------------------------------------------- servers that misbehave


def packed(x, y):
    """MNIST's four archives, {name: content}, of the same few pictures for both halves."""
    def idx(array):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        return gzip.compress(head + array.tobytes())

    halves = [("train", x, y), ("t10k", x, y)]
    return {f"{half}-{what}-idx{array.ndim}-ubyte.gz": idx(array)
            for half, pictures, labels in halves for what, array in (("images", pictures), ("labels", labels))}


class Servers(http.server.ThreadingHTTPServer):
    """Archives on this machine. how: whole, half, other, endless, drip, slow header, error 404 or silent"""

    def __init__(self, archives, how):
        super().__init__(("127.0.0.1", 0), Handler)
        self.archives, self.how, self.over = archives, how, threading.Event()
        self.daemon_threads = True


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        content, how = self.server.archives[self.path.rsplit("/", 1)[1]], self.server.how
        with contextlib.suppress(OSError):    # whoever asked has gone
            if how == "silent":
                self.server.over.wait(60)
            elif how == "slow header":
                self.drip(b"HTTP/1.0 200 OK\r\n" + 1000 * b"A: b\r\n")
            else:
                self.send_response(404 if how == "error 404" else 200)
                self.end_headers()
                if how == "endless":
                    while not self.server.over.is_set():
                        self.wfile.write(bytes(1 << 16))
                elif how == "drip":
                    self.drip(content)
                else:
                    self.wfile.write(dict(half=content[:-5], other=content[::-1]).get(how, content))

    def drip(self, content):
        for k in range(len(content)):
            self.wfile.write(content[k:k + 1])
            self.wfile.flush()
            if self.server.over.wait(0.05):
                return

    def log_message(self, *_):
        pass


@pytest.fixture
def servers(monkeypatch):
    """A function: starts servers of so few pictures that behave like this, and points torchvision there."""
    from torchvision.datasets import MNIST

    x = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    archives, running = packed(x, np.arange(3, dtype=np.uint8)), []

    def start(how):
        server = Servers(archives, how)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(MNIST, "resources", [(name, hashlib.md5(content).hexdigest())
                                                 for name, content in archives.items()])
        monkeypatch.setattr(digits, "MNIST_SIZES", [len(content) for content in archives.values()])
        monkeypatch.setattr(files, "last_silence", {})
        monkeypatch.setattr(urllib.request, "getproxies", dict)
        monkeypatch.setattr(urllib.request, "_opener", None)
        return x

    yield start
    for server in running:
        server.over.set()
        server.shutdown()
        server.server_close()


def test_a_whole_download_is_kept(tmp_path, servers):
    x = servers("whole")
    first = load_digits("train", source="mnist", folder=tmp_path)
    assert (first.x[:, 0].numpy() == x).all()
    servers("silent")    # nobody is asked again
    assert torch.equal(first.x, load_digits("train", source="mnist", folder=tmp_path).x)
    assert os.listdir(tmp_path) == ["MNIST"]


@pytest.mark.faults
@pytest.mark.parametrize("how, words", [
    ("half", "something else than it should"), ("other", "something else than it should"), ("error 404", "404"),
    ("endless", "sends more than the"), ("drip", "sends less than"), ("slow header", "sends less than"),
    ("silent", "timed out")])
def test_a_bad_download_ends_and_leaves_nothing_behind(tmp_path, servers, monkeypatch, capsys, how, words):
    servers(how)
    monkeypatch.setattr(files, "PATIENCE", 0.5)
    monkeypatch.setattr(files, "SLOWEST", 10_000)
    monkeypatch.setitem(digits.SYNTHETIC, "train", (20, 0))
    began = time.monotonic()
    assert load_digits("train", folder=tmp_path).source == "synthetic digits"
    assert time.monotonic() - began < 15
    assert words in capsys.readouterr().out
    assert os.listdir(tmp_path) == []


def test_an_archive_that_cannot_be_unpacked_leaves_nothing_behind(tmp_path, servers, monkeypatch, capsys):
    from torchvision.datasets import MNIST

    def half(self):
        (Path(self.raw_folder) / "train-images-idx3-ubyte").write_bytes(b"half")
        raise RuntimeError("no such archive")

    servers("whole")
    monkeypatch.setattr(MNIST, "download", half)
    monkeypatch.setitem(digits.SYNTHETIC, "train", (20, 0))
    assert load_digits("train", folder=tmp_path).source == "synthetic digits"
    assert "no such archive" in capsys.readouterr().out
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- synthetic digits


def test_same_seed_same_digits_and_all_classes_equally_often():
    a, b, other = synthetic_digits(200, 5), synthetic_digits(200, 5), synthetic_digits(200, 6)
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.y, b.y)
    assert not torch.equal(a.y, other.y)
    assert a.x.dtype == torch.uint8
    assert a.x.shape == (200, 1, 28, 28)
    assert torch.bincount(a.y).tolist() == [20] * 10


def test_no_two_drawn_digits_are_alike():
    x, y, _ = synthetic_digits(1000, 0)
    for k in range(10):
        flat = x[y == k].flatten(1).float() / 255
        apart = torch.cdist(flat, flat) + 1e9 * torch.eye(len(flat))
        assert apart.min() > 0.5  # the least two nearest neighbours differ; identical ones would have 0


def test_hands_differ_in_slant_and_pen():
    x, y, _ = synthetic_digits(2_000, 0)
    ones = x[y == 1, 0].double()
    at = torch.arange(28) - 13.5
    row, column = at.view(28, 1), at.view(1, 28)
    slant = (ones * row * column).sum(dim=(1, 2)) / (ones * row**2).sum(dim=(1, 2))
    assert 0.15 < slant.std() < 0.5  # of MNIST's ones: 0.27
    blackness = ones.mean(dim=(1, 2))
    assert 0.2 < blackness.std() / blackness.mean() < 0.5  # of MNIST's ones: 0.29


def test_drawn_digits_sit_in_their_frame_as_mnist_does():
    x = synthetic_digits(1000, 0).x[:, 0].double() / 255
    at = torch.arange(28) + 0.5
    mass = x.sum(dim=(1, 2))
    for axis in (1, 2):
        ink = x.sum(dim=axis)  # (N, 28) along the other axis
        centre = (ink * at).sum(dim=1) / mass
        assert (centre - 14).abs().max() < 1.3  # where strokes cross, ink counts once
        assert (centre - 14).std() < 0.4
        assert ((x > 0.3).any(dim=axis).sum(dim=1) <= 21).all()
    longest = torch.maximum((x > 0.3).any(dim=1).sum(dim=1), (x > 0.3).any(dim=2).sum(dim=1))
    assert (longest >= 18).all()
    assert 0.10 < x.mean() < 0.16
    assert 0.27 < x.std() < 0.35


def test_a_bigger_size_is_the_same_drawing():
    small, big = synthetic_digits(50, 3), synthetic_digits(50, 3, size=112)
    shrunk = torch.nn.functional.avg_pool2d(big.x.float(), 4)
    assert big.x.shape == (50, 1, 112, 112)
    assert torch.equal(small.y, big.y)
    assert (shrunk - small.x.float()).abs().mean() < 3  # of 255


def test_every_way_of_writing_is_a_path_of_points_evenly_apart():
    for digit, variants in procedural_digits.GLYPHS.items():
        for k in range(len(variants)):
            control, curve, pen_down = procedural_digits.pen_path(digit, k)
            assert curve.shape == (procedural_digits.POINTS, len(control))
            assert torch.allclose(curve.sum(dim=1), torch.ones(procedural_digits.POINTS), atol=1e-5)
            steps = (curve @ control).diff(dim=0).norm(dim=1)
            assert int((~pen_down).sum()) == len(variants[k][1])  # one end to each stroke
            drawn_steps = steps[pen_down[:-1]]
            assert drawn_steps.max() < 3 * drawn_steps.mean()


def test_drawing_rejects_nonsense():
    with pytest.raises(ValueError, match="at least 1"):
        synthetic_digits(0, 0)


def check_tool():
    path = ROOT / "benchmarks" / "synthetic_digits_check.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reader():
    """A small network that has seen nothing but synthetic digits (five seconds on an idle core)."""
    tool = check_tool()
    net = tool.learn(synthetic_digits(6_000, 0), epochs=4)
    return lambda pictures: (tool.read(net, pictures) == pictures.y).float().mean().item()


def test_synthetic_digits_can_be_learned(reader):
    assert reader(synthetic_digits(1_000, 77)) >= 0.95


def test_a_classifier_of_synthetic_digits_classifies_real_ones(reader):
    folder = Path(os.environ.get("DIFFUSION_LESSONS_DATA", "nowhere"))
    if not ((folder / "mnist.npz").exists() or (folder / "MNIST").exists()):
        pytest.skip("DIFFUSION_LESSONS_DATA names no folder with MNIST")
    assert reader(load_digits("test", source="mnist")) >= 0.85


# ---------------------------------------------------------------- points and the rabbit


@pytest.mark.parametrize("make", [toy.ring, toy.rabbit_outline])
def test_toy_sets_lie_around_zero_with_spread_one(make):
    points = make(20_000, seed=1)
    assert points.shape == (20_000, 2)
    assert points.dtype == torch.float32
    # standard error of a mean: 1/sqrt(20,000) = 0.007, and up to 1.3 times that along the long axis
    assert points.mean(dim=0).abs().max() < 0.04
    assert abs(points.pow(2).mean().sqrt().item() - 1) < 0.03
    assert torch.equal(make(50, seed=3), make(50, seed=3))
    assert not torch.equal(make(50, seed=3), make(50, seed=4))
    with pytest.raises(ValueError, match="at least 1"):
        make(0)


def test_the_ring_is_eight_even_gaussians():
    points = toy.ring(16_000, seed=0)
    far = torch.cdist(points, toy.ring_centres())
    counts = torch.bincount(far.argmin(dim=1), minlength=8)
    assert (counts - 2000).abs().max() < 5 * math.sqrt(2000)
    off = points - toy.ring_centres()[far.argmin(dim=1)]
    assert abs(off.std().item() - toy.RING_SIGMA) < 0.002
    assert torch.allclose(toy.ring_centres().norm(dim=1), torch.tensor(toy.RING_RADIUS))


def test_the_outline_lies_on_the_rabbits_edge_and_reaches_ears_and_feet():
    points = toy.rabbit_outline(4_000, seed=0)
    place = points * toy.RABBIT_STD + torch.tensor(toy.RABBIT_CENTRE)
    assert rabbit_distance(place).abs().max() < 2e-3
    assert place[:, 1].max() > 0.85
    assert place[:, 1].min() < -0.84
    ears = place[place[:, 1] > 0.6]
    assert 0.2 < (ears[:, 0] < 0).float().mean() < 0.8
    assert (ears[:, 0].abs() > 0.05).all()


def rabbit_distance(place):
    from diffusion_lessons.datasets.procedural.rabbit import silhouette

    return silhouette(place.T)


def test_the_rabbit_is_the_same_picture_at_every_size():
    small, big = rabbit(64), rabbit(256)
    assert small.shape == (3, 64, 64)
    assert small.dtype == torch.float32
    for picture in (small, big):
        assert -1 <= picture.min() < -0.5
        assert 0.9 < picture.max() <= 1
    shrunk = torch.nn.functional.avg_pool2d(big[None], 4)[0]
    assert (shrunk - small).abs().mean() < 0.03
    assert torch.equal(small, rabbit(64))
    for picture in (small, big):  # edges are one pixel soft at every size, not blurred
        assert picture.diff(dim=1).abs().max() > 1.2


def test_the_rabbit_stands_on_green_under_blue_and_has_pink_ears():
    red, green, blue = rabbit(128)
    assert blue[2].mean() > green[2].mean() > red[2].mean()
    assert (green[-2] > torch.maximum(red[-2], blue[-2])).float().mean() > 0.8
    ear = (slice(24, 32), slice(50, 54))
    assert red[ear].mean() > green[ear].mean() + 0.3


@pytest.mark.parametrize("size", [0, -3, 2.5])
def test_the_rabbit_needs_a_size(size):
    with pytest.raises(ValueError, match="whole number"):
        rabbit(size)
