"""The error function and its complement in float64, by NumPy, within 4 ulp.

For |x| ≤ 1, erf is x times a polynomial in x². Beyond, erfc is e^(-x²) / (1 + 2x) times a
polynomial in (x - 3.75) / (x + 3.75), which varies little from 0 to infinity (Shepherd and
Laframboise, "Chebyshev approximation of (1 + 2x) exp(x²) erfc x in 0 ≤ x < ∞", Mathematics of
Computation 36(153), 1981). The coefficients are those of the interpolation at Chebyshev nodes.
"""

from __future__ import annotations

import numpy as np

from graphexec.base.tensor import Array

_ERF = (
    0.9754769393826541, -0.14226120510371365, 0.010035582187599796, -0.0005768764699767485,
    2.741993125219606e-05, -1.1043175507344507e-06, 3.8488755420345036e-08,
    -1.1808582533875466e-09, 3.2334215826050907e-11, -7.991015947004549e-13,
    1.799072511396137e-14, -3.7186354877527125e-16, 7.103598527027531e-18,
    -1.2609201146052294e-19,
)  # fmt: skip
_ERFC = (
    1.2205401653970334, -0.062037412614222374, -0.02367804313372185, 0.018302263120552362,
    -0.007136366145070548, 0.002016024912366754, -0.00043937367178855047, 7.314036049014107e-05,
    -8.53654992845644e-06, 4.674955592476453e-07, 4.932947037578724e-08, -1.292570284854447e-08,
    6.358198383328227e-10, 1.527122718164855e-10, -2.3410432677923364e-11,
    -1.1613678479430406e-12, 5.122506422129904e-13, -1.238293978707739e-15,
    -1.0491839067908515e-14, 3.2160706225850133e-16, 2.2494759469224586e-16,
    -9.768781778279784e-18, -5.367734254362916e-18,
)  # fmt: skip
_WIDEST = 49 / 64  # of (x - 3.75) / (x + 3.75): x from 0.5 to 28, where erfc is 0
_MIDDLE = 3.75


def erf(x: Array) -> Array:
    """The error function of float64."""
    beyond = np.copysign(1 - _tail(np.abs(x)), x)
    return np.where(np.abs(x) <= 1, _near(x), beyond)


def erfc(x: Array) -> Array:
    """1 - erf(x) of float64, also where erf(x) rounds to 1."""
    tail = _tail(np.abs(x))
    return np.where(np.abs(x) <= 0.5, 1 - _near(x), np.where(x < 0, 2 - tail, tail))


def _near(x: Array) -> Array:
    """erf for |x| ≤ 1."""
    x = np.where(np.abs(x) <= 1, x, 0)
    return x * _chebyshev(_ERF, 2 * x * x - 1)


def _tail(x: Array) -> Array:
    """erfc for x ≥ 0.5."""
    x = np.clip(x, 0.5, 28)  # NaN stays
    factor = _chebyshev(_ERFC, (x - _MIDDLE) / (x + _MIDDLE) / _WIDEST)
    high = x.astype(np.float32).astype(np.float64)  # its square is exact
    found: Array = np.exp(-high * high) * (factor / (1 + 2 * x))
    found += found * np.expm1((high - x) * (high + x))
    return found


def _chebyshev(coefficients: tuple[float, ...], x: Array) -> Array:
    """A sum of Chebyshev polynomials, by Clenshaw's recurrence."""
    last, before = np.zeros_like(x), np.zeros_like(x)
    for coefficient in coefficients[:0:-1]:
        last, before = coefficient + 2 * x * last - before, last
    found: Array = coefficients[0] + x * last - before
    return found
