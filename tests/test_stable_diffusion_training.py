"""Training the miniature's parts: the losses written out, the trainer that resumes, what they learn at once."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from diffusion_lessons.datasets import to_float
from diffusion_lessons.models.stable_diffusion.clip import CLIP, clip_loss, retrieval_accuracy
from diffusion_lessons.models.stable_diffusion.scheduler import Scheduler
from diffusion_lessons.models.stable_diffusion.tokenizer import EOS
from diffusion_lessons.models.stable_diffusion.unet import UNet, diffusion_loss
from diffusion_lessons.models.stable_diffusion.vae import VAE, vae_loss
from diffusion_lessons.training.base import load_checkpoint, lr_factor, save_checkpoint
from diffusion_lessons.training.latent import (
    SCHEDULER_CONFIG,
    TEXT_CONFIG,
    UNET_CONFIG,
    VAE_CONFIG,
    LatentBatches,
    LossTrainer,
    captioned_critters,
    clip_step,
    critter_captions,
    critter_pictures,
    critter_tokenizer,
    encode_critters,
    start_from_zero,
    text_config,
    unet_step,
    vae_step,
)

SMALL_VAE = {**VAE_CONFIG, "block_out_channels": [8, 8, 16], "scaling_factor": 0.5}
SMALL_UNET = {**UNET_CONFIG, "block_out_channels": [16, 16, 16], "attention_head_dim": 2, "cross_attention_dim": 16}
SMALL_TEXT = dict(TEXT_CONFIG, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)


@pytest.fixture(scope="module")
def tokenizer():
    return critter_tokenizer()


def small_clip(tokenizer):
    torch.manual_seed(0)
    return CLIP({**text_config(tokenizer), **SMALL_TEXT}, widths=(8, 8, 16, 16), width=16)


# ---- losses


def test_the_vae_loss_is_reconstruction_and_a_little_kl(g):
    vae = VAE(**SMALL_VAE)
    x, noise = torch.rand(2, 3, 16, 16, generator=g) * 2 - 1, torch.randn(2, 4, 4, 4, generator=g)
    gaussian = vae.encode(x)
    z = gaussian.mean + (gaussian.logvar / 2).exp() * noise
    error = F.mse_loss(vae.decode(z), x)
    normal = torch.distributions.Normal(gaussian.mean, (gaussian.logvar / 2).exp())
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(vae_loss(vae, x, noise, kl_weight=0.3), error + 0.3 * kl)


def test_the_clip_loss_is_cross_entropy_both_ways_and_equal_captions_are_no_negatives(tokenizer, g):
    clip = small_clip(tokenizer)
    x = torch.rand(4, 3, 64, 64, generator=g) * 2 - 1
    tokens = tokenizer(["a frog", "an owl", "a frog", "a cat in the snow"])
    pictures, texts = clip.encode_pictures(x), clip.encode_texts(tokens)
    torch.testing.assert_close(pictures.norm(dim=1), torch.ones(4))
    s = (1 / 0.07 * pictures @ texts.T).double()
    allowed = [[0, 1, 3], [0, 1, 2, 3], [1, 2, 3], [0, 1, 2, 3]]    # 0 and 2 are the same words
    by_hand = [-math.log(s[i, i].exp() / sum(s[i, j].exp() for j in allowed[i])) for i in range(4)]
    by_hand += [-math.log(s[i, i].exp() / sum(s[j, i].exp() for j in allowed[i])) for i in range(4)]
    assert clip_loss(clip, x, tokens).item() == pytest.approx(sum(by_hand) / 8, rel=1e-4)
    assert math.isfinite(clip_loss(clip, x, tokens[[0, 0, 0, 0]]).item())


@pytest.mark.parametrize("prediction_type, ours", [("epsilon", "eps"), ("v_prediction", "v")])
def test_the_diffusion_loss_asks_for_eps_or_v(prediction_type, ours, g):
    scheduler = Scheduler.from_config({**SCHEDULER_CONFIG, "prediction_type": prediction_type})
    z, eps = torch.randn(2, 4, 8, 8, generator=g), torch.randn(2, 4, 8, 8, generator=g)
    text, t = torch.randn(2, 3, 16, generator=g), torch.tensor([1, 700])
    seen = []

    def unet(x, timestep, text):
        seen.append((x, timestep))
        return 0.5 * x

    loss = diffusion_loss(unet, scheduler, z, text, t, eps)
    ab = scheduler.schedule.alpha_bar[t].reshape(2, 1, 1, 1).float()
    x_t = ab.sqrt() * z + (1 - ab).sqrt() * eps
    wanted = eps if ours == "eps" else ab.sqrt() * eps - (1 - ab).sqrt() * z
    assert torch.equal(seen[0][1], t - 1)
    torch.testing.assert_close(seen[0][0], x_t)
    torch.testing.assert_close(loss, F.mse_loss(0.5 * x_t, wanted))


# ---- data


def test_captions_belong_to_their_pictures(tokenizer):
    """The same seed gives scenes and their captions, and columns of nothing but padding change no feature."""
    x, tokens = captioned_critters(tokenizer)(5, 6)
    assert torch.equal(x, critter_pictures(5, 6)[0])
    assert x.shape == (6, 3, 64, 64)
    assert [tokenizer.decode(row) for row in tokens] == critter_captions(6, 5)
    whole = tokenizer(critter_captions(6, 5))
    assert tokens.shape[1] < whole.shape[1]
    encoder = small_clip(tokenizer).text_encoder
    torch.testing.assert_close(encoder(tokens).pooled, encoder(whole).pooled)


def test_the_byte_pairs_know_the_captions_words(tokenizer):
    pieces = [piece for text in critter_captions(500, 1) for piece in tokenizer.tokenize(text)]
    assert EOS not in pieces
    words = [word for text in critter_captions(500, 1) for word in text.split()]
    assert len(pieces) < 1.1 * len(words)       # nearly every word is one piece
    assert len(tokenizer.tokenize("stegosaurus")) > 3      # and what is no caption's word is read all the same
    assert len(tokenizer.vocab) == 2 * 256 + 200 + 2


def test_latents_are_encoded_once_and_scaled_to_unit_variance():
    torch.manual_seed(0)
    vae = VAE(**SMALL_VAE).eval()
    latents, scale = encode_critters(vae, count=24, seed=3)
    assert latents.dtype == torch.float16
    assert latents.float().std().item() == pytest.approx(1, abs=0.01)
    with torch.no_grad():
        mean = vae.encode(critter_pictures(3, 24)[0]).mean
    torch.testing.assert_close(latents.float(), scale * mean, rtol=0, atol=0.01)


def test_latent_batches_pair_latents_with_their_captions_and_drop_some(tokenizer):
    latents = torch.arange(40.0)[:, None, None, None].expand(40, 4, 2, 2).half()
    batches = LatentBatches(latents, critter_captions(40, 3), tokenizer, drop=0.25)
    z, tokens = batches(1, 2000)
    rows, empty = z[:, 0, 0, 0].long(), (tokens == tokenizer("")).all(1)
    assert 0.2 < empty.float().mean() < 0.3
    captions = critter_captions(40, 3)
    assert all(tokenizer.decode(tokens[i]) == captions[rows[i]] for i in range(200) if not empty[i])
    assert len(rows.unique()) == 40
    again = batches(1, 2000)
    assert torch.equal(z, again[0])
    assert torch.equal(tokens, again[1])
    assert not torch.equal(z, batches(2, 2000)[0])


# ---- the trainer


def trainers(tokenizer):
    """One small trainer of each kind, freshly made."""
    short = dict(steps=6, batch=4, lr=1e-3, seed=1)
    torch.manual_seed(0)
    yield "vae", LossTrainer(VAE(**SMALL_VAE), vae_step, critter_pictures, **short)
    yield "clip", LossTrainer(small_clip(tokenizer), clip_step, captioned_critters(tokenizer), **short)
    torch.manual_seed(0)
    batches = LatentBatches(torch.randn(8, 4, 8, 8), critter_captions(8, 3), tokenizer, drop=0.1)
    step = unet_step(Scheduler.from_config(SCHEDULER_CONFIG), small_clip(tokenizer).text_encoder)
    yield "unet", LossTrainer(UNet(**SMALL_UNET), step, batches, **short)


def test_a_stopped_run_goes_on_as_if_never_stopped(tokenizer, tmp_path):
    for (name, whole), (_, first), (_, second) in zip(*(trainers(tokenizer) for _ in range(3))):
        losses = [step.loss for step in whole]
        assert len(losses) == 6
        for step in first:
            if step.step == 3:
                save_checkpoint(tmp_path / f"{name}.pt", first)
                break
        load_checkpoint(tmp_path / f"{name}.pt", second)
        assert [step.loss for step in second] == losses[3:]
        for a, b in zip(whole.ema.parameters(), second.ema.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_run_that_stays_at_its_rate_can_be_made_longer():
    def losses(steps, schedule):
        torch.manual_seed(0)
        trainer = LossTrainer(VAE(**SMALL_VAE), vae_step, critter_pictures, steps=steps, batch=2, lr=1e-3,
                              lr_schedule=schedule, seed=1)
        return [step.loss for step in itertools.islice(trainer, 5)]

    assert losses(10, "wsd") == losses(19, "wsd")
    assert losses(10, "cosine") != losses(19, "cosine")
    assert all(lr_factor(k, 2000, "wsd") == lr_factor(k, 3000, "wsd") for k in range(1600))


def test_a_checkpoint_of_another_run_is_refused(tokenizer, tmp_path):
    _, trainer = next(trainers(tokenizer))
    save_checkpoint(tmp_path / "vae.pt", trainer)
    other = LossTrainer(VAE(**SMALL_VAE), vae_step, critter_pictures, steps=7, batch=4, lr=1e-3)
    with pytest.raises(ValueError, match="steps=6, not 7"):
        load_checkpoint(tmp_path / "vae.pt", other)


@pytest.mark.slow
def test_the_vae_learns_to_reconstruct():
    torch.manual_seed(0)
    trainer = LossTrainer(VAE(**SMALL_VAE), vae_step, critter_pictures, steps=50, batch=4, lr=4e-3, ema_decay=0.9)
    losses = [step.loss for step in trainer]
    x, = critter_pictures(999, 8)
    grey = (x - x.mean((2, 3), keepdim=True)).square().mean().item()      # each picture as its mean colour
    assert sum(losses[-10:]) / 10 < 0.6 * sum(losses[:5]) / 5
    with torch.no_grad():
        assert F.mse_loss(trainer.ema.decode(trainer.ema.encode(x).mean), x).item() < grey


@pytest.mark.slow
def test_clip_learns_which_caption_goes_with_which_picture(tokenizer, g):
    """Four flat colours and four captions: after a few steps the right one is nearest; chance is a quarter."""
    colours = torch.tensor([[220, 40, 40], [40, 60, 220], [80, 190, 70], [240, 220, 60]], dtype=torch.uint8)
    tokens = tokenizer(["a red frog", "a blue frog", "a green frog", "a yellow frog"])[:, :8]
    flat = to_float(colours[:, :, None, None].expand(4, 3, 64, 64))

    def batches(seed, count):
        noise = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        return flat + 0.2 * noise, tokens

    trainer = LossTrainer(small_clip(tokenizer), clip_step, batches, steps=40, batch=4, lr=3e-3, ema_decay=0.9)
    losses = [step.loss for step in trainer]
    assert losses[-1] < 0.5 * losses[0]
    assert retrieval_accuracy(trainer.ema, flat + 0.2 * torch.randn(flat.shape, generator=g), tokens) == 1


def test_a_fresh_unet_predicts_nothing_and_still_learns(g):
    """Zero at the end of each branch: the first output is 0, and no gradient is lost but that behind the last layer."""
    torch.manual_seed(0)
    unet = start_from_zero(UNet(**SMALL_UNET))
    x, text = torch.randn(2, 4, 8, 8, generator=g), torch.randn(2, 3, 16, generator=g)
    out = unet(x, torch.tensor([3, 700]), text)
    assert out.abs().max() == 0
    F.mse_loss(out, x).backward()
    assert unet.conv_out.weight.grad.abs().max() > 0


def test_the_miniature_is_small():
    """All of it within 30 MB in float16, as it is shipped."""
    with torch.device("meta"):
        clip = CLIP({**TEXT_CONFIG, "vocab_size": 714})
        parts = UNet(**UNET_CONFIG), VAE(**VAE_CONFIG), clip.text_encoder
    assert sum(2 * p.numel() for part in parts for p in part.parameters()) < 30e6
