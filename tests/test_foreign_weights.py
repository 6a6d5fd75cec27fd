"""Weights from anywhere: nothing is built that the file does not hold, and a kill while saving loses nothing."""

import copy
import json
import math
import os
import pickle
import time

import killable_run
import numpy as np
import pytest
import torch
from safetensors.torch import save as to_bytes
from torch import nn

from diffusion_lessons import generate, weights
from diffusion_lessons.cards import check_card
from diffusion_lessons.models.text import SPECIAL
from diffusion_lessons.training import recipes

pytestmark = pytest.mark.faults


def small(folder, **about):
    """Weights of a small network of digits.  -> their path"""
    net = killable_run.denoiser(classes=10)
    card = weights.denoiser_card(net, labels=list(recipes.DIGITS), picture=[1, 8, 8], w=1.0, **about)
    weights.save(folder / "mine", net.state_dict(), card)
    return folder / "mine.safetensors"


@pytest.fixture
def path(tmp_path):
    return small(tmp_path)


def write_card(path, card, content=None):
    """Put a card there that vouches for the file, whatever is in it."""
    if content is not None:
        path.write_bytes(content)
    if isinstance(card, dict):
        card = {**card, "sha256": weights.sha256(path)}
    path.with_suffix(".json").write_text(card if isinstance(card, str) else json.dumps(card))


def changed(card, where, value):
    """A copy of a card with one field changed: "network.blocks"."""
    card = copy.deepcopy(card)
    *inner, last = where.split(".")
    place = card
    for name in inner:
        place = place[name]
    place[last] = value
    return card


HOSTILE = [
    ("network.channels", [20_000, 20_000]), ("network.channels", [8] * 1000), ("network.channels", []),
    ("network.channels", "88"), ("network.channels", [8.0, 16]), ("network.channels", [True, 16]),
    ("network.channels", [4096, 4096]), ("network.channels", [12, 16]), ("network.channels", None),
    ("network.blocks", 1_000_000), ("network.blocks", 0), ("network.blocks", "1"), ("network.blocks", 1.5),
    ("network.blocks", 32), ("network.classes", 10**9), ("network.classes", -1), ("network.classes", 9),
    ("network.T", 10**12), ("network.patch", 0), ("network.patch", 4), ("network.in_channels", 3),
    ("network.attention", "no"), ("network.time_conditioned", 1), ("network.depth", 3), ("network.__class__", "x"),
    ("network.text", {"vocab_size": 10**9, "length": 10, "width": 8}), ("network.text", 5),
    ("network.text", {"vocab_size": 10, "length": 10, "width": 8, "layers": 10**6}),
    ("network", []), ("network", "UNet"), ("network", {}), ("network", 7), ("schedule", "cosine"), ("schedule", {}),
    ("schedule.T", 10**10), ("schedule.T", 0), ("schedule.T", "1000"), ("schedule.name", ["cosine"]),
    ("schedule.name", "warp"), ("prediction_type", "noise"), ("prediction_type", 3), ("class", "Module"),
    ("class", ["Denoiser"]), ("kind", ["denoiser"]), ("kind", "generator"), ("kind", "classifier"),
    ("picture", [1, 10**6, 10**6]), ("picture", [1, 8]), ("picture", "28"), ("picture", [1, 8, -8]),
    ("picture", [1, 8, None]), ("picture", {"C": 1}), ("labels", "0123456789"), ("labels", [str(d) for d in range(9)]),
    ("labels", {"0": 0}), ("labels", [[d] for d in range(10)]), ("w", math.inf), ("w", math.nan), ("w", -1),
    ("w", "1.0"), ("w", [1]), ("w", 1e9), ("vocab", ["a"]), ("vocab", "a b"), ("data", {"x": 1}), ("before", [1]),
]  # fmt: skip


