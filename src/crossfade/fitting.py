"""fit(): pairs → an adapter; by a named method, or by whichever does best on pairs held out for the choice.

How ``method="auto"`` chooses:

1. A share of the items is held out. Every method that the pairs allow is fitted on the rest.
2. Each is scored on the held-out items by mean reciprocal rank: texts find their images and images their
   texts where links say so, otherwise items find their own old vector (:mod:`crossfade.methods.held_out`). An item's
   score is the mean over its queries and over the directions.
3. The best mean wins, unless a simpler method is as good: of all methods whose difference to the best has a 95 %
   interval (bootstrap over items, the same resamples for all) that reaches zero, the simplest is taken. ``METHODS``
   lists them from the simplest to the most elaborate.
4. The winner is fitted again on all pairs.

The scores say which method to take. They were used for choosing, so :func:`crossfade.evaluate` needs other items still.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.errors import ConfigError, FitError, MissingExtra, PairingError
from crossfade.evaluation.result import Estimate
from crossfade.methods import METHODS
from crossfade.methods.base import Adapter, Method
from crossfade.methods.held_out import Trial, chance, ranks, reseeded, trials
from crossfade.pairing import Pairs
from crossfade.spaces import Modality

__all__ = ["Candidate", "Fit", "fit", "method_from_options", "parse_option"]

HELD_OUT = 0.2
RESAMPLES = 2_000
LEVEL = 0.95

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """One method in a choice.

    Attributes:
        method: its name.
        config: its hyper-parameters where they are not the defaults.
        score: mean reciprocal rank on the held-out items; None where it could not be fitted.
        recall: R@1 of each direction on the held-out items.
        difference: its score minus the chosen one's, paired; None for the chosen one.
        two_encoders: whether its queries also need the old model; such a method is shown, and chosen only where
            that was allowed.
        chosen: whether it won.
        reason: why it has no score, or could not be chosen.
    """

    method: str
    config: Mapping[str, Any]
    score: Estimate | None = None
    recall: Mapping[str, float] | None = None
    difference: Estimate | None = None
    two_encoders: bool = False
    chosen: bool = False
    reason: str = ""

    @property
    def label(self) -> str:
        """The name, with what is not a default: ``procrustes (center=modality)``."""
        settings = ", ".join(f"{name}={value}" for name, value in self.config.items())
        return f"{self.method} ({settings})" if settings else self.method


@dataclass(frozen=True)
class Fit:
    """What :func:`fit` found.

    Attributes:
        adapter: fitted on all the pairs.
        candidates: every method tried, in the order of ``METHODS``; empty where the method was named.
        held_out: how many items the choice was made on.
        chance: the score of a gallery in random order; an adapter whose interval reaches it has learned
            nothing that shows.
        sentence: the choice in plain words.
    """

    adapter: Adapter
    candidates: tuple[Candidate, ...]
    held_out: int
    chance: float | None
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Everything but the adapter's tensors, as JSON values."""
        made = self.adapter.provenance
        return {
            "method": made.method if made else "",
            "config": dict(made.config) if made else {},
            "modalities": list(self.adapter.modalities),
            "candidates": [{"label": c.label, **asdict(c)} for c in self.candidates],
            "held_out": self.held_out,
            "chance": self.chance,
            "sentence": self.sentence,
        }


@dataclass(frozen=True, eq=False)
class _Scored:
    """A method on the held-out pairs: one value an item, or the reason why there is none."""

    method: Method
    config: Mapping[str, Any]
    by_item: Doubles | None = None
    recall: Mapping[str, float] | None = None
    reason: str = ""


