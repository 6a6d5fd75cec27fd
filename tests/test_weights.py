"""Weights and their cards: nothing is loaded that does not match its card."""

import json
import shutil
from pathlib import Path

import killable_run
import pytest
import torch
from safetensors.torch import save_file

from diffusion_lessons import generate, weights
from diffusion_lessons.denoiser import Denoiser, OneStepDenoiser
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.models.classifiers import AttributeClassifier, Classifier
from diffusion_lessons.models.gan import DigitGenerator
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.samplers import SamplerSettings
from diffusion_lessons.schedules import constant, from_betas, linear, make_schedule
from diffusion_lessons.training import recipes


@pytest.fixture
def saved(tmp_path, g):
    turned = torch.randn(4, 2, generator=g).mT   # not contiguous in memory
    tensors = {"a": torch.randn(3, 4, generator=g), "n": torch.tensor([1, 2**40]), "turned": turned}
    path = tmp_path / "some.safetensors"
    weights.save(path, tensors, {"data": "none", "steps": 3})
    return path, tensors


def test_what_is_saved_is_loaded(saved):
    path, tensors = saved
    loaded, card = weights.load(path)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[k], tensors[k]) for k in tensors)
    assert card["data"] == "none"
    assert card["steps"] == 3
    assert len(card["sha256"]) == 64
    assert sorted(p.name for p in path.parent.iterdir()) == ["some.json", "some.safetensors"]


def test_float16_halves_the_file_and_loads_as_float32(tmp_path, g):
    x = {"x": torch.randn(200, 100, generator=g), "n": torch.tensor([2**40])}
    weights.save(tmp_path / "full", x, {})
    weights.save(tmp_path / "half", x, {}, torch.float16)
    size = {n: (tmp_path / f"{n}.safetensors").stat().st_size for n in ("full", "half")}
    assert size["half"] < 0.52 * size["full"]
    loaded, _ = weights.load(tmp_path / "half.safetensors")
    assert loaded["x"].dtype == torch.float32
    assert torch.equal(loaded["x"], x["x"].half().float())
    assert loaded["n"].item() == 2**40   # whole numbers stay whole


def test_a_damaged_file_is_refused_and_left_unchanged(saved):
    path, _ = saved
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1   # one bit
    for content in (bytes(flipped), whole[:-3], whole[: len(whole) // 2], b"", whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="SHA-256 differs") as caught:
            weights.load(path)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == content
    path.write_bytes(whole)
    weights.load(path)


def test_another_file_under_the_name_is_refused(saved, tmp_path):
    path, tensors = saved
    save_file({"a": tensors["a"] + 1}, path)
    with pytest.raises(ValueError, match="does not match its card"):
        weights.load(path)


def test_a_missing_or_broken_card_is_refused(saved):
    path, _ = saved
    card = path.with_suffix(".json")
    text = card.read_text()
    card.write_text(text[:20])
    with pytest.raises(ValueError, match="not valid JSON"):
        weights.load(path)
    card.write_text(json.dumps({"data": "none"}))   # a card without a checksum vouches for nothing
    with pytest.raises(ValueError, match="SHA-256"):
        weights.load(path)
    card.unlink()
    with pytest.raises(FileNotFoundError, match=r"some\.json is missing"):
        weights.load(path)


def test_unknown_names_list_the_known(tmp_path):
    for load in (weights.load, weights.card, weights.load_model):
        with pytest.raises(ValueError, match="no weights 'digit'") as caught:
            load("digit")
        assert all(name in str(caught.value) for name in weights.available())
    with pytest.raises(ValueError, match="no weights"):
        weights.load(tmp_path / "nowhere.safetensors")


def test_a_card_that_cannot_be_written_spoils_nothing(saved):
    path, tensors = saved
    with pytest.raises(TypeError):
        weights.save(path, {"a": tensors["a"] + 1}, {"figures": torch.ones(1)})
    assert torch.equal(weights.load(path)[0]["a"], tensors["a"])
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("kind", [Denoiser, OneStepDenoiser])
@pytest.mark.parametrize("target, settings", [("v", {}), ("eps", {"time_conditioned": False}), ("x0", {"blocks": 2})])
def test_a_loaded_denoiser_says_the_same(kind, target, settings, tmp_path, g):
    net = killable_run.denoiser(**settings).net
    for p in net.parameters():
        p.data.normal_(std=0.1)   # also where a fresh network is zero
    denoiser = kind(net, make_schedule("sigmoid", 50), target).eval()
    weights.save(tmp_path / "mine", denoiser.state_dict(), weights.denoiser_card(denoiser, steps=0))
    again = weights.load_model(tmp_path / "mine.safetensors")
    assert type(again) is kind
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert all(torch.equal(again.state_dict()[name], value) for name, value in denoiser.state_dict().items())
    x_t, t = torch.randn(4, 1, 8, 8, generator=g), torch.tensor([1, 20, 40, 50])
    for y in (None, torch.tensor([0, 1, 0, 1])):
        for a, b in zip(again(x_t, t, y), denoiser(x_t, t, y), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)    # the layout differs, and so the rounding


def test_a_schedule_that_the_card_could_not_rebuild_is_refused():
    net = killable_run.denoiser().net
    assert weights.denoiser_card(Denoiser(net, linear(50)))["schedule"] == {"name": "linear", "T": 50}
    for schedule in (constant(50, beta=0.1), linear(50, rescale=False)):
        with pytest.raises(ValueError, match="settings of its own"):
            weights.denoiser_card(Denoiser(net, schedule))
    with pytest.raises(ValueError, match="unknown schedule"):
        weights.denoiser_card(Denoiser(net, from_betas("mine", [0.1, 0.2])))


def test_a_loaded_classifier_says_the_same(tmp_path, g):
    torch.manual_seed(0)
    classifier, x = Classifier(classes=4, width=16), torch.randn(8, 1, 28, 28, generator=g)
    classifier(3 * x + 1)   # its running means move
    classifier.eval()
    card = {"kind": "classifier", "network": classifier.config}
    weights.save(tmp_path / "mine", classifier.state_dict(), card)
    again = weights.load_model(tmp_path / "mine.safetensors")
    assert torch.equal(again(x), classifier(x))
    torch.testing.assert_close(again.head(again.features(x)), again(x))
    torch.testing.assert_close(again(x[:1]), again(x)[:1], rtol=1e-4, atol=1e-5)   # no help from its neighbours


def test_a_loaded_generator_says_the_same(tmp_path, g):
    torch.manual_seed(3)
    generator = DigitGenerator(latent=12, width=8)
    card = {"kind": "generator", "network": generator.config}
    weights.save(tmp_path / "mine.safetensors", generator.state_dict(), card)
    again, z = weights.load_model(str(tmp_path / "mine.safetensors")), torch.randn(4, 12, generator=g)
    torch.testing.assert_close(again(z), generator(z))
    assert again.latent == 12
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())


KINDS = {"digits": Denoiser, "ablation_the_step_alone": OneStepDenoiser, "digits_classifier": Classifier,
         "critters_classifier": AttributeClassifier, "critters_second": AttributeClassifier,
         "gan_healthy": DigitGenerator, "stability_gan": DigitGenerator}


@pytest.mark.parametrize("name", KINDS)
def test_load_model_builds_the_class_that_the_card_names(name):
    tensors, card = weights.load(name)
    model = weights.load_model(name)
    assert type(model) is KINDS[name]
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[key], tensors[key]) for key in tensors)


