"""Your own pictures: any folder is read or refused with a sentence, learned, drawn from, compared and fine-tuned."""

import json
import os
import shlex
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lessons import generate, images, weights
from diffusion_lessons.cli import main, train_own
from diffusion_lessons.datasets import folder, to_float
from diffusion_lessons.datasets.folder import load_pictures
from diffusion_lessons.evaluation import own_pictures as measured
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.training import own_pictures, recipes, save_checkpoint

SMALL = dict(channels=(8, 16, 16), blocks=1)
RED, BLUE = (200, 30, 30), (30, 30, 200)


def paint(path, colour=RED, size=(12, 12), **how):
    """A picture file of one colour.  -> its path"""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **how)
    return path


def two_classes(root, count=6):
    """Class folders red and blue, with pictures of slightly different shades."""
    for k in range(count):
        paint(root / "red" / f"{k}.png", (200 - 5 * k, 30, 30))
        paint(root / "blue" / f"{k}.png", (30, 30, 200 - 5 * k))
    return root


@pytest.fixture
def small(tmp_path, monkeypatch):
    """An empty folder to work in, and a small network for own pictures."""
    monkeypatch.setattr(own_pictures, "SMALL", SMALL)
    monkeypatch.setattr(own_pictures, "TINY", SMALL)
    monkeypatch.setattr(train_own, "SAMPLES", 2)
    monkeypatch.setattr(train_own, "SAMPLE_STEPS", 1)
    monkeypatch.setattr(measured, "OLD_PROMPTS", 5)
    monkeypatch.setattr(measured, "LOSSES", 40)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- reading ----


def test_class_folders_become_labels_in_the_order_of_the_names(tmp_path):
    found = load_pictures(two_classes(tmp_path / "art"), size=8)
    assert (found.kind, found.source, found.notes) == ("labels", "art", [])
    assert found.texts == ["blue"] * 6 + ["red"] * 6
    assert found.x.shape == (12, 3, 8, 8)
    assert found.x[0, :, 4, 4].tolist() == [30, 30, 200]
    assert found.x[-1, :, 4, 4].tolist() == [175, 30, 30]


CAPTIONS = {
    "comma": ("captions.txt", "a b.png, a red  square\nsub/b.PNG,the sea\n"),
    "flickr": ("captions.txt", "image,caption\na b.png,a red square\na b.png,again\nsub\\b.PNG,the sea\n"),
    "tabs": ("captions.txt", "\ufeffa b.png\ta red square\r\n./sub/b.PNG\tthe sea\r\n"),
    "csv": ("captions.csv", '"a b.png","a red square"\n"b.PNG","the sea"\n'),
    "header": ("captions.csv", "id,caption,file_name\n1,a red square,a b.png\n2,the sea,sub/b.PNG\n"),
    "semicolons": ("captions.csv", "file;text\na b.png;a red square\nb.PNG;the sea\n"),
    "imagefolder": ("metadata.csv", "file_name,text\na b.png,a red square\nsub/b.PNG,the sea\n"),
}


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions_are_read_from_any_usual_table(tmp_path, name):
    paint(tmp_path / "a b.png")
    paint(tmp_path / "sub" / "b.PNG")
    file, text = CAPTIONS[name]
    (tmp_path / file).write_text(text, encoding="utf-8", newline="")
    found = load_pictures(tmp_path, size=8)
    assert (found.kind, found.texts) == ("captions", ["a red square", "the sea"])
    assert len(found.notes) == (name == "flickr")


def test_captions_stand_beside_the_pictures_and_a_missing_one_is_said(tmp_path):
    for k in range(3):
        paint(tmp_path / f"{k}.png")
    (tmp_path / "0.txt").write_text("a red\n square ")
    (tmp_path / "1.txt").write_bytes("caf\xe9".encode("cp1252"))    # not UTF-8
    (tmp_path / "2.txt").write_text(" \n")
    found = load_pictures(tmp_path, size=8)
    assert found.texts == ["a red square", "caf\ufffd", ""]
    assert found.notes == ["1 of 3 pictures have no caption: they are learned without text"]


def test_a_folder_without_classes_or_captions_has_neither(tmp_path):
    paint(tmp_path / "a.png")
    assert load_pictures(tmp_path, size=8).kind == "none"
    paint(tmp_path / "only" / "b.png").rename(tmp_path / "b.png")
    one = load_pictures(paint(tmp_path / "x" / "one class" / "c.png").parents[1], size=8)
    assert (one.kind, one.texts) == ("none", [""])
    assert "one class folder" in one.notes[0]