def fit(
    pairs: Pairs,
    method: str | Method = "auto",
    *,
    seed: int = 0,
    serve: Sequence[Modality] | None = None,
    two_encoders: bool = False,
) -> Fit:
    """Fit an adapter.

    Args:
        pairs: the same items seen by both models.
        method: ``auto``, a key of ``METHODS`` (with its default hyper-parameters), or a method.
        seed: of everything random.
        serve: modalities of the queries that the adapter must map, which decide between methods; by default those
            that the pairs hold.
        two_encoders: whether ``auto`` may choose a method whose queries need the old model too.

    Raises:
        FitError: the named method cannot be fitted on these pairs, or no method can.
        MissingExtra: the named method needs a package that is not installed.
        ConfigError: there is no such method.
    """
    if method != "auto":
        named = method if isinstance(method, Method) else METHODS[method]()
        adapter = named.fit(pairs, seed=seed)
        sentence = f"{named.name} was asked for; it was fitted on {len(pairs)} pairs."
        return Fit(adapter, (), 0, None, sentence + _used(named, adapter, pairs))
    wanted = tuple(serve) if serve is not None else pairs.modalities
    try:
        split = pairs.split(held_out=HELD_OUT, seed=reseeded(seed, "fit"))
    except PairingError as error:
        raise FitError(f"A method is chosen on held-out pairs, and none can be held out: {error}") from error
    held = trials(split.held_out, wanted)
    if not held:
        raise FitError(
            f"The adapter shall serve {', '.join(wanted)} queries, and the pairs hold {', '.join(pairs.modalities)}. "
            "Bring pairs of those modalities, or name a method."
        )
    scored = [
        _score(METHODS[name](**config), config, split.train, held, seed)
        for name in METHODS
        for config in METHODS[name].variants
    ]
    level = float(np.mean([chance(trial).mean() for trial in held]))
    return _decide(scored, pairs, level, seed=seed, two_encoders=two_encoders)


def method_from_options(method: str, options: Sequence[str] | Mapping[str, Any]) -> str | Method:
    """A method with hyper-parameters as they are written on a command line or in a job file.

    Args:
        method: ``auto`` or a key of ``METHODS``.
        options: ``name=value`` each, the value as JSON or a bare word; or a mapping.

    Returns:
        ``auto``, or the method.

    Raises:
        ConfigError: there is no such method or hyper-parameter, or its value is impossible.
    """
    given = dict(options) if isinstance(options, Mapping) else dict(parse_option(option) for option in options)
    if method == "auto":
        if given:
            raise ConfigError(f"auto has no hyper-parameters; found {sorted(given)}. Name a method to set them.")
        return method
    kind = METHODS[method]
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"{method} has the hyper-parameters {sorted(known)}; found {unknown}.")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"The hyper-parameters of {method} cannot be {values}: {error}.") from error