def test_load_model_refuses_what_is_no_network(tmp_path):
    with pytest.raises(ValueError, match=r"'digits_real' holds features, not a network: read it with weights\.load"):
        weights.load_model("digits_real")
    weights.save(tmp_path / "mine", {"a": torch.zeros(1)}, {"network": {}})
    with pytest.raises(ValueError, match="has no 'kind'"):
        weights.load_model(tmp_path / "mine.safetensors")
    weights.save(tmp_path / "mine", {"a": torch.zeros(1)}, {"kind": "generator"})
    with pytest.raises(ValueError, match="has no 'network'"):
        weights.load_model(tmp_path / "mine.safetensors")


def test_generate_hashes_the_weights_once(monkeypatch):
    hashed, sha256 = [], weights.sha256
    monkeypatch.setattr(weights, "sha256", lambda path: (hashed.append(path.stem), sha256(path))[1])
    generate("7", steps=1, count=1)
    assert hashed == ["digits"]


def test_a_damaged_file_makes_no_pictures(tmp_path):
    """The card is read before the weights are verified, but nothing is sampled from weights that are not."""
    for suffix in (".json", ".safetensors"):
        shutil.copy(weights.FOLDER / f"digits{suffix}", tmp_path)
    path = tmp_path / "digits.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert weights.card(path)["labels"][7] == "7"
    with pytest.raises(ValueError, match="SHA-256 differs"):
        generate("7", model=path, steps=1, count=1)


# ---- what ships


def test_the_courses_weights_are_there():
    assert {"digits", "digits_classifier", "digits_real"} <= set(weights.available())
    assert {p.stem for p in weights.FOLDER.glob("*.json")} >= set(weights.available())


@pytest.mark.parametrize("name", weights.available())
def test_shipped_weights_are_what_their_card_says_and_it_says_enough(name):
    tensors, card = weights.load(name)   # verifies the checksum
    assert all(x.isfinite().all() for x in tensors.values())
    needed = ["data", "figures", "command", "code_version"]
    needed += [] if card["kind"] == "features" else ["steps", "seed", "network"]
    assert [key for key in needed if card.get(key) in (None, "", {})] == []


def kind(name):
    card = weights.FOLDER / f"{name}.json"
    return json.loads(card.read_text())["kind"] if card.exists() else None


def in_the_usual_range(name):
    """Two what-ifs of lesson 03 learned other numbers than -1..1 on purpose."""
    return json.loads((weights.FOLDER / f"{name}.json").read_text()).get("setting", {}).get("low", -1) == -1


DENOISERS = [name for name in weights.available() if kind(name) == "denoiser" and in_the_usual_range(name)]


