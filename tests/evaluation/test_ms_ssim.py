"""MS-SSIM against the definition, written out."""

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.evaluation import ms_ssim, ms_ssim_settings


def pictures(*shape):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, *shape, generator=generator, dtype=torch.float64)


def gaussian_window():
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    one = torch.exp(-0.5 * (offsets / 1.5) ** 2)
    return torch.outer(one, one) / one.sum() ** 2


def statistics(a, b):
    """Window by window over one reflected channel: luminance and contrast-structure, each ``(H, W)``."""
    window = gaussian_window()
    a, b = (torch.nn.functional.pad(t[None, None], (5, 5, 5, 5), mode="reflect")[0, 0] for t in (a, b))
    height, width = a.shape[0] - 10, a.shape[1] - 10
    luminance, contrast = torch.empty(height, width).double(), torch.empty(height, width).double()
    for i in range(height):
        for j in range(width):
            pa, pb = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            ma, mb = (window * pa).sum(), (window * pb).sum()
            va, vb = (window * (pa - ma) ** 2).sum(), (window * (pb - mb) ** 2).sum()
            cov = (window * (pa - ma) * (pb - mb)).sum()
            luminance[i, j] = (2 * ma * mb + 0.01**2) / (ma**2 + mb**2 + 0.01**2)
            contrast[i, j] = (2 * cov + 0.03**2) / (va + vb + 0.03**2)
    return luminance, contrast


@pytest.mark.parametrize("shape", [(1, 11, 13), (3, 28, 28), (1, 64, 64)])
def test_equal_images_are_at_one(shape):
    x = pictures(4, *shape)[0]
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(4, dtype=torch.float64))


def test_one_scale_is_the_mean_of_luminance_times_contrast():
    a, b = pictures(1, 1, 16, 16)
    b = 0.7 * a + 0.3 * b
    luminance, contrast = statistics(a[0, 0], b[0, 0])
    # rounding only, but of float32: torchmetrics holds its window and exponents in it
    torch.testing.assert_close(ms_ssim(a, b)[0], (luminance * contrast).mean(), rtol=1e-5, atol=0)


def test_two_scales_weigh_contrast_of_the_finer_and_all_of_the_coarser():
    a, b = pictures(1, 1, 28, 28)
    b = 0.7 * a + 0.3 * b
    _, contrast = statistics(a[0, 0], b[0, 0])
    coarse = (torch.nn.functional.avg_pool2d(t, 2)[0, 0] for t in (a, b))
    coarse_luminance, coarse_contrast = statistics(*coarse)
    first, second = 0.0448 / 0.3304, 0.2856 / 0.3304
    # the contrast of a finer scale is averaged over windows that lie within the image
    expected = contrast[5:-5, 5:-5].mean() ** first * (coarse_luminance * coarse_contrast).mean() ** second
    torch.testing.assert_close(ms_ssim(a, b)[0], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (21, 1), (22, 2), (44, 3), (98, 3), (99, 4), (175, 4), (176, 5)])
def test_the_scales_grow_with_the_image_and_torchmetrics_takes_them(side, scales):
    settings = ms_ssim_settings((1, side, side + 3))
    assert settings["scales"] == scales == len(settings["exponents"])
    assert sum(settings["exponents"]) == pytest.approx(1.0, abs=2.5e-4)  # each is rounded to 4 digits
    a, b = pictures(1, 1, side, side + 3)
    assert 0 <= float(ms_ssim(a, b)) < 1


def test_every_image_of_a_batch_has_its_own_number():
    a, b = pictures(3, 3, 28, 28)
    together = ms_ssim(a, b)
    assert together.shape == (3,)
    torch.testing.assert_close(together[1:2], ms_ssim(a[1:2], b[1:2]))


def test_what_has_no_room_for_a_window_is_refused():
    assert ms_ssim_settings((1, 10, 30)) is None
    assert ms_ssim_settings((784,)) is None
    with pytest.raises(InputError, match="11 pixels or more"):
        ms_ssim(torch.rand(2, 1, 10, 30), torch.rand(2, 1, 10, 30))
    with pytest.raises(InputError, match="of one shape"):
        ms_ssim(torch.rand(2, 1, 28, 28), torch.rand(1, 1, 28, 28))
