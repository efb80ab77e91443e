"""Stand-ins of our own for the families of forks: folders with their own dnnlib, training package and train.py.

COMMON with FIRST_STYLE or SECOND_STYLE is the plain fork in both ways in which the families prepare a run; fork_families.py has those
whose loops, losses and snapshots differ. edited() makes variants.
"""

COMMON = {
    "dnnlib/__init__.py": "from . import util\nfrom .util import EasyDict\n",
    "dnnlib/util.py": """
        import importlib
        class EasyDict(dict):
            def __getattr__(self, name):
                try:
                    return self[name]
                except KeyError:
                    raise AttributeError(name)
            __setattr__ = dict.__setitem__
        def get_obj_by_name(name):
            module, attribute = name.rsplit(".", 1)
            return getattr(importlib.import_module(module), attribute)
        def construct_class_by_name(*args, class_name=None, **kwargs):
            return get_obj_by_name(class_name)(*args, **kwargs)
        def open_url(path):
            return open(path, "rb")
        """,
    "legacy.py": "import pickle\ndef load_network_pkl(f):\n    return pickle.load(f)\n",
    "training/__init__.py": "",
    "training/parts.py": """
        import numpy as np, torch
        class Dataset:
            image_shape = [3, 8, 8]
            label_shape = [0]
            def __init__(self, path, count, classes=0):
                self.data = np.random.RandomState(0).randint(0, 256, [count, 3, 8, 8]).astype(np.uint8)
                self.label_shape = [classes]
            def __len__(self):
                return len(self.data)
            def __getitem__(self, index):
                return self.data[index], np.eye(*self.label_shape, dtype=np.float32)[index % max(self.label_shape[0], 1)] if self.label_shape[0] else np.zeros([0], np.float32)
        class Mapping(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = torch.nn.Linear(8, 16)
            def forward(self, z, c):
                return self.fc(z)[:, None, :].repeat(1, 2, 1)
        class Synthesis(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = torch.nn.Linear(16, 192)
            def forward(self, ws):
                return torch.tanh(self.fc(ws.mean(1))).reshape(-1, 3, 8, 8)
        class Generator(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.mapping, self.synthesis = Mapping(), Synthesis()
            def forward(self, z, c):
                return self.synthesis(self.mapping(z, c))
        class Discriminator(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = torch.nn.Linear(192, 1)
            def forward(self, img, c):
                return self.fc(img.flatten(1))
        class AugmentPipe(torch.nn.Module):
            def __init__(self, strength=1):
                super().__init__()
                self.register_buffer("p", torch.zeros([]))
            def forward(self, img):
                return img * 1.0
        """,
    "training/training_loop.py": """
        import copy, os, pickle
        import dnnlib, legacy, torch
        def training_loop(training_set_kwargs, loss_kwargs, augment_kwargs, networks, steps, outdir, sync_argument, augment_p=0, resume_pkl=None, random_seed=0, **_):
            torch.manual_seed(random_seed)
            data = dnnlib.util.construct_class_by_name(**training_set_kwargs)
            G, D = (dnnlib.util.construct_class_by_name(class_name="training.parts." + name) for name in ("Generator", "Discriminator"))
            if resume_pkl:
                with dnnlib.util.open_url(resume_pkl) as f:
                    G.load_state_dict(legacy.load_network_pkl(f)["G"].state_dict())
            pipe = None
            if augment_kwargs is not None and augment_p > 0:
                pipe = dnnlib.util.construct_class_by_name(**augment_kwargs).train().requires_grad_(False)
                pipe.p.copy_(torch.as_tensor(augment_p))
            modules = dict(G=G) if networks == "G" else dict(G_mapping=G.mapping, G_synthesis=G.synthesis)
            loss = dnnlib.util.construct_class_by_name(device=torch.device("cpu"), D=D, augment_pipe=pipe, **modules, **loss_kwargs)
            opts = dict(G=torch.optim.Adam(G.parameters(), 1e-3), D=torch.optim.Adam(D.parameters(), 1e-3))
            for step in range(steps):
                for phase in ("Gmain", "Dmain"):
                    G.requires_grad_(phase[0] == "G"), D.requires_grad_(phase[0] == "D")
                    opts[phase[0]].zero_grad()
                    z, c = torch.randn([8, 8]), torch.stack([torch.from_numpy(data[i][1]) for i in range(8)])
                    real = torch.stack([torch.from_numpy(data[i][0]).float() / 127.5 - 1 for i in range(8)])
                    extra = dict(sync=True) if sync_argument else {}
                    loss.accumulate_gradients(phase=phase, real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, **extra)
                    opts[phase[0]].step()
            print("loss is", type(loss).__name__)
            if pipe is not None:
                pipe = copy.deepcopy(pipe).eval().requires_grad_(False).cpu()
            with open(os.path.join(outdir, "snapshot.pkl"), "wb") as f:
                pickle.dump(dict(G=G, D=D, G_ema=G, augment_pipe=pipe, training_set_kwargs=dict(training_set_kwargs)), f)
        """,
}
LOSS = """
    import torch.nn.functional as F
    class StyleGAN2Loss:
        def __init__(self, device, {networks}, D, augment_pipe=None, r1_gamma=10):
            self.run_G = lambda z, c: {call}
            self.D, self.augment_pipe, self.r1_gamma = D, augment_pipe, r1_gamma
        def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, {arguments}):
            if phase == "Gmain":
                images = self.run_G(gen_z, gen_c)
                loss = F.softplus(-self.D(images if self.augment_pipe is None else self.augment_pipe(images), gen_c))
            else:
                loss = F.softplus(self.D(self.run_G(gen_z, gen_c).detach(), gen_c)) + F.softplus(-self.D(real_img, real_c))
            loss.mean().mul(gain).backward()
    """
