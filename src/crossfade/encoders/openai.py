"""Any endpoint that speaks OpenAI's ``POST /v1/embeddings``: OpenAI itself, and the many servers that imitate it.

What goes wrong with such endpoints is handled here: refusals that pass (429, 5xx, timeouts) are tried again after an
exponentially growing, jittered wait, or after as long as ``Retry-After`` says; limits of requests and texts a minute
are kept to from this side; answers are put in the order of their ``index``, and an answer with too few or too many
vectors is refused. Neither the key nor a text ever stands in a message.
"""

from __future__ import annotations

import base64
import binascii
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from crossfade.encoders.base import Encoder, Role
from crossfade.encoders.packages import need
from crossfade.encoders.rate_limit import TokenBucket
from crossfade.encoders.vectors import no_rows, unit_rows
from crossfade.errors import ConfigError, EndpointError
from crossfade.spaces import Space

__all__ = ["OpenAIEncoder", "Retries"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_TELLING, _WINDOW = 4, 12  # characters: a shorter text tells nothing; so many in a row are a quotation
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How failures that pass are waited out.

    Attributes:
        attempts: tries of one request, the first included.
        first_wait: seconds before the second try; doubled before each further one.
        longest_wait: seconds, also where the endpoint asks for more.
        timeout: seconds that one answer may take.
    """

    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 60.0
    timeout: float = 60.0


@final
class OpenAIEncoder(Encoder):
    """Texts through an embeddings endpoint.

    Args:
        model: the vendor's name of the model, for example ``text-embedding-3-small``.
        base_url: up to and including ``/v1``; by default the environment's ``OPENAI_BASE_URL``, else OpenAI's own.
        key_variable: the environment variable that holds the key; it may be unset for servers that want none.
        dimensions: ask for vectors of this length (models that can shorten theirs).
        encoding_format: ``base64`` is a quarter of the bytes; ``float`` is for servers that do not know it.
        query_prefix: put before queries.
        document_prefix: put before documents.
        batch_size: texts in one request, at most.
        requests_per_minute: keep to this many; unlimited by default.
        texts_per_minute: keep to this many; unlimited by default.
        retries: how failures that pass are waited out.

    Raises:
        MissingExtra: httpx is not installed.
        EndpointError: the endpoint refuses, or cannot be reached (one text is encoded at once, to learn the dimension).
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        dimensions: int | None = None,
        encoding_format: Literal["float", "base64"] = "base64",
        query_prefix: str = "",
        document_prefix: str = "",
        batch_size: int = 256,
        requests_per_minute: float | None = None,
        texts_per_minute: float | None = None,
        retries: Retries | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1; found {batch_size}.")
        self._httpx = need("httpx", extra="openai", feature=f"Encoding with openai:{model}")
        self._base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL).rstrip("/")
        self._model = model
        self._key_variable = key_variable
        self._options: dict[str, Any] = {"encoding_format": encoding_format}
        if dimensions is not None:
            self._options["dimensions"] = dimensions
        self._prefix: dict[Role, str] = {"query": query_prefix, "document": document_prefix}
        self._batch_size = batch_size
        self._requests = None if requests_per_minute is None else TokenBucket(requests_per_minute)
        self._texts = None if texts_per_minute is None else TokenBucket(texts_per_minute)
        self._retries = retries or Retries()
        self._client = self._httpx.Client(timeout=self._retries.timeout)
        found = self._request(["a"]).shape[1]
        if dimensions is not None and found != dimensions:
            raise EndpointError(
                f"{self._at()} must give {dimensions} dimensions as asked; it gave {found}. Leave dimensions out."
            )
        self.space = Space(
            model=model,
            dimension=found,
            modalities=("text",),
            query_prefix=query_prefix,
            document_prefix=document_prefix,
            runtime="endpoint",
        )

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> npt.NDArray[np.float32]:
        prefixed = [self._prefix[role] + text for text in texts]
        parts = [prefixed[i : i + self._batch_size] for i in range(0, len(prefixed), self._batch_size)]
        if not parts:
            return no_rows(self.space.dimension)
        vectors = [self._request(part) for part in parts]
        wrong = [matrix.shape[1] for matrix in vectors if matrix.shape[1] != self.space.dimension]
        if wrong:
            raise EndpointError(
                f"{self._at()} gave {wrong[0]} dimensions after {self.space.dimension}: the model behind it has "
                "changed. "
                "Load the encoder again, and encode into another folder."
            )
        return unit_rows(np.concatenate(vectors), model=self._at(), rows=len(texts))

    def __repr__(self) -> str:
        return f"OpenAIEncoder({self.space}, {self._base_url})"

    def _at(self) -> str:
        return f"{self._model} at {self._base_url}"

    def _request(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """One request until it succeeds: float32 [len(texts), d], as the endpoint gave them."""
        key = os.environ.get(self._key_variable)
        if key is None and self._base_url == DEFAULT_BASE_URL:
            raise EndpointError(
                f"OpenAI wants a key, and the environment variable {self._key_variable} is not set. Set it."
            )
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        body = {"model": self._model, "input": texts, **self._options}
        failure = ""
        for attempt in range(self._retries.attempts):
            if self._requests is not None:
                self._requests.take(1)
            if self._texts is not None:
                self._texts.take(len(texts))
            asked: float | None = None
            try:
                response = self._client.post(f"{self._base_url}/embeddings", json=body, headers=headers)
            except (
                self._httpx.UnsupportedProtocol,
                self._httpx.LocalProtocolError,
                self._httpx.InvalidURL,
                UnicodeError,
            ) as error:
                raise EndpointError(
                    f"{self._at()} cannot be asked ({type(error).__name__}). Check base_url and the key."
                ) from None
            except self._httpx.HTTPError as error:
                failure = f"{type(error).__name__}: no answer"
            else:
                if response.status_code == 200:
                    return self._vectors(response, len(texts))
                failure = f"status {response.status_code}: {_reason(response, texts, key)}"
                if response.status_code not in _PASSING:
                    raise EndpointError(
                        f"{self._at()} refused ({failure}). {_way_out(response.status_code, self._key_variable)}"
                    )
                asked = _retry_after(response.headers.get("Retry-After"))
            if attempt + 1 < self._retries.attempts:
                time.sleep(self._wait(attempt, asked))
        raise EndpointError(
            f"{self._at()} kept failing, {self._retries.attempts} times ({failure}). Try again later; what is "
            "written is kept."
        )

    def _wait(self, attempt: int, asked: float | None) -> float:
        backoff = self._retries.first_wait * 2**attempt
        jittered = backoff * random.uniform(0.5, 1.0)  # many clients must not come back at the same moment
        return float(min(max(jittered, asked or 0.0), self._retries.longest_wait))

    def _vectors(self, response: Any, count: int) -> npt.NDArray[np.float32]:
        try:
            data = response.json()["data"]
            order = sorted(data, key=lambda entry: int(entry["index"]))
            indices = [int(entry["index"]) for entry in order]
            rows = [_decode(entry["embedding"]) for entry in order]
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise EndpointError(
                f"{self._at()} must answer as OpenAI's /v1/embeddings does, and did not ({type(error).__name__}). "
                "Check base_url."
            ) from None
        if indices != list(range(count)):
            raise EndpointError(
                f"{self._at()} must give one vector a text, numbered from 0; it gave {len(indices)} for {count} texts. "
                "Use a smaller batch_size."
            )
        if len({len(row) for row in rows}) != 1:
            raise EndpointError(f"{self._at()} gave vectors of different lengths in one answer. Ask its operator.")
        return np.stack(rows)


def _decode(embedding: str | list[float]) -> npt.NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
    return np.asarray(embedding, dtype=np.float32)


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait, from a number or a date."""
    if header is None:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


def _reason(response: Any, texts: Sequence[str], key: str | None) -> str:
    """The endpoint's own short code, and its message unless it repeats a text or the key."""
    try:
        error = response.json()["error"]
        code, message = str(error.get("code") or error.get("type") or ""), str(error.get("message") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return "no reason given"
    if _repeats(f"{code} {message}", texts, key):
        return "its message repeats the input and is left out"
    return f"{code} {message[:160]}".strip() or "no reason given"


def _repeats(message: str, texts: Sequence[str], key: str | None) -> bool:
    """Whether the message holds the key, a whole text of some length, or twelve characters in a row of any text."""
    if key and key in message:
        return True
    if any(len(text.strip()) >= _TELLING and text.strip() in message for text in texts):
        return True
    windows = {message[i : i + _WINDOW] for i in range(len(message) - _WINDOW + 1)}
    return any(window in text for text in texts for window in windows)


def _way_out(status: int, key_variable: str) -> str:
    if status in (401, 403):
        return f"Check the key in the environment variable {key_variable}."
    if status == 404:
        return "Check base_url and the model's name."
    return "Check the model's name, dimensions and encoding_format; texts may be too long."
