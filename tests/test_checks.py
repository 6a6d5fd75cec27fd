"""Input is checked where it enters: each wrong kind gets a message of its own, and everything right passes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diffusion_lessons import generate, schedules, weights
from diffusion_lessons.checks import check_labels, check_pictures
from diffusion_lessons.cli.doctor import check_data
from diffusion_lessons.datasets import load_digits, ring
from diffusion_lessons.datasets.files import problem_with_labels
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.models.classifiers import Classifier
from diffusion_lessons.models.gan import DigitDiscriminator, DigitGenerator, PointDiscriminator, PointGenerator
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.samplers import SamplerSettings
from diffusion_lessons.training import Trainer, recipes
from diffusion_lessons.training.gan import GanTrainer

BYTES = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
X = BYTES / 127.5 - 1
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def denoiser(in_channels=1, classes=3, **settings):
    torch.manual_seed(0)
    net = UNet(in_channels=in_channels, channels=(8, 16), blocks=1, classes=classes, **settings)
    return Denoiser(net, schedules.cosine(100))


def train(x, y=None, net=None, **settings):
    """One step of training."""
    return Trainer(net or denoiser(), x, y, steps=1, batch=4, **settings).train_step()


def with_hole(x, value):
    x = x.clone()
    x[2, 0, 3, 4] = value
    return x


COLOUR = X.expand(6, 3, 8, 8)
WRONG_PICTURES = {
    "0..255": (X * 127.5 + 127.5, r"float32 from \S+ to 255: bytes as floats\? Call x / 127.5 - 1"),
    "0..1": (X / 2 + 0.5, r"from \S+ to 1: pictures in \[0, 1\]\? Call 2 \* x - 1"),
    "ImageNet": ((X / 2 + 0.5 - 0.449) / 0.226, "normalised, as for ImageNet"),
    "much too large": (1000 * X, r"from -1000 to 1000: bring them into \[-1, 1\]"),
    "NaN": (with_hole(X, math.nan), "1 of 6 pictures contain NaN or infinity"),
    "infinity": (with_hole(X, -math.inf), "1 of 6 pictures contain NaN or infinity"),
    "bytes of 0 and 1": (BYTES % 2, "torch.uint8 from 0 to 1: 0 and 1 in bytes"),
    "int64": (BYTES.long(), "uint8 or float in .*not torch.int64"),
    "bool": (BYTES > 100, "uint8 or float in .*not torch.bool"),
    "numpy": (X.numpy(), r"not a numpy array of float32: call torch.from_numpy"),
    "list": (X.tolist(), r"not a list: call torch.tensor"),
    "none": (X[:0], "no pictures"),
    "empty": (X[:, :, :0], "no pictures"),
    "colour": (COLOUR, r"\(N, 1, H, W\) with 1 channel, not \(6, 3, 8, 8\): colour"),
    "NHWC": (X.permute(0, 2, 3, 1), r"channels come last; call x.permute\(0, 3, 1, 2\)"),
    "no channel": (X[:, 0], r"not \(6, 8, 8\): add the channel, x\[:, None\]"),
    "flat": (X.flatten(1), r"not \(6, 64\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_PICTURES)
def test_pictures_that_a_training_cannot_use_are_named(name):
    x, words = WRONG_PICTURES[name]
    with pytest.raises(ValueError, match=words):
        train(x)


def test_a_colour_network_says_what_it_takes():
    colour = denoiser(in_channels=3)
    train(COLOUR, net=colour)
    with pytest.raises(ValueError, match=r"3 channels, not \(6, 8, 8, 3\): the channels come last"):
        train(COLOUR.permute(0, 2, 3, 1), net=colour)
    with pytest.raises(ValueError, match=r"not \(6, 1, 8, 8\): grey; call x.expand"):
        train(X, net=colour)
    with pytest.raises(ValueError, match=r"1 channel, not \(6, 3, 8, 8\): colour"):
        denoiser()(COLOUR, torch.ones(6).long())
    with pytest.raises(ValueError, match=r"1 channel, not \(4, 3, 8, 8\): colour"):
        text_to_image.sample_images(denoiser(), 4, (3, 8, 8), sampler=SamplerSettings(steps=2))
    with pytest.raises(ValueError, match=r"1 channel, not \(6, 3, 8, 8\): colour"):
        Classifier()(COLOUR)


@pytest.mark.parametrize("name", ["0..255", "0..1", "ImageNet", "much too large", "bytes of 0 and 1"])
def test_other_ranges_can_be_trained_on_on_purpose(name):
    x, _ = WRONG_PICTURES[name]
    assert math.isfinite(train(x, check_range=False).loss)
    with pytest.raises(ValueError, match="NaN or infinity"):
        train(with_hole(X, math.nan), check_range=False)


@given(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8]),
       st.floats(-1, 1, width=32), st.floats(-1, 1, width=32), st.booleans())
def test_pictures_in_the_right_range_pass_as_they_are(dtype, a, b, flip):
    low, high = sorted((a, b))
    if 0 <= low < high:
        low = -high    # all above grey: taken for 0..1
    x = BYTES if dtype == torch.uint8 else (torch.linspace(low, high, 64).reshape(2, 1, 4, 8)).to(dtype)
    x = x.flip(-1) if flip else x
    seen = check_pictures(x, denoiser().net)
    assert seen.dtype == (torch.uint8 if dtype == torch.uint8 else torch.float32)
    assert torch.equal(seen.float(), x.float())


def test_pictures_of_one_grey_and_points_of_any_size_pass():
    for x in (torch.zeros(3, 1, 4, 4), torch.ones(3, 1, 4, 4), torch.zeros(3, 1, 4, 4, dtype=torch.uint8)):
        assert check_pictures(x) is x
    points = 40 * ring(50)
    assert torch.equal(check_pictures(points), points)
    points[3, 1] = math.nan
    with pytest.raises(ValueError, match="1 of 50"):
        check_pictures(points)


def test_doubles_can_be_trained_on():
    assert train(X.double()).loss == train(X).loss


WRONG_LABELS = {
    "float": (Y.float(), r"integers \(int64\), not torch.float32: call y.long\(\)"),
    "uint8": (Y.to(torch.uint8), "not torch.uint8"),
    "bool": (Y > 0, "not torch.bool"),
    "list": (Y.tolist(), "a torch tensor of integers, not a list: call torch.tensor"),
    "words": (["cat", "dog"] * 3, r"not a list: call torch.tensor\(\[names.index\(word\) for word in y\]\)"),
    "numpy": (Y.numpy(), "not a numpy array of int64: call torch.from_numpy"),
    "numpy words": (np.array(["cat", "dog"] * 3), r"not a numpy array of <U3: call torch.tensor\(\[names.index"),
    "column": (Y[:, None], r"labels must be \(N,\), not \(6, 1\): call y\[:, 0\]"),
    "one-hot": (torch.eye(3).long()[Y], "cannot read.*call y.argmax"),
    "a single one": (Y[0], "not a single one"),
    "cube": (Y[:, None, None], r"or tokens \(N, L\), not \(6, 1, 1\)"),
    "too few": (Y[:5], "6 pictures but 5 labels"),
    "too high": (Y + 1, r"classes=3; these lie in 1\.\.3"),
    "negative": (Y - 1, r"classes=3; these lie in -1\.\.1"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_labels_that_a_network_cannot_use_are_refused(name):
    y, words = WRONG_LABELS[name]
    with pytest.raises(ValueError, match=words):
        train(X, y)
    if name != "too few":
        with pytest.raises(ValueError, match=words):
            text_to_image.sample_images(denoiser(), y, (1, 8, 8), sampler=SamplerSettings(steps=1))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_integers_are_labels(dtype):
    assert check_labels(Y.to(dtype), 6, denoiser().net).tolist() == Y.tolist()
    assert train(X, Y.to(dtype)).loss == train(X, Y).loss


def test_a_network_with_a_text_encoder_wants_tokens():
    reader = denoiser(classes=None, text=dict(vocab_size=12, length=8, width=16, layers=1, heads=2))
    with pytest.raises(ValueError, match=r"conditioned on sentences: give tokens \(N, 8\)"):
        train(X, Y, reader)
    with pytest.raises(ValueError, match=r"tokens must be \(N, 8\)"):
        train(X, Y[:, None], reader)
    train(X, torch.ones(6, 8).long(), reader)


def test_at_least_one_picture_must_be_asked_for():
    for none in (0, Y[:0]):
        with pytest.raises(ValueError, match="at least one picture|count must be a whole number from 1"):
            text_to_image.sample_images(denoiser(), none, (1, 8, 8), sampler=SamplerSettings(steps=1))


# ---- GANs


def test_a_gan_is_as_strict():
    def game(x, **settings):
        return GanTrainer(DigitGenerator(8, 8), DigitDiscriminator(8), x, steps=1, batch=4, **settings)

    x = torch.rand(6, 1, 28, 28) * 2 - 1
    game(x).train_step()
    for wrong, words in ((x * 127.5 + 127.5, "bytes as floats"), (x / 2 + 0.5, r"\[0, 1\]\?"),
                         (with_hole(x, math.nan), "NaN"), (x.numpy(), "torch.from_numpy"),
                         (x.expand(6, 3, 28, 28), r"generator makes \(1, 28, 28\), and the pictures are \(3, 28, 28\)"),
                         (x.permute(0, 2, 3, 1), r"the pictures are \(28, 28, 1\)"), (X, r"are \(1, 8, 8\)")):
        with pytest.raises(ValueError, match=words):
            game(wrong)
    game(x / 2 + 0.5, check_range=False).train_step()
    with pytest.raises(ValueError, match=r"generator makes \(2,\), and the pictures are \(3,\)"):
        GanTrainer(PointGenerator(width=8), PointDiscriminator(width=8), torch.zeros(9, 3), steps=1)


class Remembers(nn.Module):
    """A generator of points whose BatchNorm notes everything that it makes while it learns."""

    latent = 4

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))

    def forward(self, z):
        return self.layers(z)


def test_checking_a_generator_does_not_change_it():
    generator, discriminator = Remembers(), PointDiscriminator(width=8)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    state = torch.get_rng_state()
    trainer = GanTrainer(generator, discriminator, ring(20), steps=1)
    for part in (trainer.generator, trainer.ema):
        assert all(torch.equal(value, before[name]) for name, value in part.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert generator.training


# ---- data sets


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.array(["seven"] * 6), r"labels are <U5, not whole numbers 0\.\.9"),
        (np.array([b"7"] * 6), r"labels are \|S1, not whole numbers"),
        (np.arange(6) / 2, "labels are float64 from 0 to 2.5"),
        (np.arange(6) > 2, "labels are bool, not"),
        (np.zeros(6, "datetime64[D]"), "labels are datetime64"),
        (np.arange(6) + 7, "labels are int64 from 7 to 12"),
        (np.eye(6, dtype=int), "not one label for each"),
    ],
)
def test_an_npz_with_odd_labels_is_named_and_the_doctor_goes_on(tmp_path, monkeypatch, capsys, y, words):
    x = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    monkeypatch.setenv("DIFFUSION_LESSONS_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=words):
        load_digits("train")
    (advice,) = check_data()
    assert str(tmp_path / "mnist.npz") in advice
    assert "MNIST        damaged" in capsys.readouterr().out


@pytest.mark.parametrize("pixels", [np.array(["a"] * 6), np.full((6, 28, 28), "a"), np.zeros((6, 28, 28), complex),
                                    np.zeros((), np.uint8), np.zeros((6, 28, 28), bool)])
def test_an_npz_with_odd_pixels_is_named(tmp_path, pixels):
    np.savez(tmp_path / "mnist.npz", x_train=pixels, y_train=np.arange(6), x_test=pixels, y_test=np.arange(6))
    with pytest.raises(ValueError, match="pictures have the shape|pixels are"):
        load_digits("train", folder=tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64])
def test_integers_of_any_size_are_labels_in_a_file(dtype):
    assert problem_with_labels(np.arange(6, dtype=dtype), 6) is None
    assert problem_with_labels(np.arange(6, dtype=dtype)[:, None], 6) is None


# ---- cards


def saved(folder, without=(), **about):
    """Weights of a small network with ten classes, and a card.  -> their path"""
    net = denoiser(classes=10)
    about = {"labels": recipes.DIGITS, "picture": [1, 8, 8], "w": 1.0, **about}
    card = {key: value for key, value in weights.denoiser_card(net, **about).items() if key not in without}
    weights.save(folder / "mine", net.state_dict(), card)
    return str(folder / "mine.safetensors")


@pytest.mark.parametrize("key", ["picture", "w", "network", "schedule", "prediction_type"])
def test_a_card_without_what_is_needed_says_what(tmp_path, key):
    path = saved(tmp_path, without=[key])
    with pytest.raises(ValueError, match=f"the card of '.*mine.safetensors' has no '{key}'; it holds kind, "):
        generate("7", model=path, count=1, steps=1)
    if key == "w":
        assert len(generate("7", model=path, count=1, steps=1, guidance=2)) == 1


def test_names_with_capitals_can_be_asked_for(tmp_path):
    names = ["Cat", "DOG", "Émile", "top hat", "Frog", "frog", *map(str, range(6, 10))]
    path = saved(tmp_path, labels=names)
    for prompt, label in (("Cat", 0), ("cat", 0), ("  CAT ", 0), ("dog", 1), ("e\u0301mile", 2), ("Top  Hat", 3),
                          ("Frog", 4), ("frog", 5), ("FROG", 4), (7, 7)):
        assert text_to_image.encode_prompt(path, prompt) == label
    with pytest.raises(ValueError, match="does not know 'owl'; it knows Cat, DOG, Émile"):
        text_to_image.encode_prompt(path, "owl")
    assert len(generate("cat", model=path, count=1, steps=1)) == 1


def test_names_may_be_numbers(tmp_path):
    assert text_to_image.encode_prompt(saved(tmp_path, labels=list(range(10))), "3") == 3