@pytest.mark.parametrize(("where", "value"), HOSTILE, ids=lambda x: str(x)[:30])
def test_a_hostile_card_costs_no_memory_and_no_time(path, where, value, monkeypatch):
    card = changed(weights.card(path), where, value)
    content = path.read_bytes() + b" " * (where == "before")    # the card before counts when the file is another
    write_card(path, card)
    path.write_bytes(content)
    built = []
    make = nn.Module.load_state_dict    # the first thing that happens to a network that was built
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *a, **k: (built.append(a), make(*a, **k))[1])
    began = time.perf_counter()
    words = "not weights of this course|unknown schedule|has no '|not one of|does not match"
    with pytest.raises(ValueError, match=words):
        weights.load_model(path)
    with pytest.raises(ValueError):
        generate("7", model=path, steps=1, count=1)
    assert time.perf_counter() - began < 20
    assert not built


def test_what_does_not_fit_the_file_is_built_without_memory(path, monkeypatch):
    built = []

    class Watched(weights.NETWORKS["denoiser"]):
        def __init__(self, **config):
            super().__init__(**config)
            built.append({x.device.type for x in self.parameters()})

    monkeypatch.setitem(weights.NETWORKS, "denoiser", Watched)
    write_card(path, changed(weights.card(path), "network.channels", [16, 32]))
    with pytest.raises(ValueError, match="tensors of other names or shapes"):
        weights.load_model(path)
    assert built == [{"meta"}]


def test_what_a_card_may_say_is_said_in_the_error(path):
    write_card(path, changed(weights.card(path), "network.blocks", 1_000_000))
    with pytest.raises(ValueError) as caught:
        weights.load_model(path)
    assert str(caught.value) == (f"{path} is not weights of this course, or its card is damaged: blocks must be a "
                                 "whole number from 1 to 32, not 1000000")


def header(**tensors):
    """A safetensors file with such a header and 64 bytes."""
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + bytes(64)


def foreign():
    """Files that are not safetensors, or that lie about their size."""
    whole = to_bytes({"a": torch.zeros(4)})
    huge = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    return {"a pickle": pickle.dumps({"a": 1}), "empty": b"", "text": b"hello", "truncated": whole[:-3],
            "only a header": whole[:20], "a header of 2^60 bytes": (2**60).to_bytes(8, "little") + whole[8:],
            "a shape beyond the file": header(a=huge),
            "another shape than its bytes": header(a={**huge, "data_offsets": [0, 64]}),
            "overlapping": header(a={"dtype": "F32", "shape": [8], "data_offsets": [0, 32]},
                                  b={"dtype": "F32", "shape": [8], "data_offsets": [16, 48]}),
            "no such type": header(a={"dtype": "F33", "shape": [16], "data_offsets": [0, 64]}),
            "npz": np.random.default_rng(0).bytes(1000)}


@pytest.mark.parametrize("name", foreign())
def test_files_of_something_else_are_refused(path, name):
    write_card(path, weights.card(path), foreign()[name])
    for load in (weights.load, weights.load_model):
        with pytest.raises(ValueError, match=r"mine\.safetensors is not weights of this course"):
            load(path)


def test_another_network_of_the_course_is_refused(path):
    card = weights.card(path)
    other = killable_run.denoiser(classes=10, blocks=2).state_dict()
    write_card(path, card, to_bytes(other))
    with pytest.raises(ValueError, match="not weights of this course: the network on its card has tensors of other"):
        weights.load_model(path)
    state = weights.load_model("gan_healthy").state_dict()
    write_card(path, card, to_bytes(state))
    with pytest.raises(ValueError, match="tensors of other names"):
        weights.load_model(path)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"card"', "{", "[" * 10**5, "{}", '{"kind": "denoiser"}', "",
                                  '{"kind": 5, "network": {}}', "\x00\x01"], ids=lambda text: text[:25])
def test_a_card_of_something_else_is_refused(path, text):
    write_card(path, text)
    with pytest.raises(ValueError, match="not weights of this course|not valid JSON|SHA-256 differs"):
        weights.load_model(path)
    if text == '{"kind": "denoiser"}':
        write_card(path, json.loads(text))
        with pytest.raises(ValueError, match="has no 'network'"):
            weights.load_model(path)


