"""Trained weights: safetensors files, each with a card (JSON) that says where it comes from, verified on load."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from diffusion_lessons import schedules
from diffusion_lessons.checks import need
from diffusion_lessons.denoiser import Denoiser, StepDenoiser
from diffusion_lessons.models.classifiers import Classifier, Critic
from diffusion_lessons.models.gan import DigitGenerator
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.runtime import atomic_write

FOLDER = Path(__file__).parent / "pretrained"


def available():
    """The names of the shipped weights."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def save(path, tensors, card, dtype=None):
    """Write PATH.safetensors and its card PATH.json, which gets the SHA-256 of the weights.

    tensors: a state_dict;  card: a dict of plain values (data, steps, seed, figures, config, ...)
    dtype: float16 halves the file; loading gives float32 again.
    """
    path = Path(path).with_suffix(".safetensors")
    tensors = {name: (x.to(dtype) if dtype and x.is_floating_point() else x).contiguous().cpu()
               for name, x in tensors.items()}
    json.dumps(card)    # a card that cannot be written fails here, before anything is
    with atomic_write(path) as scratch:
        save_file(tensors, scratch)
        digest = sha256(scratch)
    with atomic_write(path.with_suffix(".json")) as scratch:
        scratch.write_text(json.dumps({**card, "sha256": digest}, indent=2) + "\n")


def card(name):
    """The card of shipped weights by name, or of any file of `save` by its path; the file is verified.  -> a dict

    Raises ValueError that lists the known names, FileNotFoundError for a missing card, and ValueError when the file is
    not the one its card describes.
    """
    path = path_of(name)
    if not path.exists():
        raise ValueError(f"no weights {str(name)!r}; shipped are {', '.join(available())}, or give the path of a "
                         ".safetensors file")
    card_path = path.with_suffix(".json")
    if not card_path.exists():
        raise FileNotFoundError(f"{path.name} has no card: {card_path} is missing. Put it back beside the weights")
    try:
        found = json.loads(card_path.read_text())
    except ValueError as error:
        raise ValueError(f"the card {card_path} is not valid JSON: {error}") from error
    if sha256(path) != found.get("sha256"):
        raise ValueError(f"{path} is not the file its card describes (its SHA-256 differs): damaged or replaced. "
                         "Get it again, for instance with git checkout, or train it anew; nothing was changed")
    return found


def load(name):
    """Shipped weights by name, or any file of `save` by its path.  -> (tensors in float32, card); raises as `card`"""
    about = card(name)
    return {k: x.float() if x.is_floating_point() else x for k, x in load_file(path_of(name)).items()}, about


def path_of(name):
    """Where weights lie: a name means the package's own folder."""
    return Path(name) if str(name).endswith(".safetensors") else FOLDER / f"{name}.safetensors"


def sha256(path):
    """The SHA-256 of a file, in hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def denoiser_card(denoiser, **about):
    """What `load_denoiser` needs to build the network again, and whatever else you say of it."""
    s = denoiser.schedule
    if not torch.equal(schedules.make_schedule(s.name, s.T).alpha_bar, s.alpha_bar):
        raise ValueError(f"{s} has settings of its own, which a card cannot hold: use make_schedule({s.name!r}, {s.T})")
    return {"kind": "denoiser", "class": type(denoiser).__name__, "network": denoiser.net.config,
            "target": denoiser.target, "schedule": {"name": s.name, "T": s.T}, **about}


def load_denoiser(name, device="cpu"):
    """A trained Denoiser, ready to sample from."""
    tensors, card = _load_kind(name, "denoiser")
    network, schedule, target = need(card, name, "network", "schedule", "target")
    schedule = schedules.make_schedule(schedule["name"], schedule["T"])
    known = {kind.__name__: kind for kind in (Denoiser, StepDenoiser)}
    denoiser = known[card.get("class", "Denoiser")](UNet(**network), schedule, target)
    return _ready(denoiser, tensors, device).to(memory_format=torch.channels_last)    # the faster layout, on CPUs too


def load_classifier(name="digits_judge", device="cpu"):
    """The trained judge of digits."""
    tensors, card = _load_kind(name, "classifier")
    return _ready(Classifier(**card["network"]), tensors, device)


def load_critic(name="critters_critic", device="cpu"):
    """The trained critic of critters, or the second one: "critters_second"."""
    tensors, card = _load_kind(name, "critic")
    return _ready(Critic(**card["network"]), tensors, device)


def load_generator(name="gan_healthy", device="cpu"):
    """A trained generator of digits (see models.gan): noise (B, latent) -> pictures."""
    tensors, card = _load_kind(name, "generator")
    return _ready(DigitGenerator(**card["network"]), tensors, device)


def _load_kind(name, kind):
    """As `load`. Raises ValueError when the weights are of something else, or the card describes no network."""
    tensors, card = load(name)
    if card.get("kind", kind) != kind:
        raise ValueError(f"{str(name)!r} is a {card['kind']}, not a {kind}")
    need(card, name, "network")
    return tensors, card


def _ready(network, tensors, device):
    """The network with these weights, to be used and not to be trained."""
    network.load_state_dict(tensors)
    return network.to(device).eval().requires_grad_(False)
