"""The decoder of the Variational Lossy Autoencoder: what is local is left to the pixels next to each other."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyro_avae.compilation.trace import being_traced
from pyro_avae.errors import InputError
from pyro_avae.models.masked_convolution import MaskedConv2d, receptive_field
from pyro_avae.models.observation import Likelihood

__all__ = ["LossyDecoder", "ResidualBlock"]


class ResidualBlock(nn.Module):
    """``h + layer(elu(h))``, the layer one that keeps the order of pixels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, h: Tensor) -> Tensor:
        """``(B, channels, H, W)`` to the same shape."""
        out: Tensor = h + self.layer(nn.functional.elu(h))
        return out


class LossyDecoder(nn.Module):
    r"""An autoregressive decoder that sees z and a small window of the pixels before each,

    .. math:: p(x|z) = \prod_i p(x_i \,|\, z, x_{\mathrm{window}(i)}).

    What the window can tell (texture, the thickness of a stroke) is modelled there, at no cost in KL; z is left with
    what it cannot: a lossy code. The larger the window, the less of the image is in z; with a window over the whole
    image z may be left unused.

    A trunk maps z to feature maps of the image's size, every pixel of which may depend on all of z; a masked
    convolution sees the image, later ones what came of it; then layers of single pixels. The channels of a pixel are
    independent given z and the pixels before it.

    Args:
        trunk: maps ``(B, L)`` to features ``(B, features, H, W)``, such as a :class:`~pyro_avae.models.ConvDecoder`
            with ``output=None``.
        event_shape: ``(C, H, W)``.
        likelihood: maps the decoder's output ``(B, C * outputs, H, W)`` to a distribution over ``(B, C, H, W)``; to be
            given to the model too, see :class:`~pyro_avae.models.VAE`.
        features: channels of the trunk's output.
        kernels: ``(width, rows)`` of the blocks that the masked convolutions see above a pixel, of which they also see
            ``width // 2`` pixels to its left. One layer sees just its block; a stack of them sees further, with the
            blind spot of such stacks. By default one of 7x4, the best on CIFAR-10 there.
        channels: of the hidden layers.
        blocks: residual blocks of single pixels after each masked convolution.
        outputs: numbers that the likelihood takes for each channel of a pixel.
        output: applied to them; ``torch.sigmoid`` for means in [0, 1], ``None`` for logits.

    Raises:
        InputError: no masked convolution, or sizes out of range; an event that is no image.

    Example:
        >>> from pyro_avae.models import VAE, ConvDecoder, bernoulli
        >>> decoder = LossyDecoder(ConvDecoder(2, (4, 8, 8), output=None), (1, 8, 8), likelihood=bernoulli, features=4)
        >>> model = VAE(decoder, latent_dim=2, likelihood=bernoulli)
        >>> model.observe(torch.zeros(3, 2)).sample().shape
        torch.Size([3, 1, 8, 8])

    Source: Chen, Kingma, Salimans, Duan, Dhariwal, Schulman, Sutskever, Abbeel, *Variational Lossy Autoencoder*,
        ICLR 2017 (arXiv 1611.02731), section 3.1 and appendices; masked convolutions as in van den Oord et al. 2016
        (arXiv 1601.06759). Weight normalisation and tied weights are not in here.
    """

    def __init__(
        self,
        trunk: nn.Module,
        event_shape: Sequence[int],
        *,
        likelihood: Likelihood,
        features: int = 4,
        kernels: Sequence[tuple[int, int]] = ((7, 4),),
        channels: int = 32,
        blocks: int = 2,
        outputs: int = 1,
        output: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if len(event_shape) != 3:
            raise InputError(f"event_shape: expected (channels, height, width), got {tuple(event_shape)}")
        if not kernels:
            raise InputError("kernels: expected at least one masked convolution, got none")
        self.event_shape = tuple(event_shape)
        self.kernels = tuple((int(width), int(rows)) for width, rows in kernels)
        self.trunk = trunk
        self.likelihood = likelihood
        self.features = nn.Conv2d(features, channels, 1)
        (width, rows), *further = self.kernels
        self.image = MaskedConv2d(self.event_shape[0], channels, rows=rows, width=width, centre=False)
        layers: list[nn.Module] = [_pixelwise(channels, blocks)]
        for width, rows in further:
            layers.append(ResidualBlock(MaskedConv2d(channels, channels, rows=rows, width=width, centre=True)))
            layers.append(_pixelwise(channels, blocks))
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(channels, self.event_shape[0] * outputs, 1)
        self.output = output

    @property
    def receptive_field(self) -> tuple[int, int, int]:
        """Rows above a pixel that it sees, columns to the left, and columns to the right in the rows above."""
        return receptive_field(self.kernels)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """``(B, L)`` and ``(B, C, H, W)`` to the likelihood's parameters ``(B, C * outputs, H, W)``."""
        return self._pixels(self.features(self.trunk(z)), x)

    def _pixels(self, features: Tensor, x: Tensor) -> Tensor:
        # The image centred, so that the zeros outside of it are none of its values' extremes.
        hidden = features + self.image(x.to(features.dtype) - 0.5)
        out: Tensor = self.last(nn.functional.elu(self.layers(hidden)))
        return out if self.output is None else self.output(out)

    def sample(self, z: Tensor) -> Tensor:
        """Draw x, ``(B, *event)``, pixel after pixel: one run of the layers on the receptive field for each.

        Of ``H * W`` runs; the trunk runs once.
        """
        if being_traced():
            raise InputError(
                "decoder: an autoregressive sample is drawn one pixel after another, which is not traced; leave the"
                " step uncompiled (--no-compile), with one seed at a time"
            )
        features = self.features(self.trunk(z))
        above, left, right = self.receptive_field
        _, height, width = self.event_shape
        x = features.new_zeros(len(z), *self.event_shape)
        for i in range(height):
            top = max(i - above, 0)
            for j in range(width):
                start, end = max(j - left, 0), min(j + right, width - 1) + 1
                # Only what the pixel sees: what lies outside of the crop cannot reach it.
                out = self._pixels(features[:, :, top : i + 1, start:end], x[:, :, top : i + 1, start:end])
                pixel = out[:, :, i - top : i - top + 1, j - start : j - start + 1]
                x[:, :, i : i + 1, j : j + 1] = self.likelihood(pixel).sample()
        return x


def _pixelwise(channels: int, blocks: int) -> nn.Module:
    return nn.Sequential(*(ResidualBlock(nn.Conv2d(channels, channels, 1)) for _ in range(blocks)))
