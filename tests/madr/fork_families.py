"""Stand-ins for the families whose loops, losses and snapshots differ from the plain fork's (stand_ins.py).

Processes are copies unless $START_METHOD says spawn, which takes a while to import torch.
LOOP goes by the number of the step alone (seeds, data) and has an optimizer without memory, so that 6 + 6 steps equal 12 bit for bit where all state
is carried. Its snapshots hold no augmentation pipe; a run in a folder that has a snapshot goes on from it, asked or not.
"""

from tests.madr.stand_ins import COMMON

LOOP = """
    import copy, os, pickle
    import dnnlib, legacy, torch
    construct = dnnlib.util.construct_class_by_name
    def training_loop(run_dir, training_set_kwargs, loss_kwargs, networks, phases, rounds, steps, num_gpus, rank=0, resume_pkl=None, random_seed=0{arguments}):
        torch.manual_seed(random_seed * num_gpus + rank)
        data = construct(**training_set_kwargs)
        G, D = (construct(class_name="training.parts." + name) for name in ("Generator", "Discriminator"))
        start, newest = 0, os.path.join(run_dir, "network-snapshot.pkl")
        if os.path.exists(newest):
            resume_pkl = newest
        if resume_pkl and rank == 0:
            with dnnlib.util.open_url(resume_pkl) as f:
                saved = legacy.load_network_pkl(f)
            G.load_state_dict(saved["G"].state_dict()), D.load_state_dict(saved["D"].state_dict())
            start = saved["step"]
        if num_gpus > 1:
            begun = torch.tensor(start)
            for value in [begun, *G.state_dict().values(), *D.state_dict().values()]:
                torch.distributed.broadcast(value, src=0)
            start = int(begun)
        given = dict(G=G, D=D) if networks == "G" else dict(device=torch.device("cpu"), G=G, G_mapping=G.mapping, G_synthesis=G.synthesis, D=D)
        loss = construct(**given, **loss_kwargs)
        print("loss is", type(loss).__name__)
        networks_of = dict(G=G, D=D)
        opts = {name: torch.optim.SGD(network.parameters(), 1e-2) for name, network in networks_of.items()}
        for step in range(start, start + steps):
            for phase in phases:
                for name, network in networks_of.items():
                    network.requires_grad_(name == phase[0])
                opts[phase[0]].zero_grad()
                for k in range(rounds):
                    torch.manual_seed(step * 1000 + k * num_gpus + rank)
                    images, labels = zip(*(data[int(i)] for i in torch.randint(len(data), [8])))
                    given = dict(real_img=torch.stack([torch.from_numpy(x).float() / 127.5 - 1 for x in images]), real_c=torch.stack([torch.from_numpy(c) for c in labels]))
                    loss.accumulate_gradients(phase=phase, gen_z=torch.randn([8, 8]), {label_argument}gain=1 / rounds, **given)
                if num_gpus > 1:
                    for parameter in networks_of[phase[0]].parameters():
                        torch.distributed.all_reduce(parameter.grad)
                opts[phase[0]].step()
        if rank == 0:
            snapshot = dict(G=G, D=D, G_ema=copy.deepcopy(G), training_set_kwargs=dict(training_set_kwargs), step=start + steps)
            with open(newest, "wb") as f:
                pickle.dump(snapshot, f)
    """
TRAIN = """
    import os, sys, tempfile
    import click, dnnlib, torch
    {install}
    from training import training_loop
    def subprocess_fn(rank, c, temp_dir):
        if c.num_gpus > 1:
            torch.distributed.init_process_group("gloo", init_method="file://" + os.path.join(temp_dir, "met"), rank=rank, world_size=c.num_gpus)
        training_loop.training_loop(rank=rank, **c)
    def launch_training(c, desc, outdir, dry_run):
        dnnlib.util.construct_class_by_name(**c.training_set_kwargs)  # a look into the data
        os.makedirs(outdir, exist_ok=True)
        c.run_dir = outdir
        with tempfile.TemporaryDirectory() as temp_dir:
            if c.num_gpus == 1:
                subprocess_fn(rank=0, c=c, temp_dir=temp_dir)
            else:
                torch.multiprocessing.start_processes(subprocess_fn, (c, temp_dir), c.num_gpus, start_method=os.environ.get("START_METHOD", "fork"))
    @click.command()
    @click.option("--outdir", required=True, help="Where the run goes.")
    @click.option("--steps", type=int, default=12)
    @click.option("--gpus", type=int, default=1)
    @click.option("--resume")
    def {command}(outdir, steps, gpus, resume):
        c = dnnlib.EasyDict(random_seed=5, steps=steps, num_gpus=gpus, rounds=2 // gpus, networks="{networks}", phases={phases})
        c.training_set_kwargs = dnnlib.EasyDict(class_name="training.parts.Dataset", path=os.path.dirname(os.path.abspath(__file__)), count=40)
        c.loss_kwargs = dnnlib.EasyDict(class_name="training.loss.{loss}")
        if resume:
            c.resume_pkl = resume
        {options}
        launch_training(c=c, desc="described", outdir=outdir, dry_run=False)
    if __name__ == "__main__":
        {command}()
    """
