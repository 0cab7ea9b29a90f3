"""Reconstruction error against linear algebra."""

import torch

from pyro_avae.evaluation import reconstruct, squared_error


def test_ppca_reconstructs_by_its_own_projection(exact_pair) -> None:
    model, guide = exact_pair(7, 3)
    x = torch.randn(5, 7, dtype=torch.float64)
    weight, nu = model.weight.detach(), model.obs_variance
    mean = model.mean.detach()
    inverse = torch.linalg.inv(weight.T @ weight + nu * torch.eye(3, dtype=torch.float64))
    expected = (x - mean) @ weight @ inverse @ weight.T + mean
    torch.testing.assert_close(reconstruct(model, guide, x).detach(), expected)
    torch.testing.assert_close(squared_error(model, guide, x), ((x - expected) ** 2).sum(-1))


def test_the_error_is_summed_over_every_pixel(trained) -> None:
    x, _ = trained.data.test.fixed_batch(torch.arange(6))
    error = squared_error(trained.model, trained.guide, x)
    with torch.no_grad():
        output = trained.model.decoder(trained.guide.encoder(x)[0])
    torch.testing.assert_close(error, ((x - output) ** 2).sum((1, 2, 3)))
    assert not error.requires_grad
