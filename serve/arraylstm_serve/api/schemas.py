"""The types of every request and answer. The OpenAPI document is made from them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Item = Annotated[Integer | str, Meta(examples=["cart"])]
Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]
SESSION_ID = r"(?!\.{1,2}$)[A-Za-z0-9._:~-]{1,128}"
SessionId = Annotated[
    str,
    Meta(
        pattern=f"^{SESSION_ID}$(?!\n)",
        description="The session's name, chosen by the client.",
        examples=["visitor-4711"],
    ),
]
KEY = "[ -~]{1,255}"
Key = Annotated[
    str,
    Meta(
        pattern=f"^{KEY}$(?!\n)",
        description="Names the request: a repeat gets the first answer and changes nothing.",
        examples=["5f0c9a36"],
    ),
]
KEYS_REMEMBERED = 16
"""How many idempotency keys a session remembers. A retry is safe if it repeats one of its last so many requests."""
TopK = Annotated[
    Natural,
    Meta(description="How many predictions to return; all items if the model has fewer.", examples=[3]),
]
Items = Annotated[
    list[Item],
    Meta(
        min_length=1,
        description="Item labels, oldest first; integer ids if the model has no labels. An integer and its digits as a "
        "text mean the same label, unless both are labels.",
        examples=[["home", "search"]],
    ),
]
ExpectedStep = Annotated[Natural, Meta(description="Apply only if the session is at this step.", examples=[0])]
End = Annotated[
    bool,
    Meta(description="Whether the session ends with these items; its answers for idempotency keys are kept."),
]
Exclude = Annotated[
    list[Item],
    Meta(
        description="Items to leave out of the predictions; the probabilities of the others do not change.",
        examples=[["home"]],
    ),
]
Fingerprint = Annotated[
    str, Meta(description="The fingerprint of the model that answered.", examples=[f"sha256:{'0f' * 32}"])
]
Step = Annotated[int, Meta(ge=0, description="How many items the session has consumed.", examples=[2])]
Time = Annotated[datetime, Meta(tz=True, examples=["2026-01-31T12:00:00Z"])]
Probability = Annotated[float, Meta(ge=0, le=1, examples=[0.42])]


class EventsRequest(Struct, forbid_unknown_fields=True, gc=False):
    """Items that a session has just seen."""

    items: Items
    top_k: TopK = 10
    expected_step: ExpectedStep | None = None
    exclude: Exclude = []
    end: End = False


class BulkEvent(EventsRequest, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Items that one of many sessions has just seen."""

    session_id: SessionId
    idempotency_key: Key | None = None


class BulkRequest(Struct, forbid_unknown_fields=True):
    """Events of many sessions; those of one session apply in the order listed."""

    events: Annotated[list[BulkEvent], Meta(min_length=1)]


class PredictRequest(Struct, forbid_unknown_fields=True, gc=False):
    """A whole history, to predict from without a session."""

    items: Items
    top_k: TopK = 10
    exclude: Exclude = []


class PeekQuery(Struct, forbid_unknown_fields=True):
    """The query parameters of a session's predictions."""

    top_k: TopK = 10


class Prediction(Struct, gc=False):
    """An item that may come next."""

    item: Item
    probability: Probability


class Observation(Struct, omit_defaults=True, gc=False):
    """What the model expected of an item before it saw it; null where it had seen nothing yet."""

    item: Item
    probability: Probability | None
    rank: (
        Annotated[int, Meta(ge=1, description="1 + the number of known items that were more likely.", examples=[1])]
        | None
    )
    unknown: Annotated[
        bool,
        Meta(
            description="Whether the model has no such label. It scored the item as its unknown item; or the item "
            "was left out, and its probability is null. Its rank is behind all items that can be predicted."
        ),
    ] = False


Predictions = Annotated[list[Prediction], Meta(description="Most likely first; ties in order of item id.")]
Observations = Annotated[list[Observation], Meta(description="One entry for each item sent.")]


class PredictAnswer(Struct, gc=False):
    """The predictions after a history."""

    model: Fingerprint
    predictions: Predictions
    observed: Observations


