"""Denoisers to solve: exact ones, trained ones and how to train them, and forms of predictions."""

from typing import TYPE_CHECKING

from shoal._lazy import attach

if TYPE_CHECKING:
    from shoal.models.denoisers._empirical import empirical as empirical
    from shoal.models.denoisers._mixture import (
        gaussian as gaussian,
        gaussian_mixture as gaussian_mixture,
    )
    from shoal.models.denoisers._problems import (
        digits_mixture as digits_mixture,
        ring_mixture as ring_mixture,
    )
    from shoal.models.denoisers.data import (
        digits_data as digits_data,
        fashion_mnist as fashion_mnist,
    )
    from shoal.models.denoisers.network import (
        PreconditionedNetwork as PreconditionedNetwork,
        residual_mlp as residual_mlp,
    )
    from shoal.models.denoisers.pretrained import (
        digits as digits,
        digits_network as digits_network,
        load_network as load_network,
        save_network as save_network,
    )
    from shoal.models.denoisers.training import (
        TrainResult as TrainResult,
        default_optimizer as default_optimizer,
        held_out_loss as held_out_loss,
        train as train,
    )
    from shoal.sampling.core.denoiser import Denoiser as Denoiser, convert as convert
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "shoal.models.denoisers._empirical": ["empirical"],
            "shoal.models.denoisers._mixture": ["gaussian", "gaussian_mixture"],
            "shoal.models.denoisers._problems": ["digits_mixture", "ring_mixture"],
            "shoal.models.denoisers.data": ["digits_data", "fashion_mnist"],
            "shoal.models.denoisers.network": ["PreconditionedNetwork", "residual_mlp"],
            "shoal.models.denoisers.pretrained": [
                "digits",
                "digits_network",
                "load_network",
                "save_network",
            ],
            "shoal.models.denoisers.training": [
                "TrainResult",
                "default_optimizer",
                "held_out_loss",
                "train",
            ],
            "shoal.sampling.core.denoiser": ["Denoiser", "convert"],
        },
    )
