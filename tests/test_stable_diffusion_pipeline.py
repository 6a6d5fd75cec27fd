"""The whole of Stable Diffusion: against diffusers' pipeline from the same folder, and with a hand reaching in."""

import json
import math
import socket
import threading
import time

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from safetensors.torch import save_file

from diffusion_lessons.forward import Prediction
from diffusion_lessons.models.stable_diffusion.clip import CLIP
from diffusion_lessons.models.stable_diffusion.scheduler import Scheduler
from diffusion_lessons.models.stable_diffusion.text_encoder import TextEncoder
from diffusion_lessons.models.stable_diffusion.tokenizer import EOS, Tokenizer, train_bpe
from diffusion_lessons.models.stable_diffusion.unet import UNet
from diffusion_lessons.models.stable_diffusion.vae import VAE
from diffusion_lessons.parameters import shown
from diffusion_lessons.pipelines import latent, published
from diffusion_lessons.pipelines.latent import LatentDenoiser, LatentPipeline, guided, in_tiles
from diffusion_lessons.pipelines.published import (
    SHIPPED,
    export_pipeline,
    is_complete,
    load_clip,
    load_stable_diffusion,
    save_picture_encoder,
    wanted_files,
)
from diffusion_lessons.samplers import run
from diffusion_lessons.training.latent import TEXT_CONFIG, UNET_CONFIG, VAE_CONFIG

BETAS = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
             clip_sample=False)
SCHEDULERS = {
    "ddim": {"_class_name": "DDIMScheduler", **BETAS, "timestep_spacing": "trailing",
             "prediction_type": "v_prediction"},
    "ddim as in 1.5": {"_class_name": "DDIMScheduler", **BETAS, "set_alpha_to_one": False, "steps_offset": 1},
    "euler as in turbo": {"_class_name": "EulerDiscreteScheduler", **BETAS, "timestep_spacing": "trailing",
                          "steps_offset": 1, "interpolation_type": "linear"},
    "dpm++": {"_class_name": "DPMSolverMultistepScheduler", **BETAS, "timestep_spacing": "leading", "steps_offset": 1},
}
# Small, but with every kind of layer that the miniature has
SMALL_UNET = {**UNET_CONFIG, "block_out_channels": [32, 32, 64], "attention_head_dim": [2, 2, 4]}
SMALL_VAE = {**VAE_CONFIG, "block_out_channels": [16, 16, 32], "scaling_factor": 0.7}


def pipeline_of(scheduler="ddim", seed=0, pad=EOS):
    """A pipeline with random weights, shaken until pictures are no grey."""
    torch.manual_seed(seed)
    tokenizer = Tokenizer(train_bpe(["a green frog on stilts", "an owl in the snow"], 30), length=16, pad=pad)
    text = dict(TEXT_CONFIG, hidden_size=32, intermediate_size=64, num_hidden_layers=2, max_position_embeddings=16,
                vocab_size=len(tokenizer.vocab), bos_token_id=len(tokenizer.vocab) - 2,
                eos_token_id=len(tokenizer.vocab) - 1, pad_token_id=tokenizer.vocab[pad])
    parts = TextEncoder(**text), UNet(**{**SMALL_UNET, "cross_attention_dim": 32}), VAE(**SMALL_VAE)
    for part in parts:
        for parameter in part.eval().requires_grad_(False).parameters():
            parameter += 0.03 * torch.randn(parameter.shape)
    return LatentPipeline(tokenizer, *parts, Scheduler.from_config(SCHEDULERS[scheduler]))


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipeline():
    return pipeline_of()


@pytest.mark.parametrize("w, negative", [(7.5, ""), (4.0, "an owl"), (1.0, "")])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_diffusers_draws_the_same_picture_from_our_folder(scheduler, w, negative, g, tmp_path):
    ours = pipeline_of(scheduler, pad="!" if "turbo" in scheduler else EOS)
    export_pipeline(ours, tmp_path, torch.float16)
    ours = load_stable_diffusion(tmp_path, "cpu")      # with weights rounded as theirs are
    theirs = quiet(StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True, torch_dtype=torch.float32))
    prompts, z = ["a frog on stilts", "An owl, in 3 snows!"], torch.randn(2, 4, 16, 16, generator=g)
    wanted = theirs(prompts, negative_prompt=[negative] * 2, latents=z, num_inference_steps=8, guidance_scale=w,
                    height=64, width=64, output_type="pt").images
    found = ours(prompts, negative=negative, latents=z, steps=8, guidance_scale=w)
    assert wanted.std() > 0.1
    assert (found / 2 + 0.5 - wanted).abs().max() <= 2 / 255
    if w > 1:
        assert (ours(prompts, latents=z, steps=8, guidance_scale=1) - found).abs().max() > 20 / 255


