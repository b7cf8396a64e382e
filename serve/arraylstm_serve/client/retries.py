"""When to try again, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass

from arraylstm_serve.client.errors import ClientError


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often and how patiently a call is tried.

    Before try n + 1 it waits what the server's Retry-After says, and a random time of up to `first` * 2 ** (n - 1)
    seconds beyond, so that clients that failed together do not come back together.
    """

    tries: int = 6
    """Most tries of one call; 1 tries no call again."""

    first: float = 0.2
    """Seconds that the first pause takes at most."""

    longest: float = 10.0
    """Seconds that any pause takes at most; a server that wants more patience ends the tries."""

    def pause(self, tried: int, error: ClientError) -> float:
        """Seconds to wait before the next try.

        Args:
            tried: how many tries have been made.
            error: how the last one ended.

        Raises:
            ClientError: the error itself, where a further try would not help or is one too many.
        """
        asked = error.retry_after or 0.0
        if not error.passing or tried >= self.tries or asked > self.longest:
            raise error
        return min(self.longest, asked + random.uniform(0, self.first * 2 ** (tried - 1)))
