"""Times for people."""

from __future__ import annotations


def shown(us: float, digits: int = 3) -> str:
    """Microseconds for people, with so many digits: "9.4 µs", "37.55 ms"."""
    # What is rounded up to 1,000 of a unit is one of the next: never "1e+03".
    for unit in ("µs", "ms"):
        if float(f"{us:.{digits}g}") < 1000:
            return f"{us:.{digits}g} {unit}"
        us /= 1000
    return f"{us:.{digits}g} s" if us < 1e4 else f"{us:,.0f} s"
