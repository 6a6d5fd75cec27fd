"""The rabbit."""
def rabbit(size=64):
    raise ValueError("being written")
