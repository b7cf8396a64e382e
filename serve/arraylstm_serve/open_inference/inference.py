"""One inference of the Open Inference Protocol: from its body to a command, and from the outcome to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec import UNSET

from arraylstm_serve.api.problems import INVALID_REQUEST, UNKNOWN_SESSION, Problem
from arraylstm_serve.api.schemas import Item
from arraylstm_serve.http.body import decode, valid_session_id
from arraylstm_serve.http.request import RequestHead
from arraylstm_serve.open_inference import tensors
from arraylstm_serve.open_inference.schemas import MODEL, VERSION, InferRequest, InputTensor, RequestedOutput
from arraylstm_serve.open_inference.tensors import BYTES, FP32, INT64, Output
from arraylstm_serve.sessions.commands import Outcome
from arraylstm_serve.sessions.model import Model
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.sessions.walking import Advance, Predict
from arraylstm_serve.text import shown

ITEMS, LOGITS = "items", "logits"
PREDICTIONS, PROBABILITIES, STEP = "predictions", "probabilities", "step"
OUTPUTS = (LOGITS, PREDICTIONS, PROBABILITIES, STEP)
LARGEST_ID = 2**64 - 1

_decoder = msgspec.json.Decoder(InferRequest)


@dataclass(frozen=True)
class Tensors:
    """Writes the outputs that a request asks for, in their order; see `commands.Render`.

    Attributes:
        request: the request.
        outputs: the outputs it wants.
    """

    request: InferRequest
    outputs: Sequence[RequestedOutput]

    def __call__(self, model: Model, outcome: Outcome) -> bytes:
        """Return the encoded answer."""
        default = self.request.parameters.binary_data_output
        outputs = []
        for output in self.outputs:
            binary = output.parameters.binary_data
            outputs.append((output.name, _output(output.name, model, outcome), default if binary is UNSET else binary))
        return tensors.answer(MODEL, VERSION, self.request.id, outputs, len(outcome.unlisted))


async def infer(service: Service, call: RequestHead, body: bytes, header_length: str | None) -> bytes:
    """Consume the items of a request, and answer with the outputs it wants.

    Args:
        service: answers it.
        call: the head of the request.
        body: the body, decompressed.
        header_length: the value of Inference-Header-Content-Length, if there is one.

    Raises:
        Problem: the request is refused.
    """
    command = _command(service.model, body, header_length, call.idempotency_key())
    try:
        return await service.ask(command, call.caller(service.settings.request_timeout))
    except Problem as problem:
        if problem.kind is not UNKNOWN_SESSION:
            raise
        detail = (
            f"inference request for sequence {command.session_id} to model '{MODEL}' must specify the START flag "
            "on the first request of the sequence"
        )
        raise Problem(INVALID_REQUEST, detail) from None


def _command(model: Model, body: bytes, header_length: str | None, key: str | None) -> Advance | Predict:
    """Return the command in a request."""
    head, binary = tensors.split(body, header_length)
    request = decode(_decoder, head)
    parameters = request.parameters
    items = _items(model, _only_input(request), binary)
    outputs = _outputs(request)
    ranked = any(output.name in (PREDICTIONS, PROBABILITIES) for output in outputs)
    top_k = parameters.top_k if ranked else 0
    values = len(model.vocabulary) if any(output.name == LOGITS for output in outputs) else 0
    session_id = _session_id(request)
    if session_id is None:
        return Predict(items=items, top_k=top_k, render=Tensors(request, outputs), values=values)
    return Advance(
        session_id=session_id,
        idempotency_key=key,
        items=items,
        top_k=top_k,
        render=Tensors(request, outputs),
        values=values,
        end=parameters.sequence_end,
        start="always" if parameters.sequence_start else "never",
        body=body,
    )


def _output(name: str, model: Model, outcome: Outcome) -> Output:
    if name == LOGITS:
        return Output(FP32, model.logits(outcome.slot) if outcome.step else np.zeros(0, np.float32))
    if name == PROBABILITIES:
        return Output(FP32, np.array(outcome.predictions.probabilities, np.float32))
    if name == STEP:
        return Output(INT64, [outcome.step])
    vocabulary = model.vocabulary
    if vocabulary.unlabelled:
        return Output(INT64, outcome.predictions.ids)
    return Output(BYTES, [str(vocabulary.labels[item]) for item in outcome.predictions.ids])


def _only_input(request: InferRequest) -> InputTensor:
    """Return the input `items`, which must be the only one."""
    for tensor in request.inputs:
        if tensor.name != ITEMS:
            raise Problem(INVALID_REQUEST, f"unexpected inference input {shown(tensor.name)} for model '{MODEL}'")
    if len(request.inputs) != 1:
        raise Problem(INVALID_REQUEST, f"expected 1 input but got {len(request.inputs)} inputs for model '{MODEL}'")
    return request.inputs[0]


def _items(model: Model, tensor: InputTensor, binary: bytes) -> Sequence[Item]:
    """Return the labels of the items in an input."""
    size = tensors.count(tensor)
    model.check_count(size)
    vocabulary = model.vocabulary
    if tensor.datatype == INT64:
        return vocabulary.decode(vocabulary.verify(tensors.integers(tensor, binary, size)))
    if tensor.datatype == BYTES:
        return tensors.texts(tensor, binary, size)
    detail = f"input {tensor.name} has datatype {shown(tensor.datatype)}; expected INT64 or BYTES"
    raise Problem(INVALID_REQUEST, detail)


def _outputs(request: InferRequest) -> list[RequestedOutput]:
    """Return the requested outputs. Refuse one that the server does not have."""
    names = [output.name for output in request.outputs]
    for name in names:
        if name not in OUTPUTS:
            known = ", ".join(OUTPUTS)
            detail = f"unexpected inference output {shown(name)} for model '{MODEL}'; there are {known}"
            raise Problem(INVALID_REQUEST, detail)
    if len(set(names)) < len(names):
        raise Problem(INVALID_REQUEST, f"{len(names)} outputs are requested, some of them twice; request each once")
    for output in request.outputs:
        parameters = output.parameters
        if parameters.classification is not UNSET or parameters.shared_memory_region is not UNSET:
            detail = (
                f"output {output.name} is requested as a classification or in shared memory; this server supports "
                f"neither; ask for {PREDICTIONS} and {PROBABILITIES}, or for binary data"
            )
            raise Problem(INVALID_REQUEST, detail)
    return request.outputs or [RequestedOutput(LOGITS)]


def _session_id(request: InferRequest) -> str | None:
    """Return the session's id; None if the request belongs to no sequence."""
    parameters = request.parameters
    sequence = parameters.sequence_id
    if sequence in (0, ""):
        if parameters.sequence_start or parameters.sequence_end:
            detail = "sequence_start and sequence_end need a sequence_id that is neither 0 nor empty"
            raise Problem(INVALID_REQUEST, detail)
        return None
    if isinstance(sequence, str):
        return valid_session_id(sequence)
    if sequence > LARGEST_ID:
        raise Problem(INVALID_REQUEST, f"sequence_id is {shown(sequence)}; allowed are 0 to {LARGEST_ID}, or a string")
    return str(sequence)
