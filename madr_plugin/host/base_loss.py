"""The host's own loss with every method that MADRLoss hands on to it: what it lacks does nothing.

The methods are those that the training loop of this project calls (training/loss.py tells when, with what). The plugin has
a list of its own, since it runs where that file does not exist; tests/contracts/test_host_protocol.py compares the two.
"""


class BaseLoss:
    """Around a loss that has accumulate_gradients() and perhaps more. Other attributes are those of the loss."""

    def __init__(self, loss):
        self.loss = loss
        for name in HANDED_ON:
            if callable(getattr(loss, name, None)):
                setattr(self, name, getattr(loss, name))

    def __getattr__(self, name):
        if name == "loss":  # not set yet: while being copied or unpickled
            raise AttributeError(name)
        return getattr(self.loss, name)

    def attach(self, context):
        """See training/loss.py, as for all of these."""

    def begin_phase(self, phase, cur_nimg):
        pass

    def end_phase(self, phase):
        pass

    def telemetry(self):
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def close(self):
        pass


HANDED_ON = tuple(name for name in vars(BaseLoss) if not name.startswith("_"))


def whole(loss):
    """The loss itself if it lacks none of the methods."""
    return loss if all(callable(getattr(loss, name, None)) for name in HANDED_ON) else BaseLoss(loss)
