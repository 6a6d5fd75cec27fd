"""Reading a checkpoint's config.json: its sizes are taken, and what this code does not do is refused by name."""

REQUIRED = object()


def read_config(kind: str, config: dict, sizes: dict, fixed: dict) -> dict:
    """The sizes of a network from its config.json, everything else checked.

    sizes: {name: default}, REQUIRED where there is none;  fixed: {name: the values that this code implements}
    Entries that begin with "_", and switches that are off (None or False), may always be there.
    Raises ValueError that names the entry when its value is not implemented here, is not known, or is missing.
    """
    for name, value in config.items():
        if name in sizes or name.startswith("_"):
            continue
        if name in fixed and value not in fixed[name]:
            known = " or ".join(map(repr, fixed[name]))
            raise ValueError(f"the config of this {kind} says {name}={value!r}, but this code implements only {known}")
        if name not in fixed and value is not None and value is not False:
            raise ValueError(f"the config of this {kind} has {name}={value!r}, which this code does not know. "
                             "It covers Stable Diffusion 1.x, 2.x and SD-Turbo, and nothing else")
    taken = {name: config.get(name, default) for name, default in sizes.items()}
    missing = [name for name, value in taken.items() if value is REQUIRED]
    if missing:
        raise ValueError(f"the config of this {kind} does not say {', '.join(missing)}")
    return taken
