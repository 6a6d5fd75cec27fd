"""Published checkpoints: one folder a model, with config.json and weights as safetensors; read and written.

Older files have older names. They are translated here, and nowhere else.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

OLD_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def modern_name(name: str) -> str | None:
    """The name of a parameter as it is today; None for what is no parameter.

    The VAE of Stable Diffusion 1.5 has mid_block.attentions.0.query where newer ones have to_q; text encoders had a
    buffer of position_ids, and transformers 5 writes them without the leading "text_model.".
    """
    if name.endswith("position_ids"):
        return None
    if re.match(r"(embeddings|encoder\.layers|final_layer_norm)\.", name):
        return f"text_model.{name}"
    return re.sub(r"(mid_block\.attentions\.0\.)(query|key|value|proj_attn)\b",
                  lambda found: found[1] + OLD_VAE_NAMES[found[2]], name)


def weights_file(folder: str | Path) -> Path:
    """The safetensors file of a model's folder; the one in full precision if there are two.

    Raises ValueError where there are only pickles: they can run any code while they load.
    """
    found = sorted(Path(folder).glob("*.safetensors"), key=lambda path: (".fp16." in path.name, path.name))
    found = [path for path in found if ".non_ema." not in path.name]
    if found:
        return found[0]
    pickles = [path.name for path in Path(folder).glob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    if pickles:
        raise ValueError(f"{folder} has its weights only as pickles ({', '.join(pickles)}). Opening one can run any "
                         "code hidden in it, so this is refused: get the .safetensors file of the same weights")
    raise FileNotFoundError(f"{folder} has no .safetensors file")


def load_model(kind: type[nn.Module], folder: str | Path, device: str | torch.device = "cpu",
               dtype: torch.dtype = torch.float32) -> nn.Module:
    """A UNet, VAE or TextEncoder from its published folder, for use and not for training.

    No random weights are made first and every tensor is converted by itself, so that the memory holds little more than
    the finished model. Raises as the model for its config, ValueError for weights that do not fit it.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} has no config.json: is this the published layout, one folder a model?")
    with torch.device("meta"):
        model = kind(**json.loads((folder / "config.json").read_text()))
    file = weights_file(folder)
    with safe_open(file, "pt", device="cpu") as weights:
        tensors = {new: weights.get_tensor(old).to(device, dtype)
                   for old in weights.keys() if (new := modern_name(old))}    # noqa: SIM118 (no dict)
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{file} does not fit its config.json: {error}") from error
    return model.eval().requires_grad_(False)


def save_model(model: Any, folder: str | Path, class_name: str, dtype: torch.dtype = torch.float16) -> None:
    """Write config.json and weights as `load_model`, diffusers and transformers read them.

    class_name: what the published libraries call this model, "AutoencoderKL" for instance
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = class_name.startswith("CLIP")
    config = {"architectures": [class_name], "model_type": "clip_text_model"} if text else {"_class_name": class_name}
    (folder / "config.json").write_text(json.dumps({**config, **model.config}, indent=2) + "\n")
    tensors = {name: x.detach().to("cpu", dtype).contiguous() for name, x in model.state_dict().items()}
    save_file(tensors, folder / ("model.safetensors" if text else "diffusion_pytorch_model.safetensors"),
              metadata={"format": "pt"})
