"""Answers how strong each of MADR's terms is now: the balance of gradients, times the measured share of signal, times the controllers.

Must not know features or images: it sees norms, powers and counts.
"""

import torch

from madr_plugin.strength import balance, controllers, signal_share


class Strength:
    """Scales two terms, known by name: 'term', on every generated batch, and 'replay'."""

    def __init__(self, config, device, of_objective, of_replay=None):
        """Build from the knobs. of_objective(): what the controller inside the objective leaves of 'term', in [0, 1]; of_replay(): the share of

        reals that the replay still has to reach, where it is known; None: where it is not, and the witness's share of signal stands for it.
        """
        self.of_objective, self.of_replay = of_objective, of_replay
        self.balance = balance.GradientBalance(config.balance, {"term": config.weight, "replay": config.replay_weight}, device, config.balance_at)
        self.num_parts = len(config.parts)
        self.signals = {part: signal_share.SignalShare(device, exponent) for part, exponent in config.measured_parts.items()}
        self.controller = controllers.IntegralController(config.control_kimg) if config.controller == "integral" else None

    # --- how strong -------------------------------------------------------------------------------------------------

    def share(self, name):
        """Compute what the controllers and the noise leave of a term, in [0, 1].

        The replay follows the witness: where that finds nothing but noise the pull, too, would be mostly noise. So it rests
        also where a small mode is missing, which the witness's kernel does not see: the tilt is for those. Champions know themselves how many
        reals they do not reach.
        """
        share = 1.0 if self.controller is None else self.controller.strength
        if name == "term":
            share = self.of_objective() * share
        elif self.of_replay is not None:
            return share * self.of_replay()
        factors = self.shares()
        if not factors:
            return share
        if name == "term" and len(factors) < self.num_parts:
            return share  # a part whose noise is not measured speaks in full
        if name == "term":
            return share * torch.stack(list(factors.values())).max()  # the parts share one gradient: what one has to say is said in full
        return share * factors.get("witness", factors.get("moments"))

    def shares(self):
        """Compute how much of each part's gradient is signal, {part: 0-d}; {} where it is not measured."""
        return {part: signal.factor() for part, signal in self.signals.items()}

    def factor(self, name):
        """Compute lambda_t, by which a term's gradient on the image is multiplied."""
        return self.balance.factor(name) * self.share(name)

    def ratio(self, name):
        """Compute the size of a term's gradient relative to the host's, as it is applied, where the balance is struck."""
        return self.balance.ratio(name) * self.share(name)

    # --- what it learns ---------------------------------------------------------------------------------------------

    def parameters_to_follow(self, name, occasion, generator_access):
        """List the parameters of G to which a gradient is to be followed at this occasion (0, 1, ...); [] for most."""
        if not self.balance.at_parameters or not balance.reach_is_due(occasion, known=not self.balance.lacks(name)):
            return []
        parameters = generator_access.parameters()
        self.balance.note_parameters(parameters)
        return parameters

    def control(self, coverage, nimg):
        """Let the integral controller move. coverage(): the sensor's, less what counting noise explains; nimg: images since the last move."""
        if self.controller is not None:
            self.controller.update(coverage(), nimg)

    def update_signals(self, found):
        """Take in what a step measured: {part: (power, power of noise alone)}."""
        for part, (power, null) in found.items():
            if part in self.signals:
                self.signals[part].update(power, null)

    # --- state ------------------------------------------------------------------------------------------------------

    def live_state(self):
        """Return the state's own tensors and numbers, under the names of its parts."""
        return dict(
            balance=self.balance.live_state(),
            signal=self.signals["witness"].live_state() if "witness" in self.signals else {},
            signal_moments=self.signals["moments"].live_state() if "moments" in self.signals else {},
            controller={} if self.controller is None else self.controller.live_state(),
        )

    def load(self, state, device):
        """Take up what live_state() gave; a part that the saved run did not have starts anew."""
        if self.controller is not None and state.get("controller"):
            self.controller.load(state["controller"])
        self.balance.load(state["balance"], device)
        for part, signal in self.signals.items():
            saved = state.get("signal" if part == "witness" else "signal_moments")
            if saved and part == "moments" and float(saved["null"]) > 0:  # in units of the null, which the first version kept apart
                saved = dict(power=saved["power"] / saved["null"], null=torch.ones_like(saved["null"]))
            signal.load(saved, device)
