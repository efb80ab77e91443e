"""How sets of images come to one size: the commands of dataset_tool.py that make it so, and what to say where that cannot.

Words only. Must not know any metric.
"""

import shlex


def is_made(shape):
    """Whether dataset_tool.py makes images of (C, H, W): squares whose side is a power of two, which networks take."""
    return shape[1] == shape[2] and shape[1] & (shape[1] - 1) == 0


def remedy(wanted, sets):
    """What brings sets to the size of `wanted`, or where dataset_tool.py does not make that, to the next smaller one that it makes.

    wanted: (C, H, W), the shape that the others are compared with. sets: {name for the new file: (path, (C, H, W))} of all that are compared.
    """
    side = 1 << (min(wanted[1:]).bit_length() - 1)
    commands = [_command(name, path, shape, side) for name, (path, shape) in sets.items() if tuple(shape[1:]) != (side, side)]
    none = "" if is_made(wanted) else f" (none is made of {wanted[2]}x{wanted[1]}, only squares whose side is a power of two)"
    return f"compare images of one size{none}: {' and '.join(commands)}"


def remedy_beside_network(shape):
    """The same where a network draws images of this shape, which stays."""
    if is_made(shape):
        return "a network draws one size: compare with images of that size, dataset_tool.py makes them"
    return (
        f"a network draws one size, here none that dataset_tool.py makes (squares whose side is a power of two): bring the images to "
        f"{shape[2]}x{shape[1]} with another program"
    )


def _command(name, path, shape, side):
    crop = "" if shape[1] == shape[2] else " --transform=center-crop"  # stretched, sets of two shapes would differ by that alone
    return f"dataset_tool.py --source={shlex.quote(str(path))} --dest={name}-{side}.zip{crop} --width={side} --height={side}"
