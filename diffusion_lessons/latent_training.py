"""Training the parts of the small Stable Diffusion: the VAE, CLIP and the latent U-Net, each by its own loss."""

import copy
import math

import torch

from diffusion_lessons.datasets import captions, critters, to_float
from diffusion_lessons.models.stable_diffusion.clip import clip_loss
from diffusion_lessons.models.stable_diffusion.tokenizer import EOS, Tokenizer, train_bpe
from diffusion_lessons.models.stable_diffusion.vae import vae_loss
from diffusion_lessons.training import Training as BaseTrainer
from diffusion_lessons.training import TrainStep

SIZE = 64    # pixels to a side


TOKENS = 32    # in a row, BOS and EOS included; captions have up to 16 words
CAPTIONS, MERGES = 20_000, 200    # what the byte-pair vocabulary is trained on, and how many pairs it merges

VAE_CONFIG = dict(
    in_channels=3, out_channels=3, latent_channels=4, block_out_channels=[24, 48, 96], layers_per_block=1,
    norm_num_groups=8, act_fn="silu", sample_size=SIZE, force_upcast=False,
    down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
)  # fmt: skip
TEXT_CONFIG = dict(
    hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4, hidden_act="gelu",
    max_position_embeddings=TOKENS, projection_dim=128, model_type="clip_text_model", architectures=["CLIPTextModel"],
)  # fmt: skip
UNET_CONFIG = dict(
    in_channels=4, out_channels=4, sample_size=SIZE // 4, block_out_channels=[64, 128, 192], layers_per_block=1,
    norm_num_groups=8, cross_attention_dim=128, attention_head_dim=[2, 4, 6], use_linear_projection=True,
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
)  # fmt: skip


def critter_pictures(seed, count):
    """Fresh scenes as they come in training.  -> one tensor (count, 3, 64, 64) in [-1, 1]"""
    return (to_float(critters.paint(critters.draw_scenes(count, seed), SIZE)),)


def critter_captions(count, seed):
    """One caption for each of the scenes that `critters.draw_scenes(count, seed)` gives.  -> strings"""
    scenes = critters.draw_scenes(count, seed)
    return [caption.text for caption in captions.draw_captions(scenes, seed)]


def critter_tokenizer():
    """The byte-pair vocabulary of the miniature: trained on captions, the same each time."""
    return Tokenizer(train_bpe(critter_captions(CAPTIONS, seed=0), MERGES), length=TOKENS)


def captioned_critters(tokenizer):
    """Batches of fresh scenes with the tokens of a caption each; columns in which all are padding are left out.

    That changes nothing: attention is causal, and CLIP looks at the first EOS.  -> a function of (seed, count)
    """
    def batch(seed, count):
        tokens = tokenizer(critter_captions(count, seed))
        longest = (tokens == tokenizer.vocab[EOS]).int().argmax(1).max() + 1
        return *critter_pictures(seed, count), tokens[:, :longest]

    return batch


def vae_step(vae, x, generator):
    """`vae_loss` with the noise of this step."""
    f = vae.factor
    shape = len(x), vae.latent_channels, x.shape[2] // f, x.shape[3] // f
    return vae_loss(vae, x, torch.randn(shape, generator=generator, device=x.device))


def clip_step(clip, x, tokens, generator):
    """`clip_loss`, which has no chance in it."""
    return clip_loss(clip, x, tokens)


class LossTrainer(BaseTrainer):
    """Trains any network by any loss on fresh pictures, as an iterator; it can be stopped and resumed.

        for step in LossTrainer(vae, vae_step, critter_pictures, steps=20_000, batch=8, lr=1e-3):
            print(step.step, step.loss)

    loss: called with (network, *what batches gives, a generator) -> a scalar
    batches: called with (seed, count) -> a tuple of tensors; each step has its own seed
    `trainer.average` has the exponential moving average of the weights: the network to use.
    Raises FloatingPointError when the loss is no longer a number; the weights are then those of the step before.
    """

    def __init__(self, network, loss, batches, *, steps, batch, lr, ema=0.999, seed=0, weight_decay=0.0):
        self.network, self.loss, self.batches = network, loss, batches
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.steps, self.batch, self.lr, self.ema, self.seed = steps, batch, lr, ema, seed
        learned = [p for p in network.parameters() if p.requires_grad]
        self.device = learned[0].device
        self.optimizer = torch.optim.AdamW(learned, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)

    def one_step(self):
        """Take one step and say how it went."""
        self.network.train()
        batch = (part.to(self.device) for part in self.batches(self.seed * 1_000_003 + self.step, self.batch))
        loss = self.loss(self.network, *batch, self.dice(self.step))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if not torch.isfinite(loss + norm):
            raise FloatingPointError(f"the loss of step {self.step + 1} is {loss.item()}, its gradient {norm.item()}: "
                                     f"try a lower learning rate than lr={self.lr:g}")
        self.optimizer.param_groups[0]["lr"] = self.learning_rate(self.step)
        self.optimizer.step()
        self.step += 1
        self.update_average(self.average, self.network)
        return TrainStep(self.step, loss.item())

    def learning_rate(self, k):
        """Up linearly over the first steps, then down to 0 along half a cosine."""
        warm = min(1.0, (k + 1) / min(200, max(1, self.steps // 10)))
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * k / self.steps))

    def settings(self):
        """The hyperparameters that a checkpoint must match."""
        return {name: getattr(self, name) for name in ("steps", "batch", "lr", "ema", "seed")}

    def parts(self):
        """What a checkpoint holds."""
        return {"weights": self.network, "average": self.average, "optimizer": self.optimizer}
