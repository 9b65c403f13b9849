"""Sentiment of one sentence of a product review: negative, neutral or positive, judged by a language model.

    rh-agents map examples/sentiment.py:classify examples/data/amazon_reviews.jsonl -o labels.jsonl --max-workers 4

The endpoint is what the official client finds in OPENAI_BASE_URL and OPENAI_API_KEY; `make demo` starts a local one.

A small model follows instructions badly but continues text well. So it is not asked for a label: it reads a short list
of labelled examples, and the sentence, and then two beginnings of a remark on it (CUES). For each one the score is
by how much a favourable next word is more likely than an unfavourable one, in nats. The sum of the two scores is
compared with two cut points (CUTS), which were fitted for SmolLM2-135M-Instruct and hold for no other model: on 600
sentences that were not used for finding any of this, 0.70 of the labels were right (0.66 to 0.74 with 95 % confidence),
where always saying "positive" gets 0.47.

That takes an endpoint for plain completions with log-probabilities. Most hosted models have none; they are large
enough to be asked for the label itself, in a form that a JSON schema fixes; so is every model but the local one here.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from openai import AsyncOpenAI, AuthenticationError, BadRequestError, NotFoundError
from openai.types import Completion, CompletionUsage
from openai.types.shared_params import ResponseFormatJSONSchema

from rh_agents import RetryPolicy, agent, current, llm, parallel
from rh_agents.llms.local import MODEL_NAME

Label = Literal["negative", "neutral", "positive"]


@dataclass(frozen=True)
class Cue:
    """The beginning of a remark, and the next words that make it a favourable or an unfavourable one."""

    text: str
    favourable: frozenset[str]
    unfavourable: frozenset[str]


@dataclass(frozen=True)
class Score:
    """The answer to one cue: `value` in nats, above 0 if favourable words are more likely; and the tokens it took."""

    value: float
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Classification:
    """A label, the sum of the scores it was read from (None if the model was asked for it), and what it took."""

    label: Label
    score: float | None
    tokens_in: int
    tokens_out: int
    calls: int = 1
    retries: int = 0


EXAMPLES: tuple[tuple[str, Label], ...] = (
    ("the battery died after two weeks and nobody would help me.", "negative"),
    ("it comes with a usb cable and a printed manual.", "neutral"),
    ("the picture is sharp and the menus are easy to use.", "positive"),
    ("i bought it in january for my brother.", "neutral"),
    ("setting it up was a nightmare and i sent it back.", "negative"),
    ("best phone i have ever owned!", "positive"),
)
"""Made up for the purpose: none of them is in the data."""

CUES = (
    Cue("Sentiment:", frozenset({"positive"}), frozenset({"negative"})),
    Cue(
        "In other words, the product is",
        frozenset({"great", "excellent", "amazing", "perfect", "fantastic", "good"}),
        frozenset({"terrible", "awful", "horrible", "bad", "disappointing", "useless"}),
    ),
)

CUTS = (1.32, 2.07)
"""Sums of scores below the first are negative, from the second on positive, in between neutral.

