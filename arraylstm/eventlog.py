"""A generated event log: sessions of a web shop drawn from a small grammar. Nothing has to be downloaded.

The grammar has branches (search or browse, buy or leave), loops (pages, failed log-ins) and rare events (errors, fraud
checks). It remembers what happened before: a search leads to results, a failed payment to another try.
"""

import random

_GRAMMAR: dict[str, list[tuple[float, list[str]]]] = {
    "SESSION": [(9, ["session.start", "ENTRY", "VISIT", "session.end"]), (1, ["session.start", "VISIT"])],
    "ENTRY": [(6, ["login.ok"]), (2, ["LOGIN_RETRY"]), (2, ["guest"])],
    "LOGIN_RETRY": [(5, ["login.failed", "login.ok"]), (2, ["login.failed", "LOGIN_RETRY"]), (1, ["LOCKED"])],
    "LOCKED": [(1, ["login.failed", "account.locked", "password.reset", "mail.sent", "login.ok"])],
    "VISIT": [(4, ["LOOK", "VISIT"]), (4, ["LOOK", "BUY"]), (2, ["LOOK"])],
    "LOOK": [(5, ["SEARCH"]), (4, ["BROWSE"]), (0.1, ["error.500", "page.retry", "SEARCH"])],
    "SEARCH": [(5, ["search", "results", "PICK"]), (2, ["search", "results.empty", "SEARCH"])],
    "BROWSE": [(3, ["category", "PAGES", "PICK"]), (1, ["recommended", "PICK"])],
    "PAGES": [(6, ["page.next"]), (4, ["page.next", "PAGES"])],
    "PICK": [(7, ["product.view", "images"]), (3, ["product.view", "images", "reviews"])],
    "BUY": [(8, ["cart.add", "cart.view", "PAY"]), (2, ["cart.add", "cart.view", "cart.remove"])],
    "PAY": [(8, ["checkout", "address", "payment.ok", "mail.sent"]), (2, ["checkout", "address", "PAY_RETRY"])],
    "PAY_RETRY": [
        (7, ["payment.failed", "payment.ok", "mail.sent"]),
        (2, ["payment.failed", "PAY_RETRY"]),
        (0.2, ["FRAUD"]),
    ],
    "FRAUD": [(1, ["fraud.check", "fraud.check", "account.locked", "mail.sent"])],
}


def generate_sessions(count: int, seed: int = 0) -> list[list[str]]:
    """Draw `count` sessions of event names; the same seed draws the same sessions."""
    source = random.Random(seed)
    return [_expand("SESSION", source) for _ in range(count)]


def _expand(symbol: str, source: random.Random) -> list[str]:
    if symbol not in _GRAMMAR:
        return [symbol]
    weights, productions = zip(*_GRAMMAR[symbol], strict=True)
    chosen = source.choices(productions, weights)[0]
    return [event for part in chosen for event in _expand(part, source)]
