"""Watches the host's generator while the host runs it, and runs it again on remembered latents.

Knows mapping and synthesis as two callables (StyleGAN2 and its forks) or one generator G(z, c) without them.
Must not know losses, memory or features.
"""

import contextlib
import inspect

import torch

from madr_spaces.errors import MADRError


class GeneratorAccess:
    """mapping: module z, c -> ws, or None; synthesis: module ws -> image, or with mapping None the whole G(z, c)."""

    def __init__(self, mapping, synthesis):
        self.mapping, self.synthesis = mapping, synthesis
        self.host_passes_labels = True  # this family passes an empty [N, 0] tensor when there are none; some hosts pass None
        # projected-gan's does, beside ws. Known before the host's first call, since a resumed run may begin with a replay.
        self.synthesis_takes_labels = mapping is not None and _requires(_without_ddp(synthesis), "c")

    @property
    def latents_per_image(self):
        """How many latents an image is remembered by: two where a mapping can mix styles."""
        return 1 if self.mapping is None else 2

    @property
    def latent_width(self):
        """Tell the width of z where the host's generator says it (z_dim, as in StyleGAN2), else None."""
        width = getattr(_without_ddp(self.synthesis if self.mapping is None else self.mapping), "z_dim", None)
        return width if isinstance(width, int) and width > 0 else None

    @contextlib.contextmanager
    def first_image(self, on_image):
        """Inside: on_image(image, latents) is called on the first image with a graph that the host makes.

        latents: dict(latents [B, P, Z], layers [B], labels [B, C]) from which remake() makes the same image again, up to
        its noise inputs. P = 2 under style mixing; layers: how many of the synthesis layers take the first latent.
        """
        mapped, handles, seen = [], [], []

        def after_mapping(_module, args, kwargs, output):
            z, c = _two(args, kwargs)
            mapped.append((z, c, output))

        def after_synthesis(_module, args, kwargs, output):
            if seen or not torch.is_tensor(output) or not output.requires_grad:
                return
            seen.append(True)
            on_image(output, self._latents(args, kwargs, mapped, output))

        if self.mapping is not None:
            handles.append(self.mapping.register_forward_hook(after_mapping, with_kwargs=True))
        handles.append(self.synthesis.register_forward_hook(after_synthesis, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _latents(self, args, kwargs, mapped, image):
        """Which latents the image came from."""
        if self.mapping is None:
            z, c = _two(args, kwargs)
            mapped = [(z, c, None)]
        batch, device = image.shape[0], image.device
        if not mapped:
            raise MADRError("MADR saw an image of the generator without the latents that it came from: this fork needs its own adapter; use --madr=0")
        z0, c, first_ws = mapped[0]
        if not torch.is_tensor(z0) or z0.ndim != 2 or not (c is None or (torch.is_tensor(c) and c.ndim == 2)):
            raise MADRError(
                "this fork's generator takes other inputs than latents [N, Z] and label vectors [N, C], such as texts, "
                "which MADR cannot remember; use --madr=0"
            )
        self.host_passes_labels = c is not None
        labels = torch.zeros([batch, 0], device=device) if c is None else c.detach().to(torch.float32)
        latents = torch.stack([z.detach() for z, _, _ in mapped[:2]], dim=1).to(torch.float32)
        if self.mapping is None:
            return dict(latents=latents, layers=torch.ones([batch], dtype=torch.int64, device=device), labels=labels)
        ws = (args[0] if args else kwargs["ws"]).detach()
        from_first = _same_layers(ws, first_ws)
        if len(mapped) == 1:
            return dict(latents=latents, layers=torch.where(from_first.all(1), from_first.shape[1], -1), labels=labels)
        # Asked in this order: a host that mixes in place has changed first_ws as well.
        from_second = _same_layers(ws, mapped[1][2])
        layers = from_second.shape[1] - from_second.flip(1).to(torch.int64).cumprod(1).sum(1)
        index = torch.arange(ws.shape[1], device=device)[None, :]
        explained = torch.where(index < layers[:, None], from_first, from_second).all(1) & (len(mapped) == 2)
        return dict(latents=latents, layers=torch.where(explained, layers, -1), labels=labels)

    def parameters(self):
        """The parameters that learn, each once."""
        modules = [module for module in (self.mapping, self.synthesis) if module is not None]
        return list({id(parameter): parameter for module in modules for parameter in module.parameters() if parameter.requires_grad}.values())

    def remake(self, latents_RPZ, layers_R, labels_RC):
        """Images with a graph into the generator's parameters. Call inside buffers_kept()."""
        synthesis = _without_ddp(self.synthesis)
        c = labels_RC if self.host_passes_labels else None
        if self.mapping is None:
            return synthesis(latents_RPZ[:, 0], c)
        ws = self._map(latents_RPZ[:, 0], c)
        if latents_RPZ.shape[1] > 1:
            other = self._map(latents_RPZ[:, 1], c)
            index = torch.arange(ws.shape[1], device=ws.device)
            ws = torch.where((index[None, :] < layers_R[:, None])[:, :, None], ws, other)
        return synthesis(ws, c=c) if self.synthesis_takes_labels else synthesis(ws)

    def _map(self, z, c):
        mapping = _without_ddp(self.mapping)
        parameters = inspect.signature(mapping.forward).parameters
        extra = {"skip_w_avg_update": True} if "skip_w_avg_update" in parameters else {}
        return mapping(z, c, **extra)

    @contextlib.contextmanager
    def buffers_kept(self):
        """Running averages of the generator (mean latent, batch statistics, spectral norms) stay as they are: replay is not training data.

        Compared by nothing but restored by value: batch normalisation moves its averages without changing the tensors' version.
        """
        modules = [module for module in (self.mapping, self.synthesis) if module is not None]
        kept = [(buffer, buffer.detach().clone()) for module in modules for buffer in module.buffers()]
        try:
            yield
        finally:
            for buffer, value in kept:
                # Past autograd's version counter: a graph of the host's that has saved this buffer finds in it what it saved.
                buffer.data.copy_(value)


def _requires(module, name):
    """Whether forward() has an argument of this name that has to be given."""
    parameter = inspect.signature(module.forward).parameters.get(name)
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _two(args, kwargs):
    """(z, c) of a call, however it was written."""
    z = args[0] if args else kwargs["z"]
    c = args[1] if len(args) > 1 else kwargs.get("c")
    return z, c


def _same_layers(ws, other):
    """[B, L]: layer l of sample b is the same vector in both."""
    return (ws == other.detach()).all(2)


def _without_ddp(module):
    """Inside DistributedDataParallel: replay's gradients are averaged with the host's own, in the host's backward."""
    return module.module if isinstance(module, torch.nn.parallel.DistributedDataParallel) else module