OPTIONS = """
    import os, sys
    import click, dnnlib
    {install}
    def make_options(outdir, gamma, resume):
        c = dnnlib.EasyDict(random_seed=5, outdir=outdir, steps=12, augment_p=0.5, networks="{networks}", sync_argument={sync})
        c.training_set_kwargs = dnnlib.EasyDict(class_name="training.parts.Dataset", path=os.path.dirname(os.path.abspath(__file__)), count=40)
        c.loss_kwargs = dnnlib.EasyDict(class_name="training.loss.StyleGAN2Loss", r1_gamma=gamma)
        c.augment_kwargs = dnnlib.EasyDict(class_name="training.parts.AugmentPipe", strength=2)
        c.resume_pkl = resume
        return c
    """
# Options are built first, then launched.
FIRST_STYLE = {
    "training/loss.py": LOSS.format(networks="G_mapping, G_synthesis", call="G_synthesis(G_mapping(z, c))", arguments="sync, gain"),
    "train.py": OPTIONS.format(networks="parts", sync=True, install="")
    + """
    def setup_training_loop_kwargs(outdir=None, gamma=None, resume=None):
        return "described", make_options(outdir, gamma, resume)
    @click.command()
    @click.option("--outdir", required=True)
    @click.option("--gamma", type=float, default=10.0)
    @click.option("--resume")
    def main(outdir, **config_kwargs):
        description, args = setup_training_loop_kwargs(outdir=outdir, **config_kwargs)
        from training.training_loop import training_loop
        training_loop(**args)
    if __name__ == "__main__":
        main()
    """,
}
# A launch function receives them.
SECOND_STYLE = {
    "training/loss.py": LOSS.format(networks="G", call="G(z, c)", arguments="gain, cur_nimg=0"),
    "train.py": OPTIONS.format(networks="G", sync=False, install="{install}")
    + """
    def launch_training(c, desc, outdir, dry_run):
        from training.training_loop import training_loop
        training_loop(**c)
    @click.command()
    @click.option("--outdir", required=True)
    @click.option("--gamma", type=float, default=10.0)
    @click.option("--resume")
    def main(**kwargs):
        launch_training(c=make_options(**kwargs), desc="described", outdir=kwargs["outdir"], dry_run=False)
    if __name__ == "__main__":
        main()
    """,
}


def edited(style, **changes):
    """A stand-in with words replaced: {file: [(former, new), ...]}; the slashes of file names are written as double underscores."""
    files = {**COMMON, **style}
    for name, pairs in changes.items():
        name = name.replace("__", "/") + ".py"
        for former, new in pairs:
            assert former in files[name]
            files = {**files, name: files[name].replace(former, new)}
    return files
