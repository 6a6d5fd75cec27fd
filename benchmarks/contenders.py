"""What the benchmark compares: our networks, and other people's in the configurations that they themselves teach with.

    python benchmarks/contenders.py digits                 measures one, in a process of its own, and prints JSON
    python benchmarks/contenders.py diffusers --minutes 30    trains it on digits, asks now and then how good it is
    python benchmarks/contenders.py growth --size 64       one step of a U-Net of a given size: seconds and memory

`benchmark.py` calls it in these ways. All contenders train with the same batch; what else belongs to a training (the
optimizer, clipped gradients, averaged weights) is each one's own, and so is the default sampler.
"""

import argparse
import copy
import importlib.metadata
import json
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from timing import DEVICE, Stopwatch, largest_convolution, matrix_product, operations, peak_memory, seconds
from torch import nn

CHECKED = 200         # samples that a look at the accuracy takes
ESTIMATED = 300.0     # a sampler that would need more seconds is measured in 50 steps, and the rest is worked out


class Contender:
    """What is measured: a training step, 16 samples, and the loop of samples without what comes before and after it."""

    def loop(self, steps):
        """Sample one picture."""
        self.sample(torch.zeros(1, dtype=torch.int64), steps)


class Ours(Contender):
    """A recipe of this course."""

    packages = ("diffusion-lessons",)
    sampler = "DDIM, 50 steps, guided"
    default_steps, labelled = 50, False

    def __init__(self, x, y, batch, name="digits"):
        from diffusion_lessons.datasets import LabeledImages
        from diffusion_lessons.training import recipes

        recipe = replace(recipes.RECIPES[name], batch=batch, steps=10**6)    # so the learning rate stays where it is
        self.w, self.shape = recipe.w, x.shape[1:]
        self.denoiser = recipes.build(recipe)
        self.network = self.denoiser.net
        self.trainer = recipes.trainer(recipe, self.denoiser, LabeledImages(x, y, "benchmark"))

    def step(self):
        self.trainer.train_step()

    def sample(self, y, steps=None):
        from diffusion_lessons.pipelines import text_to_image
        from diffusion_lessons.samplers import SamplerSettings

        return text_to_image.sample_images(self.trainer.ema, y, self.shape, w=self.w,
                                           sampler=SamplerSettings(steps=steps or self.default_steps))

    def sampling_network(self):
        return self.trainer.ema.net


class Digits(Ours):
    """Our digits: MNIST, conditioned on labels."""

    imports, labelled = "diffusion_lessons.training.recipes", True


class Critters(Ours):
    """Our critters: 32x32 in colour, conditioned on sentences by a transformer that trains with the U-Net."""

    imports = "diffusion_lessons.training.recipes"

    def __init__(self, x, y, batch):
        from diffusion_lessons.datasets import captions, critters
        from diffusion_lessons.training import recipes

        scenes = critters.sample_scenes(1000, 0)
        tokens = recipes.tokenizer()([caption.text for caption in captions.sample_captions(scenes, 0)])
        super().__init__(critters.render(scenes), tokens, batch, "critters")
        self.tokens = tokens

    def sample(self, y, steps=None):
        return super().sample(self.tokens[:len(y)], steps)


class Latent(Contender):
    """Our miniature of Stable Diffusion: 64x64 as 16x16 latents. The U-Net trains; the whole pipeline samples."""

    packages = ("diffusion-lessons",)
    imports = "diffusion_lessons.pipelines.latent"
    sampler = "DDIM, 50 steps, guided, decoded to 64x64"
    default_steps, labelled = 50, False

    def __init__(self, x, y, batch):
        from diffusion_lessons.models.stable_diffusion.unet import UNet
        from diffusion_lessons.pipelines.published import load_stable_diffusion
        from diffusion_lessons.training import latent

        self.pipeline = load_stable_diffusion("critters", dtype=torch.float32)
        self.texts = latent.critter_captions(200, seed=0)
        latents, _ = latent.encode_critters(self.pipeline.vae, 200, seed=0)
        batches = latent.LatentBatches(latents, self.texts, self.pipeline.tokenizer, drop=0.1)
        self.network = latent.start_from_zero(UNet(**latent.UNET_CONFIG)).to(DEVICE)
        loss = latent.unet_step(self.pipeline.scheduler, self.pipeline.text_encoder)
        self.trainer = latent.LossTrainer(self.network, loss, batches, steps=10**6, batch=batch, lr=1e-3)

    def step(self):
        self.trainer.train_step()

    def sample(self, y, steps=None):
        return self.pipeline(self.texts[:len(y)], steps=steps or self.default_steps)

    def loop(self, steps):
        from diffusion_lessons.samplers import run

        run(self.pipeline.sample(self.texts[:1], steps=steps))

    def sampling_network(self):
        return self.pipeline.unet


