"""A client of arraylstm-serve, synchronous and asynchronous, that applies every event exactly once.

`calls` builds requests and reads answers, `retries` decides when to try again, `pipeline` keeps the events of a stream
that are not answered yet. These three use no sockets; `sync` and `aio` send over httpx and websockets.
"""

from arraylstm_serve.api.schemas import BulkEvent as BulkEvent
from arraylstm_serve.api.schemas import Observation as Observation
from arraylstm_serve.api.schemas import PredictAnswer as PredictAnswer
from arraylstm_serve.api.schemas import Prediction as Prediction
from arraylstm_serve.api.schemas import SessionAnswer as SessionAnswer
from arraylstm_serve.api.schemas import SessionInfo as SessionInfo
from arraylstm_serve.client.aio import AsyncClient as AsyncClient
from arraylstm_serve.client.aio import AsyncSession as AsyncSession
from arraylstm_serve.client.aio import AsyncStream as AsyncStream
from arraylstm_serve.client.errors import AnswerError as AnswerError
from arraylstm_serve.client.errors import ClientError as ClientError
from arraylstm_serve.client.errors import RefusedError as RefusedError
from arraylstm_serve.client.errors import SessionGoneError as SessionGoneError
from arraylstm_serve.client.errors import StepConflictError as StepConflictError
from arraylstm_serve.client.errors import UnknownSessionError as UnknownSessionError
from arraylstm_serve.client.errors import UnreachableError as UnreachableError
from arraylstm_serve.client.retries import Retries as Retries
from arraylstm_serve.client.sync import Client as Client
from arraylstm_serve.client.sync import Session as Session
from arraylstm_serve.client.sync import Stream as Stream
