"""diffusion-lessons class-check: says 'ready' only when what a lesson uses is there and intact."""

import json
import os
import shutil

import pytest

from diffusion_lessons import weights
from diffusion_lessons.classroom import minutes
from diffusion_lessons.cli import class_check, doctor, main


@pytest.fixture(autouse=True)
def known_speed(monkeypatch, tmp_path):
    """No network is timed here, and the data folder is empty."""
    monkeypatch.setattr(minutes, "speed", lambda: json.loads(minutes.FILE.read_text())["speed"] / 2)
    monkeypatch.setenv("DIFFUSION_LESSONS_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()


def ask(capsys, *arguments):
    code = main(["class-check", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def some_weights(tmp_path, monkeypatch):
    """A copy of the weights that lessons 00 and 02 use, to be broken."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    for name in ("critters", "critters_classifier", "digits_classifier"):
        for ending in (".safetensors", ".json"):
            shutil.copy(weights.FOLDER / f"{name}{ending}", folder)
    monkeypatch.setattr(weights, "FOLDER", folder)
    return folder


def test_a_lesson_that_has_everything_is_ready_and_says_how_long_it_runs_here(capsys):
    code, said, _ = ask(capsys, "02")
    assert code == 0
    assert said.splitlines()[-1] == "ready"
    assert "1 of 1 intact" in said
    seconds = 2 * json.loads(minutes.FILE.read_text())["seconds"]["02"]    # this machine is half as fast
    assert minutes.sentence(seconds, 1).split(" on this machine")[0] in said


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_only_the_lessons_that_use_broken_weights_are_not_ready(harm, some_weights, capsys):
    file = some_weights / "critters_classifier.safetensors"
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    code, said, _ = ask(capsys, "0")
    assert code == 1
    assert said.splitlines()[-1] == "not ready"
    assert "1 of 2 intact" in said
    assert "critters_classifier" in said.split("What to do:")[1]
    assert ask(capsys, "02")[0] == 0


def test_missing_data_are_no_fault_and_damaged_data_are(tmp_path, capsys):
    code, said, _ = ask(capsys, "04")
    assert (code, "MNIST not there" in said) == (0, True)
    (tmp_path / "data" / "mnist.npz").write_bytes(b"no archive")
    code, said, _ = ask(capsys, "04")
    assert code == 1
    assert "mnist.npz" in said.split("What to do:")[1]
    assert ask(capsys, "05")[0] == 0    # which shows no digits of MNIST


def test_whether_there_are_slides_is_said_and_is_no_fault(tmp_path, capsys):
    course = class_check.Path(class_check.__file__).parents[2]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "docs/notes").mkdir(parents=True)
    shutil.copy(course / "notebooks/02_adding_noise.ipynb", tmp_path / "notebooks")
    shutil.copy(course / "notebooks/capstone.ipynb", tmp_path / "notebooks")
    (tmp_path / "docs/notes/02.md").write_text("# 02")
    deck = tmp_path / "build/slides/02_adding_noise.html"

    def slides(lesson):
        code, said, _ = ask(capsys, lesson, "--notebooks", str(tmp_path / "notebooks"))
        assert code == 0
        return next(line for line in said.splitlines() if line.startswith("  slides"))

    assert "not built" in slides("02")
    assert "none for this notebook" in slides("capstone")
    deck.parent.mkdir(parents=True)
    deck.write_text("")
    assert slides("02") == f"  slides    {deck}"
    os.utime(deck, (0, 0))
    assert "older than the notebook" in slides("02")


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "version", lambda name: None if name in ("ipykernel", "scikit-image") else "1.0")
    code, said, _ = ask(capsys, "02")
    assert code == 1
    assert "scikit-image, ipykernel missing" in said
    monkeypatch.setattr(doctor, "version", lambda n: None if n in ("jupyterlab", "notebook", "google-colab") else "1")
    assert "something to open notebooks with" in ask(capsys, "02")[1]


def test_lessons_that_are_not_there(tmp_path, capsys):
    code, _, said = ask(capsys, "99")
    assert code == 1
    assert "choose one of 00, 01" in said
    code, _, said = ask(capsys, "02", "--notebooks", str(tmp_path))
    assert code == 1
    assert "name their folder with --notebooks" in said
    (tmp_path / "02_broken.ipynb").write_text("{")
    code, _, said = ask(capsys, "2", "--notebooks", str(tmp_path))
    assert code == 1
    assert "damaged" in said


def test_what_a_notebook_uses_is_read_off_its_code():
    used, data = class_check.needs([
        "from diffusion_lessons import generate\ngenerate('a frog')",
        "for name in ('healthy', 'collapsed'):\n    weights.load_model(f'gan_{name}')",
        "%matplotlib inline\nload_cifar(",                           # no Python
        "train = load_digits('train')\nload_model('not_there')",
        "print(f'{name}')",                                        # which could be anything
    ])
    assert used == ["critters", "gan_collapsed", "gan_healthy", "gan_no_noise", "not_there"]
    assert data == ["MNIST"]


def test_every_lesson_is_known_and_uses_weights_that_are_shipped():
    for lesson in json.loads(minutes.FILE.read_text())["seconds"]:
        used, _ = class_check.needs(class_check.cells(class_check.find(lesson, None)))
        assert used, lesson
        assert set(used) <= set(weights.available()), lesson
