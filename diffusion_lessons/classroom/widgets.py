"""Things to play with: sliders that show what a moment of noising, denoising or sampling looks like."""

import io

import ipywidgets as w
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageDraw

from diffusion_lessons.classroom.animation import tile
from diffusion_lessons.classroom.style import BLUE, VERMILLION, Drawing, styled
from diffusion_lessons.forward import add_noise
from diffusion_lessons.schedules import make_schedule

SIZE = 240   # screen pixels of a picture


def noise_slider(x0, schedules=("linear", "cosine", "constant", "sigmoid"), T=1000, t=None, seed=0):
    """Slide through time: the picture, the noisy picture, and where on the curve of alpha_bar that is.

    x0: (C, H, W) or (B, C, H, W) in [-1, 1];  schedules: names, or Schedule objects (their own T)
    """
    x0 = _batch(x0)
    known = [make_schedule(s, T) if isinstance(s, str) else s for s in schedules]
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    curves = {s.name: _CurveWithDot(s) for s in known}
    by_name = {s.name: s for s in known}
    menu = w.Dropdown(options=list(by_name), description="schedule", layout=w.Layout(width="240px"))
    time = _slider("t", 0, known[0].T, known[0].T // 4 if t is None else t)
    clean, noisy, curve, words = _picture(x0), w.Image(format="png"), w.Image(format="png"), w.HTML()

    def draw(_=None):
        schedule = by_name[menu.value]
        time.max = schedule.T
        a = schedule.alpha_bar[time.value].item()
        x_t = add_noise(x0, torch.full((len(x0),), time.value), eps, schedule)
        noisy.value, curve.value = picture_bytes(x_t), curves[schedule.name].at(time.value)
        words.value = (f"picture: <b>{a:.1%}</b> of the variance, times {a**0.5:.3f} &nbsp; "
                       f"noise: <b>{1 - a:.1%}</b>, times {(1 - a)**0.5:.3f}")

    return _assemble([time, menu], [time, menu], {"picture x0": clean, "noisy x_t": noisy, "alpha_bar": curve}, words, draw)


def denoise_slider(x0, denoiser, schedule=None, t=None, seed=0):
    """Slide through time: clean, noisy, the denoiser's estimate of the clean picture, and its error.

    x0: (C, H, W) or (B, C, H, W) in [-1, 1];  denoiser: (x_t, t) -> Prediction;  schedule: by default the denoiser's
    """
    x0 = _batch(x0)
    schedule = denoiser.schedule if schedule is None else schedule
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    time = _slider("t", 1, schedule.T, schedule.T // 2 if t is None else t)
    clean, noisy, estimate, error, words = _picture(x0), *(w.Image(format="png") for _ in range(3)), w.HTML()

    @torch.no_grad()
    def draw(_=None):
        times = torch.full((len(x0),), time.value)
        x_t = add_noise(x0, times, eps, schedule)
        prediction = denoiser(x_t, times)
        noisy.value, estimate.value = picture_bytes(x_t), picture_bytes(prediction.x0)
        error.value = picture_bytes((prediction.x0 - x0).abs() - 1)
        words.value = (f"mean squared error of the picture: <b>{(prediction.x0 - x0).square().mean():.4f}</b> &nbsp; "
                       f"of the noise: <b>{(prediction.eps - eps).square().mean():.4f}</b>")

    return _assemble([time], [time], {"clean x0": clean, "noisy x_t": noisy, "estimate of x0": estimate,
                                      "error, white = large": error}, words, draw)


def loop_player(steps):
    """Slide through a recorded sampling loop: what the network is given, and what it makes of it.

    steps: the `Step`s of a loop, list(sample(...))
    """
    steps = list(steps)
    if not steps:
        raise ValueError("there is no step to show: pass list(sample(...)); an iterator that has run out is empty")
    turn = _slider("step", 1, len(steps), 1)
    play = w.Play(min=1, max=len(steps), value=1, interval=150)
    w.jslink((play, "value"), (turn, "value"))
    given, estimate, onward, words = *(w.Image(format="png") for _ in range(3)), w.HTML()

    def draw(_=None):
        step = steps[turn.value - 1]
        given.value, estimate.value, onward.value = map(picture_bytes, (step.x_t, step.x0_hat, step.x_s))
        words.value = f"step <b>{turn.value}</b> of {len(steps)}: from t = <b>{step.t}</b> to <b>{step.s}</b>"

    return _assemble([play, turn], [turn], {"x_t, given": given, "estimate of x0": estimate, "x_s, goes on": onward}, words, draw)


def picture_bytes(x, size=SIZE):
    """A picture, or a batch as tiles, as PNG bytes of about `size` screen pixels, enlarged without blurring."""
    picture = tile(x)
    factor = max(1, round(size / max(picture.shape[:2])))
    buffer = io.BytesIO()
    Image.fromarray(picture.repeat(factor, 0).repeat(factor, 1)).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def _assemble(top, movers, pictures, words, draw):
    """Controls above, named pictures in a row, words below; `draw` runs now and whenever something moves."""
    def redraw(change=None):
        try:
            draw()
        except Exception as error:      # a notebook would swallow it: say it where the learner looks, and let it go on
            words.value = f'<b style="color:{VERMILLION}">{type(error).__name__}: {error}</b>'
            raise

    for mover in movers:
        mover.observe(redraw, "value")
    redraw()
    cells = [w.VBox([w.Label(name), picture]) for name, picture in pictures.items()]
    return w.VBox([w.HBox(top), w.HBox(cells, layout=w.Layout(flex_flow="row wrap")), words])


def _slider(name, low, high, value):
    return w.IntSlider(value=value, min=low, max=high, description=name, continuous_update=True, layout=w.Layout(width="420px"))


def _picture(x):
    return w.Image(value=picture_bytes(x), format="png")


def _batch(x):
    if not isinstance(x, torch.Tensor) or x.ndim not in (3, 4):
        raise ValueError("x0 must be a picture (C, H, W) or a batch (B, C, H, W)")
    return x.detach().cpu().float() if x.ndim == 4 else x.detach().cpu().float()[None]


class _CurveWithDot:
    """The curve of alpha_bar, drawn once by matplotlib; the dot is put on by hand, which takes milliseconds."""

    @styled
    def __init__(self, schedule):
        figure = Drawing(figsize=(3.6, SIZE / 100 + 0.1), layout="constrained")
        ax = figure.add_subplot()
        self.alpha_bar = schedule.alpha_bar
        ax.plot(range(schedule.T + 1), self.alpha_bar, color=BLUE)
        ax.set(xlabel="t", ylim=(-0.04, 1.04))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        self.picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        self.place = ax.transData.frozen()

    def at(self, t):
        x, y = self.place.transform((t, self.alpha_bar[t].item()))
        y = self.picture.height - y
        picture, buffer = self.picture.copy(), io.BytesIO()
        ImageDraw.Draw(picture).ellipse((x - 7, y - 7, x + 7, y + 7), fill=VERMILLION, outline="white", width=2)
        picture.save(buffer, format="png", compress_level=1)
        return buffer.getvalue()
