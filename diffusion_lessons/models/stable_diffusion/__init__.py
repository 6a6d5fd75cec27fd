"""Stable Diffusion in our own words: published parameter names, sizes from the checkpoint's config.json."""
