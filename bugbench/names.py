"""Clear errors for wrong names: what was wrong, and the nearest right ones."""

from collections.abc import Iterable
from difflib import get_close_matches


class UnknownName(LookupError):
    """A name that nothing in the catalogue has; the message lists the nearest right ones."""

    def __str__(self) -> str:  # LookupError would print its argument's repr
        return str(self.args[0])


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to ``count`` known names like ``name``, the most similar first."""
    known = sorted(known)
    contained = [k for k in known if len(name) > 3 and name in k]
    return list(dict.fromkeys(get_close_matches(name, known, n=count, cutoff=0.55) + contained))[:count]


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> str:
    """Return the message for an unknown name, e.g. "unknown bug 'sofmax_dim': did you mean softmax_dim?"."""
    known = sorted(known)
    close = nearest(name, known)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
    return f"{where}{': ' if where else ''}unknown {kind} {name!r}: {hint}"