@pytest.mark.parametrize("name", DENOISERS)
def test_shipped_denoisers_are_ready_and_have_learned(name, g):
    """On a lone smooth blob, hardly noised, each must find the noise far better than by guessing 0."""
    card, denoiser = weights.load(name)[1], weights.load_model(name)
    channels, height, width = card.get("picture", [1, 28, 28])
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    blob = (2 * torch.exp(-8 * (x**2 + y**2)) - 1).expand(4, channels, height, width)
    T = denoiser.schedule.T
    t, eps = torch.full((4,), T // 2), torch.randn(blob.shape, generator=g)
    ab = denoiser.schedule.alpha_bar[T // 2].item()
    hat = denoiser(ab**0.5 * blob + (1 - ab) ** 0.5 * eps, t)
    assert (hat.eps - eps).square().mean() < 0.5 * eps.square().mean()
    assert (hat.x0 - blob).abs().mean() < 0.5
    for at in (1, T):
        assert all(part.isfinite().all() for part in denoiser(eps, torch.full((4,), at)))


def test_the_shipped_digits_are_classified_as_their_labels():
    """50 pictures in 20 steps, classified by the shipped classifier."""
    y = torch.arange(50) % 10
    w = weights.card("digits")["w"]
    sampler = SamplerSettings(steps=20)
    x = text_to_image.sample_images(weights.load_model("digits"), y, (1, 28, 28), w=w, sampler=sampler)
    classifier = weights.load_model("digits_classifier")
    assert metrics.accuracy(classifier, x, y) >= 0.94
    assert metrics.accuracy(classifier, x[torch.randperm(50, generator=torch.Generator().manual_seed(0))], y) < 0.5


def test_the_card_of_the_real_features_says_what_they_give():
    """The held back training pictures in the samples' place. float16 costs less than 2 %."""
    tensors, card = weights.load("digits_real")
    assert len(tensors["test"]) == len(tensors["train"]) == card["figures"]["count"] == 10_000
    distance = metrics.frechet_distance(tensors["train"], tensors["test"])
    assert distance == pytest.approx(card["figures"]["frechet"], rel=0.02)


def test_the_digits_reach_the_courses_mark():
    """By their cards: 10,000 samples, and equally many real pictures in their place."""
    made, real = (weights.load(name)[1]["figures"] for name in ("digits", "digits_real"))
    assert made["count"] == real["count"] == 10_000
    assert made["accuracy"] >= 0.99
    assert made["frechet"] <= 2 * real["frechet"]


def test_the_shipped_generators_are_as_healthy_and_as_ill_as_the_lesson_says():
    classifier = weights.load_model("digits_classifier")
    z = torch.randn(1000, 64, generator=torch.Generator().manual_seed(7))
    names = ("gan_healthy", "gan_collapsed", "gan_no_noise")
    healthy, collapsed, without = (weights.load_model(name) for name in names)
    shares = metrics.class_shares(classifier, healthy(z))
    assert shares.min() > 0.02
    assert shares.max() < 0.25
    assert metrics.class_shares(classifier, collapsed(z[:, :collapsed.latent])).max() > 0.5
    assert metrics.mean_pairwise_distance(without(0 * z[:50])) < 1e-6
    real = weights.load("digits_real")[0]["test"]
    distance = [metrics.frechet_distance(metrics.features(classifier, x), real)
                for x in (healthy(z), collapsed(z[:, :collapsed.latent]))]
    assert distance[0] < 0.7 < 5 < distance[1]


CURVES = sorted((weights.FOLDER / "curves").glob("*.json"))


@pytest.mark.parametrize("path", CURVES, ids=lambda path: path.stem)
def test_a_shipped_curve_names_the_command_that_makes_it(path):
    python, script, *arguments = json.loads(path.read_text())["command"].split()
    assert python == "python"
    assert (Path(__file__).resolve().parent.parent / script).exists()
    assert arguments
    assert "NaN" not in path.read_text()
    curve = json.loads(path.read_text())
    if "sha256" in curve:
        assert curve["sha256"] == weights.card(curve["weights"])["sha256"], "made with other weights: make it again"


def test_the_shipped_critters_are_the_recipes_network():
    recipe, card = recipes.RECIPES["critters"], weights.card("critters")
    assert json.loads(json.dumps(recipes.build(recipe).net.config)) == card["network"]
    assert {name: card[name] for name in ("batch", "lr", "cond_drop_prob", "w")} == {
        name: getattr(recipe, name) for name in ("batch", "lr", "cond_drop_prob", "w")}


def test_the_shipped_gans_were_made_by_the_recipes_of_today():
    for name, recipe in recipes.DIGIT_GANS.items():
        assert recipes.GanRecipe(**weights.load(f"gan_{name}")[1]["recipe"]) == recipe
    curve = json.loads((weights.FOLDER / "curves" / "gan_ring.json").read_text())
    assert {name: recipes.GanRecipe(**recipe) for name, recipe in curve["recipes"].items()} == recipes.POINT_GANS
    assert [run["label"] for run in curve["runs"]] == [name for name in recipes.POINT_GANS for _ in range(5)]
