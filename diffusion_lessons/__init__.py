"""Diffusion Lessons: how AI image generators work, each claim seen, measured and written by yourself.

    from diffusion_lessons import generate
    pictures = generate("7", count=16, seed=0)        # (16, 1, 28, 28) in [-1, 1]
"""

__version__ = "0.1.0"


def generate(prompt="7", **settings):
    """Make pictures of what you ask for; see diffusion_lessons.generation.generate."""
    from diffusion_lessons.generation import generate as really

    return really(prompt, **settings)
