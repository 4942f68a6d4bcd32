"""A language model as judge, over any OpenAI-compatible endpoint; off unless asked for, and it sends the answers there.

```
metric = judge("http://localhost:8000/v1", "qwen2.5-72b-instruct")
score_all(records, [metric])
```

A judge's scores depend on its model and its prompt, so both stand in the signature. They are no measurement like the
others: compare them only where both are the same, and check some of them by eye.
"""

import json
import re
import urllib.request
from collections.abc import Sequence

import numpy as np
from tqdm.auto import tqdm

from vglm.errors import ConfigError, DataError
from vglm.evaluation.metrics.base import Metric, Rows
from vglm.evaluation.predictions import MAX_ERRORS_SHOWN, Prediction

PROMPT = """You grade an answer about an image that you cannot see. Compare it with the reference, which is right.
Question: {question}
Reference: {reference}
Answer: {prediction}
Is what the answer says true according to the reference, and does it say all that the reference does? Wording and \
language do not matter. Reply with one line: "Score: " and a whole number from 0 (all wrong) to 10 (all right)."""

_SCORE = re.compile(r"score\W{0,5}(10|\d)\b(?![./]\d)", re.IGNORECASE)


def judge(
    endpoint: str, model: str, *, prompt: str = PROMPT, api_key: str | None = None, timeout_seconds: float = 60.0
) -> Metric:
    """A metric that asks a model for each answer's score.

    Args:
        endpoint: Base address, such as http://localhost:8000/v1; `/chat/completions` is added.
        model: The judge's name there.
        prompt: With {question}, {reference} and {prediction}; the reply must have "Score: <0 to 10>" in it.
        api_key: Sent as a bearer token; never stored.
        timeout_seconds: Of one request.

    Returns:
        The metric, 0.0 to 1.0. Scoring raises a DataError where the endpoint fails or replies without a score: a mean
        over those that happened to succeed would be another metric. The same answer is asked for once.

    Raises:
        ConfigError: The address is no HTTP address, or the prompt lacks a field.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"the judge's endpoint must start with http:// or https://, got {endpoint!r}.")
    if missing := [name for name in ("{reference}", "{prediction}") if name not in prompt]:
        raise ConfigError(f"the judge's prompt lacks {' and '.join(missing)}.")
    address = endpoint.rstrip("/") + "/chat/completions"
    known: dict[str, float] = {}

    def ask(text: str) -> float:
        body = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": text}]}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
            reply = json.load(response)["choices"][0]["message"]["content"]
        if (found := _SCORE.search(reply)) is None:
            raise ValueError(f"no score in the reply {reply[:80]!r}")
        return int(found[1]) / 10

    def table(records: Sequence[Prediction]) -> Rows:
        scores, problems = np.zeros(len(records)), []
        for place, record in enumerate(tqdm(records, desc=f"judge {model}", delay=2)):
            if record.error is not None:
                continue
            text = _fill(prompt, record)
            try:
                if text not in known:
                    known[text] = ask(text)
            except (OSError, ValueError, LookupError, TypeError) as error:
                problems.append(f"{record.split} {record.id!r}: {error}")
                if len(problems) == MAX_ERRORS_SHOWN:
                    break
                continue
            scores[place] = known[text]
        if problems:
            raise DataError(
                f"{address}: the judge {model!r} gave no score for {len(problems)} answers or more"
                f" ({'; '.join(problems)}). Check the endpoint, the model's name and the prompt, then score again."
            )
        return np.stack([scores, np.ones(len(records))], axis=1)

    signature = f"judge {model}|temperature 0|0 to 10, divided by 10|prompt {prompt!r}"
    return Metric("judge", f"Judged by {model}", signature, table=table)


def _fill(prompt: str, record: Prediction) -> str:
    """The prompt with its fields filled in at once, so that braces in an answer stay what they are."""
    fields = {"{question}": record.question, "{reference}": record.reference, "{prediction}": record.prediction}
    return re.sub("|".join(map(re.escape, fields)), lambda found: fields[found[0]], prompt)
