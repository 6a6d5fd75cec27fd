"""Stable Diffusion from a folder or from the hub, and out to a folder that `diffusers` loads: the published layout.

    model_index.json   unet/   vae/   text_encoder/   tokenizer/   scheduler/

The miniature also has picture_encoder/, the other half of its CLIP, which drawing does not need, and a card.json.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from diffusion_lessons import runtime
from diffusion_lessons.limits import TooLong, within
from diffusion_lessons.models.stable_diffusion.checkpoint import load_model, save_model, weights_file
from diffusion_lessons.models.stable_diffusion.clip import CLIP
from diffusion_lessons.models.stable_diffusion.scheduler import Scheduler
from diffusion_lessons.models.stable_diffusion.text_encoder import TextEncoder
from diffusion_lessons.models.stable_diffusion.tokenizer import Tokenizer
from diffusion_lessons.models.stable_diffusion.unet import UNet
from diffusion_lessons.models.stable_diffusion.vae import VAE
from diffusion_lessons.pipelines.latent import LatentPipeline

PATIENCE, LARGEST = 10.0, 12    # seconds for the hub to answer; GB of a model: Stable Diffusion 2.1 in float32 has 5
SLOWEST = 100_000               # bytes a second, on the whole: a download at less counts as broken
SHIPPED = {"critters": Path(__file__).parents[1] / "pretrained" / "stable_diffusion_critters"}
PICTURE_ENCODER = Path("picture_encoder", "model.safetensors")
MODELS = {"unet": (UNet, "diffusers", "UNet2DConditionModel"), "vae": (VAE, "diffusers", "AutoencoderKL"),
          "text_encoder": (TextEncoder, "transformers", "CLIPTextModel")}
SMALL_FILES = ("model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
               "tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json",
               *(f"{part}/config.json" for part in MODELS))


def load_stable_diffusion(name_or_folder: str | Path = "critters",
                          device: str | torch.device | None = None,
                          dtype: torch.dtype | None = None) -> LatentPipeline:
    """Stable Diffusion, ready to draw: the shipped miniature, a folder, or a model of the hub.

    name_or_folder: "critters"; a folder in the published layout; or a name such as "stabilityai/sd-turbo", which is
    downloaded once, after its size has been printed (needs `pip install huggingface_hub` and a network)
    device: the best one here if left out;  dtype: float16 on a GPU and float32 elsewhere if left out
    Raises ValueError for what this code does not implement and for weights that are only pickles, FileNotFoundError
    for what is not there, and ConnectionError without a network.
    """
    device = torch.device(device or runtime.device())
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    folder = find_folder(name_or_folder)
    kind = read_json(folder / "model_index.json").get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise ValueError(f"{name_or_folder} is a {kind}; this code covers StableDiffusionPipeline alone")
    models: dict[str, Any] = {part: load_model(network, folder / part, device, dtype)
                              for part, (network, _, _) in MODELS.items()}
    scheduler = Scheduler.from_config(read_json(folder / "scheduler" / "scheduler_config.json"))
    return LatentPipeline(Tokenizer.load(folder / "tokenizer"), scheduler=scheduler, **models)


def export_pipeline(pipeline: LatentPipeline, folder: str | Path, dtype: torch.dtype = torch.float16) -> Path:
    """Write all five parts in the published layout, for `diffusers.StableDiffusionPipeline.from_pretrained(folder)`.

    dtype: float16 halves the files
    """
    folder = Path(folder)
    pipeline.tokenizer.save(folder / "tokenizer")
    for part, (_, _, name) in MODELS.items():
        save_model(getattr(pipeline, part), folder / part, name, dtype)
    config = pipeline.scheduler.config
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config, indent=2) + "\n")
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.35.0", "requires_safety_checker": False,
             **{part: [None, None] for part in ("safety_checker", "feature_extractor", "image_encoder")},
             **{part: [library, name] for part, (_, library, name) in MODELS.items()},
             "tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", config["_class_name"]]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    return folder


def load_clip(name_or_folder: str | Path = "critters", device: str | torch.device | None = None) -> CLIP:
    """The CLIP whose text encoder the miniature has: it compares pictures with texts.

    Raises FileNotFoundError where the folder has no picture encoder, as published ones have not.
    """
    folder = find_folder(name_or_folder)
    if not (folder / PICTURE_ENCODER).exists():
        raise FileNotFoundError(f"{folder / PICTURE_ENCODER} is missing: only the miniature has its picture encoder")
    clip = CLIP(read_json(folder / "text_encoder" / "config.json"))
    trained: Any = load_model(TextEncoder, folder / "text_encoder")
    clip.text_encoder = trained
    rest = clip.load_state_dict(load_file(folder / PICTURE_ENCODER), strict=False)
    if rest.unexpected_keys or any(not name.startswith("text_encoder.") for name in rest.missing_keys):
        raise ValueError(f"{folder / PICTURE_ENCODER} does not fit this CLIP: {rest}")
    return clip.to(device or runtime.device()).eval().requires_grad_(False)


def save_picture_encoder(clip: CLIP, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write what a CLIP has beside its text encoder, as `load_clip` reads it."""
    path = Path(folder) / PICTURE_ENCODER
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: x.detach().to("cpu", dtype).contiguous() for name, x in clip.state_dict().items()
               if not name.startswith("text_encoder.")}, path)


