"""When to try again, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass

from arraylstm_serve.client.errors import ClientError


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often to try a call, and how long to wait in between.

    Before try n + 1 the client waits for the server's Retry-After, and after it for a random time of up to
    `first` * 2 ** (n - 1) seconds, so that clients that failed together do not come back together.
    """

    tries: int = 6
    """Most tries of one call; 1 means no retries."""

    first: float = 0.2
    """Most seconds of the first random wait."""

    longest: float = 10.0
    """Most seconds of any wait. If the server asks for a longer one, the call is not tried again."""

    def pause(self, tried: int, error: ClientError) -> float:
        """Return the seconds to wait before the next try.

        Args:
            tried: how many tries were made.
            error: how the last one ended.

        Raises:
            ClientError: the error itself, if another try would not help or would be one too many.
        """
        asked = error.retry_after or 0.0
        if not error.passing or tried >= self.tries or asked > self.longest:
            raise error
        return min(self.longest, asked + random.uniform(0, self.first * 2 ** (tried - 1)))
