"""The guide of self-supervised post-training: z from the prior, then decode and encode."""

from typing import Any

import pyro
from torch import Tensor, nn

from pyro_avae.batching import batch_size
from pyro_avae.errors import InputError
from pyro_avae.guides.avae import AVAEGuide, ExtendedTarget
from pyro_avae.parameters import register_parameters
from pyro_avae.sites import PLATE, Z

__all__ = ["SelfSupervisedGuide"]


class SelfSupervisedGuide(AVAEGuide):
    r"""The guide of AVAE-SS: :math:`q(z'|\tilde x;\eta)\, p_\theta(\tilde x|z)\, p(z)`.

    ::

        z     ~ p(z)              # site "z", the model's prior
        x_aux ~ p_theta(x | z)    # auxiliary
        z_aux ~ q(z | x_aux)      # site "z_aux"

    No data are encoded; of x, only the number of rows is looked at. Gradients reach the encoder alone.

    Arguments and errors as :class:`~pyro_avae.guides.AVAEGuide`; the model is a
    :class:`~pyro_avae.models.SelfSupervisedVAE` or a like one, with ``prior``. A view that starts from data is refused.

    Example:
        >>> import torch
        >>> from pyro_avae.guides import LinearEncoder
        >>> from pyro_avae.models import SelfSupervisedVAE
        >>> model = SelfSupervisedVAE(torch.nn.Linear(2, 5), latent_dim=2)
        >>> SelfSupervisedGuide(LinearEncoder(5, 2), model)(torch.empty(3, 0)).shape
        torch.Size([3, 2])
    """

    def __init__(self, encoder: nn.Module, model: ExtendedTarget, **options: Any) -> None:
        super().__init__(encoder, model, **options)
        if not hasattr(model, "prior"):
            raise InputError(f"model: expected a target with a prior, {type(model).__name__} has none")
        if self.dynamics is not None:
            raise InputError("dynamics: move z given data, and there are none here")
        for branch, view in self.views.items():
            if getattr(view, "needs_data", False):
                raise InputError(
                    f"view: branch {branch!r} has a {type(view).__name__}, which starts from data, and there are none"
                    " here; use a view of the decoder"
                )

    def forward(self, x: Tensor) -> Tensor:
        """Run the program for ``len(x)`` latents and return z."""
        register_parameters(self)
        if isinstance(self.model, nn.Module):
            register_parameters(self.model)
        target: Any = self.model
        with pyro.plate(PLATE, batch_size(x)):
            prior = target.prior(x)
            z: Tensor = pyro.sample(Z, prior)
            # A decoded view has the batch of z in front.
            self.reencode(x, z, prior, lambda view: self.posterior(view, event_dim=view.dim() - z.dim() + 1))
        return z
