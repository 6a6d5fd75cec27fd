"""A small film player in HTML: pictures and a slider, without a kernel, a network or a library."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image

from diffusion_lessons.classroom.style import STYLE
from diffusion_lessons.images import tile

# The event handlers are attributes of the tags, and find their player among their ancestors. So there are no ids that
# could clash, and it works where HTML is inserted without running its <script>. In a notebook that is not trusted the
# handlers are removed, and one frame remains as a still.
ON_SLIDE = ("var p=this.closest('.dl-player'),i=+this.value;"
            "p.querySelectorAll('.dl-film').forEach(function(f){f.querySelectorAll('img').forEach(function(m,k){"
            "m.style.display=k==i?'block':'none';"
            "if(k==i){p.querySelector('output').textContent=m.dataset.title;"
            "p.querySelector('input').setAttribute('aria-valuetext',m.dataset.title)}})})")
ON_PLAY = ("var b=this,p=b.closest('.dl-player'),r=p.querySelector('input');"
           "function say(sign,word){b.textContent=sign+' '+word;b.setAttribute('aria-label',word)}"
           "function stop(){clearInterval(p.clock);p.clock=null;say('\u25b6','play')}"
           "if(p.clock){stop()}else{if(+r.value>=+r.max){r.value=0;r.oninput()}"
           "say('\u25a0','stop');p.clock=setInterval(function(){"
           "if(!p.isConnected||+r.value>=+r.max){stop();return}"
           "r.value=+r.value+1;r.oninput()},INTERVAL)}")
# A screen reader speaks the frame's title as the slider's value. <output> would repeat it at every frame of a playing
# film: hence aria-live="off".
# JupyterLab and slides use these keys to go to another cell or slide; here they should move the film. Notebook 7
# handles them before they reach the film, so they are stopped at the window, which comes first.
ON_FOCUS = ("var p=this.closest('.dl-player');if(!p.kept)window.addEventListener('keydown',p.kept=function(e){"
            "if(p.contains(e.target)&&/^(Arrow|Home|End|Page| )/.test(e.key))e.stopPropagation()},true)")
PLAYER = """<div class="dl-player" style="display:inline-block;font-family:sans-serif;font-size:16px">
<div style="display:flex;gap:16px">FILMS</div>
<div style="display:flex;gap:10px;align-items:center;margin-top:8px">
<button type="button" aria-label="play" style="font-size:15px;min-width:84px;padding:3px 8px"
 onclick="ON_PLAY" onfocus="ON_FOCUS">\u25b6 play</button>
<input type="range" min="0" max="LAST" step="1" value="START" aria-label="frame" aria-valuetext="TITLE"
 style="flex:1;min-width:100px" oninput="ON_SLIDE" onfocus="ON_FOCUS">
<output aria-live="off" style="min-width:5em;font-variant-numeric:tabular-nums">TITLE</output>
</div></div>"""


def animate(frames: Sequence | Mapping[str, Sequence], titles: Sequence | None = None, fps: float = 8,
            width: int | None = None, start: int = 0) -> HTML:
    """A film with a play button and a slider (arrow keys work too). Make it the last value of a cell.

    frames: a list of pictures (C, H, W) or batches (B, C, H, W), or of matplotlib figures of one size;
    or {name: such a list} for films side by side
    titles: a title for each frame;  start: the frame shown before playing (-1: the last);  fps: frames per second
    width: of one film in screen pixels
    Raises ValueError when the numbers of frames or titles differ, or there are none.
    """
    films = frames if isinstance(frames, Mapping) else {"": frames}
    films = {name: [_png(frame) for frame in film] for name, film in films.items()}
    counts = {len(film) for film in films.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"films side by side need the same number of frames, one or more; got {sorted(counts)}")
    count = counts.pop()
    if titles is not None and len(titles) != count:
        raise ValueError(f"{len(titles)} titles for {count} frames: give each frame one")
    if not -count <= start < count:
        raise ValueError(f"start must be one of the {count} frames, not {start}")
    titles = [f"{k + 1} / {count}" for k in range(count)] if titles is None else titles
    titles, start = [html.escape(str(title)) for title in titles], start % count
    room = width or (360 if len(films) == 1 else 720 // len(films))
    parts = {"FILMS": "".join(_film(name, film, titles, start, room, width) for name, film in films.items()),
             "ON_PLAY": ON_PLAY, "ON_SLIDE": ON_SLIDE, "ON_FOCUS": ON_FOCUS, "INTERVAL": str(round(1000 / fps)),
             "LAST": str(count - 1), "START": str(start), "TITLE": titles[start]}
    page = PLAYER
    for mark in ("ON_PLAY", "ON_SLIDE", "ON_FOCUS", "INTERVAL", "LAST", "START", "TITLE", "FILMS"):
        page = page.replace(mark, parts[mark])
    return HTML(page)


def _film(name, film, titles, start, room, width):
    """One film: its name and all its frames, one of them visible."""
    _, wide, pixels = film[0]
    if pixels:
        size, look = wide * max(1, round(room / wide)), "image-rendering:pixelated;"
    else:
        size, look = width or wide, ""
    name = html.escape(name)
    prefix = f"{name}: " if name else ""
    images = "".join(
        f'<img alt="{prefix}{title}" data-title="{title}" src="data:image/png;base64,{data}"'
        f' style="width:{size}px;max-width:100%;{look}'
        f'margin:0;display:{"block" if k == start else "none"}">'
        for k, ((data, _, _), title) in enumerate(zip(film, titles)))
    caption = f'<div style="margin-bottom:4px">{name}</div>' if name else ""
    return f'<div class="dl-film">{caption}{images}</div>'


def _png(frame):
    """A frame as (a PNG in base64, its width, whether its pixels should be enlarged)."""
    buffer = io.BytesIO()
    if isinstance(frame, Figure):
        frame.savefig(buffer, format="png", dpi=STYLE["figure.dpi"])
        width, pixels = round(frame.get_figwidth() * STYLE["figure.dpi"]), False
    else:
        picture = tile(frame)
        Image.fromarray(picture).save(buffer, format="png")
        width, pixels = picture.shape[1], True
    return base64.b64encode(buffer.getvalue()).decode(), width, pixels
