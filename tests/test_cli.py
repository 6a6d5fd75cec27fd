"""The command line: what it writes, what it says, and how it ends (0 well, 1 failed, 2 usage, 130 Ctrl-C)."""

import base64
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusion_lessons import generate, weights
from diffusion_lessons.cli import COMMANDS, PROG, build_parser, evaluate, main, options, train
from diffusion_lessons.datasets import captions
from diffusion_lessons.evaluation import metrics, prompt_following
from diffusion_lessons.models.classifiers import AttributeClassifier, Classifier
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.samplers import METHODS, SamplerSettings
from diffusion_lessons.training import figures, recipes

ROOT = Path(__file__).resolve().parent.parent
SMALL = dict(in_channels=1, channels=(32, 32), blocks=1)
SMALL_READER = dict(in_channels=3, channels=(32, 32), blocks=1, text=dict(width=32, layers=1, heads=2))
TRAIN = ["train", "digits", "--source", "mnist", "--batch", "4"]


def write_tiny_mnist(folder, count=64):
    """A file in MNIST's layout with a few pictures of noise, enough to train on for a moment."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10
    np.savez(folder / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder to work in, with a tiny data set and a small network."""
    write_tiny_mnist(tmp_path)
    monkeypatch.setenv("DIFFUSION_LESSONS_DATA", str(tmp_path))
    monkeypatch.setitem(recipes.RECIPES, "digits", replace(recipes.RECIPES["digits"], network=SMALL))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory):
    """Weights of a small network, trained for no time at all."""
    folder = tmp_path_factory.mktemp("weights")
    recipe = replace(recipes.RECIPES["digits"], network=SMALL)
    denoiser = recipes.build(recipe)
    for weight in denoiser.parameters():  # some begin as zeros, and would draw grey whatever the label
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    card = weights.denoiser_card(denoiser, labels=list(recipes.DIGITS), picture=[1, 28, 28], w=1.0)
    weights.save(folder / "small", denoiser.state_dict(), card)
    return str(folder / "small.safetensors")