def test_what_is_unclear_is_asked_and_each_answer_helps(tmp_path):
    two_classes(tmp_path)
    paint(tmp_path / "loose.png")
    with pytest.raises(ValueError, match=r"1 pictures lie beside the class folders blue, red: loose.png.* none"):
        load_pictures(tmp_path, size=8)
    assert load_pictures(tmp_path, size=8, condition="none").texts == [""] * 13
    (tmp_path / "loose.png").unlink()
    (tmp_path / "red" / "0.txt").write_text("a red square")
    with pytest.raises(ValueError, match=r"captions for 1 of 12 pictures, and class folders.*--condition"):
        load_pictures(tmp_path, size=8)
    assert load_pictures(tmp_path, size=8, condition="labels").texts.count("red") == 6
    assert load_pictures(tmp_path, size=8, condition="captions").texts.count("") == 11


def test_a_folder_with_nothing_to_learn_says_what_it_should_hold(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    paint(tmp_path / ".hidden.png")
    paint(tmp_path / "__MACOSX" / "a.png")
    for path, error, word in ((tmp_path / "none", FileNotFoundError, "there is no"),
                              (tmp_path, ValueError, "no pictures"),
                              (tmp_path / "notes.txt", ValueError, "neither a folder nor")):
        with pytest.raises(error, match=word):
            load_pictures(path)
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"none of the 1 pictures in .* can be read: a.png \(no picture, or damaged\)"):
        load_pictures(tmp_path)
    paint(tmp_path / "b.png")
    for condition, word in (("labels", "two class folders or more"), ("captions", "there are no captions")):
        with pytest.raises(ValueError, match=word):
            load_pictures(tmp_path, condition=condition)
    for how in (dict(size=10), dict(size=4), dict(size=512), dict(fit="stretch"), dict(condition="some")):
        with pytest.raises(ValueError, match="multiple of 4|choose one of"):
            load_pictures(tmp_path, **how)


