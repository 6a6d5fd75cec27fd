"""The benchmark's report, docs/benchmarks.md with its figure: all that it says comes from one run."""

import importlib.metadata
import json
import math
import os
import platform
from datetime import date

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from diffusion_lessons import runtime
from diffusion_lessons.classroom import style

GROWTH = {"size": (16, 32, 64, 128), "width": (16, 32, 64, 128), "batch": (2, 8, 32, 128)}
FEW = {"size": (8, 16), "width": (8, 16), "batch": (2, 4)}
NAMES = {"size": "picture size (pixels to a side)", "width": "width (channels of the first level)", "batch": "batch"}
DARK = {"figure.facecolor": "#121212", "savefig.facecolor": "#121212", "axes.facecolor": "#121212",
        "text.color": "#dddddd", "axes.labelcolor": "#dddddd", "xtick.color": "#dddddd", "ytick.color": "#dddddd",
        "axes.edgecolor": "#999999", "grid.color": "#444444"}


def machine():
    """What the figures depend on, in words."""
    device = runtime.device()
    return {"processor": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
            "device": runtime.name(device), "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(), "torch": importlib.metadata.version("torch"),
            "date": date.today().isoformat()}


def processor():
    """The processor's name, where the system says it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def arguments(quick, minutes):
    """The options of a run as `make bench` takes them."""
    options = ["--quick"] * quick + ([f"--minutes {minutes:g}"] if minutes else [])
    return [f'ARGS="{" ".join(options)}"'] if options else []


def exponent(x, y):
    """The p of y = c x^p that fits best: the slope of a straight line through the logarithms, by least squares."""
    u, v = ([math.log(value) for value in values] for values in (x, y))
    mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
    return sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v)) / sum((a - mean_u) ** 2 for a in u)


def table(header, rows):
    """A Markdown table, its numbers set to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def speed_table(contenders):
    """One row a contender: everything but what a training leads to."""
    header = ["", "parameters", "training, images/s", "GFLOP/s", "of a matrix product", "of its largest convolution",
              "16 samples, own sampler", "in 50 steps", "outside the network", "peak memory", "import"]
    rows = []
    for c in contenders:
        about = "about " * c["estimated"]
        memory = "–" if c["memory"] is None else f"{c['memory']:,.0f} MiB"
        rows.append([f"**{c['name']}**", f"{c['parameters'] / 1e6:.1f} M", f"{c['rate']:.1f}", f"{c['gflops']:.0f}",
                     f"{c['gflops'] / c['matrix_product']:.0%}", f"{c['gflops'] / c['convolution']:.0%}",
                     f"{about}{c['sampling_default']:.1f} s", f"{c['sampling']:.1f} s", f"{c['outside_network']:.1%}",
                     memory, f"{c['import']:.2f} s"])
    return table(header, rows)


def accuracy_table(accuracy):
    """How many minutes of training it took."""
    def words(entry, share):
        if entry[str(share)] is not None:
            return f"{entry[str(share)]:.1f} min"
        return f"not within {entry['most']:g} min (best {max(found for _, found in entry['checks']):.0%})"

    return table(["", "90%", "95%"], [[f"**{a['name']}**", words(a, 90), words(a, 95)] for a in accuracy])


def draw(growth, path, dark):
    """Seconds and memory against size, width and batch, with the exponents of the lines that fit them."""
    with rc_context({**style.STYLE, **(DARK if dark else {})}):
        figure = Figure(figsize=(13, 4.4), layout="constrained")
        for ax, what in zip(figure.subplots(1, 3), NAMES):
            points = [point for point in growth if point["what"] == what]
            x = [point[what] for point in points]
            for k, (name, unit) in enumerate((("seconds", "seconds a step"), ("memory", "MiB"))):
                y = [point[name] for point in points]
                if len(y) > 1 and min(y) > 0:
                    line = style.line_of(k) | ({"color": (style.SKY, style.ORANGE)[k]} if dark else {})
                    ax.loglog(x, y, label=f"{unit}: grows by x^{exponent(x, y):.2f}", **line)
            ax.set_xticks(x, map(str, x))
            ax.minorticks_off()
            ax.set_xlabel(NAMES[what])
            ax.legend()
        figure.savefig(path)


