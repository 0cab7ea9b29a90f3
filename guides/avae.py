"""The AVAE's guide: encode, decode a view, encode again."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import pyro
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_avae.batching import batch_size
from pyro_avae.coupling import Coupling
from pyro_avae.errors import InputError
from pyro_avae.guides.amortized import AmortizedGuide, Dynamics
from pyro_avae.joint import JOINTS, FactorisedJoint, Joint
from pyro_avae.parameters import register_parameters
from pyro_avae.sites import PLATE, aux_sites
from pyro_avae.statistics import Statistics, statistics_layers, untouched_statistics
from pyro_avae.views import VIEWS, DecoderSample, Gradient, View

__all__ = ["AVAEGuide", "ExtendedTarget"]


class ExtendedTarget(Protocol):
    """What the guide needs of its target."""

    num_views: int

    @property
    def couplings(self) -> Mapping[str, Coupling]:
        """The coupling of each branch, by the branch's name."""
        ...

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
        x_smooth, z_smooth, ...               # as many branches as the model has couplings, each from z

    The gradient of the consistency term runs z_aux -> x_aux -> z -> encoder, and to the decoder only through z's own
    part in the coupling: :math:`\theta` is held constant in x_aux.

    Copy model and guide together, ``model, guide = copy.deepcopy((model, guide))``: ``copy.deepcopy(guide)`` alone
    makes a guide whose views come from a hidden copy of the model, which nobody trains.

    Args:
        encoder: see :class:`~pyro_avae.guides.AmortizedGuide`; it encodes both x and x_aux.
        model: the target, an :class:`~pyro_avae.models.ExtendedVAE` or a like one. It is used, not registered: its
            parameters appear in ``model.state_dict()`` alone.
        view: ``"sample"`` (the paper's text) or ``"mean"`` (the authors' code) of the decoder, or a
            :class:`~pyro_avae.views.View` such as :class:`~pyro_avae.worst_case.WorstCase`, or one's own; of a model
            with several branches, one for each by the branch's name.
        gradient: ``"through_z"``, ``"cut"`` (the authors' code), or ``None``: ``"through_z"`` where x_aux can be
            reparametrised, else ``"cut"``, which is logged. See :class:`~pyro_avae.views.DecoderSample`.
        joint: how z_aux is tied to the z that was drawn: ``"factorised"`` (the AVAE's), ``"optimal"``, or a
            :class:`~pyro_avae.joint.Joint`; or one for each branch.
        input_noise: see :class:`~pyro_avae.guides.AmortizedGuide`; views are encoded as they are.
        statistics: what batch normalisation uses on views, ``"batch"`` or ``"running"``. Running statistics are
            updated by the pass on real data alone.
        dynamics: see :class:`~pyro_avae.guides.AmortizedGuide`. It moves z; encodings of views are not moved. Given
            with a joint that conditions on z's own Gaussian (``"optimal"``), it is refused: z has none any more.

    Raises:
        InputError: a view, gradient, joint or kind of statistics that does not exist; a view for another branch than
            the model's; a model that is no extended target.

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
        view: str | View | Mapping[str, str | View] = "sample",
        gradient: Gradient | None = None,
        joint: str | Joint | Mapping[str, str | Joint] = "factorised",
        input_noise: float = 0.0,
        statistics: Statistics = "batch",
        dynamics: Dynamics | None = None,
    ) -> None:
        super().__init__(encoder, input_noise=input_noise, dynamics=dynamics)
        for needed in ("observe_constant", "num_views", "couplings"):
            if not hasattr(model, needed):
                raise InputError(
                    f"model: expected an extended target such as ExtendedVAE, but {type(model).__name__} has no"
                    f" {needed!r}"
                )
        branches = tuple(model.couplings)
        self.views: dict[str, View] = {
            # Beside views that are objects, the gradient is that of those given by name.
            branch: _as_view(part, gradient if isinstance(part, str) or not isinstance(view, Mapping) else None)
            for branch, part in _each(view, branches, name="view").items()
        }
        self.joints: dict[str, Joint] = {
            branch: _as_joint(part) for branch, part in _each(joint, branches, name="joint").items()
        }
        if dynamics is not None and any(not isinstance(joint, FactorisedJoint) for joint in self.joints.values()):
            raise InputError("joint: expected factorised beside dynamics, after which z is no Gaussian given x")
        self.statistics = statistics
        # In a tuple, so that nn.Module does not register the model a second time.
        self._target = (model,)
        with untouched_statistics(self._layers(), use=statistics):
            pass  # refuses a kind of statistics that does not exist

    @property
    def model(self) -> ExtendedTarget:
        """The target whose decoder makes the views."""
        return self._target[0]

    @property
    def sequential(self) -> bool:
        """Whether a view is drawn from the model one pixel after another; such a step is not traced."""
        decoded = any(isinstance(view, DecoderSample) for view in self.views.values())
        return decoded and bool(getattr(self.model, "sequential", False))

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on the data ``x`` ``(B, *event)`` and return z."""
        register_parameters(self)
        if isinstance(self.model, nn.Module):
            # Before the decoder runs here: what was loaded into the store has to reach it first.
            register_parameters(self.model)
        plate = pyro.plate(PLATE, batch_size(x))
        encode: Callable[[Tensor], TorchDistribution] = partial(self.posterior, event_dim=x.dim() - 1)
        with plate:
            posterior = encode(self.noisy(x))
        z = self.draw(x, posterior, plate)
        with plate:
            self.reencode(x, z, posterior, encode)
        return z

    def reencode(
        self, x: Tensor, z: Tensor, posterior: TorchDistribution, encode: Callable[[Tensor], TorchDistribution]
    ) -> None:
        """The sites of every branch, inside the plate.

        Args:
            x: the data.
            z: the latent that all branches start from.
            posterior: what z was drawn from.
            encode: x to q(z|x).
        """
        layers = self._layers()
        for branch, coupling in self.model.couplings.items():
            seen, latent, drawn_from = x, z, posterior
            for x_aux, z_aux in aux_sites(self.model.num_views, branch):
                with untouched_statistics(layers, use=self.statistics):
                    seen = self.views[branch](x_aux, seen, latent, decode=self.model.observe_constant, encode=encode)
                    encoded = encode(seen)
                latent = pyro.sample(z_aux, self.joints[branch](latent, drawn_from, encoded, coupling))
                drawn_from = encoded

    def _layers(self) -> list[nn.Module]:
        """The layers of encoder and decoder that keep running statistics."""
        modules = (self.encoder, *([self.model] if isinstance(self.model, nn.Module) else []))
        return [layer for module in modules for layer in statistics_layers(module)]


def _each(parts: Any, branches: tuple[str, ...], *, name: str) -> dict[str, Any]:
    """A part for each branch: the one given for all, or those given by name."""
    if not isinstance(parts, Mapping):
        return dict.fromkeys(branches, parts)
    if set(parts) != set(branches):
        raise InputError(f"{name}: expected one for each branch of the model, {list(branches)}, got {list(parts)}")
    return dict(parts)


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


def _as_joint(joint: str | Joint) -> Joint:
    if isinstance(joint, str) and joint in JOINTS:
        return JOINTS[joint]()
    if isinstance(joint, str) or not callable(joint):
        raise InputError(f"joint: expected one of {sorted(JOINTS)} or a Joint object, got {joint!r}")
    return joint