def test_pipes_folders_and_huge_files_are_no_weights(tmp_path):
    path = tmp_path / "a.safetensors"
    card = path.with_suffix(".json")
    card.write_text("{}")
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file"):
        weights.load_model(path)    # does not wait for a writer
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="not a regular file"):
        weights.load_model(path)
    path.rmdir()
    with open(path, "wb") as file:
        file.truncate(weights.LARGEST + 1)    # takes no room on the disk
    with pytest.raises(ValueError, match="of up to 2,147,483,648 bytes"):
        weights.load_model(path)
    path.write_bytes(b"x")
    card.unlink()
    os.mkfifo(card)
    with pytest.raises(ValueError, match="not a regular file"):
        weights.card(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_neither_saved_nor_loaded(path, value):
    before, card = path.read_bytes(), weights.card(path)
    state = weights.load(path)[0]
    state["net.conv_in.bias"][1] = value
    with pytest.raises(ValueError, match=r"NaN or infinity, in net\.conv_in\.bias"):
        weights.save(path, state, card)
    assert path.read_bytes() == before
    write_card(path, card, to_bytes(state))
    with pytest.raises(ValueError, match="NaN or infinity"):
        weights.load(path)


def test_a_number_beyond_float16_is_not_saved_as_infinity(tmp_path):
    weights.save(tmp_path / "a", {"x": torch.tensor([7e4])}, {})
    with pytest.raises(ValueError, match="infinity, in x"):
        weights.save(tmp_path / "b", {"x": torch.tensor([7e4])}, {}, torch.float16)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.safetensors"]


def test_every_shipped_card_is_one_of_the_course():
    for name in weights.available():
        check_card(weights.card(name), name)


def test_a_vocabulary_must_be_that_of_the_network(tmp_path):
    card = weights.card("critters")
    check_card(card, "x")
    text = card["network"]["text"]
    assert text["vocab_size"] == len(card["vocab"]) + len(SPECIAL)
    for wrong in (changed(card, "vocab", card["vocab"][:-1]), changed(card, "network.text", None),
                  changed(card, "network.text.length", 2), changed(card, "vocab", [3.5] * len(card["vocab"]))):
        with pytest.raises(ValueError, match="not weights of this course"):
            check_card(wrong, "x")


# ---- killed while saving


class Killed(BaseException):
    """Stands for a kill: nothing after it happens."""


def states(tmp_path, monkeypatch):
    """Save version 2 over version 1, killed after each move of a file in turn.  -> what loads after each kill"""
    real, found = os.replace, []
    for moves in range(4):
        weights.save(tmp_path / "mine", {"a": torch.tensor([1.0])}, {"version": 1, "data": "one"})
        done = 0

        def replace(source, target, limit=moves):
            nonlocal done
            if done == limit:
                raise Killed
            real(source, target)
            done += 1

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            try:
                weights.save(tmp_path / "mine", {"a": torch.tensor([2.0])}, {"version": 2})
                ended = True
            except Killed:
                ended = False
        tensors, card = weights.load(tmp_path / "mine.safetensors")
        assert card == weights.card(tmp_path / "mine.safetensors")
        assert "before" not in card
        found.append((moves, ended, tensors["a"].item(), card["version"], card.get("data")))
        weights.save(tmp_path / "mine", {"a": torch.tensor([3.0])}, {"version": 3})    # saving again puts all right
        assert "before" not in json.loads((tmp_path / "mine.json").read_text())
        assert weights.load(tmp_path / "mine.safetensors")[1]["version"] == 3
    return found


def test_killed_at_any_moment_one_of_the_two_loads(tmp_path, monkeypatch):
    assert states(tmp_path, monkeypatch) == [
        (0, False, 1.0, 1, "one"), (1, False, 1.0, 1, "one"), (2, False, 2.0, 2, None), (3, True, 2.0, 2, None)]


def test_without_weights_before_the_first_save_is_whole_or_not_there(tmp_path, monkeypatch):
    real = os.replace

    def replace(source, target):
        if str(target).endswith(".safetensors"):
            raise Killed
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            weights.save(tmp_path / "mine", {"a": torch.ones(1)}, {})
    with pytest.raises(ValueError, match="no weights"):
        weights.load(tmp_path / "mine.safetensors")
    weights.save(tmp_path / "mine", {"a": torch.ones(1)}, {})
    assert weights.load(tmp_path / "mine.safetensors")[0]["a"].item() == 1
