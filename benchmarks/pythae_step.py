"""A step of pythae's VAE (Chadebec et al. 2022, https://github.com/clementchadebec/benchmark_VAE): the VAE alone.

Needs ``pip install --no-deps pythae`` and ``pip install cloudpickle pydantic``: with its dependencies, it wants a
backport of ``dataclasses`` that Python has had since 3.7.
"""

from collections.abc import Callable

import torch
from pythae.data.datasets import DatasetOutput
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor, nn

from pyro_avae.errors import InputError

__all__ = ["pythae_step"]


class _Encoder(BaseEncoder):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> ModelOutput:
        loc, scale = self.network(x)
        return ModelOutput(embedding=loc, log_covariance=2 * scale.log())


class _Decoder(BaseDecoder):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z))


def pythae_step(
    name: str, encoder: nn.Module, decoder: nn.Module, x: Tensor, *, latent_dim: int, lr: float
) -> Callable[[], float]:
    """One step of Adam on pythae's loss, as its trainer does one; returns the loss.

    Raises:
        InputError: a method that pythae does not have.
    """
    if name != "vae":
        raise InputError(f"pythae: expected its vae, got {name}, which it does not have")
    # Not the loss of the others: |x - decoder|^2 / 2 + KL is theirs at obs_variance = 1 instead of 0.5, without the
    # constant of the Gaussian. The operations are the same but for a multiplication.
    config = VAEConfig(input_dim=tuple(x.shape[1:]), latent_dim=latent_dim, reconstruction_loss="mse")
    model = VAE(config, encoder=_Encoder(encoder), decoder=_Decoder(decoder)).to(x.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    batch = DatasetOutput(data=x)

    def step() -> float:
        loss: Tensor = model(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()  # summed over the epoch by its trainer

    return step