def bomb():
    """A PNG that says it has 60,000 x 60,000 pixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.faults
def test_no_file_ends_the_reading(tmp_path, monkeypatch):
    good = paint(tmp_path / "good.jpg", size=(40, 30))
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:300])
    (tmp_path / "bomb.png").write_bytes(bomb())
    (tmp_path / "empty.gif").touch()
    (tmp_path / "text.webp").write_text("<script>")
    (tmp_path / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "folder.png").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
    hangs, plain = threading.Event(), folder.read_square

    def slow(path, *how):
        return hangs.wait(20) if path.name == "slow.png" else plain(path, *how)

    paint(tmp_path / "slow.png")
    monkeypatch.setattr(folder, "read_square", slow)
    monkeypatch.setattr(folder, "PATIENCE", 0.3)
    found = load_pictures(tmp_path, size=8)
    assert len(found.x) == 1
    (note,) = found.notes
    assert note.startswith("skipped 6 of 7 files that cannot be read: ")
    entries, _, _ = folder.find_pictures(tmp_path, "none")
    _, skipped = folder.read_all(entries, 8, "crop", False)
    reasons = {line.split(" (")[0]: line for line in skipped}
    for name, word in (("bomb.png", "exceeds limit"), ("empty.gif", "is empty"), ("phone.HEIC", "export it as JPEG"),
                       ("slow.png", "more than 0.3 seconds"), ("text.webp", "no picture"), ("cut.jpg", "runcated")):
        assert word in reasons[name]
    assert not any(str(tmp_path) in line for line in skipped)


def test_every_kind_of_picture_is_read_as_a_photo_is(tmp_path):
    halves = np.zeros((16, 16, 3), np.uint8)
    halves[:, 8:] = 255
    left = Image.fromarray(halves)
    exif = Image.Exif()
    exif[274] = 3    # upside down
    files = {"a.png": left, "b.jpg": left, "c.webp": left, "d.gif": left.convert("P"), "e.png": left.convert("1"),
             "f.png": Image.fromarray(halves[:, :, 0].astype(np.uint16) * 257), "g.tif": left.convert("CMYK"),
             "h.bmp": left}
    for name, image in files.items():
        image.save(tmp_path / name)
    Image.fromarray(halves[:, ::-1].copy()).save(tmp_path / "i.jpg", exif=exif, quality=95)
    alpha = np.dstack([halves * 0, np.where(halves[:, :, 0], 0, 255).astype(np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "j.png")
    found = load_pictures(tmp_path, size=16)
    assert found.x.shape == (10, 1, 16, 16), "all are grey"
    assert (found.x[:, :, :, :6] < 12).all()
    assert (found.x[:, :, :, 10:] > 243).all()
    assert load_pictures(tmp_path, size=16, channels=3).x.shape[1] == 3


def test_a_crop_keeps_the_middle_and_a_pad_keeps_all(tmp_path):
    wide = np.full((20, 40, 3), 255, np.uint8)
    wide[:, :10] = RED
    wide[:, 10:30] = BLUE
    Image.fromarray(wide).save(tmp_path / "a.png")
    crop, pad = (load_pictures(tmp_path, size=8, fit=fit).x[0].permute(1, 2, 0).numpy() for fit in ("crop", "pad"))
    assert (np.abs(crop[:, 2:6].astype(int) - BLUE) < 8).all()
    assert (pad[:2] == 255).all() and (pad[6:] == 255).all()    # noqa: PT018
    assert (np.abs(pad[3:5, 0].astype(int) - RED) < 30).all()


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path):
    ramp = np.linspace(0, 255, 1600).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (1200, 1600, 3)).copy()).save(tmp_path / "a.jpg", quality=95)
    assert max(images.open_picture(tmp_path / "a.jpg", at_least=64).size) < 400
    small, whole = images.open_picture(tmp_path / "a.jpg", at_least=64), images.open_picture(tmp_path / "a.jpg")
    a, b = (folder.square(image, 32, "crop").astype(int) for image in (small, whole))
    assert np.abs(a - b).max() <= 4


@pytest.mark.parametrize(("side", "largest", "wanted"), [(12, 32, 12), (30, 32, 28), (400, 32, 32),
                                                         (400, 64, 64), (5, 32, 8)])
def test_small_pictures_are_not_enlarged(tmp_path, side, largest, wanted):
    paint(tmp_path / "a.png", size=(side, 2 * side))
    assert load_pictures(tmp_path, largest=largest).x.shape[-1] == wanted


def test_arrays_are_read_with_labels_words_or_captions(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    cases = [({"x": x}, "none", [""] * 4), ({"x": x[..., 0], "y": np.array([7, 1, 7, 1])}, "labels", list("7171")),
             ({"x": x, "y": np.array([["cat"], ["owl"], ["cat"], ["owl"]])}, "labels", ["cat", "owl"] * 2),
             ({"x_train": x, "y_train": np.array(["a cat", "an owl", "a hat", "a frog"])}, "captions",
              ["a cat", "an owl", "a hat", "a frog"])]
    for arrays, kind, texts in cases:
        np.savez(tmp_path / "a.npz", **arrays)
        found = load_pictures(tmp_path / "a.npz")
        assert (found.kind, found.texts) == (kind, texts)
        wanted = next(iter(arrays.values()))
        assert (found.x.permute(0, 2, 3, 1).squeeze(-1).numpy() == wanted).all()
    for arrays, word in (({"z": x}, "has no array x"), ({"x": x / 255.0}, "uint8"),
                         ({"x": x, "y": np.arange(3)}, "4 whole"), ({"x": x[:0]}, "must be"),
                         ({"x": np.array([{}, {}])}, "damaged")):
        np.savez(tmp_path / "b.npz", **arrays)
        with pytest.raises(ValueError, match=word):
            load_pictures(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match="is damaged"):
        load_pictures(tmp_path / "c.npz")


# ---- training, and what comes of it ----


def train(*options):
    """The command, with a few steps unless it says more.  -> its exit code"""
    length = [] if {"--steps", "--minutes"} & set(options) else ["--steps", "3"]
    return main(["train", *length, "--batch", "4", *map(str, options)])


def test_a_folder_becomes_a_model_that_generate_and_evaluate_take(small, capsys):
    two_classes(small / "art")
    (small / "art" / "red" / "broken.png").write_text("no picture")
    assert train("--data", "art") == 0
    said = capsys.readouterr().out
    for words in ("12 pictures of 2 classes: blue (6), red (6)", "each 12x12 pixels, colour: scaled to its shorter",
                  "note: skipped 1 of 13", "warning: only 12 pictures", "outputs/art-nearest.png: 2 samples",
                  'generate red --model outputs/art.safetensors'):
        assert words in said
    card = weights.card("outputs/art.safetensors")
    assert (card["labels"], card["picture"], card["data"]) == (["blue", "red"], [3, 12, 12], "art")
    assert str(small) not in json.dumps(card), "a card tells the data, not where it lay"
    assert main(["generate", "RED", "--model", "outputs/art.safetensors", "--count", "3", "--steps", "2",
                 "--nearest", "art", "--out", "red.png"]) == 0
    pair, gap = 2 * 12 + 1, 6                           # a sample and its nearest picture; between pairs
    assert Image.open("red.png").size == (4 * (2 * pair + 3 * gap), 4 * (2 * 12 + 3 * gap))
    capsys.readouterr()
    assert main(["evaluate", "outputs/art.safetensors", "--data", "art", "--count", "5", "--steps", "2"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["pictures"] == 12
    assert figures["nearest"] > 1
    assert 0 < figures["loss"] < 3
    assert main(["evaluate", "outputs/art.safetensors"]) == 1
    assert "add --data FOLDER" in capsys.readouterr().err


def test_the_same_command_resumes_and_other_pictures_begin_afresh(small, capsys, monkeypatch):
    two_classes(small / "art")
    command = ["--data", "art", "--minutes", "5"]
    monkeypatch.setattr(train_own, "affordable_steps", lambda *_: 3)
    assert train(*command) == 0
    first = Path("outputs/art.safetensors").read_bytes()
    monkeypatch.setattr(train_own, "affordable_steps", lambda *_: pytest.fail("measured anew"))
    capsys.readouterr()
    assert train(*command) == 0
    assert "resuming from checkpoints/art-" in capsys.readouterr().out
    assert Path("outputs/art.safetensors").read_bytes() == first
    paint(small / "art" / "red" / "0.png", BLUE)
    assert train("--data", "art", "--steps", "3") == 0
    assert "resuming" not in capsys.readouterr().out
    assert len(list(Path("checkpoints").glob("art-*[0-9].pt"))) == 2


def test_a_run_that_was_killed_ends_as_one_that_was_not(small, monkeypatch):
    two_classes(small / "art")
    assert train("--data", "art", "--seed", "3", "--out", "whole.safetensors", "--checkpoint", "whole.pt") == 0
    plain, calls = recipes.Trainer.train_step, []

    def stop_at_2(trainer):
        calls.append(trainer.step)
        if trainer.step == 2:
            raise KeyboardInterrupt
        step = plain(trainer)
        save_checkpoint("cut.pt", trainer)
        return step

    monkeypatch.setattr(recipes.Trainer, "train_step", stop_at_2)
    command = ["--data", "art", "--seed", "3", "--out", "cut.safetensors", "--checkpoint", "cut.pt"]
    assert train(*command) == 130
    monkeypatch.setattr(recipes.Trainer, "train_step", plain)
    assert train(*command) == 0
    assert calls == [0, 1, 2]
    assert Path("cut.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()


def test_captions_make_a_vocabulary_and_a_prompt_of_them_is_drawn(small, capsys):
    for k, caption in enumerate(["A red Square!", "the blue sea", "", "caf\u00e9, " + "very " * 60]):
        paint(small / "art" / f"{k}.png", RED if k % 2 else BLUE)
        (small / "art" / f"{k}.txt").write_text(caption, encoding="utf-8")
    assert train("--data", "art") == 0
    card = weights.card("outputs/art.safetensors")
    assert card["vocab"] == ["a", "blue", "caf\u00e9", "red", "sea", "square", "the", "very"]
    assert card["network"]["text"]["length"] == own_pictures.LONGEST + 2
    said = capsys.readouterr().out
    assert "1 of 4 pictures have no caption" in said
    assert main([*shlex.split(said.splitlines()[-1])[3:], "--count", "1", "--steps", "1"]) == 0    # "try them: ..."
    assert len(generate("the red sea", model="outputs/art.safetensors", steps=1, count=2)) == 2
    with pytest.raises(ValueError, match='never seen "green"'):
        generate("green", model="outputs/art.safetensors")


def test_pictures_without_labels_make_a_model_whose_prompt_is_empty(small):
    paint(small / "art" / "a.png", size=(8, 8))
    assert train("--data", "art") == 0, "one picture is enough to try"
    assert len(generate("", model="outputs/art.safetensors", steps=1, count=2)) == 2
    with pytest.raises(ValueError, match="takes no prompt"):
        generate("cat", model="outputs/art.safetensors")


def test_the_length_is_proposed_before_the_run(small, monkeypatch, capsys):
    two_classes(small / "art")
    monkeypatch.setattr(recipes, "steps_a_second", lambda *_: 2.0)
    for most, steps, minutes in ((3, 3, 0.0), (8_000, 2400, 20.0)):
        monkeypatch.setattr(own_pictures, "STEPS", most)
        monkeypatch.setattr(train_own, "train_network", lambda recipe, *_: pytest.fail(str(recipe.steps)))
        with pytest.raises(pytest.fail.Exception, match=f"^{steps}$"):
            main(["train", "--data", "art"])
        assert f"proposed for this machine: 12x12 pixels, {steps:,} steps, about {minutes}" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "word"), [
    (["digits", "--data", "art"], "leave out the name of a recipe"), (["--data", "nowhere"], "there is no"),
    (["--data", "art", "--size", "10"], "multiple of 4"), (["--init-from", "critters"], "name them with --data"),
    (["--data", "art", "--init-from", "critters", "--size", "64"], "leave --size out"),
    (["--data", "art", "--init-from", "digits_real"], "digits_real"),
    (["--data", "art", "--init-from", "none"], "choose"),
    (["--data", "art", "--init-from", "gan_healthy"], "gan_healthy"),
])
def test_what_does_not_fit_together_is_refused_before_any_work(small, capsys, options, word):
    two_classes(small / "art", 1)
    assert train(*options) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert word in said
    assert not Path("checkpoints").exists()
    assert not Path("outputs").exists()


# ---- new, or copied? ----


def test_copies_are_told_from_new_pictures():
    g = torch.Generator().manual_seed(0)
    data, new = (torch.rand(60, 3, 16, 16, generator=g) * 2 - 1 for _ in range(2))
    assert measured.nearest_ratio(data[:9] + 0.01, data) < 0.1
    assert measured.nearest_ratio(new, data) == pytest.approx(1, abs=0.1)
    assert measured.nearest_ratio(3 * new, data) > 1.5
    assert ["by heart" in measured.verdict(ratio) for ratio in (0.1, 0.7, 1.1, 3)] == [True, False, False, False]


def test_the_sheet_shows_each_sample_and_to_its_right_the_nearest_picture():
    data = torch.stack([torch.full((1, 8, 8), value) for value in (0, 100, 200)]).to(torch.uint8)
    sheet = np.asarray(measured.nearest_sheet(to_float(data[[2, 0]]) + 0.1, data, zoom=1))
    sample, nearest = sheet[6:14, 6:14, 0], sheet[6:14, 15:23, 0]
    assert (nearest == 200).all()
    assert (sample == 213).all()
    assert (sheet[6:14, 38:46] == 0).all()


# ---- fine-tuning ----


def base(path, name):
    """Weights of a small network with a shipped one's labels or words, whose outputs are not all zero."""
    text = {"text": dict(width=16, layers=1, heads=2)} if name == "critters" else {}
    network = dict(in_channels=3 if text else 1, channels=(8, 16), blocks=1, **text)
    recipe = recipes.replace(recipes.RECIPES[name], network=network)
    model = recipes.build(recipe)
    for weight in model.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    picture = [3, 32, 32] if text else [1, 28, 28]
    known = {"vocab": list(recipe.vocab)} if text else {"labels": list(recipe.labels)}
    weights.save(path, model.state_dict(), weights.denoiser_card(model, w=2.0, picture=picture, **known))
    return path


