"""The variables `ARRAYLSTM_*`: those that are settings, those that Kubernetes sets, and those that are neither."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import fields
from difflib import get_close_matches

from cyclopts import App, ArgumentCollection
from cyclopts.config import Env

from arraylstm_serve.settings import Settings

PREFIX = "ARRAYLSTM_"
NAMES = ["BUNDLE", *(field.name.upper() for field in fields(Settings))]
"""What may follow the prefix."""

_SERVICE_LINK = re.compile(
    r"\w+_SERVICE_(HOST|PORT\w*)=.*"
    r"|\w+_PORT(_\d+_[A-Z]+)?=(tcp|udp|sctp)://.*"
    r"|\w+_PORT_\d+_[A-Z]+_(PROTO|PORT|ADDR)=.*",
    re.DOTALL,
)

logger = logging.getLogger(__name__)


class Variables(Env):
    """Settings from variables, links to services apart.

    Kubernetes gives every pod links to the Services of its namespace: one called `arraylstm` makes ARRAYLSTM_PORT
    `tcp://10.0.0.1:8080`.
    """

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Give the arguments what variables say, service links apart."""
        super().__call__(app, commands, arguments)
        for argument in arguments:
            argument.tokens = [
                token for token in argument.tokens if not is_service_link(token.keyword or "", token.value)
            ]


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes, or Docker's --link, tells by a variable where a service is."""
    return _SERVICE_LINK.fullmatch(f"{name}={value}") is not None


def tell_what_is_no_setting() -> None:
    """Log which variables look like settings and set nothing: service links in one line, a warning for each other."""
    links = []
    for variable in sorted(name for name in os.environ if name.startswith(PREFIX)):
        name = variable.removeprefix(PREFIX)
        if is_service_link(variable, os.environ[variable]):
            links.append(variable)
        elif name not in NAMES:
            nearest = get_close_matches(name, NAMES, n=1)
            advice = f"did you mean {PREFIX}{nearest[0]}?" if nearest else "arraylstm-serve --help lists them all"
            logger.warning("%s is no setting; %s", variable, advice)
    if links:
        logger.info("ignored, for they are Kubernetes's links to services: %s", ", ".join(links))
