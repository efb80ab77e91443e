"""What methods write into the training options beside the loss: change(choice, values) -> sentences for --dry-run.

choice: choosing.Choice. values: all parameters of the method, to be completed where the default is None. Must not import torch.
"""


def r1(choice, values):
    """R1's weight is --gamma's option, whichever of the two was typed."""
    if values["gamma"] is None:
        values["gamma"] = float(choice.options.loss_kwargs.r1_gamma)
    return [f"R1 gamma {values['gamma']:g}: {choice.why('r1')}"]


def r2(choice, values):
    """As heavy as R1 unless it says otherwise."""
    if values["gamma"] is None:
        of_r1 = choice.values.get("r1", {}).get("gamma")
        values["gamma"] = float(choice.options.loss_kwargs.r1_gamma if of_r1 is None else of_r1)
    return [f"R2 gamma {values['gamma']:g}: {choice.why('r2')}"]
