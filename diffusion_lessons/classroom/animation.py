"""A small film player for the page: pictures and a slider, no kernel, no network, no library."""

import base64
import html
import io

import numpy as np
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image

from diffusion_lessons.classroom.pictures import as_rgb
from diffusion_lessons.classroom.style import STYLE

# The handlers stand in the tags and find their player by going up from themselves. So there are no ids that could
# clash, and it works wherever HTML may be inserted without running <script> (the handlers still run).
SHOW = ("p.querySelectorAll('.dl-panel').forEach(function(q){q.querySelectorAll('img').forEach("
        "function(m,k){m.style.display=k==i?'block':'none';if(k==i)p.querySelector('.dl-title').textContent=m.alt})})")
ON_SLIDE = f"var p=this.closest('.dl-player'),i=+this.value;{SHOW}"
ON_PLAY = ("var b=this,p=b.closest('.dl-player'),r=p.querySelector('input');"
           "function stop(){clearInterval(p.clock);p.clock=null;b.textContent='\\u25B6 play'}"
           "if(p.clock){stop()}else{if(+r.value>=+r.max)r.value=-1;b.textContent='\\u275A\\u275A stop';"
           "p.clock=setInterval(function(){if(!p.isConnected||+r.value>=+r.max){stop();return}"
           "r.value=+r.value+1;r.oninput()},%d)}")


def animate(frames, titles=None, fps=8, width=None, start=0):
    """A film with a play button and a slider (arrow keys move it too). Show it as a cell's last value.

    frames: a list of pictures (C, H, W) or batches (B, C, H, W), or of matplotlib figures of one size, or a dict
    {name: such a list} for films side by side;  titles: a word for each frame;  start: the frame shown before playing
    width: screen pixels of one film.  Each frame is a PNG inside the page.
    """
    films = frames if isinstance(frames, dict) else {"": frames}
    films = {name: [_png(frame) for frame in film] for name, film in films.items()}
    counts = {len(film) for film in films.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"films side by side need equally many frames, one or more; got {sorted(counts)}")
    count = counts.pop()
    if titles is not None and len(titles) != count:
        raise ValueError(f"{len(titles)} titles for {count} frames: give one each")
    if not -count <= start < count:
        raise ValueError(f"start must be one of the {count} frames, not {start}")
    titles = [f"{k + 1} / {count}" for k in range(count)] if titles is None else [str(title) for title in titles]
    start %= count
    panels = "".join(_panel(name, film, titles, start, width, len(films)) for name, film in films.items())
    return HTML(
        '<div class="dl-player" style="display:inline-block;font-family:sans-serif;font-size:16px">'
        f'<div style="display:flex;gap:16px">{panels}</div>'
        '<div style="display:flex;gap:10px;align-items:center;margin-top:8px">'
        f'<button type="button" aria-label="play or stop" style="font-size:15px;min-width:84px;padding:3px 8px" '
        f'onclick="{ON_PLAY % round(1000 / fps)}">\u25B6 play</button>'
        f'<input type="range" min="0" max="{count - 1}" step="1" value="{start}" aria-label="frame" '
        f'style="flex:1;min-width:120px" oninput="{ON_SLIDE}">'
        f'<output class="dl-title" style="min-width:7em;font-variant-numeric:tabular-nums">{html.escape(titles[start])}'
        "</output></div></div>")


def _panel(name, film, titles, start, width, films):
    """One film: its name and all its frames, of which one is visible."""
    size = width or (film[0][1] if film[0][2] is False else max(1, round(max(280, 900 / films - 300) / film[0][1])) * film[0][1])
    sharp = "image-rendering:pixelated;" if film[0][2] else ""
    images = "".join(
        f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}" style="width:{size}px;max-width:100%;{sharp}'
        f'margin:0;display:{"block" if k == start else "none"}">'
        for k, ((data, _, _), title) in enumerate(zip(film, titles)))
    caption = f'<div style="margin-bottom:4px">{html.escape(name)}</div>' if name else ""
    return f'<div class="dl-panel">{caption}{images}</div>'


def _png(frame):
    """A frame as (base64 text of a PNG, its width, whether it is made of pixels to be enlarged)."""
    buffer = io.BytesIO()
    if isinstance(frame, Figure):
        frame.savefig(buffer, format="png", dpi=STYLE["figure.dpi"])
        width, pixels = round(frame.get_figwidth() * STYLE["figure.dpi"]), False
    else:
        picture = tile(frame)
        Image.fromarray(picture).save(buffer, format="png")
        width, pixels = picture.shape[1], True
    return base64.b64encode(buffer.getvalue()).decode(), width, pixels


def tile(batch):
    """A batch as one picture, as square as it goes, with a white line between.  (B, C, H, W) -> (h, w, 3) uint8"""
    if not hasattr(batch, "ndim") or batch.ndim < 4 or len(batch) == 1:
        return as_rgb(batch)
    pictures = [as_rgb(picture) for picture in batch]
    height, width = pictures[0].shape[:2]
    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    out = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        y, x = k // columns * (height + 1), k % columns * (width + 1)
        out[y:y + height, x:x + width] = picture
    return out
