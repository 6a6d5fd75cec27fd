"""Toy sets."""
ring = two_moons = spiral = rabbit_outline = None
