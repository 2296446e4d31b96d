"""The three ways noise enters a matrix product.

A wrapped matrix has a posterior N(theta, sigma^2) per weight, parametrised by theta and s = log sigma^2.

``local``
    The local reparameterization (Kingma et al. 2015, arXiv 1506.02557, Eq. 6; Molchanov et al. 2017, arXiv
    1701.05369, Eq. 17): the noise is drawn on the pre-activation, independently for every row.
``row``
    The same with one standard normal draw for each output unit, shared by all the rows of a session (an example).
``weight``
    The weight matrix itself is drawn, so all the rows of one call share it (Chirkova et al. 2018). Exact.

They agree in the moments of one row and differ in the covariance between rows a and a', with delta the variance of a
pre-activation: zero under ``local``; sqrt(delta delta') within a session, the most that is possible, and zero between
sessions under ``row``; sum_i a_i a'_i sigma_i^2 under ``weight``. Where rows are averaged afterwards (graph
propagation), ``local`` noise is averaged away and sigma grows more easily.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.errors import DissectError

NOISES = ("local", "row", "weight")
EPSILON = 1e-8


def check_noise(noise: str) -> str:
    """Return `noise` if it is the name of a noise mode; raise DissectError with the choices if not."""
    if noise not in NOISES:
        raise DissectError(f"unknown noise {noise!r}; choose from {', '.join(NOISES)}")
    return noise


def noisy(gamma: Tensor, delta: Tensor, eps: Tensor | None) -> Tensor:
    """gamma + sqrt(delta + 1e-8) eps: pre-activations of mean `gamma` and variance `delta`.

    `eps` is standard normal and broadcasts against both; a fresh draw for every pre-activation where it is None.
    """
    if eps is None:
        eps = torch.randn_like(gamma)
    return torch.addcmul(gamma, (delta + EPSILON).sqrt(), eps)


def local_linear(a: Tensor, theta: Tensor, s: Tensor, bias: Tensor | None, eps: Tensor | None = None) -> Tensor:
    """Linear map with noise on the pre-activations.

    Parameters
    ----------
    a : Tensor, shape (..., in)
        Input rows. A row of zeros still gets noise of standard deviation 1e-4 from the 1e-8 under the root,
        so padding has to be masked after the call (or, better, packed away before it).
    theta, s : Tensor, shape (out, in)
        Means and log variances.
    bias : Tensor of shape (out,) or None
        Deterministic.
    eps : Tensor, shape (..., out) or one that broadcasts to it, optional
        Standard normal noise to use in place of a fresh draw for every row.

    Returns
    -------
    Tensor, shape (..., out)
        Computed in the precision of `s`, also under autocast, where 1e-8 would underflow in half precision;
        the result then has the type that autocast gives to a dense linear map.
    """
    device, dtype = a.device.type, s.dtype
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            out = local_linear(a.to(dtype), theta, s, bias, eps)
        return out.to(torch.get_autocast_dtype(device))
    # Gradients are left to autograd: six matrix products decide the time, and writing them out saved none.
    rows = a.to(dtype)
    gamma = F.linear(rows, theta.to(dtype), None if bias is None else bias.to(dtype))  # (..., out)
    delta = F.linear(rows * rows, s.exp())  # (..., out)
    return noisy(gamma, delta, eps).to(torch.promote_types(a.dtype, theta.dtype))


def sample_weight(theta: Tensor, s: Tensor, eps: Tensor | None = None) -> Tensor:
    """One draw of a weight matrix, theta + exp(s / 2) eps.

    Parameters
    ----------
    theta, s : Tensor, any common shape
        Means and log variances.
    eps : Tensor, same shape, optional
        Standard normal noise to use in place of a fresh draw.
    """
    if eps is None:
        eps = torch.randn_like(s)
    return torch.addcmul(theta.to(s.dtype), (0.5 * s).exp(), eps).to(theta.dtype)
