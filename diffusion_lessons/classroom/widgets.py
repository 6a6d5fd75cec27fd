"""Widgets to play with: sliders that show one moment of adding noise, denoising or sampling.

A widget shows its controls, pictures with their names, and a line of text. Fast ones follow a slider while it is
dragged. Slow ones wait until it rests, say that they are working, and cache their results.
"""

import asyncio
import html
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import torch
from IPython import get_ipython
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion_lessons.classroom.instant import SIZE, CurveWithDot, Histogram, picture_bytes
from diffusion_lessons.classroom.style import ORANGE, VERMILLION
from diffusion_lessons.datasets import critters
from diffusion_lessons.datasets.captions import phrase
from diffusion_lessons.forward import add_noise
from diffusion_lessons.guidance import CFGDenoiser
from diffusion_lessons.images import as_rgb, grid, html_image, png
from diffusion_lessons.models.gan import latent_sphere
from diffusion_lessons.models.text import Tokenizer, attention_maps
from diffusion_lessons.pipelines.latent import LatentPipeline
from diffusion_lessons.samplers import PerSampleNoise, SamplingLoop, Step, run, sample, timesteps
from diffusion_lessons.schedules import Schedule, make_schedule

REST = 0.05        # seconds that a control must rest before a slow widget updates
CACHED = 200       # results that a slow widget caches
_displayed: dict = {}    # cell of a notebook -> (its execution count, the widgets it made)

# ipywidgets labels its menus and text fields, but not the handles of sliders (which in 7.7 have no role or value
# either) nor the buttons of Play, and it has no trait for that. So each widget contains this script, which copies the
# names from the labels, and does so again whenever a part is rendered. It is an event handler, as in the film player,
# because a <script> would not run here.
ON_SHOWN = """
var mark = this, tries = 50;
function name(box) {
    box.querySelectorAll('.widget-slider').forEach(function (slider) {
        var words = slider.querySelector('label').textContent, number = slider.querySelector('.widget-readout');
        slider.querySelectorAll('.noUi-handle, .ui-slider-handle').forEach(function (handle) {
            handle.setAttribute('aria-label', words);
            if (handle.matches('.ui-slider-handle')) {
                handle.setAttribute('role', 'slider');
                handle.setAttribute('aria-valuenow', number.textContent);
                handle.setAttribute('aria-valuetext', number.textContent);
            }
        });
        number.setAttribute('role', 'textbox');
        number.setAttribute('aria-label', words);
    });
    box.querySelectorAll('.widget-toggle-buttons').forEach(function (group) {
        group.setAttribute('role', 'group');
        group.setAttribute('aria-label', group.querySelector('.widget-label').textContent);
        group.querySelectorAll('button').forEach(function (button) {
            button.setAttribute('aria-pressed', button.matches('.mod-active'));
        });
    });
    box.querySelectorAll('.widget-play button').forEach(function (button) {
        var sign = button.querySelector('i').classList;
        button.setAttribute('aria-label', sign.contains('fa-play') ? 'play' : sign.contains('fa-pause') ? 'pause'
            : sign.contains('fa-stop') ? 'back to the first step' : 'repeat');
        if (sign.contains('fa-retweet')) button.setAttribute('aria-pressed', button.matches('.mod-active'));
    });
}
(function begin() {
    var box = mark.closest('.dl-widget');
    if (!box) return tries-- && setTimeout(begin, 100);     // not yet in its place on the page
    name(box);
    new MutationObserver(function () { name(box) }).observe(box,
        {childList: true, subtree: true, attributes: true, attributeFilter: ['class']});
})()"""
LABELLING = ('<img alt="" hidden src="data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==" '
         f'onload="{ON_SHOWN}">')


class Picture(widgets.HTML):
    """A picture with alternative text, which the Image of ipywidgets does not have."""

    def show(self, png: bytes, alt: str) -> None:
        """Display a PNG.  alt: a description of it"""
        self.png, self.alt = png, alt
        self.value = html_image(png, alt)


