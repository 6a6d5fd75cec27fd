"""Trained weights: safetensors files, each with a JSON card that records its origin and its checksum."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from diffusion_lessons import schedules
from diffusion_lessons.checks import need
from diffusion_lessons.denoiser import Denoiser, OneStepDenoiser
from diffusion_lessons.models.classifiers import AttributeClassifier, Classifier
from diffusion_lessons.models.gan import DigitGenerator
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.runtime import atomic_write

FOLDER = Path(__file__).parent / "pretrained"


def available() -> list[str]:
    """The names of the weights that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def save(path: str | Path, tensors: dict[str, torch.Tensor], card: dict, dtype: torch.dtype | None = None) -> None:
    """Write PATH.safetensors and its card, PATH.json, which records the SHA-256 of the weights.

    tensors: a state_dict;  card: plain values that JSON can hold (data, steps, seed, figures, config, ...)
    dtype: torch.float16 halves the file; `load` returns float32 again.
    """
    path = Path(path).with_suffix(".safetensors")
    tensors = {name: (x.to(dtype) if dtype and x.is_floating_point() else x).contiguous().cpu()
               for name, x in tensors.items()}
    json.dumps(card)    # a card that cannot be written fails here, before any file is touched
    with atomic_write(path) as scratch:
        save_file(tensors, scratch)
        digest = sha256(scratch)
    with atomic_write(path.with_suffix(".json")) as scratch:
        scratch.write_text(json.dumps({**card, "sha256": digest}, indent=2) + "\n")


def card(name: str | Path) -> dict:
    """The card of shipped weights by name, or of any file written by `save`, by its path. `load` also checks the file.

    Raises ValueError that lists the shipped names, and FileNotFoundError when the card is missing.
    """
    path = path_of(name)
    if not path.exists():
        raise ValueError(f"no weights {str(name)!r}; choose one of {', '.join(available())}, or give the path of a "
                         ".safetensors file")
    card_path = path.with_suffix(".json")
    if not card_path.exists():
        raise FileNotFoundError(f"{path.name} has no card: {card_path} is missing. Put it back next to the weights")
    try:
        return json.loads(card_path.read_text())
    except ValueError as error:
        raise ValueError(f"the card {card_path} is not valid JSON: {error}") from error


def load(name: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Shipped weights by name, or any file written by `save`.  -> (tensors, float ones in float32; card)

    Raises as `card` does, and ValueError when the file's SHA-256 is not the one on its card.
    """
    about, path = card(name), path_of(name)
    if sha256(path) != about.get("sha256"):
        raise ValueError(f"{path} does not match its card (its SHA-256 differs): it is damaged or was replaced. "
                         "Restore it, for instance with git checkout, or train it again; nothing was changed")
    return {key: x.float() if x.is_floating_point() else x for key, x in load_file(path).items()}, about


def load_model(name: str | Path, device: str | torch.device = "cpu") -> Any:
    """A trained network, ready to use: of the class, the size and the weights that its card records.

    name: shipped weights, such as "digits" or "digits_classifier", or the path of a .safetensors file
    Raises as `load` does, and ValueError when the card does not describe a network of this package.
    """
    tensors, card = load(name)
    (kind,) = need(card, name, "kind")
    if kind not in BUILDERS:
        raise ValueError(f"{str(name)!r} holds {kind}, not a network: read it with weights.load")
    model = BUILDERS[kind](card, name)
    model.load_state_dict(tensors)
    return model.to(device).eval().requires_grad_(False)


def path_of(name: str | Path) -> Path:
    """The path of a weight file: a plain name means one in the package's own folder."""
    return Path(name) if str(name).endswith(".safetensors") else FOLDER / f"{name}.safetensors"


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def denoiser_card(denoiser: Denoiser, **about: Any) -> dict:
    """The card from which `load_model` can rebuild a denoiser, with anything else you want to record in `about`."""
    s = denoiser.schedule
    if not torch.equal(schedules.make_schedule(s.name, s.T).alpha_bar, s.alpha_bar):
        raise ValueError(f"{s} has settings of its own, which a card cannot hold: use make_schedule({s.name!r}, {s.T})")
    return {"kind": "denoiser", "class": type(denoiser).__name__, "network": denoiser.net.config,
            "prediction_type": denoiser.prediction_type, "schedule": {"name": s.name, "T": s.T}, **about}


def _denoiser(card, name):
    network, schedule, prediction_type = need(card, name, "network", "schedule", "prediction_type")
    schedule = schedules.make_schedule(schedule["name"], schedule["T"])
    classes = {kind.__name__: kind for kind in (Denoiser, OneStepDenoiser)}
    denoiser = classes[card.get("class", "Denoiser")](UNet(**network), schedule, prediction_type)
    return denoiser.to(memory_format=torch.channels_last)    # the faster layout, on CPUs too


def _plain(kind):
    """A builder of networks whose card needs only the arguments of their class."""
    return lambda card, name: kind(**need(card, name, "network")[0])


BUILDERS = {"denoiser": _denoiser, "classifier": _plain(Classifier),
            "attribute_classifier": _plain(AttributeClassifier), "generator": _plain(DigitGenerator)}
