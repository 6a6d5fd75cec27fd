"""Pictures in one call: the loop of `samplers`, run in batches, with a trained denoiser."""

import base64
import html
import io
import math
import re

import torch
from PIL import Image
from tqdm import tqdm

from diffusion_lessons import runtime, samplers, weights
from diffusion_lessons.checks import check_labels, need
from diffusion_lessons.datasets import to_uint8
from diffusion_lessons.guidance import Guided
from diffusion_lessons.models.text import Tokenizer, same_form


def draw(denoiser, y, shape, *, w=1.0, steps=50, seed=0, batch=100, clip=True, limit=True, progress=False, **how):
    """Sample one picture for every label or sentence in y.

    denoiser: a models.Denoiser;  y: (N,) labels, (N, L) tokens, or an integer N: so many pictures, nothing asked
    shape: (C, H, W) of a picture;  w: guidance scale;  how: method, eta (see samplers.Loop)
    clip: keep x0_hat in [-1, 1] at every step;  limit: keep the result there
    ->  (N, C, H, W) float in [-1, 1] on the CPU. Picture i depends on (seed, i) and its row of y, not on the batch.
    Raises ValueError when the network does not know such labels, or makes pictures of another number of channels.
    """
    if not isinstance(y, int):
        y = check_labels(y, net=getattr(denoiser, "net", None))
    count = y if isinstance(y, int) else len(y)
    if count < 1:
        raise ValueError(f"at least one picture must be asked for, not {count}")
    device, parts = next(denoiser.parameters()).device, []
    for first in tqdm(range(0, count, batch), desc="sampling", disable=not progress, leave=False):
        n = min(batch, count - first)
        noise = samplers.PictureNoise(seed, n, first)
        asked = denoiser if isinstance(y, int) else Guided(denoiser, y[first:first + n].to(device), w)
        loop = samplers.sample(asked, noise(shape).to(device), denoiser.schedule, steps, noise=noise, clip=clip, **how)
        parts.append(samplers.finish(loop).cpu())
    x = torch.cat(parts)
    return x.clamp(-1, 1) if limit else x


def understand(model, prompt):
    """What a prompt means to a model: a label for "7", tokens for a sentence.  -> () or (L,) int64

    Raises ValueError that lists what the model knows.
    """
    card = weights.card(model)
    if card.get("words"):
        return tokenizer(card)(str(prompt))[0]
    names, word = card.get("labels"), str(prompt).strip()
    if not names:
        raise ValueError(f"{model} draws nothing that one could ask for; try critters, digits or cifar")
    for known, asked in ((list(map(str, names)), word), (list(map(same_form, names)), same_form(word))):
        if asked in known:    # as it is written, or else with other capitals
            return torch.tensor(known.index(asked))
    raise ValueError(f"{model} does not know {str(prompt)!r}; it knows {', '.join(map(str, names))}")


def tokenizer(card):
    """The tokeniser that a model was trained with, from the model's card."""
    return Tokenizer(card["words"], card["network"]["text"]["length"] - 2)


def model_for(prompt):
    """The shipped weights that a prompt is meant for: "digits" for a digit, "critters" for everything else."""
    return "digits" if re.fullmatch(r"\s*[0-9]\s*", str(prompt)) else "critters"


def generate(prompt, *, model=None, count=4, seed=0, w=None, steps=50, progress=False, **how):
    """Make pictures of what you ask for, as numbers.  -> (count, C, H, W) float in [-1, 1]

    As `diffusion_lessons.generate`, which hands out images; how: see `draw`.
    """
    model = model or model_for(prompt)
    card, y = weights.card(model), understand(model, prompt)
    if count < 1:
        raise ValueError(f"count must be 1 or more, not {count}")
    (picture,) = need(card, model, "picture")
    w = need(card, model, "w")[0] if w is None else w
    denoiser = weights.load_denoiser(model, runtime.device())
    return draw(denoiser, y.expand(count, *y.shape), picture, w=w, steps=steps, seed=seed, progress=progress, **how)


class Gallery(list):
    """Images in a list; a notebook shows it as a grid. asked: what they are of."""

    def __init__(self, pictures=(), asked=""):
        super().__init__(pictures)
        self.asked = asked

    @classmethod
    def of(cls, x, asked=""):
        """x: (N, C, H, W) uint8, or float in [-1, 1]"""
        x = (x if x.dtype == torch.uint8 else to_uint8(x)).permute(0, 2, 3, 1).cpu().numpy()
        return cls((Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture) for picture in x), asked)

    def __getitem__(self, which):
        """One image, or for a slice a Gallery of them."""
        chosen = super().__getitem__(which)
        return Gallery(chosen, self.asked) if isinstance(which, slice) else chosen

    def grid(self, gap=2, zoom=4):
        """All of them in rows on one white sheet, enlarged.  -> a PIL image"""
        across = math.ceil(math.sqrt(len(self)))
        wide, high = self[0].width + gap, self[0].height + gap
        sheet = Image.new(self[0].mode, (gap + across * wide, gap + math.ceil(len(self) / across) * high), "white")
        for i, picture in enumerate(self):
            sheet.paste(picture, (gap + i % across * wide, gap + i // across * high))
        return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST)

    def _repr_mimebundle_(self, **kwargs):
        if not self:
            return {}
        file = io.BytesIO()
        self.grid().save(file, "PNG")
        return shown(file.getvalue(), f"Pictures: {len(self)}" + f", of: {self.asked}" * bool(self.asked))


def shown(png, alt):
    """A picture as a notebook shows it, with its alternative text.  -> (data, metadata), for _repr_mimebundle_

    JupyterLab takes the alternative text from HTML alone; what makes PDF of notebooks takes the PNG.
    """
    data = base64.b64encode(png).decode()
    page = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}" style="max-width:100%">'
    return {"image/png": data, "text/html": page}, {"image/png": {"alt": alt}}
