"""MADRLoss: the host's loss, unchanged, with the coverage terms joined to its generator phase.

Same constructor and accumulate_gradients as the host's loss, so that it fits wherever a loop builds its loss by name.
The terms themselves are in engine/.
"""

import contextlib
import inspect

import torch

from madr_plugin import augment_pipe as pipes, metrics
from madr_plugin.base import collective
from madr_plugin.config import NOT_CONFIG, refuse_device, resolve
from madr_plugin.engine import Engine
from madr_plugin.host import base_loss, cost, discriminator_access, rest, snapshots, telemetry
from madr_plugin.host.construct import construct, named
from madr_plugin.host.generator_access import GeneratorAccess
from madr_plugin.reals import real_images, reference
from madr_plugin.tilt import sensors, tilted_logits, tilted_reals
from madr_spaces import registry
from madr_spaces.errors import MADRError

GENERATOR_PHASES = ("Gmain", "Gboth", "G")  # the last: R3GAN's name
REPORT_IMAGES, REPORT_STEPS = 2048, 32  # statistics are told after so many images, at the latest after so many steps


class MADRLoss:
    """base_class_name: the host's loss; madr: options by name (config.py) plus random_seed and training_set_kwargs; all else goes to the base."""

    def __init__(self, *args, base_class_name, madr, **kwargs):
        given = {**named(base_class_name, args), **kwargs}
        G_mapping, G_synthesis = _generator(given)
        D, self.augment_pipe = given.get("D"), given.get("augment_pipe")
        self.device = torch.device(given["device"] if given.get("device") is not None else next(G_synthesis.parameters()).device)
        refuse_device(self.device.type)
        self.config = resolve({name: value for name, value in madr.items() if name not in NOT_CONFIG})
        self.seed = int(madr.get("random_seed", 0))
        self.training_set_kwargs = madr.get("training_set_kwargs")
        self.resume_pkl = madr.get("resume_pkl")  # in forks: the snapshot of --resume, for loops that read it past the fork's own loader
        self.training_set = None
        self.is_attached = False  # whether the host speaks the protocol of our own loop
        self.host_keeps_state = False  # whether the host stores state_dict(); else MADR's state rides in snapshots, or lies in a file beside them
        metrics.register(self.config)  # in every process: those that the host spawns start with its own registry
        self.resumed = snapshots.resumed_by(D, G_mapping, G_synthesis)  # before a step changes them
        self.base = base_loss.whole(construct(base_class_name, **given))
        self.signature = inspect.signature(self.base.accumulate_gradients)
        self._argument_names = tuple(self.signature.parameters)
        self.generator_access = GeneratorAccess(G_mapping, G_synthesis)
        self.engine = None
        self.round_index = 0
        self.rounds_per_step = None  # microbatches of a step, learned where the host's loss is not told which is the last
        self._rounds_of_phase = 0  # microbatches of the generator's phase that runs, counted there
        self._state_to_load = None
        self._tilted_reals = None
        self.discriminator = discriminator_access.of(D)
        self._real_weights = tilted_logits.RealLogitWeights(D, self.augment_pipe) if self.config.tilt_form == "weight" else None
        self.cost, self.rest = cost.CostMeter(self.device), rest.Rest(self.config)
        self._reals_of = ("", -1)  # D phase and its last round
        self._foreign_phases = []  # in order, those that are not the generator's main phase; None once that was seen
        if self.config.tilt and "real_img" not in self.signature.parameters:
            raise MADRError("--madr-tilt=1 acts on the argument real_img of the host's loss, and this fork's loss has none; use --madr-tilt=0")

    def __getattr__(self, name):
        # Reached for names that MADRLoss lacks: loops and notebooks read the base's attributes (pl_mean, ...).
        if name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)

    # --- the host protocol of our own loop (training/loss.py); loops of forks call none of this ------------------------

    def attach(self, context):
        """Called once before training. context: training_set, training_set_kwargs, random_seed, keeps_state, ... of the run."""
        self.is_attached = True
        self.training_set = context.get("training_set")
        self.host_keeps_state = bool(context.get("keeps_state"))
        self.training_set_kwargs = context.get("training_set_kwargs") or self.training_set_kwargs
        self.seed = int(context.get("random_seed", self.seed))
        self.base.attach(context)
        self.prepare()

    def begin_phase(self, phase, cur_nimg):
        self.base.begin_phase(phase, cur_nimg)
        if phase.startswith("D"):
            self._reals_of = ("", -1)
            if phase != "Dreg" and self.engine is not None:
                self.engine.critic_steps += 1

    def end_phase(self, phase):
        self.base.end_phase(phase)

    def close(self):
        self.base.close()

    def prepare(self):
        """Extract or load the reference features. All processes together; done by the first generator phase if not before."""
        if self.engine is not None:
            return
        rank, _ = collective.world()
        with contextlib.ExitStack() as stack:
            dataset = self.training_set
            if dataset is None:
                dataset = real_images.open_dataset(self.training_set_kwargs)
                stack.callback(getattr(dataset, "close", _silent))  # not every fork's has files to close
            extractor = registry.build(
                self.config.extractor,
                dataset.image_shape,
                self.config.width,
                self.seed,
                self.config.input_size,
                self.config.weights,
                self.config.weights_sha256,
            )
            extractor = extractor.eval().requires_grad_(False).to(self.device)
            real_features = reference.build(dataset, extractor, self.config, self.seed, self.device, announce=print if rank == 0 else _silent)
        if self.config.tilt and self._real_weights is None:
            self._tilted_reals = tilted_reals.open_for(self.training_set, self.training_set_kwargs, self.config, self.seed)
        announce = print if rank == 0 else _silent
        sensor = sensors.build(self.config, real_features, self._tilted_reals, self.discriminator, self.seed, announce)
        self.engine = Engine(self.config, real_features, extractor, self.seed, self.device, self.discriminator, sensor)
        self.engine.running = self.cost.running
        notes = self.engine.notes(self.generator_access.latent_width, self.generator_access.latents_per_image)  # may refuse, on every rank alike
        for note in notes if rank == 0 else ():
            print(f"MADR: note: {note}", flush=True)
        if self._state_to_load is not None:
            self.engine.load(self._state_to_load)
            self._state_to_load = None
        elif not self.is_attached:
            self._take_state_from_snapshot(print if rank == 0 else _silent)
        if not self.is_attached:
            snapshots.keep_state_of(self)

    def _take_state_from_snapshot(self, announce):
        """In a fork, whose loop restores networks only: MADR's state, from where the snapshot that the run starts from has it."""
        found, self.resumed = self.resumed, None

        def read():
            nonlocal found
            if found is None and self.resume_pkl:
                found = snapshots.open_by_host(self.resume_pkl)
            return {} if found is None else found.state

        # Read by the first process alone, as the loops of forks do it.
        flat = collective.from_first_process(read, self.device)
        if not flat:
            if found is not None or self.resume_pkl:
                fault, hint = (found.fault, found.hint) if found else (f"{self.resume_pkl} holds no MADR state", "")
                announce(f"MADR: {fault}; the memory starts empty{hint}", flush=True)
            return
        try:
            self.engine.load(pipes.unflatten(flat))
            announce(f"MADR: state of step {self.engine.step} taken from {_source(found)}", flush=True)
            for what in self.engine.begun_anew:
                announce(f"MADR: note: that state is of other --madr flags: {what} begins anew", flush=True)
            for what in self.engine.left_behind:
                announce(
                    f"MADR: note: that state also holds {what}, which the present --madr flags do not use: the next snapshot has it no more",
                    flush=True,
                )
        except MADRError as error:
            announce(f"MADR: the memory starts empty: {error}", flush=True)

    def state_for_snapshot(self):
        """MADR's state for the snapshot that the host writes now (snapshots.py), flat; None where there is none yet."""
        if self.engine is None:
            return None
        if self.engine.step_is_open:
            if collective.world()[1] > 1:  # finishing takes all processes, and one alone writes
                print("MADR: note: this snapshot's state lacks the last step", flush=True)
            else:
                self._finish_step_if_open()
        return pipes.flatten(self.engine.live_state())

    # --- the step -----------------------------------------------------------------------------------------------------

    def accumulate_gradients(self, *args, **kwargs):
        """As the base's, with MADR's terms in the generator's main phase."""
        # signature.bind() alone would take as long as a term; a call that does not fit is refused by the base itself.
        arguments = {**dict(zip(self._argument_names, args)), **kwargs}
        phase = arguments.get("phase", "")
        if phase not in GENERATOR_PHASES:
            self._note_foreign(phase)
            # Loops without `sync` do not say which microbatch is the step's last; the next phase does, and the count is the next step's.
            if self._rounds_of_phase > 0:
                self.rounds_per_step, self._rounds_of_phase = self._rounds_of_phase, 0
            self._finish_step_if_open()
            if self.config.tilt and phase.startswith("D"):
                bound = self.signature.bind(*args, **kwargs)
                with self._tilted_reals_of(phase, bound.arguments):
                    return self.base.accumulate_gradients(*bound.args, **bound.kwargs)
            return self.base.accumulate_gradients(*args, **kwargs)

        self.prepare()
        self._foreign_phases = None
        rank, num_processes = collective.world()
        microbatch = self.round_index * num_processes + rank
        gain = float(arguments.get("gain", 1))
        self._reals_of = ("", -1)
        self.engine.critic_steps = 0
        replayed = {}
        with self.cost.running():
            if self.engine.replay_is_due:
                # Before the host's pass: where G sits in DistributedDataParallel, that pass averages what has gathered in .grad.
                replayed = self.engine.replay(self.generator_access, len(arguments["gen_z"]), microbatch, gain)
            renewed = self.engine.renew(self.generator_access, microbatch) if self.engine.refresh_is_due else None
            fresh = drift = None
            if self.engine.fresh_is_due:
                fresh = self.engine.fresh(self.generator_access, arguments["gen_z"], arguments.get("gen_c"), microbatch)
            if self.engine.drift_is_due:
                drift = self.engine.drift(self.generator_access, len(arguments["gen_z"]), microbatch)
        with self._watching(microbatch, gain, replayed, renewed, fresh, drift):
            self.base.accumulate_gradients(*args, **kwargs)
        self.round_index += 1
        if "sync" in self.signature.parameters:
            if arguments.get("sync", False):
                self._finish_step_if_open()
            return
        # By the count of the step before, so that a snapshot written between this phase and the next has the whole step. Where a step has more
        # microbatches than that, the rest of it counts as another one, this once.
        self._rounds_of_phase += 1
        if self._rounds_of_phase == self.rounds_per_step:
            self._finish_step_if_open()

    def _note_foreign(self, phase):
        """Refuse a loop whose phases are all foreign, in which MADR would do nothing for as long as it runs."""
        if self._foreign_phases is None or self._foreign_phases[-1:] == [phase]:
            return
        self._foreign_phases.append(phase)
        if len(self._foreign_phases) > 16 and any(name.lower().startswith("g") for name in self._foreign_phases):
            raise MADRError(
                f"MADR found none of the generator phases that it knows ({', '.join(GENERATOR_PHASES)}) among those of this fork's loop "
                f"({', '.join(sorted(set(self._foreign_phases)))}); use --madr=0 with this fork"
            )

    def _tilted_reals_of(self, phase, arguments):
        """The context in which a D phase runs with tilted reals: other ones among its arguments, or weights at their logits."""
        self.prepare()
        rank, num_processes = collective.world()
        self._reals_of = (phase, self._reals_of[1] + 1 if self._reals_of[0] == phase else 0)
        microbatch = self._reals_of[1] * num_processes + rank
        with self.cost.running():
            inputs = self.engine, phase, microbatch, arguments["real_img"], arguments.get("real_c")
            if self._real_weights is None:
                arguments["real_img"] = self._tilted_reals(*inputs)
                return contextlib.nullcontext()
            weight_B = self._real_weights.weights(*inputs)
        # D is watched in every main phase, also where nothing is weighted yet: a host may call a D that nobody watches in another way, whose
        # numbers differ by rounding, and then the bits of a run would depend on where it was resumed.
        if weight_B is None and phase == "Dreg":
            return contextlib.nullcontext()
        return self._real_weights.weighting(weight_B, phase, arguments["real_img"])

    @contextlib.contextmanager
    def _watching(self, microbatch, gain, *extra):
        seen = []

        def on_image(image, latents):
            seen.append(True)
            with self.cost.running():
                self.engine.on_generated(self.generator_access, image, latents, microbatch, gain, *extra)

        with self.generator_access.first_image(on_image):
            yield
        if not seen:
            raise MADRError(
                "MADR saw no generated image in the generator phase: this host's loss does not call the generator it was "
                "given; use --madr=0 with this fork"
            )

    def _finish_step_if_open(self):
        self.round_index = 0
        if self.engine is None or not self.engine.step_is_open:
            return
        with self.cost.running():
            self.engine.finish_step()
            if self._report_is_due():
                telemetry.report(self.engine.telemetry())
            if collective.world()[0] == 0 and (self._report_is_due() or self.engine.step == rest.FIRST_STEP):
                for sentence in (*self.rest.sentences(self.engine), *self.engine.sentences()):
                    print(sentence, flush=True)
            self._hand_state_to_pipe()
        if self.cost.step_done():
            mebibytes = {what: cost.num_bytes(tensors) / 2**20 for what, tensors in self.engine.kept_tensors().items()}
            telemetry.report_cost(*self.cost.figures(), sum(mebibytes.values()))  # every process: the host joins their statistics
            if collective.world()[0] == 0:
                print(cost.sentence(*self.cost.figures(), mebibytes), flush=True)

    def _hand_state_to_pipe(self):
        """For the fork's snapshots. Where the host keeps the state itself, the pipe carries nothing: not even what an older state has put there."""
        if isinstance(self.augment_pipe, pipes.MADRAugmentPipe):
            self.augment_pipe.carry({} if self.host_keeps_state else pipes.flatten(self.engine.live_state()))

    def _report_is_due(self):
        """Often enough for every tick to have some numbers, seldom enough for small networks not to notice the cost."""
        images_per_step = self.engine.nimg / self.engine.step
        interval = min(REPORT_STEPS, max(1, int(REPORT_IMAGES / images_per_step)))
        return (self.engine.step - 1) % interval == 0

    # --- state ----------------------------------------------------------------------------------------------------------

    def telemetry(self):
        """{name: float} for the tick line, the base's first; all of MADR's values go to the host's statistics as 'MADR/...'."""
        own = {} if self.engine is None else telemetry.for_tick_line(self.engine.telemetry())
        return {**self.base.telemetry(), **own}

    def state_dict(self):
        """Plain numbers and CPU tensors. The base's state under 'base', MADR's under 'madr'."""
        madr = self._state_to_load if self.engine is None else self.engine.live_state()
        return dict(base=self.base.state_dict(), madr=None if madr is None else _copied(madr))

    def load_state_dict(self, state):
        """Before or after attach()."""
        self.base.load_state_dict(state["base"])
        if state["madr"] is None:
            return
        if self.engine is None:
            self._state_to_load = _copied(state["madr"])
        else:
            self.engine.load(state["madr"])
            self._hand_state_to_pipe()


def _copied(state):
    """Deep copy with tensors on the CPU."""
    if isinstance(state, dict):
        return {name: _copied(value) for name, value in state.items()}
    if torch.is_tensor(state):
        return state.detach().cpu().clone()
    return list(state) if isinstance(state, list) else state


def _generator(given):
    """(mapping, synthesis) among the arguments of the host's loss; (None, G) where the generator is one module."""
    G, synthesis = given.get("G"), given.get("G_synthesis")
    if synthesis is not None:
        return given.get("G_mapping"), synthesis
    if G is None:
        raise MADRError("MADR found no generator among the arguments of the host's loss (G_synthesis or G); this fork needs its own adapter")
    mapping, _ = snapshots.parts_of(G)
    return snapshots.parts_of(G) if mapping is not None else (None, G)  # as it is called: inside DistributedDataParallel, maybe


def _source(found):
    """Where rank 0 has found a state, for its log."""
    if found is None:
        return "the snapshot"  # on the other processes, which are silent
    return f"the snapshot {found.path}" if found.place == found.path else f"{found.place}, beside the snapshot"


def _silent(*_, **__):
    pass