def test_img2img_is_diffusers(g, tmp_path):
    """The same noised latents, the same rest of the way."""
    ours = pipeline_of("ddim as in 1.5")
    export_pipeline(ours, tmp_path, torch.float32)
    theirs = quiet(StableDiffusionImg2ImgPipeline.from_pretrained(tmp_path, local_files_only=True))
    x = torch.rand(1, 3, 64, 64, generator=g) * 2 - 1
    loop = ours.img2img(x, "a frog", 0.5, steps=10, seed=5, guidance_scale=3)
    theirs.scheduler.set_timesteps(10)
    kept, _ = theirs.get_timesteps(10, 0.5, "cpu")
    assert [t - 1 for t in loop.timesteps[:-1]] == kept.tolist()
    # its own noise cannot be given, so it starts from our noised latents
    theirs.prepare_latents = lambda *_, z=loop.x_t, **__: z
    wanted = theirs("a frog", image=(x + 1) / 2, strength=0.5, num_inference_steps=10, guidance_scale=3,
                    output_type="pt").images
    found = ours.decode(run(loop))
    assert (found / 2 + 0.5 - wanted).abs().max() <= 2 / 255


def test_img2img_keeps_more_with_less_strength(pipeline, g):
    x = torch.rand(2, 3, 64, 64, generator=g) * 2 - 1
    z = pipeline.encode(x)
    change = [(run(pipeline.img2img(x, "a frog", s, steps=20, guidance_scale=1)) - z).square().mean().item()
              for s in (0.1, 0.4, 1)]
    assert change == sorted(change)
    assert change[0] < 0.7 * change[2]
    for bad in (0, 1.5):
        with pytest.raises(ValueError, match="strength"):
            pipeline.img2img(x, "a frog", bad)
    with pytest.raises(ValueError, match="2 pictures but 3 prompts"):
        pipeline.img2img(x, ["a", "b", "c"], 0.5)


def test_inpainting_keeps_the_latents_outside_the_mask(pipeline, g):
    x, mask = torch.rand(1, 3, 64, 64, generator=g) * 2 - 1, torch.zeros(1, 1, 64, 64)
    mask[..., 20:41, 10:30] = 1            # latents 5..10 and 2..7
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[5:11, 2:8] = True
    steps = list(pipeline.inpaint(x, mask, "a frog", steps=10))
    z, result = pipeline.encode(x)[0], steps[-1].x_s[0]
    assert torch.equal(result[:, ~inside], z[:, ~inside])
    assert ((result - z)[:, inside].abs() > 1e-3).float().mean() > 0.99
    torch.testing.assert_close(result[:, inside], steps[-1].x0_hat[0][:, inside])     # wholly made up, at the rim too
    ab = pipeline.scheduler.schedule.alpha_bar[steps[4].s]
    noise = (steps[4].x_s[0] - ab.sqrt() * z)[:, ~inside] / (1 - ab).sqrt()
    assert noise.std() == pytest.approx(1, abs=0.1)      # half way, what is kept is as noisy as s says


def test_both_halves_in_one_batch_are_two_passes_and_stay_in_order(pipeline, g):
    denoiser, x_t, t = LatentDenoiser(pipeline.unet, pipeline.scheduler), torch.randn(2, 4, 16, 16, generator=g), 600
    t = torch.tensor([t, t])
    cond, uncond = pipeline.encode_text(["a frog", "an owl"]), pipeline.encode_text(["", ""])
    c, u = denoiser(x_t, t, cond), denoiser(x_t, t, uncond)
    found = guided(denoiser, cond, uncond, 3.0)(x_t, t)
    torch.testing.assert_close(found.eps, u.eps + 3 * (c.eps - u.eps), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.x0, u.x0 + 3 * (c.x0 - u.x0), rtol=0, atol=1e-4)
    assert (c.eps - u.eps).abs().max() > 0.005
    for w in (1.0, 0.0):
        torch.testing.assert_close(guided(denoiser, cond, uncond, w)(x_t, t).eps, c.eps)