class Peer(Contender):
    """What the peers' trainings share: random batches of labelled digits, and averaged weights where they have them.

    ema_decay: of the averaged weights, None without;  clip: the length that gradients are clipped to, None without
    """

    ema_decay = clip = None
    labelled = True

    def __init__(self, x, y, batch):
        self.x, self.y, self.batch, self.count = x.to(DEVICE), y.to(DEVICE), batch, 0
        self.network, self.optimizer = self.build()
        self.ema = copy.deepcopy(self.network).requires_grad_(False) if self.ema_decay else self.network

    def step(self):
        chosen = torch.randint(len(self.x), (self.batch,), device=DEVICE)
        self.network.train()
        loss = self.loss(self.x[chosen].float() / 255, self.y[chosen])
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()
        self.count += 1
        if self.ema_decay:
            decay = min(self.ema_decay, (1 + self.count) / (10 + self.count))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.ema.parameters()), list(self.network.parameters()), 1 - decay)

    def sampling_network(self):
        return self.ema


class Diffusers(Peer):
    """`UNet2DModel` as in the Hugging Face diffusion course, unit 2: MNIST, the label as four more channels."""

    packages, imports = ("diffusers",), "diffusers.models.unets.unet_2d"
    sampler, default_steps = "DDPM, 1,000 steps", 1000

    def build(self):
        from diffusers import DDPMScheduler, UNet2DModel

        self.scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
        network = nn.ModuleDict({"labels": nn.Embedding(10, 4), "unet": UNet2DModel(
            sample_size=28, in_channels=1 + 4, out_channels=1, layers_per_block=2, block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"))}).to(DEVICE)
        return network, torch.optim.Adam(network.parameters(), lr=1e-3)

    def predict(self, x_t, t, y):
        labels = self.network["labels"](y)[:, :, None, None].expand(-1, -1, *x_t.shape[2:])
        return self.network["unet"](torch.cat([x_t, labels], 1), t).sample

    def loss(self, x, y):
        x0, t = 2 * x - 1, torch.randint(0, 999, (len(x),), device=DEVICE)
        noise = torch.randn_like(x0)
        return F.mse_loss(self.predict(self.scheduler.add_noise(x0, noise, t), t, y), noise)

    @torch.no_grad()
    def sample(self, y, steps=None):
        self.network.eval()
        self.scheduler.set_timesteps(steps or self.default_steps)
        x, y = torch.randn(len(y), 1, 28, 28, device=DEVICE), y.to(DEVICE)
        for t in self.scheduler.timesteps:
            x = self.scheduler.step(self.predict(x, t, y), t, x).prev_sample
        return x

    def sampling_network(self):
        return self.network["unet"]


class DenoisingDiffusion(Peer):
    """The package's class-conditional U-Net at its defaults, with digits padded to the 32x32 that it can halve."""

    packages, imports = ("denoising-diffusion-pytorch",), "denoising_diffusion_pytorch.classifier_free_guidance"
    sampler, default_steps = "DDPM, 1,000 steps, guided", 1000
    ema_decay, clip = 0.995, 1.0

    def build(self):
        from denoising_diffusion_pytorch.classifier_free_guidance import GaussianDiffusion, Unet

        unet = Unet(dim=64, dim_mults=(1, 2, 4, 8), num_classes=10, channels=1)
        network = GaussianDiffusion(unet, image_size=32, timesteps=1000).to(DEVICE)
        return network, torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99))

    def loss(self, x, y):
        return self.network(F.pad(x, (2, 2, 2, 2)), classes=y)

    def sample(self, y, steps=None):
        self.ema.eval()
        self.ema.sampling_timesteps = steps or self.default_steps
        self.ema.is_ddim_sampling = self.ema.sampling_timesteps < self.ema.num_timesteps
        return 2 * self.ema.sample(y.to(DEVICE))[..., 2:-2, 2:-2] - 1

    def sampling_network(self):
        return self.ema.model


class SmallDiffusion(Peer):
    """The U-Net of its example `fashion_mnist_unet`, with the package's own embedding of labels."""

    packages, imports = ("smalldiffusion",), "smalldiffusion"
    sampler, default_steps = "accelerated DDIM, 20 steps", 20
    ema_decay = 0.999

    def build(self):
        from smalldiffusion import CondEmbedderLabel, Scaled, ScheduleLogLinear, Unet

        self.schedule = ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
        network = Scaled(Unet)(28, 1, 1, ch=64, ch_mult=(1, 1, 2), attn_resolutions=(14,),
                               cond_embed=CondEmbedderLabel(4 * 64, 10)).to(DEVICE)
        return network, torch.optim.AdamW(network.parameters(), lr=7e-4)

    def loss(self, x, y):
        from smalldiffusion import generate_train_sample

        x0, sigma, eps, cond = generate_train_sample((2 * x - 1, y), self.schedule, conditional=True)
        return self.network.get_loss(x0, sigma, eps, cond=cond)

    def sample(self, y, steps=None):
        from smalldiffusion import samples

        *_, x0 = samples(self.ema, self.schedule.sample_sigmas(steps or self.default_steps), gam=1.6,
                         batchsize=len(y), cond=y)
        return x0


CONTENDERS = {"digits": Digits, "critters": Critters, "latent": Latent, "diffusers": Diffusers,
              "denoising-diffusion-pytorch": DenoisingDiffusion, "smalldiffusion": SmallDiffusion}


def measure(name, x, y, quick):
    """The figures of one contender. Raises ImportError where its package is missing."""
    kind, batch, count, fifty = CONTENDERS[name], *((2, 2, 2) if quick else (64, 16, 50))
    contender = kind(x, y, batch)
    contender.step()
    step = seconds(contender.step, 2 if quick else 7)
    memory = peak_memory()
    gflops = operations(contender.step) / step / 1e9
    convolution = largest_convolution(contender.network, contender.step)
    labels = torch.arange(count) % 10
    in_fifty = seconds(lambda: contender.sample(labels, fifty), 1 if quick else 3)
    own = in_fifty * contender.default_steps / fifty
    estimated = contender.default_steps != fifty
    if estimated and own < (0 if quick else ESTIMATED):
        estimated = False
        own = seconds(lambda: contender.sample(labels), 1)
    return {"name": name, "does": (kind.__doc__ or "").split("\n")[0], "batch": batch, "samples": count, "steps": fifty,
            "versions": {p: importlib.metadata.version(p) for p in kind.packages}, "sampler": kind.sampler,
            "parameters": sum(p.numel() for p in contender.network.parameters()), "rate": batch / step,
            "gflops": gflops, "matrix_product": matrix_product(512 if quick else 2048), "convolution": convolution,
            "sampling": in_fifty, "sampling_default": own, "estimated": estimated,
            "outside_network": outside_network(contender, fifty), "memory": memory}


def outside_network(contender, steps):
    """The share of the time of sampling one picture that is not the network's."""
    watch = Stopwatch(contender.sampling_network())
    contender.loop(2)
    watch.total, began = 0.0, time.perf_counter()
    contender.loop(steps)
    return 1 - watch.total / (time.perf_counter() - began)


def minutes_to_accuracy(name, x, y, most, count=CHECKED, steps=50):
    """Train from nothing for `most` minutes at most.  -> {"checks": [(minutes trained, accuracy)], ...}

    A check classifies `count` samples, made in so many steps; its time does not count. Checks come after 1/2 min, then
    each 15% later, or as much later as the last one took, so that they never take more time than the training.
    """
    from diffusion_lessons import weights
    from diffusion_lessons.evaluation import metrics

    classifier, contender = weights.load_model("digits_classifier"), CONTENDERS[name](x, y, 64)
    labels, checks, trained, due = torch.arange(count) % 10, [], 0.0, 0.5
    while trained < most and not (checks and checks[-1][1] >= 0.95):
        began = time.perf_counter()
        while (time.perf_counter() - began) / 60 + trained < min(due, most):
            contender.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        stopped = time.perf_counter()
        trained += (stopped - began) / 60
        pictures = torch.cat([contender.sample(part, steps).cpu() for part in labels.split(50)]).clamp(-1, 1)
        checks.append((trained, metrics.accuracy(classifier, pictures, labels)))
        due = max(1.15 * trained, trained + (time.perf_counter() - stopped) / 60)
    return {"name": name, "checks": checks, "most": most,
            **{str(share): next((at for at, found in checks if found >= share / 100), None) for share in (90, 95)}}


def growth(size, width, batch, quick):
    """Seconds of a training step of the digits' kind of U-Net, and the memory that it takes beyond what was there."""
    from diffusion_lessons import schedules, training
    from diffusion_lessons.denoiser import Denoiser
    from diffusion_lessons.models.unet import UNet

    def trainer(size, width, batch):
        net = UNet(in_channels=1, channels=(width, 2 * width), blocks=1, classes=10)
        x, y = torch.zeros(batch, 1, size, size, dtype=torch.uint8), torch.zeros(batch, dtype=torch.int64)
        x[:, :, ::2] = 255
        return training.Trainer(Denoiser(net, schedules.cosine(1000)).to(DEVICE), x, y, steps=10**6, batch=batch)

    trainer(8, 8, 1).train_step()    # loads what torch loads late
    before = peak_memory() or 0
    took = seconds(trainer(size, width, batch).train_step, 1 if quick else 5)
    return {"size": size, "width": width, "batch": batch, "seconds": took, "memory": (peak_memory() or 0) - before}


def digits(quick):
    """Training digits: MNIST, or the package's own where it is not there; a few of the latter for a quick look."""
    from diffusion_lessons.datasets import load_digits, synthetic_digits

    return synthetic_digits(100, 0) if quick else load_digits("train")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=(*CONTENDERS, "growth"))
    parser.add_argument("--quick", action="store_true", help="in miniature: does it run at all?")
    parser.add_argument("--minutes", type=float, help="how soon it reaches 90%% and 95%%, in so many minutes at most")
    for name, value in (("size", 32), ("width", 48), ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"of growth (default {value})")
    args = parser.parse_args()
    if args.name == "growth":
        found = growth(args.size, args.width, args.batch, args.quick)
    else:
        torch.manual_seed(0)
        x, y, source = digits(args.quick)
        if args.minutes:
            found = minutes_to_accuracy(args.name, x, y, args.minutes, *((10, 2) if args.quick else ()))
        else:
            found = measure(args.name, x, y, args.quick) | {"data": source.rsplit("/", 1)[-1]}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