class SessionAnswer(Struct, gc=False):
    """A session's predictions and its step."""

    session_id: SessionId
    step: Step
    state: Annotated[
        Literal["new", "continued", "restored"],
        Meta(
            description="new: the session began with this request. continued: it continued from its own state. "
            "restored: this is its first request after it was given a state."
        ),
    ]
    model: Fingerprint
    predictions: Predictions
    observed: Observations


class SessionInfo(Struct):
    """A session's step, times and last items."""

    session_id: SessionId
    step: Step
    model: Fingerprint
    created_at: Time
    last_used_at: Time
    expires_at: Time
    recent: Annotated[
        list[Item],
        Meta(
            description="The last items that the session consumed, at most 64, oldest first. An item scored as the "
            "unknown one has the label that was sent; of such labels the newest are kept, up to 4 KiB."
        ),
    ]


class Stats(Struct):
    """Live figures of this server process; those whose names end in _total only grow."""

    version: Annotated[str, Meta(examples=["1.0.0"])]
    model: Fingerprint
    cell: Annotated[str, Meta(description="The kind of the model's cells.", examples=["array"])]
    num_items: int
    provider: Annotated[str, Meta(description="onnxruntime's execution provider.", examples=["CPUExecutionProvider"])]
    uptime_seconds: float
    draining: Annotated[bool, Meta(examples=[False])]
    sessions: int
    max_sessions: int
    pending: Annotated[int, Meta(description="Requests waiting or running.")]
    requests_total: int
    events_total: Annotated[int, Meta(description="Requests that gave a session items.")]
    batches_total: Annotated[int, Meta(description="Runs of the model.")]
    steps_total: Annotated[int, Meta(description="Items stepped, over all runs.")]
    busy_seconds_total: Annotated[float, Meta(description="Time spent in runs of the model.")]
    unknown_items_total: Annotated[
        int,
        Meta(description="Items that the model has no label for: taken as its unknown item, or left out."),
    ]
    replays_total: Annotated[int, Meta(description="Earlier answers given again for a repeated Idempotency-Key.")]
    conflicts_total: Annotated[int, Meta(description="Requests refused for their expected_step.")]
    evicted: Annotated[
        dict[str, int],
        Meta(
            description="Sessions that the server closed by itself, by reason.",
            examples=[{"expired": 3, "room": 0, "answers": 0}],
        ),
    ]


class ProblemBody(Struct):
    """A refusal (RFC 9457). `code` never changes; the texts may."""

    type: Annotated[str, Meta(examples=["urn:arraylstm:problem:step_conflict"])]
    title: Annotated[str, Meta(examples=["The session is at another step"])]
    status: Annotated[int, Meta(description="The HTTP status.", examples=[409])]
    detail: Annotated[str, Meta(examples=["Session visitor-4711 stands at step 2, not at step 1."])]
    code: Annotated[str, Meta(examples=["step_conflict"])]
    session_id: Annotated[str, Meta(examples=["visitor-4711"])] | UnsetType = UNSET
    step: Annotated[int, Meta(description="The step that the session is at.", examples=[2])] | UnsetType = UNSET


Result = Annotated[
    Raw,
    Meta(
        extra_json_schema={
            "anyOf": [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in (SessionAnswer, ProblemBody)]
        }
    ),
]


class BulkAnswer(Struct):
    """An answer or a refusal for each event, in the order of the events."""

    results: list[Result]


Unready = Literal["draining", "store unavailable"]


class Health(Struct):
    """Whether the server is alive, or ready."""

    status: Annotated[Literal["ok", "ready", Unready], Meta(examples=["ready"])]


BACKUP_PATH = r"/[^\x00-\x1f\x7f]{1,4000}"
BackupPath = Annotated[
    str,
    Meta(
        description="The path of a new file on the server's machine, from the root. Its folder must be there.",
        examples=["/backups/sessions-0412.db"],
        extra_json_schema={"pattern": f"^{BACKUP_PATH}$(?!\n)"},
    ),
]


class BackupRequest(Struct, forbid_unknown_fields=True):
    """Where to write a backup."""

    path: BackupPath


class Backup(Struct):
    """A backup that is complete."""

    path: BackupPath
    bytes: Annotated[Natural, Meta(description="The size of the file.", examples=[7_400_000])]
    seconds: Annotated[float, Meta(ge=0, description="How long it took.", examples=[0.8])]


encode = msgspec.json.encode