def test_our_t_is_their_timestep_and_one(pipeline, g):
    seen = []
    denoiser = LatentDenoiser(pipeline.unet, pipeline.scheduler)
    denoiser.unet = lambda x, t, text: seen.extend(t.tolist()) or x
    hat = denoiser(torch.randn(2, 4, 8, 8, generator=g), torch.tensor([1, 1000]), torch.zeros(2, 3, 32))
    assert seen == [0, 999]
    assert isinstance(hat, Prediction)


def test_the_loop_can_be_reached_into(pipeline):
    """Each step's x0_hat decodes; another prompt half way changes the rest and not the beginning."""
    plain, swapped = (pipeline.sample("a frog", steps=6, seed=3, guidance_scale=3) for _ in range(2))
    steps, others = [], []
    for k, (a, b) in enumerate(zip(plain, swapped)):
        if k == 2:
            swapped.denoiser = pipeline.denoiser("an owl", 3)
        steps.append(a)
        others.append(b)
    assert torch.equal(steps[2].x_s, others[2].x_s)
    assert (plain.x_t - swapped.x_t).abs().max() > 0.005
    pictures = [pipeline.decode(step.x0_hat) for step in steps]
    assert all(x.shape == (1, 3, 64, 64) and x.abs().max() <= 1 for x in pictures)
    torch.testing.assert_close(pipeline.decode(plain.x_t), pictures[-1])     # at s = 0 only x0_hat is left


def test_a_picture_depends_on_its_seed_alone(pipeline):
    two = pipeline(["a frog", "an owl"], steps=3, seed=7)
    torch.testing.assert_close(pipeline("a frog", steps=3, seed=7), two[:1], rtol=0, atol=1e-4)
    assert (pipeline("a frog", steps=3, seed=8) - two[:1]).abs().max() > 0.1


def test_sizes(pipeline):
    assert pipeline.latent_size() == (16, 16)
    assert pipeline("a frog", steps=1, size=(32, 80)).shape == (1, 3, 32, 80)
    with pytest.raises(ValueError, match="multiples of 16.*30 x 64"):
        pipeline.sample("a frog", size=(30, 64))


def test_tiles_of_something_local_make_no_seams(g):
    """Where a tile's result does not depend on its neighbours, the blend is the whole, wherever the tiles lie."""
    def doubled(z):
        return z.repeat_interleave(2, -1).repeat_interleave(2, -2)

    for h, w in ((128, 128), (200, 129), (131, 300), (64, 500)):
        z = torch.randn(1, 2, h, w, generator=g)
        found = in_tiles(lambda i, j, n, m, z=z: doubled(z[..., i:i + n, j:j + m]), h, w, 4, 2)
        torch.testing.assert_close(found, doubled(z))


def test_large_pictures_go_through_the_vae_in_tiles(pipeline, g, monkeypatch):
    """Tiles differ from the whole, as norms and attention see a tile alone: by less than half with random weights."""
    monkeypatch.setattr(latent, "TILE", 64)
    monkeypatch.setattr(latent, "OVERLAP", 32)
    calls = []
    for name in ("encode", "decode"):
        real = getattr(VAE, name)
        monkeypatch.setattr(VAE, name, lambda self, x, real=real, name=name: calls.append((name, tuple(x.shape)))
                            or real(self, x))
    place = torch.linspace(-3, 3, 112)
    down = place[:, None]
    x = torch.stack([torch.sin(down + place), torch.cos(down * 2 + place), place.expand(112, -1) / 3])
    z = pipeline.encode(x[None])
    back = pipeline.decode(z)
    assert z.shape == (1, 4, 28, 28)
    assert back.shape == (1, 3, 112, 112)
    assert max(shape[-1] for name, shape in calls if name == "encode") == 64
    assert max(shape[-1] for name, shape in calls if name == "decode") == 16
    monkeypatch.setattr(latent, "TILE", 512)
    whole = pipeline.encode(x[None])
    assert (z - whole).abs().mean() < 0.5 * whole.std()      # 1.1 for pictures that have nothing to do with each other
    assert (back - pipeline.decode(z)).abs().mean() < 0.5 * back.std()


