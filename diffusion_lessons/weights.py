"""Trained weights: safetensors files, each with a JSON card that records its origin and its checksum."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch.overrides import TorchFunctionMode

from diffusion_lessons import schedules
from diffusion_lessons.cards import check_card
from diffusion_lessons.checks import is_finite, need
from diffusion_lessons.denoiser import Denoiser, OneStepDenoiser
from diffusion_lessons.models.classifiers import AttributeClassifier, Classifier
from diffusion_lessons.models.gan import DigitGenerator
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.runtime import atomic_write

FOLDER = Path(__file__).parent / "pretrained"
LARGEST, LARGEST_CARD = 2 * 2**30, 16 * 2**20    # bytes; far more than any network of the course has
NETWORKS = {"denoiser": UNet, "classifier": Classifier, "attribute_classifier": AttributeClassifier,
            "generator": DigitGenerator}
DENOISERS = {kind.__name__: kind for kind in (Denoiser, OneStepDenoiser)}


def available() -> list[str]:
    """The names of the weights that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def save(path: str | Path, tensors: dict[str, torch.Tensor], card: dict, dtype: torch.dtype | None = None) -> None:
    """Write PATH.safetensors and its card, PATH.json, which records the SHA-256 of the weights.

    Two files cannot be replaced at once. So the new card carries the old one, as "before", until the new weights are
    there: killed at any moment, either the old weights load with the old card, or the new ones with the new.

    tensors: a state_dict;  card: plain values that JSON can hold (data, steps, seed, figures, config, ...)
    dtype: torch.float16 halves the file; `load` returns float32 again.
    Raises ValueError, and changes nothing, for NaN and infinity, which float16 makes of numbers above 65,504.
    """
    path = Path(path).with_suffix(".safetensors")
    tensors = {name: (x.to(dtype) if dtype and x.is_floating_point() else x).contiguous().cpu()
               for name, x in tensors.items()}
    check_finite(tensors, path)
    content, before = to_bytes(tensors), _card_of_what_is_there(path)
    about = {**card, "sha256": hashlib.sha256(content).hexdigest()}
    json.dumps(about)    # a card that cannot be written fails here, before any file is touched
    with atomic_write(path) as scratch:
        scratch.write_bytes(content)
        _write_card(path, {**about, "before": before} if before else about)
    if before:
        _write_card(path, about)


def _write_card(path: Path, card: dict) -> None:
    with atomic_write(path.with_suffix(".json")) as scratch:
        scratch.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _card_of_what_is_there(path: Path) -> dict | None:
    """The card that matches the weights of this path; None if there are none, or none that would load."""
    try:
        about = card(path)
        return about if sha256(path) == about.get("sha256") else None
    except (ValueError, OSError):
        return None


