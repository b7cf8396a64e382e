"""Print the lowest version of every dependency that pyproject.toml allows, as constraints for pip.

python tests/oldest.py EXTRA... > oldest.txt
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
OURS = re.compile(r"arraylstm-serving\[(.*)\]")
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[.*\])?>=(?P<lowest>[\w.]+)(\s*;.*)?")


def lowest(extras):
    """Return the lowest version of each dependency of some extras, by its name."""
    offered = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    found = {}
    for extra in extras:
        for requirement in offered[extra]:
            if ours := OURS.fullmatch(requirement):
                found |= lowest(ours[1].split(","))
            else:
                match = REQUIREMENT.fullmatch(requirement)
                if match is None:
                    sys.exit(f"oldest.py: {requirement!r} in {extra} has no lower bound, name>=version")
                found[match["name"]] = match["lowest"]
    return found


if __name__ == "__main__":
    for name, version in sorted(lowest(sys.argv[1:]).items()):
        print(f"{name}=={version}")