Fitted on 700 sentences of other reviews, for the highest sum of accuracy and macro-averaged F1.
"""

NEXT_WORDS = 100
"""How many of the most likely next tokens to ask for; a word that is not among them counts as the last of them."""


PATIENCE = RetryPolicy(max_attempts=4, give_up_on=(AuthenticationError, BadRequestError, NotFoundError))
"""For the endpoint: what is wrong with the request itself stays wrong."""


@agent
async def classify(text: str, model: str = MODEL_NAME) -> Classification:
    """Label a sentence: by the scores of all cues for the local model, by asking any other model for the label."""
    if model != MODEL_NAME:
        return await answer(text, model)
    scores = [await score(text, cue.text, model).outcome() for cue in CUES]
    total = sum(result.unwrap().value for result in scores)
    return Classification(
        label_for(total),
        round(total, 3),
        tokens_in=sum(result.unwrap().tokens_in for result in scores),
        tokens_out=sum(result.unwrap().tokens_out for result in scores),
        calls=len(scores),
        retries=sum(result.attempts - 1 for result in scores),
    )


@agent
async def classify_all(texts: list[str], model: str = MODEL_NAME) -> list[Classification]:
    """Label several sentences, four at a time: a run for a worker (`make demo ARGS="--workers 3"`)."""
    async with parallel(max_workers=4, name="sentences") as p:
        for text in texts:
            p.add(classify(text, model))
        return [result.unwrap() for result in await p.gather()]


@llm(retry=PATIENCE, timeout=60)
async def score(text: str, cue: str, model: str) -> Score:
    """Score a sentence by one cue. Raises ValueError if the endpoint answers without log-probabilities."""
    (known,) = (known for known in CUES if known.text == cue)
    completion = await _complete(model, prompt_for(text, known), words=NEXT_WORDS)
    words = _next_words(completion)
    if not words:
        raise ValueError(f"{model} gave no log-probabilities")
    value = _log_probability(words, known.favourable) - _log_probability(words, known.unfavourable)
    tokens_in, tokens_out = _tokens(completion.usage)
    return Score(value, tokens_in, tokens_out)


@llm(retry=PATIENCE, timeout=60)
async def answer(text: str, model: str) -> Classification:
    """Ask for the label itself. Raises ValueError if the model answers with anything else."""
    completion = await client().chat.completions.create(
        model=model,
        temperature=0,
        response_format=_ANSWER_FORMAT,
        messages=[
            {"role": "system", "content": "Classify the sentiment of a sentence from a product review."},
            {"role": "user", "content": text},
        ],
    )
    tokens_in, tokens_out = _tokens(completion.usage)
    label = _label_in(completion.choices[0].message.content or "")
    return Classification(label, None, tokens_in, tokens_out, retries=current().attempt - 1)


@functools.cache
def client() -> AsyncOpenAI:
    """The official client, without retries of its own: there is one retry layer, and it is ours."""
    return AsyncOpenAI(max_retries=0)


def prompt_for(text: str, cue: Cue) -> str:
    """The text to continue. What does not change comes first, so that a server computes it once and keeps it."""
    examples = "".join(f"Review: {example}\nSentiment: {label}\n\n" for example, label in EXAMPLES)
    return f"{examples}Review: {' '.join(text.split())}\n{cue.text}"


def label_for(total: float) -> Label:
    """The label of a sum of scores."""
    if total < CUTS[0]:
        return "negative"
    return "neutral" if total < CUTS[1] else "positive"


_ANSWER_FORMAT: ResponseFormatJSONSchema = {
    "type": "json_schema",
    "json_schema": {
        "name": "sentiment",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"sentiment": {"type": "string", "enum": list(get_args(Label))}},
            "required": ["sentiment"],
            "additionalProperties": False,
        },
    },
}


def _label_in(answer: str) -> Label:
    """The label in a JSON answer. Raises ValueError (which JSONDecodeError is one of) if there is none."""
    found = json.loads(answer)
    label = found.get("sentiment") if isinstance(found, dict) else None
    if label not in get_args(Label):
        raise ValueError(f"the model's answer names no sentiment: {answer[:200]!r}")
    return cast(Label, label)


async def _complete(model: str, prompt: str, *, words: int) -> Completion:
    """One token after the prompt, with the log-probabilities of the `words` most likely ones."""
    return await client().completions.create(model=model, prompt=prompt, max_tokens=1, temperature=0, logprobs=words)


def _next_words(completion: Completion) -> dict[str, float]:
    """The log-probabilities of the likely next words (tokens that differ in a leading blank count as one word).

    Servers differ in the form: OpenAI's completions give a mapping of tokens, llama.cpp gives the list that belongs to
    chat completions, which the client passes on undeclared. Empty if there are none in either form.
    """
    logprobs = completion.choices[0].logprobs
    if logprobs is None:
        return {}
    if logprobs.top_logprobs:
        return _merged(logprobs.top_logprobs[0].items())
    content = cast(list[dict[str, Any]], (logprobs.model_extra or {}).get("content") or [])
    return _merged((entry["token"], entry["logprob"]) for entry in content[0]["top_logprobs"]) if content else {}


def _merged(tokens: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Log-probabilities of words, from those of tokens."""
    words: dict[str, float] = {}
    for token, value in tokens:
        word = token.strip()
        words[word] = _log_sum((words[word], value)) if word in words else value
    return words


def _log_probability(words: Mapping[str, float], wanted: Collection[str]) -> float:
    """The log-probability that the next word is one of the wanted ones."""
    least = min(words.values())
    return _log_sum([words.get(word, least) for word in wanted])


def _log_sum(values: Collection[float]) -> float:
    """The logarithm of a sum of probabilities, from their logarithms."""
    return math.log(sum(math.exp(value) for value in values))


def _tokens(usage: CompletionUsage | None) -> tuple[int, int]:
    """Tokens in and out; 0 where the endpoint does not say."""
    return (usage.prompt_tokens, usage.completion_tokens) if usage is not None else (0, 0)