def card(name: str | Path) -> dict:
    """The card of shipped weights by name, or of any file written by `save`, by its path. `load` also checks the file.

    Raises ValueError that lists the shipped names, FileNotFoundError when the card is missing, and ValueError when it
    is not the card of weights of this course (see `cards`).
    """
    path = path_of(name)
    if not path.exists():
        raise ValueError(f"no weights {str(name)!r}; choose one of {', '.join(available())}, or give the path of a "
                         ".safetensors file")
    card_path = path.with_suffix(".json")
    if not card_path.exists():
        raise FileNotFoundError(f"{path.name} has no card: {card_path} is missing. Put it back next to the weights")
    for file, most in ((path, LARGEST), (card_path, LARGEST_CARD)):
        if not file.is_file() or file.stat().st_size > most:
            raise ValueError(f"{file} is not weights of this course: it is not a regular file of up to {most:,} bytes")
    try:
        about = json.loads(card_path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the card {card_path} is not valid JSON: {error}") from error
    check_card(about, path)
    before = about.pop("before", None)
    if before is not None and sha256(path) != about.get("sha256"):    # killed before the new weights were there
        check_card(before, path)
        return before
    return about


def load(name: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Shipped weights by name, or any file written by `save`.  -> (tensors, float ones in float32; card)

    Raises as `card` does, and ValueError when the file's SHA-256 is not the one on its card, or it is another format.
    """
    about, path = card(name), path_of(name)
    if sha256(path) != about.get("sha256"):
        raise ValueError(f"{path} does not match its card (its SHA-256 differs): it is damaged or was replaced. "
                         "Restore it, for instance with git checkout, or train it again; nothing was changed")
    try:    # the library compares the shapes in the header with the size of the file
        tensors = {key: x.float() if x.is_floating_point() else x for key, x in load_file(path).items()}
    except Exception as error:    # a file of something else
        raise ValueError(f"{path} is not weights of this course: it is not a safetensors file ({error})") from error
    check_finite(tensors, path)
    return tensors, about


def check_finite(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Raise ValueError, naming the first, when tensors hold NaN or infinity."""
    for name, x in tensors.items():
        if not is_finite(x):
            raise ValueError(f"the weights for {path} hold NaN or infinity, in {name}: they are of no use")


def load_model(name: str | Path, device: str | torch.device = "cpu") -> Any:
    """A trained network, ready to use: of the class, the size and the weights that its card records.

    name: shipped weights, such as "digits" or "digits_classifier", or the path of a .safetensors file
    Raises as `load` does, and ValueError when the card does not describe a network of this package, or another one
    than that of the weights; that is found out before anything is built.
    """
    tensors, about = load(name)
    (kind,) = need(about, name, "kind")
    if kind not in NETWORKS:
        raise ValueError(f"{str(name)!r} holds {kind}, not a network: read it with weights.load")
    (config,) = need(about, name, "network")
    wrap = _denoiser_around(about, name) if kind == "denoiser" else lambda net: net
    foreign = f"{path_of(name)} is not weights of this course: the network on its card"
    try:
        with torch.device("meta"), WithoutInit():    # shapes, but no memory
            shapes = {key: x.shape for key, x in wrap(NETWORKS[kind](**config)).state_dict().items()}
    except Exception as error:
        raise ValueError(f"{foreign} cannot be built ({error})") from error
    if shapes != {key: x.shape for key, x in tensors.items()}:
        raise ValueError(f"{foreign} has tensors of other names or shapes")
    with WithoutInit():
        network = NETWORKS[kind](**config)
    model = wrap(network)
    model.load_state_dict(tensors)
    return model.to(device).eval().requires_grad_(False)


class WithoutInit(TorchFunctionMode):
    """Inside, networks are built without drawing the first values of their weights, which take most of the time."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name.endswith("_") and not name.endswith("__"):    # in place: normal_, kaiming_uniform_, ...
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def path_of(name: str | Path) -> Path:
    """The path of a weight file: a plain name means one in the package's own folder."""
    return Path(name) if str(name).endswith(".safetensors") else FOLDER / f"{name}.safetensors"


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def denoiser_card(denoiser: Denoiser, **about: Any) -> dict:
    """The card from which `load_model` can rebuild a denoiser, with anything else you want to record in `about`."""
    s = denoiser.schedule
    if not torch.equal(schedules.make_schedule(s.name, s.T).alpha_bar, s.alpha_bar):
        raise ValueError(f"{s} has settings of its own, which a card cannot hold: use make_schedule({s.name!r}, {s.T})")
    return {"kind": "denoiser", "class": type(denoiser).__name__, "network": denoiser.net.config,
            "prediction_type": denoiser.prediction_type, "schedule": {"name": s.name, "T": s.T}, **about}


def _denoiser_around(about: dict, name: str | Path) -> Any:
    """What makes a denoiser of a network, by the card."""
    schedule, prediction_type = need(about, name, "schedule", "prediction_type")
    kind = DENOISERS.get(about.get("class", "Denoiser"))
    if kind is None:
        raise ValueError(f"{str(name)!r} is a {about['class']}, not one of {', '.join(DENOISERS)}")
    made = schedules.make_schedule(schedule["name"], schedule["T"])
    # channels last is the faster layout, on CPUs too
    return lambda net: kind(net, made, prediction_type).to(memory_format=torch.channels_last)