def find_folder(name_or_folder: str | Path) -> Path:
    """Where the published layout lies on this machine, downloaded first where it is a name of the hub."""
    name = str(name_or_folder)
    if Path(name).is_dir():
        return Path(name)
    if name in SHIPPED:
        if not SHIPPED[name].is_dir():
            raise FileNotFoundError(f"the weights of {name!r} are not in this installation: {SHIPPED[name]} is missing")
        return SHIPPED[name]
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"there is no folder {name!r}, and it is neither a shipped name ({', '.join(SHIPPED)}) "
                                'nor one of the hub, such as "stabilityai/sd-turbo"')
    return download(name)


def download(name: str) -> Path:
    """The folder of a model of the hub, from this machine's cache or fetched now; what was begun is resumed.

    Its size is known, and has to fit, before anything is fetched. The time is bounded: PATIENCE seconds a file, and
    what the size takes at SLOWEST. A hub that sends more than it has named is stopped by that time alone, or at the end
    of the file by the hub's own package, which does not keep a file of another size.
    """
    try:
        from huggingface_hub import HfApi, hf_hub_download, snapshot_download
        from huggingface_hub.constants import HF_HUB_CACHE
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise ImportError(f"to fetch {name}, install one more package: pip install huggingface_hub") from error
    try:
        folder = Path(snapshot_download(name, local_files_only=True))
        if is_complete(folder):
            return folder
    except LocalEntryNotFoundError:
        pass
    try:
        info = within(3 * PATIENCE, lambda: HfApi().model_info(name, files_metadata=True, timeout=PATIENCE))
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        wanted = wanted_files(sizes)
        gigabytes = sum(sizes[file] for file in wanted) / 1e9
        check_room(name, gigabytes, Path(HF_HUB_CACHE))
        print(f"{name}: {gigabytes:.1f} GB to download, once; about {gigabytes * 8000 / 100 / 60:.0f} minutes at "
              "100 Mbit/s. If it is interrupted, the next call goes on from there.")

        def fetch() -> Path:
            paths = [Path(hf_hub_download(name, file)) for file in wanted]    # in this thread, which `within` can end
            return paths[0].parents[wanted[0].count("/")]

        return within(PATIENCE * len(wanted) + 1e9 * gigabytes / SLOWEST, fetch)
    except TooLong as error:
        raise ConnectionError(f"{name} was given up: the hub sends less than {SLOWEST // 1000} kB a second. The next "
                              "call goes on from there") from error
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"the hub does not give {name}: there is no such model, or one must be logged in and "
                                f"have accepted its licence ({error})") from error
    except ValueError:
        raise
    except Exception as error:    # sockets and the packages for the web each have errors of their own
        raise ConnectionError(f"{name} is not on this machine and could not be fetched: is there a network? "
                              f'load_stable_diffusion("critters") needs none ({error})') from error


def check_room(name: str, gigabytes: float, cache: Path) -> None:
    """Raise ValueError when a model is larger than any that this code covers, or than the room where it would lie."""
    if gigabytes > LARGEST:
        raise ValueError(f"{name} says that it has {gigabytes:,.0f} GB; no model that this code covers has more than "
                         f"{LARGEST}")
    while not cache.exists():
        cache = cache.parent
    free = shutil.disk_usage(cache).free / 1e9
    if free < gigabytes + 1:
        raise ValueError(f"{name} has {gigabytes:.1f} GB, and on the disk of {cache} {free:.1f} GB are free: make "
                         "room, or name another folder in the environment variable HF_HOME")


def is_complete(folder: str | Path) -> bool:
    """Whether every part has its files, as after an interrupted download it has not."""
    folder = Path(folder)
    try:
        return all((folder / "model_index.json").exists() and weights_file(folder / part) for part in MODELS)
    except (FileNotFoundError, ValueError):
        return False


def wanted_files(names: Iterable[str]) -> list[str]:
    """The files that are needed of a model's many: one safetensors file a part, in half precision if it can be.

    Raises ValueError where a part has no safetensors file.
    """
    wanted = [name for name in SMALL_FILES if name in names]
    for part in MODELS:
        found = [name for name in names if name.startswith(f"{part}/") and name.endswith(".safetensors")
                 and ".non_ema." not in name]
        if not found:
            raise ValueError(f"its {part} is not there as safetensors, and pickles are refused: they can run any code")
        wanted.append(min(found, key=lambda name: (".fp16." not in name, name)))
    return wanted


def read_json(path: Path) -> dict:
    """A JSON file, or FileNotFoundError that says what it should be."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: this is not a Stable Diffusion folder in the published layout")
    return json.loads(path.read_text(encoding="utf-8"))
