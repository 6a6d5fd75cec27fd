"""Training the parts of the small Stable Diffusion: the VAE, CLIP and the latent U-Net, each by its own loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lessons.datasets import captions, critters, to_float
from diffusion_lessons.models.stable_diffusion.clip import CLIP, clip_loss
from diffusion_lessons.models.stable_diffusion.layers import ResnetBlock
from diffusion_lessons.models.stable_diffusion.scheduler import Scheduler
from diffusion_lessons.models.stable_diffusion.text_encoder import TextEncoder
from diffusion_lessons.models.stable_diffusion.tokenizer import BOS, EOS, Tokenizer, train_bpe
from diffusion_lessons.models.stable_diffusion.unet import Transformer, UNet, diffusion_loss
from diffusion_lessons.models.stable_diffusion.vae import VAE, vae_loss
from diffusion_lessons.training.base import BaseTrainer, make_lr_scheduler
from diffusion_lessons.training.diffusion import TrainStep

SIZE = 64    # pixels to a side
TOKENS = 32    # in a row, BOS and EOS included; captions have up to 16 words
CAPTIONS, MERGES = 20_000, 200    # what the byte-pair vocabulary is trained on, and how many pairs it merges

VAE_CONFIG = dict(
    in_channels=3, out_channels=3, latent_channels=4, block_out_channels=[16, 32, 64], layers_per_block=1,
    norm_num_groups=8, act_fn="silu", sample_size=SIZE, force_upcast=False,
    down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
)  # fmt: skip
TEXT_CONFIG = dict(
    hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4, hidden_act="gelu",
    max_position_embeddings=TOKENS, projection_dim=128, model_type="clip_text_model", architectures=["CLIPTextModel"],
)  # fmt: skip
UNET_CONFIG = dict(
    in_channels=4, out_channels=4, sample_size=SIZE // 4, block_out_channels=[32, 64, 128], layers_per_block=1,
    norm_num_groups=8, cross_attention_dim=128, attention_head_dim=[1, 2, 4], use_linear_projection=True,
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
)  # fmt: skip
SCHEDULER_CONFIG = dict(
    _class_name="DDIMScheduler", num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=0.00085,
    beta_end=0.012, prediction_type="v_prediction", timestep_spacing="trailing", set_alpha_to_one=True,
    clip_sample=False,
)  # fmt: skip


def critter_pictures(seed: int, count: int) -> tuple[Tensor]:
    """Fresh scenes as they come in training.  -> one tensor (count, 3, 64, 64) in [-1, 1]"""
    return (to_float(critters.render(critters.sample_scenes(count, seed), SIZE)),)


def critter_captions(count: int, seed: int) -> list[str]:
    """One caption for each of the scenes that `critters.sample_scenes(count, seed)` gives.  -> strings"""
    scenes = critters.sample_scenes(count, seed)
    return [caption.text for caption in captions.sample_captions(scenes, seed)]


def critter_tokenizer() -> Tokenizer:
    """The byte-pair vocabulary of the miniature: trained on captions, the same each time."""
    return Tokenizer(train_bpe(critter_captions(CAPTIONS, seed=0), MERGES), length=TOKENS)


def text_config(tokenizer: Tokenizer) -> dict:
    """TEXT_CONFIG with the numbers of the tokenizer."""
    bos, eos = tokenizer.vocab[BOS], tokenizer.vocab[EOS]
    return {**TEXT_CONFIG, "vocab_size": len(tokenizer.vocab), "bos_token_id": bos, "eos_token_id": eos,
            "pad_token_id": tokenizer.vocab[tokenizer.pad]}


def captioned_critters(tokenizer: Tokenizer) -> Callable[[int, int], tuple[Tensor, Tensor]]:
    """Batches of fresh scenes with the tokens of a caption each; columns in which all are padding are left out.

    That changes nothing: attention is causal, and CLIP looks at the first EOS.  -> a function of (seed, count)
    """
    def batch(seed: int, count: int) -> tuple[Tensor, Tensor]:
        tokens = tokenizer(critter_captions(count, seed))
        longest = (tokens == tokenizer.vocab[EOS]).int().argmax(1).max() + 1
        return critter_pictures(seed, count)[0], tokens[:, :longest]

    return batch


def vae_step(vae: VAE, x: Tensor, generator: torch.Generator) -> Tensor:
    """`vae_loss` with the noise of this step."""
    f = vae.factor
    shape = len(x), vae.latent_channels, x.shape[2] // f, x.shape[3] // f
    return vae_loss(vae, x, torch.randn(shape, generator=generator, device=x.device))


def clip_step(clip: CLIP, x: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
    """`clip_loss`, which has no chance in it."""
    return clip_loss(clip, x, tokens)


@torch.no_grad()
def encode_critters(vae: VAE, count: int, seed: int) -> tuple[Tensor, float]:
    """The latents of `critters.sample_scenes(count, seed)`, made once, and the scale that gives them unit variance.

    The scale is what a config calls scaling_factor: 1 over the standard deviation of all latents. Stable Diffusion's
    0.18215 was measured in the same way.                                   (Rombach et al. 2022, appendix G)
    -> (count, C, h, w) float16, and a number
    """
    scenes, device = critters.sample_scenes(count, seed), next(vae.parameters()).device
    parts = []
    for first in range(0, count, 256):
        x = to_float(critters.render(scenes[first:first + 256], SIZE)).to(device)
        parts.append(vae.encode(x).mean.cpu())
    latents = torch.cat(parts)
    scale = 1 / latents.std().item()
    return (scale * latents).half(), scale


class LatentBatches:
    """Batches of latents with the tokens of their captions, some of them replaced by the empty text.

    latents: (N, C, h, w);  texts: N captions;  drop: the share of captions that is hidden, for guidance
    """

    def __init__(self, latents: Tensor, texts: list[str], tokenizer: Tokenizer, drop: float) -> None:
        self.latents, self.tokens, self.empty, self.drop = latents, tokenizer(texts), tokenizer(""), drop

    def __call__(self, seed: int, count: int) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(self.latents), (count,), generator=g)
        hidden = torch.rand(count, 1, generator=g) < self.drop
        return self.latents[rows].float(), torch.where(hidden, self.empty, self.tokens[rows])


def unet_step(scheduler: Scheduler, text_encoder: TextEncoder) -> Callable[..., Tensor]:
    """`diffusion_loss` with t and the noise of this step, the text read by a frozen encoder.

    -> a function of (unet, latents, tokens, generator)
    """
    def step(unet: UNet, latents: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            text = text_encoder(tokens).hidden_states
        t = torch.randint(1, scheduler.schedule.T + 1, (len(latents),), generator=generator, device=latents.device)
        eps = torch.randn(latents.shape, generator=generator, device=latents.device)
        return diffusion_loss(unet, scheduler, latents, text, t, eps)

    return step


def start_from_zero(unet: UNet) -> UNet:
    """Zero the last layer of every branch, as the original code does: each block begins as its shortcut."""
    last: list[Any] = [unet.conv_out]
    for module in unet.modules():
        if isinstance(module, ResnetBlock):
            last.append(module.conv2)
        elif isinstance(module, Transformer):
            last.append(module.proj_out)
    for layer in last:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return unet


class LossTrainer(BaseTrainer):
    """Trains any network by any loss on fresh data: a resumable iterator over optimisation steps.

        for step in LossTrainer(vae, vae_step, critter_pictures, steps=20_000, batch=8, lr=1e-3):
            print(step.step, step.loss)

    loss: called with (network, *what batches gives, a generator) -> a scalar
    batches: called with (seed, count) -> a tuple of tensors; each step has its own seed
    lr_schedule: see `training.base.make_lr_scheduler`; with "wsd" a run can be made longer until its last fifth
    `trainer.ema` has the exponential moving average of the weights: the network to use.
    Raises FloatingPointError when the loss is not finite; on the CPU the weights are then those of the step before.
    """

    def __init__(self, network: nn.Module, loss: Callable[..., Tensor],
                 batches: Callable[[int, int], tuple[Tensor, ...]], *, steps: int, batch: int, lr: float,
                 lr_schedule: str = "cosine", ema_decay: float = 0.999, seed: int = 0,
                 weight_decay: float = 0.0) -> None:
        super().__init__(network, steps=steps, seed=seed, ema_decay=ema_decay)
        self.network, self.loss, self.batches, self.batch = network, loss, batches, batch
        self.lr, self.lr_schedule, self.weight_decay = lr, lr_schedule, weight_decay
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)
        self.lr_scheduler = make_lr_scheduler(self.optimizer, steps, lr_schedule)

    def train_step(self) -> TrainStep:
        """Take one step and report on it."""
        self.network.train()
        batch = (part.to(self.device) for part in self.batches(self.seed * 1_000_003 + self.step, self.batch))
        loss = self.loss(self.network, *batch, self.step_generator(self.step))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        weights = list(self.network.parameters())
        norm = nn.utils.clip_grad_norm_(weights, 1.0)
        self.guard(loss, norm, (w.grad for w in weights if w.grad is not None))
        self.optimizer.step()
        self.lr_scheduler.step()
        self.step += 1
        self.update_ema(self.network)
        return TrainStep(self.step, loss.detach())

    def hparams(self) -> dict[str, Any]:
        """The hyperparameters that a checkpoint must match."""
        names = ("steps", "batch", "lr", "lr_schedule", "ema_decay", "weight_decay", "seed")
        return {name: getattr(self, name) for name in names}

    def state_parts(self) -> dict[str, Any]:
        """What a checkpoint saves."""
        return {"weights": self.network, "ema": self.ema, "optimizer": self.optimizer,
                "lr_scheduler": self.lr_scheduler}