def parse_option(text: str) -> tuple[str, Any]:
    """``name=value`` as it is written on a command line; the value is JSON or a bare word.

    Raises:
        ConfigError: it is not so written.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"A hyper-parameter is written name=value; found {text!r}.")
    try:
        return name.strip(), json.loads(value)
    except json.JSONDecodeError:
        return name.strip(), value.strip()


def _score(method: Method, config: Mapping[str, Any], train: Pairs, held: tuple[Trial, ...], seed: int) -> _Scored:
    """Fit on ``train``, and score each held-out item."""
    try:
        adapter = method.fit(train, seed=seed)
    except (FitError, MissingExtra) as error:
        return _Scored(method, config, reason=str(error))
    missing = [trial.query for trial in held if trial.query not in adapter.modalities]
    if missing:
        return _Scored(method, config, reason=f"It cannot map {', '.join(missing)} queries without pairs of them.")
    if adapter.two_encoders and not all(trial.cross_modal for trial in held):
        return _Scored(
            method,
            config,
            reason="An old query finds its own old vector by definition: no links, so nothing to score it on.",
        )
    sums: list[Doubles] = []
    recall = {}
    for trial in held:
        found = ranks(trial, adapter.map(trial.source, trial.query, old=trial.target))
        recall[trial.name] = float(np.mean(found == 1))
        _, inverse = np.unique(trial.query_items, return_inverse=True)
        sums.append(np.bincount(inverse, weights=1.0 / found) / np.bincount(inverse))
    return _Scored(method, config, by_item=_over_directions(held, sums), recall=recall)


def _over_directions(held: tuple[Trial, ...], by_item: Sequence[Doubles]) -> Doubles:
    """The mean over directions of each item; where the directions have different items, they follow one another."""
    if len({len(values) for values in by_item}) == 1 and all(trial.cross_modal for trial in held):
        return np.asarray(np.mean(by_item, axis=0))
    weights = [1.0 / (len(by_item) * len(values)) for values in by_item]
    count = sum(len(values) for values in by_item)
    return np.concatenate([values * weight * count for values, weight in zip(by_item, weights, strict=True)])


def _decide(scored: Sequence[_Scored], pairs: Pairs, level: float, *, seed: int, two_encoders: bool) -> Fit:
    values = {i: s.by_item for i, s in enumerate(scored) if s.by_item is not None}
    eligible = [i for i in values if two_encoders or not scored[i].method.adapter.two_encoders]
    if not eligible:
        reasons = "; ".join(f"{s.method.name}: {s.reason}" for s in scored)
        raise FitError(f"No method can be fitted on these {len(pairs)} pairs. {reasons}")
    count = len(values[eligible[0]])
    draws = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    resampled = {i: v[draws].mean(axis=1) for i, v in values.items()}
    best = max(eligible, key=lambda i: float(values[i].mean()))
    chosen = next(
        i for i in eligible if i == best or np.quantile(resampled[best] - resampled[i], (1 - LEVEL) / 2) <= 0.0
    )
    candidates = []
    for i, s in enumerate(scored):
        two = s.method.adapter.two_encoders
        if i not in values:
            candidates.append(Candidate(s.method.name, s.config, two_encoders=two, reason=s.reason))
            continue
        difference = None if i == chosen else _estimate(values[i] - values[chosen], resampled[i] - resampled[chosen])
        reason = (
            "" if i in eligible else "It needs the old model for every query: allow two encoders to have it chosen."
        )
        score = _estimate(values[i], resampled[i])
        candidates.append(
            Candidate(s.method.name, s.config, score, s.recall, difference, two, chosen=i == chosen, reason=reason)
        )
    adapter = scored[chosen].method.fit(pairs, seed=seed)
    sentence = _sentence(candidates, candidates[chosen], candidates[best], count)
    if (winner := candidates[chosen].score) is not None and winner.low <= level:
        sentence += (
            f" That is no better than chance ({level:.3f}): nothing shows that the two spaces belong to the same items."
        )
    sentence += _used(scored[chosen].method, adapter, pairs)
    return Fit(adapter, tuple(candidates), count, level, sentence)


def _used(method: Method, adapter: Adapter, pairs: Pairs) -> str:
    """What the fit learned from beside the pairs, and what it left alone."""
    made = adapter.provenance
    said = f" It learned from {made.used}." if made is not None and made.used else ""
    if pairs.queries and not method.used(pairs).queries:
        count = sum(map(len, pairs.queries))
        said += f" {method.name} learns from pairs alone; the {count} queries were left aside."
    return said


def _estimate(values: Doubles, resampled: Doubles) -> Estimate:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values.mean()), float(low), float(high))


def _sentence(candidates: Sequence[Candidate], chosen: Candidate, best: Candidate, count: int) -> str:
    rivals = [c for c in candidates if c.score is not None and not c.chosen and not c.two_encoders]
    text = f"{chosen.label} was chosen on {count} held-out items, mean reciprocal rank {chosen.score}."
    if best is not chosen and best.difference is not None:
        text += f" {best.label} scored {best.difference.value:+.3f}: within chance, so the simpler one is taken."
    named: dict[str, Candidate] = {}
    others = [c for c in rivals if c is not best] if best is not chosen else rivals
    if others:
        named["the runner-up"] = max(others, key=lambda c: c.score.value if c.score else 0.0)
    for name in ("identity", "procrustes"):
        found = next((c for c in rivals if c.label == name), None)
        if found is not None and found not in named.values():
            named[name] = found
    for role, rival in named.items():
        if rival.difference is not None:
            lead = Estimate(-rival.difference.value + 0.0, -rival.difference.high + 0.0, -rival.difference.low + 0.0)
            who = rival.label if role == rival.label else f"{role}, {rival.label}"
            text += f" Its lead over {who} is {lead}" + ("." if lead.low > 0.0 else ": within chance.")
    return text