@pytest.mark.parametrize("name", ["critters", "digits"])
def test_room_for_new_words_or_labels_changes_nothing_old(tmp_path, name):
    path = base(tmp_path / "base.safetensors", name)
    old, card = weights.load_model(path), weights.card(path)
    new = own_pictures.with_room(old, 3)
    x, t = torch.randn(4, *card["picture"]), torch.tensor([1, 300, 700, 1000])
    texts = {"digits": ["7", "0", "3", "9"], "critters": ["a green frog", "owl", "snow", ""]}[name]
    y = own_pictures.encode_for(card, texts)
    torch.testing.assert_close(new(x, t, y).eps, old(x, t, y).eps)
    torch.testing.assert_close(new(x, t).eps, old(x, t).eps)    # the null condition, too
    if name == "critters":
        frog, last = torch.tensor([[1, 5, 2] + [0] * 15]), torch.tensor([[1, 85, 2] + [0] * 15])
        assert (new(x, t, last.expand(4, -1)).eps - new(x, t, frog.expand(4, -1)).eps).abs().max() > 1e-4
    else:    # a new label begins as "no label"
        torch.testing.assert_close(new(x, t, torch.full((4,), 12)).eps, new(x, t).eps)


def test_a_few_drawings_are_taught_to_a_network_that_knows_words(small, capsys):
    base(small / "base.safetensors", "critters")
    for k in range(3):
        paint(small / "red_dragons" / f"{k}.png", size=(50, 40))
    assert train("--data", "red_dragons", "--init-from", "base.safetensors") == 0
    said = capsys.readouterr().out
    assert "learned: the loss on your pictures was" in said
    assert "forgotten: of 5 old prompts, base drew" in said
    card = weights.card("outputs/red_dragons.safetensors")
    assert card["vocab"] == [*weights.card("base.safetensors")["vocab"], "dragons"]
    assert card["init_from"] == "base.safetensors"
    assert card["figures"]["loss"][0] > 0
    for prompt in ("red dragons in the snow", "a green frog"):
        assert len(generate(prompt, model="outputs/red_dragons.safetensors", steps=1, count=1)) == 1


