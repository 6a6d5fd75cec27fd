"""Things to play with: sliders that show what a moment of noising, denoising or sampling looks like."""

import io

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageDraw

from diffusion_lessons.classroom.animation import tile
from diffusion_lessons.classroom.style import BLUE, ORANGE, VERMILLION, Drawing, styled
from diffusion_lessons.datasets import critters
from diffusion_lessons.datasets.captions import phrase
from diffusion_lessons.forward import add_noise
from diffusion_lessons.generation import draw
from diffusion_lessons.models.gan import globe
from diffusion_lessons.schedules import make_schedule

SIZE = 240   # screen pixels of a picture


def noise_slider(x0, schedules=("linear", "cosine", "constant", "sigmoid"), T=1000, t=None, seed=0):
    """Slide through time: the picture, the noisy picture, and where on the curve of alpha_bar that is.

    x0: (C, H, W) or (B, C, H, W) in [-1, 1];  schedules: names (with T steps), or Schedules of one T
    """
    x0 = _batch(x0)
    known = [make_schedule(s, T) if isinstance(s, str) else s for s in schedules]
    known = {s.name: s for s in known}
    lengths = {s.T for s in known.values()}
    if len(lengths) != 1:
        raise ValueError(f"the schedules must have one T, got {sorted(lengths)}")
    eps = _noise_like(x0, seed)
    curves = {name: _CurveWithDot(s) for name, s in known.items()}
    menu = widgets.Dropdown(options=list(known), description="schedule", layout=widgets.Layout(width="240px"))
    last = lengths.pop()
    time = _slider("t", 0, last, last // 4 if t is None else t)
    noisy, curve, words = _empty(), _empty(), widgets.HTML()

    def draw():
        schedule, t = known[menu.value], time.value
        a = schedule.alpha_bar[t].item()
        noisy.value = picture_bytes(add_noise(x0, torch.full((len(x0),), t), eps, schedule))
        curve.value = curves[menu.value].at(t)
        words.value = large(f"picture: <b>{a:.1%}</b> of the variance, factor {a**0.5:.3f}; &nbsp; "
                            f"noise: <b>{1 - a:.1%}</b> of the variance, factor {(1 - a)**0.5:.3f}")

    pictures = {"picture x0": _still(x0), "noisy picture x_t": noisy, "alpha_bar": curve}
    return _assemble([time, menu], [time, menu], pictures, words, draw)


def denoise_slider(x0, denoiser, schedule=None, t=None, seed=0):
    """Slide through time: clean, noisy, the denoiser's estimate of the clean picture, and its error.

    x0: (C, H, W) or (B, C, H, W) in [-1, 1], on the denoiser's device;  denoiser: (x_t, t) -> Prediction
    schedule: by default the denoiser's own
    """
    x0 = _batch(x0)
    schedule = denoiser.schedule if schedule is None else schedule
    eps = _noise_like(x0, seed)
    time = _slider("t", 1, schedule.T, schedule.T // 2 if t is None else t)
    noisy, estimate, error, words = _empty(), _empty(), _empty(), widgets.HTML()

    @torch.no_grad()
    def draw():
        times = torch.full((len(x0),), time.value, device=x0.device)
        x_t = add_noise(x0, times, eps, schedule)
        eps_hat, x0_hat = denoiser(x_t, times)
        noisy.value, estimate.value = picture_bytes(x_t), picture_bytes(x0_hat)
        error.value = picture_bytes((x0_hat - x0).abs() - 1)
        of_x0, of_eps = (x0_hat - x0).square().mean(), (eps_hat - eps).square().mean()
        words.value = large(f"mean squared error of the picture: <b>{of_x0:.4f}</b>; &nbsp; "
                            f"of the noise: <b>{of_eps:.4f}</b>")

    pictures = {"clean picture x0": _still(x0), "noisy picture x_t": noisy, "estimate of x0": estimate,
                "error (white: large)": error}
    return _assemble([time], [time], pictures, words, draw)


def loop_player(steps):
    """Slide through a recorded sampling loop: what the network is given, and what it makes of it.

    steps: the `Step`s of a loop, list(sample(...))
    """
    steps = list(steps)
    if not steps:
        raise ValueError("there is no step to show: pass list(sample(...)); a loop that has run out is empty")
    turn = _slider("step", 1, len(steps), 1)
    play = widgets.Play(min=1, max=len(steps), value=1, interval=150)
    widgets.jslink((play, "value"), (turn, "value"))
    given, estimate, onward, words = _empty(), _empty(), _empty(), widgets.HTML()

    def draw():
        step = steps[turn.value - 1]
        given.value, estimate.value = picture_bytes(step.x_t), picture_bytes(step.x0_hat)
        onward.value = picture_bytes(step.x_s)
        words.value = large(f"step <b>{turn.value}</b> of {len(steps)}: "
                            f"from t = <b>{step.t}</b> to <b>{step.s}</b>")

    pictures = {"x_t: what comes in": given, "estimate of x0": estimate, "x_s: what goes on": onward}
    return _assemble([play, turn], [turn], pictures, words, draw)


def walk_slider(generator, seed=0, step=30):
    """Walk by hand through the noise of a generator: two angles on a globe of noise vectors, and where that is on it.

    generator: (B, latent) -> (B, C, H, W) in [-1, 1], with an attribute `latent`;  seed: which globe (see models.gan)
    step: degrees between the pictures of the map, a divisor of 180
    """
    if 180 % step:
        raise ValueError(f"step must divide 180, not {step}")
    turns, tilts = torch.arange(0.0, 360, step), torch.arange(90.0, -91, -step)
    grid = torch.cartesian_prod(tilts, turns)                                   # (N, 2): tilt, turn
    turn, tilt = _slider("turn", 0, 360, 0), _slider("tilt", -90, 90, 0)
    here, where, words = _empty(), _empty(), widgets.HTML()

    @torch.no_grad()
    def pictures(turn, tilt):
        return generator(globe(generator.latent, turn, tilt, seed).to(next(generator.parameters()).device)).cpu()

    atlas = pictures(grid[:, 1], grid[:, 0])
    high, wide = atlas.shape[-2:]
    atlas = atlas.unflatten(0, (len(tilts), len(turns))).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)   # (C, H, W)
    atlas = Image.fromarray(tile(atlas))

    def draw():
        here.value = picture_bytes(pictures(torch.tensor([float(turn.value)]), torch.tensor([float(tilt.value)])))
        x, y = (turn.value / step + 0.5) % len(turns) * wide, ((90 - tilt.value) / step + 0.5) * high
        marked = atlas.copy()
        ImageDraw.Draw(marked).ellipse((x - 9, y - 9, x + 9, y + 9), outline=ORANGE, width=4)
        where.value = _png(marked.resize((marked.width * SIZE // marked.height, SIZE)))
        words.value = large(f"turn <b>{turn.value}</b>°, tilt <b>{tilt.value}</b>°: {generator.latent} numbers of "
                            "noise, one picture")

    return _assemble([turn, tilt], [turn, tilt], {"the picture here": here, "the map around": where}, words, draw)


def sentence_maker(denoiser, tokenizer, w=3.0, steps=25, seed=0):
    """Build a sentence from menus, choose how strongly to insist on it, and see what the network makes of it.

    denoiser: one that reads;  tokenizer: its own;  w: guidance scale to begin with;  steps: of the loop, few are quick
    What has been drawn once is kept, and comes at once when it is asked for again.
    """
    says = {"subject": critters.SUBJECTS[:-1], "colour": list(critters.COATS), "prop": critters.PROPS[1:],
            "place": critters.PLACES}
    layout = widgets.Layout(width="220px")
    menus = {name: widgets.Dropdown(options=["(not said)", *words], value=words[0], description=name, layout=layout)
             for name, words in says.items()}
    number = _slider("seed", 0, 20, seed)
    strength = widgets.FloatSlider(value=w, min=0, max=12, step=0.5, description="w", layout=number.layout)
    for slider in (number, strength):    # a picture takes a while: draw where a slider is let go, not on the way
        slider.continuous_update = False
    picture, sentence, known = _empty(), widgets.HTML(), {}

    def redraw():
        text = phrase({name: menu.value for name, menu in menus.items() if menu.value != "(not said)"})
        asked = text, strength.value, number.value
        if asked not in known:
            x = draw(denoiser, tokenizer(text), (3, 32, 32), w=strength.value, steps=steps, seed=number.value)
            known[asked] = picture_bytes(x)
        picture.value, sentence.value = known[asked], large(f"<b>{text}</b>")

    movers = [*menus.values(), strength, number]
    row = widgets.HBox(list(menus.values()), layout=widgets.Layout(flex_flow="row wrap"))
    boxes = widgets.VBox([row, strength, number])
    return _assemble([boxes], movers, {"what it draws": picture}, sentence, redraw)


def picture_bytes(x, size=SIZE):
    """A picture, or a batch as tiles, as a PNG of about `size` screen pixels, enlarged without blurring."""
    picture = tile(x)
    factor = max(1, round(size / max(picture.shape[:2])))
    return _png(Image.fromarray(picture.repeat(factor, 0).repeat(factor, 1)))


def _assemble(top, movers, pictures, words, draw):
    """Controls above, named pictures in a row, words below; `draw` runs now and whenever something moves."""
    def redraw(change=None):
        try:
            draw()
        except Exception as error:      # notebooks hide a callback's error: say it where the learner looks
            words.value = large(f'<b style="color:{VERMILLION}">{type(error).__name__}: {error}</b>')
            raise

    redraw()
    for mover in movers:
        mover.observe(redraw, "value")
    cells = [widgets.VBox([widgets.HTML(large(name)), picture], layout=widgets.Layout(margin="0 12px 0 0"))
             for name, picture in pictures.items()]
    row = widgets.HBox(cells, layout=widgets.Layout(flex_flow="row wrap"))
    return widgets.VBox([widgets.HBox(top), row, words])


def _slider(name, low, high, value):
    return widgets.IntSlider(value=value, min=low, max=high, description=name,
                             layout=widgets.Layout(width="460px"))


def large(text):
    """Text that can be read from the last row, where a widget's own is small."""
    return f'<span style="font-size:16px">{text}</span>'


def _empty():
    return widgets.Image(format="png", layout=widgets.Layout(object_fit="none"))


def _still(x):
    return widgets.Image(value=picture_bytes(x), format="png")


def _batch(x):
    if not isinstance(x, torch.Tensor) or x.ndim not in (3, 4) or not x.is_floating_point():
        raise ValueError("x0 must be a float picture (C, H, W) or batch (B, C, H, W) in [-1, 1]")
    x = x.detach().float()
    return x if x.ndim == 4 else x[None]


def _noise_like(x, seed):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)


def _png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


class _CurveWithDot:
    """The curve of alpha_bar, drawn once by matplotlib; the dot is put on it by hand, within milliseconds."""

    @styled
    def __init__(self, schedule):
        figure = Drawing(figsize=(3.8, SIZE / 100), layout="constrained")
        ax = figure.add_subplot()
        self.alpha_bar = schedule.alpha_bar
        ax.plot(range(schedule.T + 1), self.alpha_bar, color=BLUE)
        ax.set(xlabel="t", ylim=(-0.04, 1.04))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        self.picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        self.place = ax.transData.frozen()

    def at(self, t):
        """The curve with a dot at t, as PNG bytes."""
        x, y = self.place.transform((t, self.alpha_bar[t].item()))     # from the lower left corner
        y, r = self.picture.height - y, 7
        picture = self.picture.copy()
        dot = (x - r, y - r, x + r, y + r)
        ImageDraw.Draw(picture).ellipse(dot, fill=VERMILLION, outline="white", width=2)
        return _png(picture)
