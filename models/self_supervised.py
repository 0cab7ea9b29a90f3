"""The target of self-supervised post-training: the extended target without data."""

from typing import Any, Self

import pyro
from torch import Tensor, nn

from pyro_avae.batching import batch_size
from pyro_avae.models.extended import ExtendedVAE
from pyro_avae.parameters import register_parameters
from pyro_avae.sites import PLATE, Z

__all__ = ["SelfSupervisedVAE"]


class SelfSupervisedVAE(ExtendedVAE):
    r"""The target of AVAE-SS: :math:`p(z)\, p_\rho(z'|z)\, u(\tilde x)`, with a decoder that nothing changes.

    ::

        z     ~ N(0, I)                # site "z"
        z_aux ~ p_rho(z_aux | z)       # site "z_aux"

    With :class:`~pyro_avae.guides.SelfSupervisedGuide` the bound is

    .. math:: \mathcal B_{SS} = -\mathbb E_{p(z) p_\theta(\tilde x|z)}
              \mathrm{KL}\big(q(z'|\tilde x;\eta)\,\|\,p_\rho(z'|z)\big),

    whose maximum over all q is :math:`\mathcal N(\rho\, \mathbb E[z|\tilde x], (1-\rho^2) I)`. It is a function of the
    encoder alone: the observation model's parameters do not require gradients. Of the data x, only the number of rows
    is looked at.

    Arguments and errors as :class:`~pyro_avae.models.ExtendedVAE`.

    References:
        Cemgil et al. 2020 (arXiv 2012.03715): AVAE-SS, "post processing ... without access to the original training
        data". The formula is derived from that.

    Example:
        >>> import torch
        >>> model = SelfSupervisedVAE(torch.nn.Linear(2, 5), latent_dim=2)
        >>> model(torch.empty(3, 0)).shape, any(p.requires_grad for p in model.parameters())
        (torch.Size([3, 2]), False)
    """

    def __init__(self, decoder: nn.Module, **options: Any) -> None:
        super().__init__(decoder, **options)
        self.observation.requires_grad_(False)
        if self.flow is not None:
            self.flow.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module``'s, but the observation model stays in eval mode: it is not what is trained."""
        super().train(mode)
        self.observation.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Run the program for ``len(x)`` latents and return z."""
        register_parameters(self)
        with pyro.plate(PLATE, batch_size(x)):
            z: Tensor = pyro.sample(Z, self.prior(x))
            self.couple(z)
        return z
