"""What D's logits mean under the loss that a run states, for discriminator rejection sampling (torch_utils/rejection_sampling.py)."""

from dnnlib import console
from dnnlib.errors import UserError
from torch_utils import rejection_sampling

_FITTING = (*rejection_sampling.LOGISTIC, *rejection_sampling.SQUARES)


def loss_of_run(options, network):
    """The Loss that D was trained with; warns where it can only be assumed. options: the training options of its run, None where nobody knows;
    network: for what is said."""
    loss = (options or {}).get("loss_kwargs")
    if not loss:
        console.warn(
            f"--drs: nobody knows which loss trained D of {network}, since no training_options.json of its run lies beside it; StyleGAN2's is assumed. After another "
            "--gan the rejection is wrong: put the file back into its run folder."
        )
        return rejection_sampling.Loss(is_assumed=True)
    if "gan" not in loss:
        name = loss.get("base_class_name") or loss.get("class_name") or "training.loss.StyleGAN2Loss"
        if name.rpartition(".")[2] != "StyleGAN2Loss":
            raise UserError(f"--drs: {network} was trained with {name}, and nobody knows what D's logits mean under it; leave out --drs")
        return rejection_sampling.Loss()
    from training.gan import methods

    terms = methods.RECIPES[loss["gan"]].terms
    if terms not in _FITTING:
        fitting = ", ".join(recipe.name for recipe in methods.RECIPES.values() if recipe.terms in _FITTING)
        raise UserError(
            f"--drs: {network} was trained with --gan={loss['gan']}, whose D says nothing of densities; train with one of {fitting}, or leave out --drs"
        )
    target = next((entry["target"] for entry in loss.get("methods", ()) if entry["name"] == "label-smoothing"), 1.0)
    return rejection_sampling.Loss(terms, float(target))