def test_new_classes_come_after_those_of_the_network_and_are_learned(small, capsys):
    base(small / "base.safetensors", "digits")
    two_classes(small / "art", 4)
    two_classes(small / "art2" / "x", 1).rename(small / "7")
    (small / "7").rename(small / "art" / "7")
    assert train("--data", "art", "--init-from", "base.safetensors", "--steps", "20", "--lr", "0.01") == 0
    assert "forgotten: of 5 old prompts" in capsys.readouterr().out
    card = weights.card("outputs/art.safetensors")
    assert card["labels"] == [*recipes.DIGITS, "blue", "red"]
    assert card["picture"] == [1, 28, 28], "made grey, as the network draws"
    before, after = card["figures"]["loss"]
    assert after < 0.9 * before
    (small / "art" / "captions.txt").write_text("0.png,a red square\n")
    paint(small / "art" / "0.png")
    assert train("--data", "art", "--init-from", "base.safetensors", "--condition", "captions") == 1
    assert "knows labels, not captions" in capsys.readouterr().err


def test_texts_reach_the_network_as_it_knows_them():
    y = own_pictures.encode_texts(["The SEA, a sea!", "nothing known", ""], None, ("a", "sea", "the"), 3)
    assert y.tolist() == [[1, 5, 4, 3, 2], [1, 2, 0, 0, 0], [1, 2, 0, 0, 0]]
    assert own_pictures.encode_texts(["b", "a"], ("a", "b"), None, 3).tolist() == [1, 0]
    assert own_pictures.encode_texts(["b"], None, None, 3) is None
    with pytest.raises(ValueError, match="no label c; it knows a, b"):
        own_pictures.encode_texts(["c"], ("a", "b"), None, 3)
    assert text_to_image.encode_prompt("digits", "7") == 7


def test_few_pictures_are_warned_of():
    for count in (own_pictures.FEW - 1, own_pictures.FEW):
        x = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
        said = own_pictures.describe(folder.OwnPictures(x, [""] * count, "none", "art", []), "pad")
        assert ("learn them by heart" in said) == (count < own_pictures.FEW)
        assert "8x8 pixels, grey: scaled to its longer side, on white" in said


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("size", [8, 12, 16, 28, 32, 36, 48, 64, 256])
def test_the_network_fits_pictures_of_any_size(monkeypatch, size, large):
    device = torch.device("cuda" if large else "cpu")
    monkeypatch.setattr(recipes.runtime, "device", lambda: device)
    x = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    recipe = own_pictures.recipe_for(folder.OwnPictures(x, [""], "none", "art", []))
    with torch.device("meta"):
        net = UNet(**recipe.network)
        assert net(torch.zeros(2, 3, size, size), torch.ones(2)).shape == (2, 3, size, size)
    assert own_pictures.largest_size(device) == (64 if large else 32)