def schedule_explorer(x0: Tensor, schedules: Sequence[str] = ("linear", "cosine", "constant", "sigmoid"),
                      lengths: Sequence[int] = (1000, 100, 20), t: int | None = None, seed: int = 0) -> widgets.Widget:
    """Move t and see the picture, the noisy picture, the point on the curve of alpha_bar, and a histogram of values.

    x0: (C, H, W) or (B, C, H, W) in [-1, 1];  schedules: names;  lengths: the values of T to choose from
    t: where to start, for the first T
    """
    x0 = _batch(x0)
    eps = _noise_like(x0, seed)
    made = {(name, T): make_schedule(name, T) for name in schedules for T in lengths}
    curves: dict[tuple[str, int], CurveWithDot] = {}
    histogram = Histogram()
    menu, length = _menu("schedule", list(schedules)), _menu("T", list(lengths))
    moment = _slider("t", 0, lengths[0], lengths[0] // 4 if t is None else t)
    noisy, curve, values, text = Picture(), Picture(), Picture(), widgets.HTML()

    def rescale(change):
        """For another T, keep t / T."""
        fraction = moment.value / moment.max
        moment.max, moment.value = length.value, round(fraction * length.value)

    def update():
        which, t = (menu.value, length.value), min(moment.value, length.value)
        if which not in curves:
            curves[which] = CurveWithDot(made[which])
        a = made[which].alpha_bar[t].item()
        x_t = add_noise(x0, torch.full((len(x0),), t), eps, made[which])
        here = f"t = {t} of {length.value}, {menu.value} schedule"
        noisy.show(picture_bytes(x_t), f"x_t at {here}: {a:.1%} of the variance is picture, {1 - a:.1%} is noise")
        curve.show(curves[which].plot(t), "alpha_bar falls from 1 to "
                                          f"{made[which].alpha_bar[-1]:.2g}; a dot marks {a:.3f} at {here}")
        values.show(histogram.plot(x_t.cpu()),
                    f"histogram of the values of x_t at {here}: mean {x_t.mean():.2f}, standard deviation "
                    f"{x_t.std():.2f}; for pure noise 0 and 1")
        text.value = large(f"picture: <b>{a:.1%}</b> of the variance, factor {a**0.5:.3f}; &nbsp; "
                           f"noise: <b>{1 - a:.1%}</b> of the variance, factor {(1 - a)**0.5:.3f}")

    length.observe(rescale, "value")
    pictures = {"picture x0": _still(x0, "x0, without noise"), "noisy picture x_t": noisy, "alpha_bar": curve,
                "its values; dashed: pure noise": values}
    return _assemble([moment, menu, length], pictures, text, update)


def denoise_slider(x0: Tensor, denoiser: Any, schedule: Schedule | None = None, t: int | None = None,
                   seed: int = 0) -> widgets.Widget:
    """Move t and see the clean picture, the noisy one, the denoiser's estimate of the clean one, and its error.

    x0: (C, H, W) or (B, C, H, W) in [-1, 1], on the denoiser's device;  denoiser: (x_t, t) -> Prediction
    schedule: the denoiser's own if left out
    """
    x0 = _batch(x0)
    schedule = denoiser.schedule if schedule is None else schedule
    eps = _noise_like(x0, seed)
    moment = _slider("t", 1, schedule.T, schedule.T // 2 if t is None else t)
    noisy, estimate, error, text = Picture(), Picture(), Picture(), widgets.HTML()

    @torch.no_grad()
    def update():
        times = torch.full((len(x0),), moment.value, device=x0.device)
        x_t = add_noise(x0, times, eps, schedule)
        eps_hat, x0_hat = denoiser(x_t, times)
        difference = (x0_hat - x0).abs()
        mse_x0, mse_eps = difference.square().mean(), (eps_hat - eps).square().mean()
        noisy.show(picture_bytes(x_t), f"x_t at t = {moment.value}")
        estimate.show(picture_bytes(x0_hat), f"the estimate of x0 from t = {moment.value}")
        error.show(picture_bytes(difference - 1), f"the error of the estimate from t = {moment.value}: "
                   f"{difference.mean():.3f} on average, {difference.max():.3f} at most (black to white is 2)")
        text.value = large(f"mean squared error of the picture: <b>{mse_x0:.4f}</b>; &nbsp; "
                           f"of the noise: <b>{mse_eps:.4f}</b>")

    pictures = {"clean picture x0": _still(x0, "x0, without noise"), "noisy picture x_t": noisy,
                "estimate of x0": estimate, "error (white: large)": error}
    return _assemble([moment], pictures, text, update)


def loop_player(steps: Iterable[Step]) -> widgets.Widget:
    """Move through a recorded sampling loop: the input of each step, its two predictions, and its output.

    steps: the `Step`s of a loop, list(sample(...)).  Raises ValueError when there are none.
    """
    steps = list(steps)
    if not steps:
        raise ValueError("there is no step to show: pass list(sample(...)); a loop that has already run is empty")
    position = _slider("step", 1, len(steps), 1)
    play = widgets.Play(min=1, max=len(steps), value=1, interval=150)
    widgets.link((play, "value"), (position, "value"))
    before, noise, estimate, after, text = Picture(), Picture(), Picture(), Picture(), widgets.HTML()

    def update():
        k, step = position.value, steps[position.value - 1]
        before.show(picture_bytes(step.x_t), f"x_t at t = {step.t}, the input of step {k} of {len(steps)}")
        noise.show(picture_bytes(step.eps_hat), f"the predicted noise at t = {step.t}")
        estimate.show(picture_bytes(step.x0_hat), f"the estimate of x0 from t = {step.t}")
        after.show(picture_bytes(step.x_s), f"x_s at t = {step.s}, the output of step {k} of {len(steps)}")
        text.value = large(f"step <b>{k}</b> of {len(steps)}: from t = <b>{step.t}</b> to <b>{step.s}</b>")

    pictures = {"x_t: input": before, "predicted noise": noise, "estimate of x0": estimate, "x_s: output": after}
    return _assemble([position], pictures, text, update, beside=[play])


def walk_slider(generator: Any, seed: int = 0, step: int = 30) -> widgets.Widget:
    """Walk through a generator's latent space: two angles on a sphere of noise vectors, and a map of it.

    generator: (B, latent) -> (B, C, H, W) in [-1, 1], with an attribute `latent`;  seed: which sphere (see models.gan)
    step: degrees between the pictures of the map, a divisor of 180.  Raises ValueError for any other step.
    """
    if 180 % step:
        raise ValueError(f"step must divide 180, not {step}")
    longitudes, latitudes = torch.arange(0.0, 360, step), torch.arange(90.0, -91, -step)
    angles = torch.cartesian_prod(latitudes, longitudes)                        # (N, 2)
    longitude, latitude = _slider("longitude", 0, 360, 0), _slider("latitude", -90, 90, 0)
    here, where, text = Picture(), Picture(), widgets.HTML()

    @torch.no_grad()
    def pictures(longitude, latitude):
        z = latent_sphere(generator.latent, longitude, latitude, seed)
        return generator(z.to(next(generator.parameters()).device)).cpu()

    samples = pictures(angles[:, 1], angles[:, 0])
    atlas = Image.fromarray(grid([as_rgb(x) for x in samples], columns=len(longitudes), gap=0))
    height, width = samples.shape[-2:]

    def update():
        position = f"longitude {longitude.value}°, latitude {latitude.value}°"
        picture = pictures(torch.tensor([float(longitude.value)]), torch.tensor([float(latitude.value)]))
        here.show(picture_bytes(picture), f"the generator's picture at {position}")
        x = (longitude.value / step + 0.5) % len(longitudes) * width
        y = ((90 - latitude.value) / step + 0.5) * height
        marked = atlas.copy()
        ImageDraw.Draw(marked).ellipse((x - 9, y - 9, x + 9, y + 9), outline=ORANGE, width=4)
        where.show(png(marked.resize((marked.width * SIZE // marked.height, SIZE))),
                   f"{len(samples)} pictures, every {step}°: longitude from left to right, latitude from 90° at the "
                   f"top to -90° at the bottom; a ring marks {position}")
        text.value = large(f"longitude <b>{longitude.value}</b>°, latitude <b>{latitude.value}</b>°: "
                           f"{generator.latent} numbers of noise, one picture")

    return _assemble([longitude, latitude], {"the picture here": here, "the map around it": where}, text, update)


def sampler_bench(denoiser: Any, schedule: Schedule, count: int, shape: Sequence[int],
                  describe: Callable[[Tensor], str] | None = None, steps: int = 20) -> widgets.Widget:
    """Try the sampling loop: how many steps, how much fresh noise (eta = 0 is DDIM, 1 is DDPM), which seed.

    denoiser: (x_t, t) -> Prediction for `count` pictures of `shape`, such as CFGDenoiser(denoiser, labels)
    describe: x -> a few words about the pictures, for the line of text
    """
    number, seed = _slider("steps", 1, 100, steps), _slider("seed", 0, 99, 0)
    eta = _slider("eta", 0.0, 1.0, 0.0, step=0.1)
    result, text = Picture(), widgets.HTML()
    cache: dict = {}

    def update():
        def loop():
            began, noise = time.perf_counter(), PerSampleNoise(seed.value, count)
            x = run(sample(denoiser, noise(shape), schedule, number.value, eta=eta.value, noise=noise, clip=True))
            return x, time.perf_counter() - began

        x, seconds = _cached(cache, (number.value, eta.value, seed.value), loop)
        description = f"; &nbsp; {describe(x)}" if describe else ""
        result.show(picture_bytes(x, 2 * SIZE), f"{count} pictures after {number.value} steps, eta = {eta.value:g}, "
                                                f"from the noise of seed {seed.value}")
        text.value = large(f"<b>{number.value}</b> steps took {seconds:.2f} s{description}")

    return _assemble([number, eta, seed], {"the samples": result}, text, update, slow=True)


def brush(denoiser: Any, schedule: Schedule, shape: Sequence[int], steps: int = 20, seed: int = 0) -> widgets.Widget:
    """Paint a dot into x_t in the middle of the loop, let the loop go on, and see what becomes of it.

    denoiser: (x_t, t) -> Prediction for one picture of `shape`, such as CFGDenoiser(denoiser, label)
    """
    C, H, W = shape
    noise = PerSampleNoise(seed, 1)
    untouched = list(sample(denoiser, noise(shape), schedule, steps, clip=True))
    eps = noise(shape)
    cache: dict = {}
    across, down = _slider("across", 0, W - 1, W // 2), _slider("down", 0, H - 1, H // 2)
    width, position = _slider("size", 1, H // 2, max(2, H // 8)), _slider("at step", 1, steps, steps // 3)
    ink = _menu("ink", ["white", "black"])
    before, after, text = Picture(), Picture(), widgets.HTML()

    def update():
        def paint():
            y, x = torch.arange(H)[:, None], torch.arange(W)
            mask = ((y - down.value) ** 2 + (x - across.value) ** 2 <= (width.value / 2) ** 2 + 0.3).float()
            step = untouched[position.value - 1]
            dot = torch.full((1, C, H, W), 1.0 if ink.value == "white" else -1.0)
            dot = add_noise(dot, torch.tensor([step.t]), eps, schedule)          # as noisy as the rest of x_t
            x_t = mask * dot + (1 - mask) * step.x_t
            rest = timesteps(schedule.T, steps)[position.value - 1:]
            return x_t, run(SamplingLoop(denoiser, x_t, schedule, rest, clip=True)), step.t

        settings = tuple(control.value for control in (across, down, width, position, ink))
        x_t, x, t = _cached(cache, settings, paint)
        change = (x - untouched[-1].x_s).abs().mean().item() / 2
        dot = f"x_t at t = {t} with a {ink.value} dot, {width.value} wide, {across.value} across, {down.value} down"
        before.show(picture_bytes(x_t), dot)
        after.show(picture_bytes(x), f"the result of {dot}: the picture has changed by {change:.1%}")
        text.value = large(f"painted at t = <b>{t}</b>: the picture has changed by {change:.1%}")

    pictures = {"without your dot": _still(untouched[-1].x_s, "the result without a dot"),
                "x_t with your dot": before, "the result": after}
    return _assemble([across, down, width, position, ink], pictures, text, update, slow=True)


def prompt_lab(denoiser: Any, tokenizer: Tokenizer, w: float = 4.0, steps: int = 16, seed: int = 0) -> widgets.Widget:
    """Write a prompt (or build one from menus), set the guidance scale and a negative prompt, and see the picture.

    denoiser: a text-conditioned one;  tokenizer: its own;  w, steps, seed: to start with; few steps are quick
    Next to the picture: the attention map of one word of the prompt, half-way through the loop.
    """
    values = {"subject": critters.SUBJECTS[:-1], "colour": list(critters.COATS), "prop": critters.PROPS[1:],
              "place": critters.PLACES}
    menus = {name: _menu(name, ["(not mentioned)", *options], options[0]) for name, options in values.items()}

    def built():
        return phrase({name: menu.value for name, menu in menus.items() if menu.value != "(not mentioned)"})

    prompt, negative = _text_field("prompt", built()), _text_field("not this", "")
    scale, number = _slider("w", 0.0, 16.0, w, step=0.5), _slider("seed", 0, 20, seed)
    length, tokens = _slider("steps", 2, 50, steps), tokenizer.tokenize(prompt.value)
    word = _menu("look for", tokens, tokens[2])        # "a green frog ...": the animal
    picture, attention, text = Picture(), Picture(), widgets.HTML()
    cache: dict = {}

    @torch.no_grad()
    def generate(prompt, negative, w, seed, steps):
        ids = tokenizer(prompt)
        guided = CFGDenoiser(denoiser, ids, w, negative=tokenizer(negative) if negative.strip() else None)
        loop = sample(guided, PerSampleNoise(seed, 1)((3, 32, 32)), denoiser.schedule, steps, clip=True)
        for k, step in enumerate(loop):
            if k == steps // 2:
                maps = attention_maps(denoiser.net, step.x_t, torch.tensor([step.t]), ids)[0]
        return step.x_s, maps

    def update():
        try:
            tokens = tokenizer.tokenize(prompt.value)
            settings = prompt.value, negative.value, scale.value, number.value, length.value
            x, maps = _cached(cache, settings, lambda: generate(*settings))
        except ValueError as error:                      # unknown words, or too many of them
            text.value = _error(str(error))
            return
        if list(word.options) != tokens:
            word.options = tokens
        source = (f"{prompt.value or 'nothing'!r} (not this: {negative.value or 'nothing'!r}; w = {scale.value:g}, "
                  f"{length.value} steps, seed {number.value})")
        picture.show(picture_bytes(x), f"the picture of {source}")
        if tokens:
            of_word = maps[1 + (word.index or 0)]         # token 0 is BOS
            row, column = divmod(int(of_word.argmax()), of_word.shape[1])
            attention.show(picture_bytes((2 * of_word / of_word.max() - 1)[None]),
                           f"the attention map of {word.value!r}, highest at {row + 1} of {len(of_word)} down, "
                           f"{column + 1} of {of_word.shape[1]} across, for {source}")
        text.value = large(f"<b>{html.escape(prompt.value) or '(no prompt)'}</b>")

    def take_from_menus(change):
        prompt.value = built()

    for menu in menus.values():
        menu.observe(take_from_menus, "value")
    row = widgets.HBox(list(menus.values()), layout=widgets.Layout(flex_flow="row wrap"))
    pictures = {"the picture": picture, "where it looked": attention}
    return _assemble([prompt, negative, scale, number, length, word], pictures, text, update, slow=True, beside=[row])


def latent_lab(pipeline: LatentPipeline, prompt: str = "", w: float = 4.0, steps: int = 20,
               seed: int = 0) -> widgets.Widget:
    """Write a prompt for Stable Diffusion and follow the loop: at any step, the latents and the decoded estimate.

    pipeline: what it is drawn with;  prompt, w, steps, seed: to start with; few steps are quick
    """
    text_field, negative = _text_field("prompt", prompt), _text_field("not this", "")
    scale, number = _slider("w", 1.0, 16.0, w, step=0.5), _slider("seed", 0, 20, seed)
    length, position = _slider("steps", 2, 50, steps), _slider("look at step", 1, steps, steps)
    latents, estimate, result, text = Picture(), Picture(), Picture(), widgets.HTML()
    cache: dict = {}

    def draw(prompt, negative, w, seed, steps):
        taken = list(pipeline.sample(prompt, negative=negative, guidance_scale=w, seed=seed, steps=steps))
        return taken, pipeline.decode(torch.cat([step.x0_hat for step in taken])).cpu()

    def update():
        settings = text_field.value, negative.value, scale.value, number.value, length.value
        taken, decoded = _cached(cache, settings, lambda: draw(*settings))
        if position.max != len(taken):
            position.max = len(taken)
        k = min(position.value, len(taken))
        step = taken[k - 1]
        here = (f"step {k} of {len(taken)} for {text_field.value or 'nothing'!r} (not this: "
                f"{negative.value or 'nothing'!r}; w = {scale.value:g}, seed {number.value})")
        latents.show(picture_bytes(step.x_t.cpu().transpose(0, 1) / 3),
                     f"the {step.x_t.shape[1]} channels of the latents x_t before {here}")
        estimate.show(picture_bytes(decoded[k - 1:k]), f"the estimate of the picture, decoded, at {here}")
        result.show(picture_bytes(decoded[-1:]), f"the picture at the end of {len(taken)} steps of {here}")
        text.value = large(f"step <b>{k}</b> of {len(taken)}: t = <b>{step.t}</b>")

    pictures = {"latents x_t": latents, "decoded estimate": estimate, "the result": result}
    controls = [text_field, negative, scale, number, length, position]
    return _assemble(controls, pictures, text, update, slow=True)


def _assemble(controls: Sequence[widgets.Widget], pictures: Mapping[str, Picture], text: widgets.HTML,
              update: Callable[[], None], slow: bool = False, beside: Sequence[widgets.Widget] = ()) -> widgets.Widget:
    """Controls above, named pictures in a row, text below; `update` runs now and whenever a control moves."""
    def safe_update():
        try:
            update()
        except Exception as error:      # notebooks hide the errors of callbacks: show it where the learner looks
            text.value = _error(f"{type(error).__name__}: {error}")
            raise

    safe_update()
    at_rest = _at_rest(safe_update, text)
    for control in controls:
        control.observe(at_rest if slow else lambda change: safe_update(), "value")
        if slow and hasattr(control, "continuous_update"):    # update where a slider is released, not on the way
            control.continuous_update = False
    cells = [widgets.VBox([widgets.HTML(large(name)), picture], layout=widgets.Layout(margin="0 12px 0 0"))
             for name, picture in pictures.items()]
    rows = [widgets.HBox(part, layout=widgets.Layout(flex_flow="row wrap")) for part in ([*beside, *controls], cells)]
    box = widgets.VBox([*rows, text, widgets.HTML(LABELLING)])
    box.add_class("dl-widget")
    return _replace_previous(box)


def _at_rest(work: Callable[[], None], text: widgets.HTML) -> Callable:
    """An observer that does the work once, after the last of several changes, and announces it in the meantime."""
    waiting: list[asyncio.TimerHandle] = []

    def changed(change):
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:             # outside a notebook there are no further changes to wait for
            return work()
        while waiting:
            waiting.pop().cancel()
        text.value = large("working ...")
        waiting.append(loop.call_later(REST, work))

    return changed


def _cached(cache: dict, key: tuple, work: Callable[[], Any]) -> Any:
    """work(), or its earlier result for the same key; the oldest results are dropped."""
    if key not in cache:
        cache[key] = work()
        if len(cache) > CACHED:
            del cache[next(iter(cache))]
    return cache[key]


def _replace_previous(box: widgets.Widget) -> widgets.Widget:
    """Close the widgets of an earlier run of this cell: a notebook would keep them, and their pictures, for ever."""
    shell = get_ipython()
    if shell is not None:
        parent = getattr(shell, "parent_header", None) or {}
        cell = parent.get("metadata", {}).get("cellId") or shell.user_ns.get("In", [""])[-1]
        count, boxes = _displayed.get(cell, (None, []))
        if count != shell.execution_count:
            for old in boxes:
                close(old)
            boxes = []
        _displayed[cell] = shell.execution_count, [*boxes, box]
    return box


def close(widget: widgets.Widget) -> None:
    """Close a widget and everything it consists of: its children, its layout, its style."""
    parts = [getattr(widget, name) for name in widget.keys]
    for part in [*parts, *getattr(widget, "children", ())]:
        if isinstance(part, widgets.Widget):
            close(part)
    widget.unobserve_all()
    widget.close()


def _slider(name: str, low: float, high: float, value: float, **options: Any) -> Any:
    kind = widgets.FloatSlider if isinstance(value, float) else widgets.IntSlider
    return kind(value=value, min=low, max=high, description=name, layout=widgets.Layout(width="460px"), **options)


def _text_field(name: str, value: str) -> Any:
    return widgets.Text(value=value, description=name, layout=widgets.Layout(width="620px"), continuous_update=False,
                        placeholder="nothing")


def _menu(name: str, options: Sequence, value: Any = None) -> Any:
    return widgets.Dropdown(options=options, value=options[0] if value is None else value, description=name,
                            layout=widgets.Layout(width="220px"))


def large(text: str) -> str:
    """HTML of text in a size that can be read from the back of a classroom; the default is small."""
    return f'<span style="font-size:16px">{text}</span>'


def _error(text: str) -> str:
    """HTML of an error message. Only its edge is red: red letters are hard to read, on white and on black."""
    return large(f'<b style="border-left:6px solid {VERMILLION};padding-left:10px">{html.escape(text)}</b>')


def _still(x: Tensor, alt: str) -> Picture:
    picture = Picture()
    picture.show(picture_bytes(x), alt)
    return picture


def _batch(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or x.ndim not in (3, 4) or not x.is_floating_point():
        raise ValueError("x0 must be a float picture (C, H, W) or batch (B, C, H, W) in [-1, 1]")
    x = x.detach().float()
    return x if x.ndim == 4 else x[None]


def _noise_like(x: Tensor, seed: int) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