def sha(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def no_scratch_left(folder):
    return not [path for path in Path(folder).rglob(".*") if path.is_file()]


@pytest.mark.parametrize("command", ["doctor", "generate", "train", "evaluate", "captions", "grade",
                                     "leaderboard", "class-check"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert f"diffusion-lessons {command}" in said.split("examples:")[1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "required"),
        (["draw"], "invalid choice"),
        (["generate"], "prompt"),
        (["generate", "7", "--count", "0"], "count must be a whole number from 1 to 1,000,000, not 0"),
        (["generate", "7", "--eta", "2"], "from 0 to 1, not 2.0"),
        (["generate", "7", "--w", "nan"], "from 0 to 100, not nan"),
        (["generate", "7", "--seed", "x"], "not a whole number"),
        (["generate", "7", "--out", "seven.jpg"], ".png or .npz"),
        (["generate", "7", "--count", "1e20"], "'1e20' is not a whole number"),
        (["generate", "7", "--count", "100000000000000000000"], "from 1 to 1,000,000, not 100000000000000000000"),
        (["generate", "7", "--count", "1" * 5000], "not a whole number"),
        (["generate", "7", "--seed", str(2**64)], "from 0 to 4,294,967,295"),
        (["evaluate", "--count", "100000000"], "from 1 to 50,000"),
        (["train", "--batch", "100000000"], "from 1 to 4,096"),
        (["train", "--minutes", "inf"], "from 0.01 to 100,000, not inf"),
        (["train", "--lr", "nan"], "not nan"),
        (["train", "--minutes", "1", "--steps", "5"], "not allowed"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_the_fault(arguments, word, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert word in capsys.readouterr().err


def test_every_command_that_we_print_is_one():
    """In the README and in the help: each line is understood by the parser."""
    lines = (ROOT / "README.md").read_text().splitlines()
    for command in COMMANDS.values():
        lines += command.EXAMPLES.format(prog=PROG).splitlines()
    commands = [line.strip().removeprefix(PROG) for line in lines if line.startswith(f"    {PROG} ")]
    assert len(commands) > 15
    for command in commands:
        assert build_parser().parse_args(shlex.split(command)).command in command


def console_script(module, function):
    """What the installed command does."""
    return [sys.executable, "-c", f"import sys; from {module} import {function}; sys.exit({function}())"]


def test_runs_as_a_command_and_as_a_module():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    script = console_script(*project["scripts"]["diffusion-lessons"].split(":"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for command in ([sys.executable, "-m", "diffusion_lessons"], script):
        for arguments, code, words in (
                (["--version"], 0, "diffusion-lessons 0.1.0"), (["nothing"], 2, "invalid choice"),
                (["generate", "7", "--model", "no"], 1, "generate failed: no weights 'no'")):
            said = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, env=environment)
            assert said.returncode == code
            assert words in said.stdout + said.stderr


def test_help_does_not_wait_for_torch():
    code = ("import sys\nfrom diffusion_lessons.cli import main\n"
            "try: main(['train', '--help'])\n"
            "except SystemExit: sys.exit(' '.join({'torch', 'numpy', 'tqdm'} & set(sys.modules)) or 0)")
    said = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True, timeout=60)
    assert said.returncode == 0, f"--help loads {said.stderr}"
    assert "examples:" in said.stdout


def test_generate_writes_plain_arrays(desk, small_weights):
    command = ["generate", "7", "--model", small_weights, "--steps", "3", "--seed", "5"]
    assert main([*command, "--count", "6", "--out", "six.npz"]) == 0
    assert main([*command, "--count", "3", "--out", "three.npz"]) == 0
    six, three = np.load("six.npz"), np.load("three.npz")
    assert six["x"].shape == (6, 28, 28)
    assert six["x"].dtype == np.uint8
    assert six["y"].tolist() == [7] * 6
    assert six["x"].std() > 10, "the pictures are blank"
    # A picture depends on the seed and its number, not on how many are made with it (rounding aside).
    assert np.abs(six["x"][:3].astype(int) - three["x"].astype(int)).max() <= 1
    assert main([*command[:-1], "6", "--count", "3", "--out", "other.npz"]) == 0
    assert np.abs(np.load("other.npz")["x"].astype(int) - three["x"].astype(int)).max() > 20


def test_generate_writes_a_sheet(desk, small_weights):
    command = ["generate", "7", "--model", small_weights, "--steps", "3", "--count", "5"]
    assert main([*command, "--out", "five.npz"]) == 0
    assert main([*command, "--out", "five.png"]) == 0
    sheet = np.asarray(Image.open("five.png").convert("L"))
    # 2 rows of 3 places, each 28 pixels and a gap of 2, all of it enlarged four times
    assert sheet.shape == (4 * (2 * 30 + 2), 4 * (3 * 30 + 2))
    x = np.load("five.npz")["x"]
    assert (sheet[8:120:4, 8:120:4] == x[0]).all()
    assert (sheet[128:240:4, 128:240:4] == x[4]).all()
    assert (sheet[128:240, 248:360] == 255).all(), "the place left over is white"


def test_the_sampler_follows_its_options(desk, small_weights):
    def draw(*options):
        command = ["generate", "3", "--model", small_weights, "--steps", "4", "--count", "2"]
        assert main([*command, *options, "--out", "x.npz"]) == 0
        return np.load("x.npz")["x"].astype(int)

    plain = draw()
    for more in (["--w", "8"], ["--eta", "1"], ["--sampler", "ddpm"], ["--steps", "8"]):
        assert np.abs(draw(*more) - plain).max() > 2, f"{more} changed nothing"


def test_unknown_names_are_answered_by_the_known_ones(desk, small_weights, capsys):
    assert main(["generate", "frog", "--model", small_weights]) == 1
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in capsys.readouterr().err
    assert main(["generate", "7", "--model", "digitz"]) == 1
    said = capsys.readouterr().err
    assert "digitz" in said
    assert main(["generate", "7", "--model", "gan_healthy"]) == 1
    assert "takes no prompt" in capsys.readouterr().err
    assert said.count("\n") == 1
    assert not Path("pictures.png").exists()


@pytest.fixture(scope="module")
def small_reader(tmp_path_factory):
    """A small network that reads sentences, trained for no time at all; it hears them all the same."""
    folder = tmp_path_factory.mktemp("reader")
    recipe = replace(recipes.RECIPES["critters"], network=SMALL_READER)
    denoiser = recipes.build(recipe)
    for weight in denoiser.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    card = weights.denoiser_card(denoiser, vocab=list(captions.VOCAB), picture=[3, 32, 32], w=2.0)
    weights.save(folder / "reader", denoiser.state_dict(), card)
    return str(folder / "reader.safetensors")


def test_a_sentence_makes_images(desk, small_reader):
    how = dict(model=small_reader, steps=3, seed=4)
    three = generate("A green frog, on stilts!", count=3, **how)
    assert [(image.size, image.mode) for image in three] == [((32, 32), "RGB")] * 3
    x = np.stack([np.asarray(image) for image in three]).astype(int)
    one = np.asarray(generate("a green frog on stilts", count=1, **how)[0]).astype(int)
    assert np.abs(one - x[0]).max() <= 1                  # capitals, commas and the batch do not count
    assert np.abs(x[0] - x[1]).max() > 20
    other = np.asarray(generate("a red frog on stilts", count=1, **how)[0]).astype(int)
    assert np.abs(other - one).max() > 2
    none, plain, strong = (np.asarray(generate("a red frog", count=1, guidance=w, **how)[0]).astype(int)
                           for w in (0, 1, 6))
    assert np.abs(plain - none).max() > 2
    assert np.abs(strong - plain).max() > 2
    empty = np.asarray(generate("", count=1, guidance=5, **how)[0]).astype(int)
    assert np.abs(empty - none).max() <= 1                # without a prompt guidance changes nothing


def as_seen(images):
    """The picture in the HTML that a notebook shows, the same as its PNG."""
    data, _ = images._repr_mimebundle_()
    assert f'base64,{data["image/png"]}"' in data["text/html"]
    return Image.open(io.BytesIO(base64.b64decode(data["image/png"])))


def test_images_show_themselves_as_a_grid(desk, small_reader):
    images = generate("a frog", model=small_reader, steps=1, count=5)
    page = as_seen(images)
    assert page.size == (4 * (3 * 34 + 2), 4 * (2 * 34 + 2))
    assert (np.asarray(page)[8:136:4, 8:136:4] == np.asarray(images[0])).all()
    assert images[:0] == []
    assert as_seen(images[1:3]).size == (4 * (2 * 34 + 2), 4 * 36)
    assert images[1:3]._repr_mimebundle_()[1]["image/png"]["alt"] == "Pictures: 2, of: a frog"
    assert type(images)()._repr_mimebundle_() == {}


class Bar:
    """tqdm's bar, which records what it is told."""

    made = []

    def __init__(self, *_, total=None, unit="it", disable=False, **__):
        self.total, self.unit, self.n = total, unit, 0
        if not disable:
            self.made.append(self)

    def update(self, n=1):
        self.n += n

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_progress_counts_the_steps_of_all_batches(desk, small_weights, monkeypatch):
    monkeypatch.setattr(text_to_image, "tqdm", Bar)
    monkeypatch.setattr(Bar, "made", [])
    monkeypatch.setattr("diffusion_lessons.cli.generate.batch_size", lambda: 2)
    assert main(["generate", "7", "--model", small_weights, "--steps", "3", "--count", "5"]) == 0
    (bar,) = Bar.made
    assert (bar.total, bar.n, bar.unit) == (9, 9, "step")    # 3 batches of 3 steps
    generate("7", model=small_weights, steps=3, count=1)    # a notebook's call shows none
    assert len(Bar.made) == 1


def test_the_command_line_draws_what_the_call_draws(desk, small_reader):
    command = ["generate", "a frog in the snow", "--model", small_reader, "--steps", "3", "--count", "2"]
    assert main([*command, "--guidance", "3", "--out", "two.npz"]) == 0
    file = np.load("two.npz")
    images = generate("a frog in the snow", model=small_reader, steps=3, count=2, guidance=3)
    assert np.abs(file["x"].astype(int) - np.stack([np.asarray(image) for image in images])).max() <= 1
    assert file["y"].shape == (2, 18)


def test_a_digit_is_drawn_by_the_digits_and_a_sentence_by_the_critters():
    assert {text_to_image.default_model(prompt) for prompt in ("7", " 7 ", 7)} == {"digits"}
    assert {text_to_image.default_model(text) for text in ("a frog", "", "77", "seven")} == {"critters"}


def test_unknown_words_are_answered_by_the_nearest(desk, small_reader, capsys):
    assert main(["generate", "a frog on stiltz with a dragon", "--model", small_reader]) == 1
    said = capsys.readouterr().err
    assert '"stiltz" (did you mean "stilts"' in said
    assert '"dragon"' in said
    assert "rabbit, rabbits" in said       # all the words are listed
    with pytest.raises(ValueError, match="did you mean"):
        generate("a grren frog", model=small_reader)
    with pytest.raises(ValueError, match="20 words; this model reads at most 16"):
        generate("frog " * 20, model=small_reader)


KNOWN = st.lists(st.sampled_from(captions.VOCAB), max_size=20).map(" ".join)


@given(st.one_of(st.text(max_size=60), KNOWN))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_prompts_of_any_text_give_a_picture_or_a_clear_error(small_reader, prompt):
    words = re.findall(r"[^\W_]+", prompt.casefold())
    if set(words) <= set(captions.VOCAB) and len(words) <= captions.LONGEST and (words or not prompt.strip()):
        (image,) = generate(prompt, model=small_reader, steps=1, count=1)
        assert np.asarray(image).std() > 1
    else:
        with pytest.raises(ValueError, match="never seen|words; this model reads|there is no word"):
            generate(prompt, model=small_reader, steps=1, count=1)


def test_evaluate_critters_prints_seeded_json(desk, small_reader, monkeypatch, capsys):
    load = weights.load_model
    monkeypatch.setattr(weights, "load_model", lambda name, device="cpu": (
        AttributeClassifier(channels=(8, 8), width=8).eval() if "critters" in str(name) else load(name, device)))
    command = ["evaluate", small_reader, "--count", "12", "--steps", "1", "--seed", "3"]
    torch.manual_seed(0)
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    torch.manual_seed(0)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert (found["w"], found["steps"], found["eta"], found["seed"]) == (2.0, 1, 0.0, 3)
    torch.manual_seed(0)
    assert main([*command[:-1], "4", "--eta", "0.5"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["eta"] == 0.5
    assert other["diversity"] != found["diversity"]
    assert main([*command[:2], "--count", "3"]) == 1
    assert "4 or more" in capsys.readouterr().err
    for part in ("seen", "held_out"):
        assert found[part]["count"] == 12
        assert {"all", "all_lower95", "subject", "colour", "prop", "place", "second"} <= set(found[part])
    assert {"recall", "diversity"} <= set(found)


def test_captions_says_how_far_they_are_true(capsys):
    assert main(["captions", "muppets cooking in the kitchen", "--count", "8000"]) == 0
    said = capsys.readouterr().out
    assert "subject  mentioned in" in said
    share = float(re.search(r"\n  muppet   muppet ([\d.]+)%", said)[1])
    assert 75 < share < 90                          # P(muppet | a caption that names one)
    assert "Captions that say just muppet, cooking, kitchen" in said
    assert "place    kitchen 100.0%" in said
    assert main(["captions", "a dragon", "--count", "10"]) == 1
    assert '"dragon"' in capsys.readouterr().err


def test_train_critters_writes_weights_that_read(desk, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "SCENES", 200)
    small = replace(recipes.RECIPES["critters"], network=SMALL_READER)
    monkeypatch.setitem(recipes.RECIPES, "critters", small)
    assert main(["train", "critters", "--steps", "3", "--batch", "4", "--out", "mine.safetensors"]) == 0
    said = capsys.readouterr().out
    assert 'generate "a green frog in the snow" --model mine.safetensors' in said
    assert main(["generate", "a green frog in the snow", "--model", "mine.safetensors", "--steps", "2"]) == 0
    card = weights.load("mine.safetensors")[1]
    assert card["vocab"] == list(captions.VOCAB)
    assert "200 captioned scenes" in card["data"]


def test_train_measures_what_it_is_told_to_and_names_the_command(desk, classifier, capsys):
    assert main([*TRAIN, "--steps", "2", "--w", "2", "--figures", "70", "--lr", "1e-3", "--out", "a.safetensors"]) == 0
    tensors, card = weights.load("a.safetensors")
    assert card["command"] == ("diffusion-lessons train digits --source mnist --steps 2 --seed 0 --batch 4 --lr 0.001 "
                               "--w 2 --figures 70")
    assert (card["figures"]["count"], card["figures"]["w"], card["figures"]["steps"]) == (70, 2, 25)
    assert (card["w"], card["lr"]) == (2, 0.001)
    build_parser().parse_args(shlex.split(card["command"])[1:])
    assert main([*TRAIN, "--steps", "2", "--lr", "1e-3", "--out", "b.safetensors"]) == 0
    assert "figures" not in weights.load("b.safetensors")[1]


def test_train_makes_a_classifier_of_digits_and_the_features_of_real_ones(desk, monkeypatch, capsys):
    write_tiny_mnist(desk, 170)
    monkeypatch.setattr(recipes, "CLASSIFIER_DIGITS", 90)
    assert main(["train", "digits_classifier", "--steps", "6", "--batch", "8"]) == 0
    made, card = weights.load("outputs/digits_classifier.safetensors")
    assert card["kind"] == "classifier"
    assert 0 <= card["figures"]["test_accuracy"] <= 1
    assert "first 90" in card["data"]
    features = weights.load("outputs/digits_real.safetensors")[0]
    assert {name: len(x) for name, x in features.items()} == {"test": 170, "train": 80}
    x = np.load("mnist.npz")["x_test"]
    again = metrics.features(weights.load_model("outputs/digits_classifier.safetensors"),
                             torch.from_numpy(x)[:, None] / 127.5 - 1)
    torch.testing.assert_close(features["test"], again, rtol=1e-2, atol=1e-2)    # stored in 16 bits
    assert main(["train", "digits_classifier", "--steps", "6", "--w", "2"]) == 1
    assert "--w has no meaning" in capsys.readouterr().err


def test_train_makes_a_classifier_of_critters(desk, monkeypatch):
    monkeypatch.setattr(figures, "TEST_SCENES", 50)
    assert main(["train", "critters_second", "--steps", "2", "--batch", "4"]) == 0
    card = weights.card("outputs/critters_second.safetensors")
    assert (card["kind"], card["seed"], card["figures"]["fresh_scenes"]) == ("attribute_classifier", 200, 50)
    assert weights.load_model("outputs/critters_second.safetensors").predict(torch.zeros(1, 3, 32, 32)).shape == (1, 4)


def test_a_failed_write_leaves_the_old_file(desk, small_weights, monkeypatch, capsys):
    Path("old.png").write_bytes(b"precious")

    def full_disk(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    command = ["generate", "7", "--model", small_weights, "--steps", "1", "--count", "1"]
    assert main([*command, "--out", "old.png"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert Path("old.png").read_bytes() == b"precious"
    assert no_scratch_left(desk)


def test_train_writes_weights_that_generate_can_use(desk, capsys):
    assert main([*TRAIN, "--steps", "4"]) == 0
    card = weights.load("outputs/digits.safetensors")[1]
    assert card["steps"] == 4
    assert card["batch"] == 4
    assert card["data"] == "mnist.npz", "a card tells the data, not where it lay"
    assert "train digits" in card["command"]
    model = ["--model", "outputs/digits.safetensors"]
    assert main(["generate", "7", *model, "--count", "1", "--steps", "2"]) == 0
    first = sha("outputs/digits.safetensors")
    capsys.readouterr()
    assert main([*TRAIN, "--steps", "4"]) == 0, "the same command again finds the run finished"
    assert "step 4 of 4" in capsys.readouterr().out
    assert sha("outputs/digits.safetensors") == first
    assert no_scratch_left(desk)


def test_train_by_the_clock_keeps_its_length_when_it_goes_on(desk, monkeypatch, capsys):
    assert main([*TRAIN, "--minutes", "0.02", "--checkpoint", "run.pt", "--out", "a.safetensors"]) == 0
    steps = weights.load("a.safetensors")[1]["steps"]
    monkeypatch.setattr(train, "affordable_steps", lambda *_: pytest.fail("measured anew"))
    assert main([*TRAIN, "--minutes", "0.02", "--checkpoint", "run.pt", "--out", "b.safetensors"]) == 0
    assert weights.load("b.safetensors")[1]["steps"] == steps


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused_and_kept(desk, capsys):
    assert main([*TRAIN, "--steps", "3", "--checkpoint", "run.pt"]) == 0
    before = sha("run.pt")
    assert main([*TRAIN, "--steps", "5", "--checkpoint", "run.pt"]) == 1
    assert "steps=3" in capsys.readouterr().err
    assert sha("run.pt") == before

    half = Path("run.pt").read_bytes()[:5000]
    for junk in (half, b"", b"not a checkpoint"):
        Path("junk.pt").write_bytes(junk)
        assert main([*TRAIN, "--steps", "3", "--checkpoint", "junk.pt"]) == 1
        said = capsys.readouterr().err
        assert "junk.pt is damaged" in said
        assert said.count("\n") == 1
        assert Path("junk.pt").read_bytes() == junk


def test_a_loss_that_explodes_ends_with_a_word(desk, capsys):
    assert main([*TRAIN, "--steps", "30", "--lr", "1e30"]) == 1
    said = capsys.readouterr().err
    assert "train failed" in said
    assert "lower learning rate" in said
    assert not Path("outputs").exists()


SCRIPT = f"""
import sys
from diffusion_lessons.training import recipes
recipes.RECIPES["digits"] = recipes.replace(recipes.RECIPES["digits"], network={SMALL!r})
from diffusion_lessons.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has another Ctrl-C")
def test_ctrl_c_keeps_what_was_learned_and_the_same_command_goes_on(desk):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

    def start(name):
        command = [*TRAIN, "--steps", "60", "--checkpoint", f"{name}.pt", "--out", f"{name}.safetensors"]
        return subprocess.Popen([sys.executable, "-c", SCRIPT, *command], env=environment,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)

    stopped, said = start("stopped"), b""
    until = time.time() + 300
    while b"loss=" not in said and time.time() < until:  # the bar has begun to move
        said += stopped.stdout.read(64)
    stopped.send_signal(signal.SIGINT)
    rest = stopped.communicate(timeout=300)[0]
    assert stopped.returncode == 130, rest.decode()
    assert b"resumes from stopped.pt" in rest
    assert b"Traceback" not in rest
    assert not Path("stopped.safetensors").exists()
    done = torch.load("stopped.pt", weights_only=True)["step"]
    assert 0 < done < 60

    again, whole = start("stopped"), start("whole")
    for process in (again, whole):
        said = process.communicate(timeout=300)[0].decode()
        assert process.returncode == 0, said
    a, b = weights.load("stopped.safetensors")[0], weights.load("whole.safetensors")[0]
    assert all(torch.equal(a[name], b[name]) for name in b), "going on is not what never stopping gives"


@pytest.fixture
def classifier(tmp_path, monkeypatch):
    """A classifier without training and made-up real features, in a folder of their own."""
    torch.manual_seed(0)
    classifier, folder = Classifier().eval(), tmp_path / "pretrained"
    real = torch.randn(300, 64)
    weights.save(folder / "digits_classifier", classifier.state_dict(),
                 {"kind": "classifier", "network": classifier.config})
    weights.save(folder / "digits_real", {"test": real}, {})
    monkeypatch.setattr(weights, "FOLDER", folder)
    return classifier, real


def test_evaluate_prints_the_protocols_figures(desk, classifier, small_weights, capsys):
    assert main(["evaluate", small_weights, "--count", "100", "--steps", "2", "--w", "2"]) == 0
    said = capsys.readouterr().out
    assert "100 pictures" in said
    assert "w = 2" in said

    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 256, (200, 28, 28), np.uint8), np.arange(200) % 10
    np.savez("mine.npz", x=x, y=y)
    assert main(["evaluate", "--npz", "mine.npz"]) == 0
    said = capsys.readouterr().out
    wanted = metrics.report(classifier[0], torch.from_numpy(x)[:, None] / 127.5 - 1, torch.from_numpy(y), classifier[1])
    for name in ("accuracy", "accuracy_lower95", "recall"):
        assert f"{wanted[name]:.2%}" in said
    assert f"{wanted['frechet']:.3f}" in said


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        (dict(x=np.zeros((80, 28, 28), np.uint8)), "no npz with x and y"),
        (dict(x=np.zeros((80, 28, 28), np.float32), y=np.zeros(80, int)), "uint8"),
        (dict(x=np.zeros((80, 32, 32), np.uint8), y=np.zeros(80, int)), "(N, 28, 28)"),
        (dict(x=np.zeros((80, 28, 28), np.uint8), y=np.zeros(79, int)), "one label"),
        (dict(x=np.zeros((80, 28, 28), np.uint8), y=np.full(80, 12)), "0..9"),
        (dict(x=np.zeros((5, 28, 28), np.uint8), y=np.zeros(5, int)), "too few"),
    ],
)
def test_evaluate_refuses_bad_pictures(desk, classifier, arrays, word, capsys):
    np.savez("bad.npz", **arrays)
    assert main(["evaluate", "--npz", "bad.npz"]) == 1
    assert word in capsys.readouterr().err


def test_evaluate_refuses_files_that_are_no_npz(desk, classifier, capsys):
    Path("half.npz").write_bytes(b"PK\x03\x04 cut off")
    assert main(["evaluate", "--npz", "half.npz"]) == 1
    assert "damaged" in capsys.readouterr().err
    assert main(["evaluate", "--npz", "absent.npz"]) == 1
    assert "absent.npz" in capsys.readouterr().err


def test_doctor_finds_all_well_without_the_network(desk, monkeypatch, capsys):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("doctor used the network"))
    assert main(["doctor"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    for word in ("torch ", "device", "memory", "CIFAR-10     not there", "digits_classifier", "All is well"):
        assert word in said
    assert f"there: {desk / 'mnist.npz'}" in said


def test_doctor_names_what_is_broken_and_what_to_do(desk, monkeypatch, capsys):
    (desk / "mnist.npz").write_bytes((desk / "mnist.npz").read_bytes()[:1000])
    folder = desk / "pretrained"
    folder.mkdir()
    for path in weights.FOLDER.glob("digits_classifier.*"):
        shutil.copy(path, folder)
    with open(folder / "digits_classifier.safetensors", "ab") as file:
        file.write(b"x")
    monkeypatch.setattr(weights, "FOLDER", folder)
    assert main(["doctor"]) == 1
    advice = [line for line in capsys.readouterr().out.splitlines() if line.startswith("What to do")]
    assert any("mnist.npz" in line and "Replace it" in line for line in advice)
    assert any("digits_classifier" in line and "SHA-256" in line for line in advice)
    assert any("'digits'" in line and "missing" in line for line in advice)


def test_the_shipped_model_draws_what_is_asked(desk):
    assert main(["generate", "7", "--count", "40", "--steps", "20", "--out", "sevens.npz"]) == 0
    x, y = evaluate.read_pictures("sevens.npz")
    assert metrics.accuracy(weights.load_model("digits_classifier"), x, y) >= 0.9


def test_pictures_are_sampled_by_the_protocol_unless_options_say_otherwise():
    plain, changed = (build_parser().parse_args(["evaluate", *more]) for more in ([], ["--steps", "7", "--eta", "1"]))
    for protocol in (metrics.PROTOCOL, prompt_following.PROTOCOL, SamplerSettings()):
        assert options.sampler(plain, protocol) == protocol
        assert options.sampler(changed, protocol) == replace(protocol, steps=7, eta=1)


def test_every_method_of_the_loop_can_be_asked_for():
    for method in METHODS:
        asked = build_parser().parse_args(["generate", "7", "--sampler", method])
        assert options.sampler(asked, SamplerSettings()).method == method