def growth_words(growth):
    """The exponents, for those who cannot see the figure."""
    lines = []
    for what in NAMES:
        points = [point for point in growth if point["what"] == what]
        if len(points) > 1:
            x = [point[what] for point in points]
            fits = [f"{name} by the power {exponent(x, y):.2f}" for name, y in
                    ((name, [point[name] for point in points]) for name in ("seconds", "memory")) if min(y) > 0]
            lines.append(f"- {NAMES[what]}, {x[0]} to {x[-1]}: {', '.join(fits)}")
    return "\n".join(lines)


def page(found):
    """The whole report as Markdown."""
    m, rows = found["machine"], found["contenders"]
    versions = {name: version for c in rows for name, version in c["versions"].items()}
    quick = ("\n**This was a trial of the command in miniature (`--quick`): its figures mean nothing.**\n"
             if found["quick"] else "")
    first = rows[0] if rows else {"batch": 64, "data": "digits"}
    data = "MNIST" if "synthetic" not in first["data"] else "the package's synthetic digits, as MNIST was not there"
    accuracy = f"""
## Minutes to legible digits

Minutes of training from nothing until a classifier that saw none of these networks reads 90% and 95% of 200 samples as
the label asked for. The samples are made in 50 steps; the time of these checks does not count. They come every 15% of
the time so far, or as long after each other as a check takes, so a figure may be that much too high.

{accuracy_table(found['accuracy'])}
""" if found["accuracy"] else ""
    return f"""# How fast it is

Our networks and other people's, in one run on one machine. `{found['command']}` wrote this page on {m['date']}.
{quick}
- Machine: {m['processor']}, {m['cores']} cores, {m['threads']} threads; {m['device']}; {m['system']}
- Versions: Python {m['python']}, torch {m['torch']}, {', '.join(f'{n} {v}' for n, v in sorted(versions.items()))}

{speed_table(rows)}

- Each row is measured in a process of its own, with batch {first['batch']}, on {data}.
- GFLOP/s: of whole training steps, beside a float32 matrix product of 2,048 x 2,048 and beside the convolution of this
  network that needs the most operations, forward and alone, both measured just before or after it. (Convolutions beat
  the product on some machines, so a share can be above 100%.)
- Outside the network: the share of the time of sampling one picture in 50 steps that is not the network's.
- Peak memory: of the whole process, Python and torch included, after some steps of training.
- Import: of what training needs, beyond the import of torch.
- “about”: worked out from 50 steps, because so many more would have taken over five minutes.

{chr(10).join(f"- **{c['name']}**: {c['does']} Its own sampler: {c['sampler']}." for c in rows)}
{accuracy}
## How the cost grows

A training step of the digits' kind of U-Net, from 32x32 pixels, 48 channels and a batch of 16, with one of the three
changed: time, and memory beyond what Python and torch take. A straight line in this figure is a power; its exponent is
fitted.

<picture><source media="(prefers-color-scheme: dark)" srcset="benchmarks-dark.png">
<img src="benchmarks-light.png" alt="Time and memory of a training step; the exponents stand below."></picture>

{growth_words(found['growth'])}
"""


def write(folder, found):
    """Write the page, its two figures and the raw figures.  -> their paths"""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("benchmarks.md", "benchmarks-light.png", "benchmarks-dark.png",
                                        "benchmarks.json")]
    for path, dark in zip(paths[1:3], (False, True)):
        draw(found["growth"], path, dark)
    for path, text in ((paths[0], page(found)), (paths[3], json.dumps(found, indent=1) + "\n")):
        with runtime.atomic_write(path) as scratch:
            scratch.write_text(text, encoding="utf-8")
    return paths
