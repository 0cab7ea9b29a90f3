"""The AVAE's guide: encode, decode a view, encode again."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import pyro
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_avae.errors import InputError
from pyro_avae.guides.amortized import AmortizedGuide
from pyro_avae.parameters import register_parameters
from pyro_avae.sites import PLATE, Z, aux_sites
from pyro_avae.views import VIEWS, Gradient, View

__all__ = ["AVAEGuide", "ExtendedTarget"]


class ExtendedTarget(Protocol):
    """What the guide needs of its target."""

    num_views: int

    def observe_constant(self, z: Tensor) -> TorchDistribution:
        """p(x|z) with its parameters held constant."""
        ...


class AVAEGuide(AmortizedGuide):
    r"""The guide :math:`Q_{\mathrm{AVAE}} = q(z'|\tilde x;\eta)\, p_\theta(\tilde x|z)\, q(z|x;\eta)` as a program.

    ::

        z       ~ q(z | x)                    # site "z"
        x_aux   ~ p_theta(x | z)              # auxiliary: drawn and recorded, never scored; theta constant
        z_aux   ~ q(z | x_aux)                # site "z_aux"
        x_aux_2 ~ p_theta(x | z_aux), ...     # as many links as the model has views

    The gradient of the consistency term runs z_aux -> x_aux -> z -> encoder, and to the decoder only through z's own
    part in the coupling: :math:`\theta` is held constant in x_aux.

    Copy model and guide together, ``model, guide = copy.deepcopy((model, guide))``: ``copy.deepcopy(guide)`` alone
    makes a guide whose views come from a hidden copy of the model, which nobody trains.

    Args:
        encoder: see :class:`~pyro_avae.guides.AmortizedGuide`; it encodes both x and x_aux.
        model: the target, an :class:`~pyro_avae.models.ExtendedVAE` or a like one. It is used, not registered: its
            parameters appear in ``model.state_dict()`` alone.
        view: ``"sample"`` (the paper's text) or ``"mean"`` (the authors' code) of the decoder, or a
            :class:`~pyro_avae.views.View` of one's own.
        gradient: ``"through_z"``, ``"cut"`` (the authors' code), or ``None``: ``"through_z"`` where x_aux can be
            reparametrised, else ``"cut"``, which is logged. See :class:`~pyro_avae.views.DecoderSample`.

    Raises:
        InputError: a view or gradient that does not exist; a model that is no extended target.

    References:
        Cemgil et al. 2020 (arXiv 2012.03715), the bound B_AVAE; google-deepmind/deepmind-research ``avae/vae.py``.

    Example:
        >>> import torch
        >>> from pyro_avae.guides import LinearEncoder
        >>> from pyro_avae.models import ExtendedVAE
        >>> model = ExtendedVAE(torch.nn.Linear(2, 5), latent_dim=2)
        >>> guide = AVAEGuide(LinearEncoder(5, 2), model, view="mean", gradient="cut")
        >>> guide(torch.zeros(3, 5)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        encoder: nn.Module,
        model: ExtendedTarget,
        *,
        view: str | View = "sample",
        gradient: Gradient | None = None,
    ) -> None:
        super().__init__(encoder)
        for needed in ("observe_constant", "num_views"):
            if not hasattr(model, needed):
                raise InputError(
                    f"model: expected an extended target such as ExtendedVAE, but {type(model).__name__} has no"
                    f" {needed!r}"
                )
        self.view = _as_view(view, gradient)
        # In a tuple, so that nn.Module does not register the model a second time.
        self._target = (model,)

    @property
    def model(self) -> ExtendedTarget:
        """The target whose decoder makes the views."""
        return self._target[0]

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on the data ``x`` ``(B, *event)`` and return z."""
        register_parameters(self)
        if isinstance(self.model, nn.Module):
            # Before the decoder runs here: what was loaded into the store has to reach it first.
            register_parameters(self.model)
        encode: Callable[[Tensor], TorchDistribution] = partial(self.posterior, event_dim=x.dim() - 1)
        with pyro.plate(PLATE, len(x)):
            z = latent = pyro.sample(Z, encode(x))
            for x_aux, z_aux in aux_sites(self.model.num_views):
                view = self.view(x_aux, x, latent, decode=self.model.observe_constant, encode=encode)
                latent = pyro.sample(z_aux, encode(view))
        first: Tensor = z
        return first


def _as_view(view: str | View, gradient: Gradient | None) -> View:
    if not isinstance(view, str):
        if not callable(view):
            raise InputError(f"view: expected one of {sorted(VIEWS)} or a View object, got {view!r}")
        if gradient is not None:
            raise InputError("gradient: belongs to the view; give it to the view object instead of the guide")
        return view
    if view not in VIEWS:
        raise InputError(f"view: expected one of {sorted(VIEWS)} or a View object, got {view!r}")
    return VIEWS[view](gradient=gradient)