# Images of D are judged in pairs of a real and a generated one; D learns first; one generator in bfloat16, without labels, mapping or device.
RELATIVISTIC = {
    "training/parts.py": COMMON["training/parts.py"]
    + """
        class Generator(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = torch.nn.Linear(8, 192)
            def forward(self, z, c=None):
                x = z.to(torch.bfloat16) @ self.fc.weight.to(torch.bfloat16).t() + self.fc.bias.to(torch.bfloat16)
                return torch.tanh(x).reshape(-1, 3, 8, 8)
        """,
    "training/training_loop.py": LOOP.replace("{arguments}", ", augment_kwargs=None").replace("{label_argument}", ""),
    "training/loss.py": """
        import torch, torch.nn.functional as F
        class RelativisticLoss:
            def __init__(self, G, D):
                self.G, self.D = G, D
            def accumulate_gradients(self, phase, real_img, real_c, gen_z, gain):
                fake = self.G(gen_z, real_c)
                real = real_img.detach().requires_grad_(phase == "D")
                fake_logits, real_logits = (self.D(x.float(), real_c) for x in (fake if phase == "G" else fake.detach(), real))
                difference = fake_logits - real_logits
                loss = F.softplus(-difference if phase == "G" else difference)
                if phase == "D":
                    [gradient] = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
                    loss = loss + gradient.square().sum([1, 2, 3])[:, None]
                loss.mean().mul(gain).backward()
        """,
    "train.py": TRAIN.replace("{networks}", "G")
    .replace("{phases}", '("D", "G")')
    .replace("{loss}", "RelativisticLoss")
    .replace("{command}", "main")
    .replace("{options}", "pass"),
}
# The loop knows no augmentation at all; the loss takes G beside its parts; G has batch statistics, its synthesis takes labels; the command has another name.
WITHOUT_PIPE = {
    "training/parts.py": COMMON["training/parts.py"]
    + """
        class Synthesis(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.norm = torch.nn.Linear(16, 192), torch.nn.BatchNorm1d(192)
            def forward(self, ws, c):
                return torch.tanh(self.norm(self.fc(ws.mean(1)))).reshape(-1, 3, 8, 8)
        class Generator(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.mapping, self.synthesis = Mapping(), Synthesis()
            def forward(self, z, c):
                return self.synthesis(self.mapping(z, c), c)
        """,
    "training/training_loop.py": LOOP.replace("{arguments}", "").replace("{label_argument}", "gen_c=torch.zeros([8, 0]), "),
    "training/loss.py": """
        import torch, torch.nn.functional as F
        class ProjectedLoss:
            def __init__(self, device, G, G_mapping, G_synthesis, D):
                self.G, self.G_mapping, self.G_synthesis, self.D = G, G_mapping, G_synthesis, D
            def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, gain, cur_nimg=0):
                fake = self.G_synthesis(self.G_mapping(gen_z, gen_c), gen_c)
                if phase == "Gmain":
                    loss = -self.D(fake, gen_c)
                else:
                    loss = F.relu(1 + self.D(fake.detach(), gen_c)) + F.relu(1 - self.D({real}, real_c))
                loss.mean().mul(gain).backward()
        """.replace("{real}", "real_img"),
    "train.py": TRAIN.replace("{networks}", "parts")
    .replace("{phases}", '("Gmain", "Dmain")')
    .replace("{loss}", "ProjectedLoss")
    .replace("{command}", "train_it")
    .replace("{options}", "pass"),
}
FAMILIES = dict(relativistic=RELATIVISTIC, without_pipe=WITHOUT_PIPE)
