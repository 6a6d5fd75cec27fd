"""The miniature that is shipped: what its card says of it is measured again here, on other scenes."""

import json

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline

from diffusion_lessons import weights
from diffusion_lessons.datasets import critters, to_float
from diffusion_lessons.evaluation.metrics import attribute_accuracy, wilson_interval
from diffusion_lessons.evaluation.prompt_following import combinations, prompts_for, sample_rows
from diffusion_lessons.models.stable_diffusion.clip import retrieval_accuracy
from diffusion_lessons.pipelines.photo import psnr
from diffusion_lessons.pipelines.published import SHIPPED, load_clip, load_stable_diffusion
from diffusion_lessons.training.latent import SIZE, critter_tokenizer

FOLDER = SHIPPED["critters"]
FIGURES = json.loads((FOLDER / "card.json").read_text())["figures"]
ROWS = sample_rows(combinations(), 64, seed=123)


@pytest.fixture(scope="module")
def pipeline():
    return load_stable_diffusion("critters", "cpu")


@pytest.fixture(scope="module")
def pictures():
    """64 scenes with different attributes.  (64, 3, 64, 64)"""
    return to_float(critters.render(critters.with_variation(ROWS, torch.Generator().manual_seed(123)), SIZE))


def all_right(x, rows=ROWS):
    """The share of pictures in which the classifier of lesson 05 finds all four attributes."""
    return attribute_accuracy(weights.load_model("critters_classifier"), F.avg_pool2d(x, SIZE // 32), rows)["all"]


def test_it_is_small_and_only_safetensors_and_text():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30e6
    assert {path.suffix for path in files} == {".safetensors", ".json", ".txt"}


def test_the_vae_brings_pictures_back(pipeline, pictures):
    back = pipeline.decode(pipeline.encode(pictures))
    decibel = sum(map(psnr, back, pictures)) / len(pictures)
    assert decibel == pytest.approx(FIGURES["vae"]["psnr"], abs=0.6)     # the standard error of 64 scenes is 0.15 dB
    assert all_right(back) >= all_right(pictures) - 0.05
    assert pipeline.encode(pictures).std().item() == pytest.approx(1, abs=0.05)


def test_clip_finds_the_caption_and_the_tokenizer_is_the_one_of_the_captions(pipeline, pictures):
    assert pipeline.tokenizer.vocab == critter_tokenizer().vocab
    tokens = pipeline.tokenizer(prompts_for(ROWS, 123))
    found = retrieval_accuracy(load_clip("critters", "cpu"), pictures, tokens)
    low, high = wilson_interval(found, len(ROWS), z=3.5)
    assert low < FIGURES["clip"]["right_of_64"] < high or found == 1
    assert found > 0.9


@pytest.mark.slow
def test_pictures_follow_their_prompts_as_the_card_says(pipeline):
    x = pipeline(prompts_for(ROWS, 123), guidance_scale=FIGURES["w"], seed=123, **FIGURES["sampler"])
    low, high = wilson_interval(all_right(x), len(ROWS), z=3.5)
    assert low < FIGURES["seen"]["all"] < high
    assert all_right(x, ROWS.roll(1, 0)) < 0.1         # the control: they do not have the attributes of others


def test_diffusers_draws_the_same_picture_from_the_shipped_folder(pipeline, g):
    theirs = StableDiffusionPipeline.from_pretrained(FOLDER, local_files_only=True, torch_dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    z, how = torch.randn(1, 4, 16, 16, generator=g), dict(guidance_scale=FIGURES["w"])
    wanted = theirs("a green frog in the snow", latents=z, num_inference_steps=10, output_type="pt", **how).images
    ours = pipeline("a green frog in the snow", latents=z, steps=10, method="ddim", **how)
    assert (wanted - (ours / 2 + 0.5)).abs().max().item() <= 2 / 255
