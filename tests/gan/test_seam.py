"""The seam: rows, parts and the loss that is assembled from them; off is StyleGAN2's loss."""

import pytest
import torch

import train
from tests.gan.counting import Counting
from training import loss, phases
from training.gan import adversarial, choosing, judge, methods, part, rows
from training.gan.loss import GANLoss


def gradients(module):
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def learn(made, phase, given, module, gain=1.0, sync=True):
    module.zero_grad(set_to_none=True)
    reals, real_c, z, c = given
    torch.manual_seed(11)
    made.accumulate_gradients(phase, reals, real_c, z, c, sync, gain)
    return gradients(module)


# ----------------------------------------------------------------------------------------------------------------
# Off.


def test_without_the_flags_the_loss_is_stylegan2s(dry_run):
    options, _ = dry_run()
    assert options["loss_kwargs"]["class_name"] == "training.loss.StyleGAN2Loss"
    assert not {"gan", "methods"} & set(options["loss_kwargs"]) and not {"n_critic", "backbone", "D_reg_interval", "G_reg_interval"} & set(options)


def test_assembled_from_rows_it_is_the_same_loss(toy, batch):
    """StyleGAN2's own recipe gives its gradients."""
    assembled, D, synthesis = toy("r1", [("r1", dict(gamma=3.0))], r1_gamma=3.0)
    own = loss.StyleGAN2Loss("cpu", assembled.G_mapping, synthesis, D, r1_gamma=3.0, pl_weight=0)
    for phase, module in (("Gmain", synthesis), ("Dmain", D), ("Dreg", D), ("Dboth", D)):
        for wanted, found in zip(learn(own, phase, batch(), module, gain=2.5), learn(assembled, phase, batch(), module, gain=2.5)):
            torch.testing.assert_close(found, wanted)


# ----------------------------------------------------------------------------------------------------------------
# Rows.


def test_rows_name_what_there_is():
    from dnnlib import util

    for recipe in methods.RECIPES.values():
        assert recipe.terms in adversarial.TERMS
        for name, values in recipe.methods:
            assert set(values) <= {parameter.name for parameter in methods.METHODS[name].parameters}
    for row in methods.METHODS.values():
        assert set(row.excludes) <= {*methods.METHODS, *methods.RECIPES} and set(row.stands_for) <= set(methods.METHODS)
        assert set(row.touches) <= set(rows.TOUCHES) and row.meaning and row.source and row.cost
        if row.part is not None:
            made = util.get_obj_by_name(row.part)
            assert issubclass(made, part.Part) and made.lazy == row.lazy and len(made.__doc__) > 60
    assert set(methods.METHODS) | set(methods.RECIPES) | set(methods.BACKBONES) <= {word for line in listed() for word in line.split()}


def listed():
    from training.gan import listing

    return listing.listing().splitlines()


