"""One inference of the Open Inference Protocol: from its body to a turn of a session, and back."""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec import UNSET

from arraylstm_serve.api.problems import INVALID_REQUEST, UNKNOWN_SESSION, Problem
from arraylstm_serve.engine.ranking import Ask
from arraylstm_serve.http.body import decode, valid_session_id
from arraylstm_serve.http.request import Call
from arraylstm_serve.open_inference import tensors as oip_tensors
from arraylstm_serve.open_inference.schemas import MODEL, VERSION, InferRequest, InputTensor, RequestedOutput
from arraylstm_serve.open_inference.tensors import BYTES, FP32, INT64, Output
from arraylstm_serve.sessions.commands import Begin, Continue, IdempotencyKey, Outcome
from arraylstm_serve.sessions.service import Service
from arraylstm_serve.text import shown

ITEMS, LOGITS = "items", "logits"
PREDICTIONS, PROBABILITIES, STEP = "predictions", "probabilities", "step"
OUTPUTS = (LOGITS, PREDICTIONS, PROBABILITIES, STEP)
LARGEST_ID = 2**64 - 1

_decoder = msgspec.json.Decoder(InferRequest)


class Inference:
    """One request on its way through the service.

    Args:
        service: answers it.
        body: as it came, inflated.
        header_length: the value of Inference-Header-Content-Length, if there is one.

    Raises:
        Problem: the request is refused.
    """

    def __init__(self, service: Service, body: bytes, header_length: str | None) -> None:
        head, binary = oip_tensors.split(body, header_length)
        self._service = service
        self._body = body
        self._wanted = wanted = decode(_decoder, head)
        self._items = _items(service, _only_input(wanted), binary)
        self._outputs = _outputs(wanted)
        self._session_id = _session_id(wanted)
        ranked = any(output.name in (PREDICTIONS, PROBABILITIES) for output in self._outputs)
        self._ask = Ask.of(wanted.parameters.top_k if ranked else 0, len(service.vocabulary))

    async def submit(self, call: Call) -> bytes:
        """The encoded answer.

        Raises:
            Problem: the request is refused.
        """
        if self._session_id is None:
            return await self._service.stroll(call, self._items, self._ask, self._render)
        turn = self._service.submit(
            Begin if self._wanted.parameters.sequence_start else Continue,
            call,
            self._session_id,
            items=self._items,
            ask=self._ask,
            render=self._render,
            idempotency=IdempotencyKey.of(call.idempotency_key(), "infer", self._body),
            end=self._wanted.parameters.sequence_end,
        )
        try:
            answer: bytes = await turn
        except Problem as problem:
            if problem.kind is not UNKNOWN_SESSION:
                raise
            detail = (
                f"inference request for sequence {self._session_id} to model '{MODEL}' must specify the START flag "
                "on the first request of the sequence"
            )
            raise Problem(INVALID_REQUEST, detail) from None
        return answer

    def _render(self, outcome: Outcome) -> bytes:
        default = self._wanted.parameters.binary_data_output
        outputs = []
        for output in self._outputs:
            binary = output.parameters.binary_data
            outputs.append((output.name, self._output(output.name, outcome), default if binary is UNSET else binary))
        return oip_tensors.answer(MODEL, VERSION, self._wanted.id, outputs)

    def _output(self, name: str, outcome: Outcome) -> Output:
        if name == LOGITS:
            return Output(FP32, self._service.arena.logits(outcome.slot))
        if name == PROBABILITIES:
            return Output(FP32, np.array(outcome.ranking.probabilities, np.float32))
        if name == STEP:
            return Output(INT64, [outcome.step])
        vocabulary = self._service.vocabulary
        if vocabulary.unlabelled:
            return Output(INT64, outcome.ranking.ids)
        return Output(BYTES, [str(vocabulary.labels[item]) for item in outcome.ranking.ids])


def _only_input(wanted: InferRequest) -> InputTensor:
    """The input `items`, which must be the only one."""
    for tensor in wanted.inputs:
        if tensor.name != ITEMS:
            raise Problem(INVALID_REQUEST, f"unexpected inference input {shown(tensor.name)} for model '{MODEL}'")
    if len(wanted.inputs) != 1:
        raise Problem(INVALID_REQUEST, f"expected 1 input but got {len(wanted.inputs)} inputs for model '{MODEL}'")
    return wanted.inputs[0]


def _items(service: Service, tensor: InputTensor, binary: bytes) -> list[int]:
    """The ids of the items in an input."""
    size = oip_tensors.count(tensor)
    service.check_count(size)
    if tensor.datatype == INT64:
        return service.vocabulary.verify(oip_tensors.integers(tensor, binary, size))
    if tensor.datatype == BYTES:
        return service.encode(list(map(service.vocabulary.spelt, oip_tensors.texts(tensor, binary, size))))
    detail = f"input {tensor.name} has datatype {shown(tensor.datatype)}; expected INT64 or BYTES"
    raise Problem(INVALID_REQUEST, detail)


def _outputs(wanted: InferRequest) -> list[RequestedOutput]:
    """The outputs to answer, each of which this server must have."""
    names = [output.name for output in wanted.outputs]
    for name in names:
        if name not in OUTPUTS:
            known = ", ".join(OUTPUTS)
            detail = f"unexpected inference output {shown(name)} for model '{MODEL}'; there are {known}"
            raise Problem(INVALID_REQUEST, detail)
    if len(set(names)) < len(names):
        raise Problem(INVALID_REQUEST, f"{len(names)} outputs are wanted, some of them twice; once is allowed")
    for output in wanted.outputs:
        parameters = output.parameters
        if parameters.classification is not UNSET or parameters.shared_memory_region is not UNSET:
            detail = f"output {output.name} is wanted as a classification or in shared memory, which there is not here"
            raise Problem(INVALID_REQUEST, f"{detail}; ask for {PREDICTIONS} and {PROBABILITIES}, or for binary data")
    return wanted.outputs or [RequestedOutput(LOGITS)]


def _session_id(wanted: InferRequest) -> str | None:
    """The session that the request's sequence is, None where it is part of none."""
    parameters = wanted.parameters
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