def test_float16_weights_keep_the_latents_in_float32(pipeline, g):
    """As on a GPU, except that this runs on the CPU in bfloat16: x_t and what is derived from it lose no digits."""
    denoiser = LatentDenoiser(pipeline_of().unet.bfloat16(), pipeline.scheduler)
    text, x_t, t = pipeline.encode_text("a frog"), torch.randn(1, 4, 16, 16, generator=g), torch.tensor([400])
    rough, exact = denoiser(x_t, t, text), LatentDenoiser(pipeline.unet, pipeline.scheduler)(x_t, t, text)
    assert rough.x0.dtype == torch.float32
    assert (rough.x0 - exact.x0).abs().mean() < 0.03 * exact.x0.std()
    ab = pipeline.scheduler.schedule.alpha_bar[400].item()
    torch.testing.assert_close(ab**0.5 * rough.x0 + (1 - ab) ** 0.5 * rough.eps, x_t, rtol=0, atol=1e-5)


def test_export_and_load_is_the_same_pipeline(pipeline, tmp_path):
    export_pipeline(pipeline, tmp_path, torch.float32)
    again = load_stable_diffusion(tmp_path, "cpu")
    assert torch.equal(again("a frog", steps=2), pipeline("a frog", steps=2))
    assert again.vae.scaling_factor == 0.7
    assert is_complete(tmp_path)


# ---- what is not there, and what is refused


def test_clip_comes_back_whole_from_the_folder_and_from_no_other(pipeline, g, tmp_path):
    export_pipeline(pipeline, tmp_path, torch.float32)
    with pytest.raises(FileNotFoundError, match="picture_encoder"):
        load_clip(tmp_path, "cpu")
    torch.manual_seed(5)
    clip = CLIP(pipeline.text_encoder.config, widths=(32, 64, 128, 192)).eval()
    clip.text_encoder.load_state_dict(pipeline.text_encoder.state_dict())
    save_picture_encoder(clip, tmp_path, torch.float32)
    x, tokens = torch.rand(2, 3, 64, 64, generator=g) * 2 - 1, pipeline.tokenizer(["a frog", "an owl", "snow"])
    with torch.no_grad():
        torch.testing.assert_close(load_clip(tmp_path, "cpu").similarity(x, tokens), clip.similarity(x, tokens))
    save_file({"picture_projection.bias": torch.zeros(3)}, tmp_path / published.PICTURE_ENCODER)
    with pytest.raises(ValueError, match="does not fit this CLIP"):
        load_clip(tmp_path, "cpu")


def test_folders_that_are_no_stable_diffusion_are_refused(pipeline, tmp_path):
    with pytest.raises(FileNotFoundError, match="model_index.json is missing"):
        load_stable_diffusion(tmp_path, "cpu")
    export_pipeline(pipeline, tmp_path)
    unet = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_suffix(".bin"))
    with pytest.raises(ValueError, match="pickle"):
        load_stable_diffusion(tmp_path, "cpu")
    assert not is_complete(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(ValueError, match="StableDiffusionXLPipeline"):
        load_stable_diffusion(tmp_path, "cpu")


def test_a_name_that_is_nothing_says_what_could_be_meant(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder 'nonsense'.*critters.*sd-turbo"):
        load_stable_diffusion("nonsense")
    monkeypatch.setitem(SHIPPED, "critters", tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="'critters' are not in this installation"):
        load_stable_diffusion("critters")


def test_without_a_network_it_says_so_in_plain_words(monkeypatch, tmp_path):
    """Nothing is reached, as every socket refuses; and with the hub's own switch for working offline."""
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(ConnectionError, match="stabilityai/sd-turbo is not on this machine.*network.*critters"):
        load_stable_diffusion("stabilityai/sd-turbo")


def test_a_model_of_the_hub_is_sized_fetched_once_and_found_again(pipeline, tmp_path, monkeypatch, capsys):
    """With a hub of our own behind huggingface_hub's two functions: which files are asked for, and how often."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    export_pipeline(pipeline, tmp_path)
    asked = []

    class File:
        def __init__(self, name):
            self.rfilename, self.size = name, 500_000_000 if name.endswith("safetensors") else 1000

    class Api:
        def model_info(self, name, files_metadata, timeout):
            files = [*published.SMALL_FILES, "unet/x.safetensors", "unet/x.fp16.safetensors",
                     "unet/x.non_ema.safetensors", "vae/x.bin", "vae/x.safetensors",
                     "text_encoder/model.safetensors", "whole.ckpt", "safety_checker/model.safetensors"]
            return type("Info", (), {"siblings": [File(name) for name in files]})

    def snapshot(name, local_files_only):
        assert local_files_only
        if not asked:
            raise LocalEntryNotFoundError("nothing here yet")
        return str(tmp_path)

    def fetch(name, file):
        asked.append(file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert load_stable_diffusion("some/model", "cpu").vae.scaling_factor == 0.7
    assert "1.5 GB" in capsys.readouterr().out
    assert sorted(asked) == sorted([*published.SMALL_FILES, "unet/x.fp16.safetensors", "vae/x.safetensors",
                                    "text_encoder/model.safetensors"])
    asked[1:] = []
    load_stable_diffusion("some/model", "cpu")
    assert len(asked) == 1      # found on this machine
    assert capsys.readouterr().out == ""


@pytest.mark.faults
@pytest.mark.parametrize("what", ["the list of its files", "a file"])
def test_a_hub_that_never_ends_is_given_up(what, tmp_path, monkeypatch):
    """It sends now and then, so that no socket times out."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    ended = threading.Event()

    def drip(*_, **__):
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                time.sleep(0.01)
        finally:
            ended.set()

    def info(*_, **__):
        if what != "a file":
            drip()
        names = [*published.SMALL_FILES, *(f"{part}/x.safetensors" for part in published.MODELS)]
        return type("Info", (), {"siblings": [type("File", (), {"rfilename": name, "size": 9}) for name in names]})

    def nothing_here(*_, **__):
        raise LocalEntryNotFoundError("nothing here yet")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: type("Api", (), {"model_info": staticmethod(info)}))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing_here)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", drip)
    monkeypatch.setattr(published, "PATIENCE", 0.02)
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="some/model was given up: the hub sends less than 100 kB a second"):
        load_stable_diffusion("some/model", "cpu")
    assert time.monotonic() - began < 20
    assert ended.wait(20)    # nothing goes on behind it