def test_parse_takes_names_and_typed_values():
    row, values = rows.parse("gradient_penalty:weight=5,target=0", methods.METHODS, "--method")
    assert row.name == "gradient-penalty" and values == dict(weight=5.0, target=0.0)
    assert rows.parse(rows.as_text(row.name, values), methods.METHODS, "--method") == (row, values)
    assert rows.as_text("r1", dict(gamma=0.1234567)) == "r1:gamma=0.1234567" and rows.as_text("r1", dict(gamma=1.0)) == "r1:gamma=1"
    assert rows.as_text("r1", dict(gamma=0.1234567), exact=False) == "r1:gamma=0.123457"  # names of folders


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--gan=wgan_pg"], ["--gan=wgan_pg: there is no 'wgan_pg'", "perhaps wgan-gp is meant", "--list-methods"]),
        (["--method=gradient-penalt"], ["perhaps gradient-penalty is meant"]),
        (["--method=clip:d=1"], ["clip has no parameter 'd'", "it takes c"]),
        (["--method=clip:c=0"], ["c must be a number from 1e-06 to 1e+06 (got '0')", "it is 0.01"]),
        (["--method=gradient-penalty:weight=nan"], ["weight must be a number of at least 0"]),
        (["--method=gradient-penalty:weight=inf"], ["weight must be a number of at least 0"]),
        (["--method=clip:c"], ["'c' is no KEY=VALUE"]),
        (["--method=clip:c=1,c=2"], ["c is given twice"]),
        (["--method=clip", "--method=clip:c=1"], ["clip is given by --method=clip already"]),
        (["--gan=hinge:c=1"], ["hinge has no parameter 'c'", "it takes none"]),
        (["--backbone=resnet"], ["--backbone=resnet", "stylegan2"]),
        (["--method=r1:gamma=2", "--gamma=3"], ["--method=r1:gamma=2", "--gamma=3", "leave one of them out"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_nonsense_is_refused_in_a_sentence(refusal, flags, words):
    said = " ".join(refusal(*flags).split())
    assert all(word in said for word in words), said


# ----------------------------------------------------------------------------------------------------------------
# Options.


def test_a_recipe_sets_what_its_source_says(dry_run):
    options, printed = dry_run("--gan=wgan-gp")
    assert options["run_dir"].endswith("-data16-tiny-wgan-gp") and options["n_critic"] == 5
    assert options["D_opt_kwargs"] == options["G_opt_kwargs"] == dict(class_name="torch.optim.Adam", lr=4e-4, betas=[0.5, 0.9], eps=1e-8)
    assert options["loss_kwargs"] == dict(
        class_name="training.gan.loss.GANLoss",
        r1_gamma=0,
        pl_weight=0,
        gan="wgan-gp",
        methods=[dict(name="gradient-penalty", weight=10.0, target=1.0)],
    )
    assert options["D_reg_interval"] is None is options["G_reg_interval"]
    for sentence in (
        "G learns by Adam, rate 0.0004, betas 0.5 and 0.9: --gan=wgan-gp",
        "G learns on every 5th step",
        "no R1: --gan=wgan-gp has none",
    ):
        assert sentence in printed


def test_what_is_typed_has_the_last_word(dry_run):
    options, _ = dry_run("--gan=wgan-gp", "--method=gradient-penalty:weight=2", "--glr=0.001", "--gamma=0.5")
    assert options["G_opt_kwargs"]["lr"] == 0.001 and options["D_opt_kwargs"]["lr"] == 4e-4 and options["loss_kwargs"]["r1_gamma"] == 0.5
    assert {entry["name"]: entry for entry in options["loss_kwargs"]["methods"]} == {
        "gradient-penalty": dict(name="gradient-penalty", weight=2.0, target=1.0),
        "r1": dict(name="r1", gamma=0.5),
    }
    assert options["run_dir"].endswith("-wgan-gp-gradient-penalty-weight2-gamma0.5-glr0.001") or "gradient-penalty-weight2" in options["run_dir"]


def test_a_method_alone_joins_stylegan2s_loss(dry_run):
    options, _ = dry_run("--method=clip:c=2")
    own, _ = dry_run()
    assert [entry["name"] for entry in options["loss_kwargs"]["methods"]] == ["r1", "clip"] and options["loss_kwargs"]["gan"] == "r1"
    assert options["loss_kwargs"]["r1_gamma"] == own["loss_kwargs"]["r1_gamma"] == options["loss_kwargs"]["methods"][0]["gamma"]
    assert {key for key in own if own[key] != options[key]} == {"loss_kwargs", "run_dir"} and set(own) == set(options)


def test_options_give_their_flags_again(data16):
    typed = dict(data="data16.zip", cfg="tiny", gan="wgan", method=["r2:gamma=3", "clip:c=0.5"])
    options = train.build(typed).options
    again = train.build(dict(typed, **choosing.flags_of(options))).options
    assert again == options and choosing.flags_of(train.build(dict(data="data16.zip")).options) == {}


# ----------------------------------------------------------------------------------------------------------------
# Hooks.


class Shouting(part.Part):
    """Adds 10 to what D sees, takes the first row of G's, and adds a term to each."""

    name, leaves = "shouting", ("fakes",)

    def view(self, images):
        return images + 10

    def fakes_for_D(self, step, images, labels):
        return -images, labels

    def generator_rows(self, step, rows):
        return rows[:1]

    def generator_term(self, step):
        return step.fakes.square()

    def discriminator_term(self, step):
        assert step.fakes.requires_grad and step.learner == "D"
        return step.fakes.sum() * step.fake_logits.sum()


def test_hooks_change_what_the_loss_is_made_of(toy, batch):
    made, D, synthesis = toy("hinge")
    plain = made.judge
    made.parts = [Shouting()]
    made.judge = judge.Judge(D, views=[made.parts[0].view])
    reals, none, z, c = batch()
    images = synthesis(z[:, None])
    wanted = torch.autograd.grad(-plain(images + 10, c)[0].sum() + images.square().mean(), synthesis.parameters())
    torch.testing.assert_close(learn(made, "Gmain", batch(), synthesis), list(wanted))
    fakes = -images.detach()
    fake, real = plain(fakes + 10, c), plain(reals + 10, none)
    total = (1 + fake).relu().mean() + (1 - real).relu().mean() + fakes.sum() * fake.sum()
    torch.testing.assert_close(learn(made, "Dmain", batch(), D), list(torch.autograd.grad(total, D.parameters())))


def extra_run(toy, batch, steps, state=None):
    made, D, synthesis = toy("lsgan")
    counting = Counting()
    counting.name = "counting"
    made.parts = [counting]
    torch.manual_seed(123 + steps)  # what the extra network is made of does not depend on it
    synthesis.img_channels, synthesis.img_resolution, synthesis.z_dim = 1, 2, 3
    made.attach(dict(G=synthesis, D=D, device="cpu", random_seed=4))
    if state is not None:
        made.load_state_dict(state)
    for step in range(steps):
        made.begin_phase("Gmain", 8 * step)
        learn(made, "Gmain", batch(seed=step), synthesis, sync=False), learn(made, "Gmain", batch(seed=50 + step), synthesis)
        made.end_phase("Gmain")
    return made


def test_an_extra_learns_remembers_and_goes_on_exactly(toy, batch):
    whole = extra_run(toy, batch, 2).state_dict()["methods"]["counting"]
    first = extra_run(toy, batch, 0).state_dict()
    assert first["methods"]["counting"]["memory"]["images"].shape == (0, 4) and whole["memory"]["images"].shape == (8, 4)
    again = extra_run(toy, batch, 2, first).state_dict()["methods"]["counting"]
    assert torch.equal(whole["networks"]["reader"]["weight"], again["networks"]["reader"]["weight"])
    assert not torch.equal(whole["networks"]["reader"]["weight"], first["methods"]["counting"]["networks"]["reader"]["weight"])
    assert again["optimizers"]["reader"]["state"][0]["step"] == 2 and torch.equal(whole["memory"]["images"], again["memory"]["images"])


def test_a_state_of_other_methods_is_refused(toy):
    state = toy("wgan", [("clip", {})])[0].state_dict()
    with pytest.raises(Exception, match="with the methods clip, this one has none; go on with --method as the run began"):
        toy("hinge")[0].load_state_dict(state)


# ----------------------------------------------------------------------------------------------------------------
# The step.


def test_n_critic_lets_G_learn_on_every_nth_step_as_strongly_as_on_each():
    G, D = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    kwargs = dict(class_name="torch.optim.Adam", lr=0.5, betas=[0.25, 0.81], eps=1e-8)
    made, _ = phases.setup_phases(G, D, kwargs, kwargs, 4, 16, n_critic=5)
    assert [(p.name, p.interval, p.gain) for p in made] == [("Gmain", 5, 1), ("Greg", 20, 4), ("Dmain", 1, 1), ("Dreg", 16, 16)]


def test_made_again_differs_in_the_latent_alone():
    """Noise inputs and style mixing are drawn once more as they were."""
    from training.gan.step import Step
    from training.networks import Discriminator, Generator

    kwargs = dict(channel_base=64, channel_max=8, num_fp16_res=0, conv_clamp=None)
    G = Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=kwargs).train()
    D = Discriminator(c_dim=0, img_resolution=16, img_channels=3, **kwargs)
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(1)
    made = GANLoss("cpu", G.mapping, G.synthesis, D, style_mixing_prob=0.9)
    z, c = torch.randn([4, 8]), torch.zeros([4, 0])
    step = Step(made, "Dmain", "D", 0, torch.zeros([4, 3, 16, 16]), c, z, c, True)
    fakes, w_avg = step.fakes, G.mapping.w_avg.clone()
    torch.randn(5)
    before = torch.get_rng_state()
    torch.testing.assert_close(step.remade(z), fakes)
    assert not torch.allclose(step.remade(z + 0.1), fakes, atol=1e-3)
    assert torch.equal(G.mapping.w_avg, w_avg) and torch.equal(torch.get_rng_state(), before)
