"""Every attack. To add one, write a function with the decorator `attack` in one of the modules named here."""

from hostile import bodies, connections, events, pages, streams
from hostile.registry import LISTED, Attack

_MODULES = (connections, pages, streams, events, bodies)
_ORDER = [module.__name__ for module in _MODULES]

ATTACKS: dict[str, Attack] = {
    attack.name: attack for attack in sorted(LISTED, key=lambda attack: _ORDER.index(attack.run.__module__))
}
"""The attacks by name, in the order of the table."""