@pytest.mark.faults
def test_a_model_that_is_too_large_or_does_not_fit_is_refused_before_it_is_fetched(tmp_path, monkeypatch):
    published.check_room("a/b", 5.2, tmp_path / "not" / "yet" / "there")
    with pytest.raises(ValueError, match="13 GB; no model that this code covers has more than 12"):
        published.check_room("a/b", 13, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 6e9}))
    with pytest.raises(ValueError, match="a/b has 5.2 GB, and on the disk of .* 6.0 GB are free: make room"):
        published.check_room("a/b", 5.2, tmp_path / "not" / "yet" / "there")


@pytest.mark.faults
def test_odd_numbers_are_refused_before_anything_is_computed(pipeline, monkeypatch, record_property):
    monkeypatch.setattr(LatentPipeline, "encode", lambda *_: pytest.fail("computed first"))
    monkeypatch.setattr(LatentPipeline, "encode_text", lambda *_: pytest.fail("computed first"))
    x, mask = torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    ways = {"sample": pipeline.sample, "img2img": lambda p, **how: pipeline.img2img(x, p, **{"strength": 0.5, **how}),
            "inpaint": lambda p, **how: next(pipeline.inpaint(x, mask, p, **how))}
    odd = "3", [3], 2.5, math.nan, math.inf, 2**64, -1, None, True, torch.ones(2)
    record_property("cases", 9 * len(odd) - 1)    # 2.5 is a guidance scale, and no size is one
    for value in odd:
        for way in ways.values():
            for name in ("steps", "seed"):
                with pytest.raises(ValueError, match=f"{name} must be a whole number from "):
                    way("a frog", **{name: value})
        with pytest.raises(ValueError, match="strength must be a number from 0 to 1"):
            pipeline.img2img(x, "a frog", value)
        if shown(value) != "2.5":
            with pytest.raises(ValueError, match="guidance_scale must be a number from 0 to 100"):
                pipeline.sample("a frog", guidance_scale=value)
        if value is not None:
            with pytest.raises(ValueError, match="size must be a whole number from 1 to 8,192"):
                pipeline.sample("a frog", size=value)
    with pytest.raises(ValueError, match="strength must be more than 0"):
        pipeline.img2img(x, "a frog", 0)


def test_only_safetensors_are_wanted():
    with pytest.raises(ValueError, match="unet.*pickles"):
        wanted_files(["unet/diffusion_pytorch_model.bin", "vae/a.safetensors", "text_encoder/a.safetensors"])
