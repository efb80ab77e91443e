"""A generator as one file that draws without this code: TorchScript and ONNX.

The file takes z [N, z_dim] (a conditional network's also c [N, c_dim]) and gives images [N, C, H, W], float32, about [-1, 1]. Truncation
and noise are fixed in it. Every file is run and compared with the network before it is written. Must not know where networks come from.
"""

import contextlib
import copy
import importlib.util
import io
import json
import re
import warnings

import torch

from dnnlib.errors import UserError

# The largest difference from the network's own image in [-1, 1]; one step of 8 bits is 0.0078.
TOLERANCE = 1e-3
FACTS_FILE = "drawing.json"  # in a TorchScript file; ONNX keeps the facts as metadata
_ONNX_PACKAGES = ("onnx", "onnxscript")
_FEWER_NAMES = 120  # letters of a foreign error that a sentence quotes


class _Drawing(torch.nn.Module):
    """G with everything fixed but its inputs."""

    def __init__(self, G, truncation_psi, noise_mode):
        super().__init__()
        self.G = copy.deepcopy(G).eval().requires_grad_(False).cpu()
        self.truncation_psi = truncation_psi
        # Convolutions in groups would freeze the number of images into the file; half precision is for accelerators.
        self.how = dict(noise_mode=noise_mode, force_fp32=True, fused_modconv=False)

    def draw(self, z, c):
        return self.G.synthesis(self.G.mapping(z, c, truncation_psi=self.truncation_psi), **self.how)


class _FromLatents(_Drawing):
    def forward(self, z):
        return self.draw(z, torch.zeros([z.shape[0], 0]))


class _FromLatentsAndLabels(_Drawing):
    def forward(self, z, c):
        return self.draw(z, c)


def drawing(G, truncation_psi=1.0, noise_mode="const"):
    """The module that the file will hold."""
    made = (_FromLatentsAndLabels if G.c_dim else _FromLatents)(G, truncation_psi, noise_mode)
    try:
        with torch.no_grad():
            made(*example(made, 1))
    except TypeError as error:
        raise UserError(
            f"A network of class {type(G).__name__} cannot be exported to one file: its images cannot be drawn with "
            f"{', '.join(f'{key}={value}' for key, value in made.how.items())} ({str(error)[:_FEWER_NAMES]})."
        ) from error
    return made


def example(made, count, seed=0):
    """Inputs of `count` images."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn([count, made.G.z_dim], generator=generator)
    if not made.G.c_dim:
        return (z,)
    return z, torch.eye(made.G.c_dim)[torch.arange(count) % made.G.c_dim]


def input_names(made):
    return ["z", "c"] if made.G.c_dim else ["z"]


@contextlib.contextmanager
def _quiet():
    """What tracers tell of their own insides is not for the person who exports."""
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


# ---------------------------------------------------------------------------------------------------------------------
# The two formats.


def as_torchscript(made, facts):
    """The bytes of a TorchScript file."""
    buffer = io.BytesIO()
    with _quiet():
        try:
            traced = torch.jit.trace(made, example(made, 2), check_trace=False)
        except RuntimeError as error:
            raise UserError(f"The network cannot be recorded as TorchScript ({_first_line(error)}); use --format=safetensors.") from error
        torch.jit.save(traced, buffer, _extra_files={FACTS_FILE: json.dumps(facts)})
    return buffer.getvalue()


def as_onnx(made, facts):
    """The bytes of an ONNX file."""
    check_onnx_packages()
    names = input_names(made)
    batch = torch.export.Dim("batch")
    with _quiet():
        try:
            program = torch.onnx.export(
                made,
                example(made, 2),
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=["image"],
                dynamic_shapes={name: {0: batch} for name in names},
            )
        except Exception as error:  # the exporter raises whatever the step raised that failed
            raise UserError(_what_onnx_lacks(error)) from error
        model = program.model_proto
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    return model.SerializeToString()


def check_onnx_packages():
    """Refuse before any work where the packages are not there."""
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format=onnx needs the package{'s' if len(missing) > 1 else ''} {' and '.join(missing)}: pip install {' '.join(missing)}")


def can_run_onnx():
    return importlib.util.find_spec("onnxruntime") is not None


def _what_onnx_lacks(error):
    """The sentence for a failed export: the operation by name, where the exporter tells it."""
    texts, cause = [], error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    for text in texts:
        found = re.search(r"No (?:ONNX function|decompositions?)[^'\n]*?'?(\w+(?:\.\w+)+)", text)
        if found:
            return f"ONNX cannot hold this network: it has no operation for {found[1]}; use --format=torchscript, which can."
    return f"This network cannot be written as ONNX ({_first_line(error)}); use --format=torchscript, which may hold it."


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_FEWER_NAMES]


# ---------------------------------------------------------------------------------------------------------------------
# Comparing.


def run_torchscript(data):
    """The file as a function of inputs."""
    with _quiet():
        return torch.jit.load(io.BytesIO(data), map_location="cpu")


def run_onnx(data):
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda *inputs: torch.from_numpy(session.run(None, {name: value.numpy() for name, value in zip(names, inputs)})[0])


def largest_difference(run, made):
    """Of images of other latents, in other numbers than were recorded; refused above the tolerance."""
    worst = 0.0
    for count in (1, 3):
        inputs = example(made, count, seed=count)
        with torch.no_grad():
            own = made(*inputs)
            found = run(*inputs)
        if found.shape != own.shape or not torch.isfinite(found).all():
            worst = float("inf")
            break
        # Early in training images may be far out of [-1, 1], and rounding grows with them.
        worst = max(worst, float((found - own).abs().max() / own.abs().max().clamp(min=1)))
    if not worst <= TOLERANCE:
        raise UserError(
            f"The file would draw other images than the network (difference {worst:.2g} of the range, allowed {TOLERANCE}); "
            "nothing was written. Use --format=safetensors."
        )
    return worst
