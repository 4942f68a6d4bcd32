"""A language model as judge, over any OpenAI-compatible endpoint; off by default, and it sends the answers there.

```
python evaluate.py run=latest metrics.external.judge.base_url=http://localhost:8000/v1 metrics.external.judge.model=<id>
```

It needs the extra `judge`: requests, retries and timeouts are those of the package openai.

A judge's scores depend on its model and its prompt, so both stand in the signature. They are less reliable than the
other metrics: compare them only where model and prompt are the same, and check some of them by hand, in
`verdicts.jsonl`:

    {"key": "0c1f…", "split": "test", "id": "2882_1", "score": 0.3, "reply": "Score: 3"}
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from tqdm.auto import tqdm

from vglm.errors import ConfigError, DataError, brief
from vglm.evaluation.predictions import IMAGES_FOLDER, MAX_ERRORS_SHOWN, Prediction
from vglm.evaluation.score.metrics.base import Rows
from vglm.evaluation.score.metrics.external import Compute, ComputedMetric, StoredMetric
from vglm.files import append_json_lines, explained, inside, whole_lines

if TYPE_CHECKING:
    from openai import OpenAI

PROMPT = """You grade an answer about an image. Compare it with the reference, which is right.
Question: {question}
Reference: {reference}
Answer: {prediction}
Is what the answer says true according to the reference, and does it say all that the reference does? Wording and \
language do not matter. Reply with one line: "Score: " and a whole number from 0 (all wrong) to 10 (all right)."""

VERDICTS_FILE = "verdicts.jsonl"
ATTEMPTS = 3
NO_KEY = "none"
"""Sent to an endpoint without keys: the client must send one."""
MAX_UNPARSED = 0.1
"""With a larger share of replies without a score, a mean of the others says nothing."""

_SCORE = re.compile(r"score\W{0,5}(10|\d)\b(?![./]\d)", re.IGNORECASE)


def find_prompt_problem(prompt: str) -> str | None:
    """What a prompt lacks; None where it will do."""
    missing = [name for name in ("{reference}", "{prediction}") if name not in prompt]
    return f"the judge's prompt lacks {' and '.join(missing)}" if missing else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A model that gives answers a score.

    Attributes:
        base_url: Base address, such as http://localhost:8000/v1; `/chat/completions` is added.
        model: The judge's name there.
        prompt: With {question}, {reference} and {prediction}; the reply must have "Score: <0 to 10>" in it.
        images: Folder with the small copies of images, `<sha256>.webp`, to send along; None to send texts only.
        api_key: Sent as a bearer token; never stored.
        timeout_seconds: Of one request.
    """

    base_url: str
    model: str
    prompt: str = PROMPT
    images: Path | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_seconds: float = 60.0

    @property
    def signature(self) -> str:
        """What the scores depend on."""
        sight = "sees the report's copy of the image" if self.images is not None else "sees no image"
        how = "temperature 0|0 to 10, divided by 10|texts as they are, not cut|replies without a score left out"
        return f"judge {self.model}|{how}|{sight}|prompt {self.prompt!r}"

    @property
    def address(self) -> str:
        """Where requests go."""
        return self.base_url.rstrip("/") + "/chat/completions"

    def scores(self, records: Sequence[Prediction], verdicts: Path) -> list[float | None]:
        """Ask for each different answer's score once.

        Args:
            records: The answers.
            verdicts: A JSON-lines file of replies. What it has is not requested again; new replies are added as they
                come, so that a judging that was stopped goes on.

        Returns:
            Scores from 0.0 to 1.0; 0.0 for a record with an error, which the judge does not get; None where the reply
            held no score.

        Raises:
            DataError: The endpoint failed, several times in a row; or more than `MAX_UNPARSED` of the replies hold no
                score. What was replied is kept.
        """
        verdicts_so_far = _read_verdicts(verdicts)
        scores: list[float | None] = []
        problems: list[str] = []
        with self._client() as client:
            for record in tqdm(records, desc=f"judge {self.model}", delay=2):
                if record.error is not None:
                    scores.append(0.0)
                    continue
                content = self._content(record)
                key = hashlib.sha256(json.dumps([self.address, self.model, content]).encode()).hexdigest()
                if key not in verdicts_so_far:
                    try:
                        reply = self._ask(client, content)
                    except _failures() as error:
                        problems.append(f"{record.split} {record.id!r}: {brief(error)}")
                        if len(problems) == MAX_ERRORS_SHOWN:
                            break
                        continue
                    match = _SCORE.search(reply)
                    verdicts_so_far[key] = None if match is None else int(match[1]) / 10
                    about = {"key": key, "split": record.split, "id": record.id}
                    with explained(verdicts, error=DataError):
                        append_json_lines(verdicts, [about | {"score": verdicts_so_far[key], "reply": reply}])
                scores.append(verdicts_so_far[key])
        if problems:
            raise DataError(
                f"{self.address}: the judge {self.model!r} did not answer for {len(problems)} answers or more"
                f" ({'; '.join(problems)}). Check the endpoint and the model's name, then give the same command again:"
                " it goes on where it stopped."
            )
        unparsed = sum(score is None for score in scores)
        if unparsed > MAX_UNPARSED * len(scores):
            raise DataError(
                f"{self.address}: {unparsed} of {len(scores)} replies of the judge {self.model!r} hold no"
                f' "Score: <0 to 10>". Look at them in {verdicts}, then change the prompt or the model.'
            )
        return scores

    def _content(self, record: Prediction) -> str | list[dict[str, Any]]:
        """The message: the prompt, and the image's copy where it is sent along."""
        text = _fill(self.prompt, record)
        path = None if self.images is None else inside(self.images, f"{record.image_sha256}.webp")
        if path is None or not path.is_file():
            return text
        uri = "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode()
        return [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": uri}}]

    def _client(self) -> "OpenAI":
        from openai import OpenAI

        return OpenAI(
            base_url=self.base_url,
            api_key=self.api_key or NO_KEY,
            timeout=self.timeout_seconds,
            max_retries=ATTEMPTS - 1,
        )

    def _ask(self, client: "OpenAI", content: str | list[dict[str, Any]]) -> str:
        """The reply; a request that failed for the moment is made again.

        Nothing that the environment holds for another endpoint is sent along.
        """
        from openai import Omit

        message: Any = {"role": "user", "content": content}
        unsent = dict.fromkeys(("OpenAI-Organization", "OpenAI-Project"), Omit())
        reply = client.chat.completions.create(
            model=self.model, temperature=0, messages=[message], extra_headers=unsent
        )
        return str(reply.choices[0].message.content)


def _failures() -> tuple[type[Exception], ...]:
    """What a request, or a reply of another form, raises."""
    from openai import OpenAIError

    return (OpenAIError, AttributeError, LookupError, TypeError, ValueError)


def _read_verdicts(path: Path) -> dict[str, float | None]:
    """Key -> score of what was replied before; an incomplete line is removed from the file."""
    if not path.exists():
        return {}
    if not path.is_file():
        raise DataError(f"{path} is no regular file. Remove it; the judge is then asked again.")
    try:
        rows = [json.loads(line) for line in whole_lines(path)]
        return {str(row["key"]): None if row["score"] is None else float(row["score"]) for row in rows}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({brief(error)}). Remove it; the judge is then asked again.") from error


def _fill(prompt: str, record: Prediction) -> str:
    """The prompt with its fields filled in at once, so that braces in an answer are kept."""
    fields = {"{question}": record.question, "{reference}": record.reference, "{prediction}": record.prediction}
    return re.sub("|".join(map(re.escape, fields)), lambda match: fields[match[0]], prompt)


# --- the metric ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeMetric(ComputedMetric):
    """`metrics.external.judge`. It sends questions, references and answers to `base_url`.

    Attributes:
        base_url: Of an OpenAI-compatible endpoint, such as http://localhost:8000/v1.
        model: The judge's name there.
        prompt: See `PROMPT`.
        images: Whether the small copies of the images are sent too.
        api_key_env: The environment variable with the key, which is stored nowhere.
        timeout_seconds: Of one request.
    """

    NAMED_ANEW: ClassVar[tuple[str, ...]] = ("base_url", "model", "images", "api_key_env")

    base_url: str
    model: str
    prompt: str = PROMPT
    images: bool = False
    api_key_env: str | None = None
    timeout_seconds: float = 60.0

    def problems(self) -> Iterable[str]:
        """What is wrong with the values."""
        if not self.base_url.startswith(("http://", "https://")):
            yield f"base_url must start with http:// or https://, got {self.base_url!r}"
        if find_spec("openai") is None:
            yield "it needs the package openai: pip install 'visualglm-workbench[judge]'"
        if not self.timeout_seconds > 0:
            yield f"timeout_seconds must be positive, got {self.timeout_seconds!r}"
        if (problem := find_prompt_problem(self.prompt)) is not None:
            yield problem

    def open(self, key: str, folder: Path) -> tuple[list[StoredMetric], Compute]:
        """Find the key; nothing is sent yet."""
        judge = Judge(
            base_url=self.base_url,
            model=self.model,
            prompt=self.prompt,
            images=folder / IMAGES_FOLDER if self.images else None,
            api_key=self._secret(),
            timeout_seconds=self.timeout_seconds,
        )

        def rows(records: Sequence[Prediction]) -> Rows:
            scores = judge.scores(records, inside(folder, VERDICTS_FILE))
            return np.array([[0.0, 0.0] if score is None else [score, 1.0] for score in scores])

        title = f"Judged by {judge.model}"
        return [StoredMetric(name=key, title=title, title_zh="大模型评分", signature=judge.signature, rows=key)], rows

    def _secret(self) -> str | None:
        if self.api_key_env is None:
            return None
        if not (secret := os.environ.get(self.api_key_env)):
            raise ConfigError(f"metrics.external.judge.api_key_env: the variable {self.api_key_env} is not set.")
        return secret
