"""Histories: what clients asked of servers and what came of it, recorded by a workload and checked offline.

    python -m tests.histories.workload BUNDLE URL... -o FILE     drives servers and records
    python -m tests.histories.check FILE --bundle BUNDLE         checks

`history` has the format, and `client` sends and records. `labels` has the items, `replay` the model, and `rules` is
what a right server does. `answers` is how an answer is judged, `order` the search for an order of a session's calls,
`places` its places, and `explain` what a wrong answer looks like.
"""
