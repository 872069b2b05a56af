"""From the evidence to the answer of `:confidence`, schema `confidence/1`.

Its rule: an answer is accepted if its input does not look new (novelty p-value over the bundle's bound) and
its confidence is at least the threshold that was proven for the caller's target risk. The threshold was
learned on this whole rule. A prediction set of several labels is advice, which refuses nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bundle.answer import Answer
from bundle.conformal import least_scores
from bundle.errors import InputError
from bundle.evidence import Evidence, Threshold
from bundle.judgement import (
    Judgement,
    conformal_confidence,
    credibility,
    label_set,
    observed_bin,
    refusals,
    threshold_for,
)
from bundle.predictor import Predictor
from service.monitoring.monitored import FLAG_ALPHA, Monitored
from service.monitoring.tokens import Mint

Scope = Literal["marginal", "label"]


@dataclass(frozen=True)
class Policy:
    """What a caller asks of each answer.

    Attributes:
        alpha: the prediction set misses the right label with at most this probability.
        target_risk: share of accepted answers that may be wrong; None for the bundle's default.
        withhold: leave out the labels of answers that are not accepted.
        top_k: most labels in `top`.
        scope: of the p-values and the set: among all inputs of the conformal split, or for each label among
            its own, so that no label is served worse than others.
    """

    alpha: float
    target_risk: float | None
    withhold: bool
    top_k: int
    scope: Scope = "marginal"


def check_policy(predictor: Predictor, policy: Policy) -> None:
    """Refuse a policy that the bundle's evidence cannot keep, before anything is run.

    Raises:
        InputError: no threshold is proven for the target risk, or there is no evidence for any.
    """
    if policy.target_risk is None:
        return
    manifest = predictor.bundle.manifest
    if predictor.evidence is None:
        raise InputError(f"{manifest.name}/{manifest.version} has no evidence that could keep a target_risk")
    if threshold_for(predictor.evidence, policy.target_risk) is None:
        feasible = [each.target_risk for each in predictor.evidence.facts.thresholds]
        smallest = f"the smallest feasible one is {min(feasible):g}" if feasible else "none is feasible"
        raise InputError(f"a target_risk of {policy.target_risk:g} is infeasible for this model; {smallest}")


def render_confidence(
    predictor: Predictor, answers: Sequence[Answer], policy: Policy, monitored: Monitored | None = None
) -> dict[str, Any]:
    """Return the body of an answer.

    Without a fitted temperature nothing is calibrated: `confidence` is then null and the status "missing",
    never a softmax by another name. With one but without evidence the status is "partial". Neither proves
    anything, so nothing is accepted.

    Args:
        monitored: gives each answer its prediction id, and knows whether the calibration is stale.
    """
    began_s = time.perf_counter()
    manifest = predictor.bundle.manifest
    fitted = manifest.graphs[predictor.precision].temperature
    evidence = predictor.evidence
    is_stale = monitored is not None and monitored.is_stale
    mint = monitored.minter.begin() if monitored is not None else None
    calibration: dict[str, Any] = {
        "status": _status(predictor, is_stale=is_stale),
        "method": fitted.method if fitted is not None else None,
        "temperature": fitted.value if fitted is not None else None,
        "n": fitted.n if fitted is not None else None,
        "n_errors": fitted.n_errors if fitted is not None else None,
        "fitted_at": manifest.provenance.created_at.isoformat() if fitted is not None else None,
    }
    content: dict[str, Any] = {
        "schema": "confidence/1",
        "model": manifest.name,
        "version": str(manifest.version),
        "bundle": {"precision": predictor.precision, "sha256": predictor.bundle.manifest_sha256},
    }
    if evidence is None:
        results = [_bare(manifest.labels, each, policy, calibrated=fitted is not None) for each in answers]
        for number, result in enumerate(results if mint is not None else ()):
            assert mint is not None
            result["prediction_id"] = mint(number, result["index"], result["confidence"], None, None)
        for result in results if policy.withhold else ():
            _withhold(result)
        timing = _timing(answers, began_s)
        return {**content, "results": results, "calibration": calibration, "timing_us": timing}
    if monitored is not None:
        monitored.note(answers)
    judge = _Judge(manifest.labels, evidence, policy, mint, is_stale=is_stale)
    return {
        **content,
        "results": [judge.tell(number, answer) for number, answer in enumerate(answers)],
        "calibration": calibration,
        "assumptions": [f"inputs are exchangeable with the conformal split: {evidence.facts.split}"],
        "timing_us": _timing(answers, began_s),
    }


def _status(predictor: Predictor, *, is_stale: bool) -> str:
    """How much the confidences of a predictor are worth at the moment."""
    if predictor.bundle.manifest.graphs[predictor.precision].temperature is None:
        return "missing"
    if predictor.evidence is None:
        return "partial"
    return "stale" if is_stale else "valid"


def _timing(answers: Sequence[Answer], began_s: float) -> dict[str, int]:
    """Microseconds of the runs that the answers are of, whoever else was in them, and of rendering them."""
    runs = {id(each.run): each.run.run_s for each in answers}
    return {
        "inference": round(sum(runs.values()) * 1e6),
        "confidence": round((time.perf_counter() - began_s) * 1e6),
    }


def _scope_of(evidence: Evidence, policy: Policy) -> tuple[Scope, int]:
    """Which scores the labels are compared with, and how many there are at least of a label.

    Where a label has too few of its own to exclude it at this alpha, all are compared with all.
    """
    if policy.scope == "label":
        fewest = min(map(len, evidence.by_label))
        if fewest >= least_scores(policy.alpha):
            return "label", fewest
    return "marginal", evidence.facts.n


def _bare(labels: tuple[str, ...], answer: Answer, policy: Policy, *, calibrated: bool) -> dict[str, Any]:
    """What can be said of an answer from its logits alone."""
    row = answer.confidence
    best = row.order[0]
    entropy_bits = row.entropy_bits
    return {
        "label": labels[best],
        "index": best,
        "confidence": row.probabilities[best] if calibrated else None,
        "confidence_raw": row.raw_confidence,
        "margin": row.margin,
        "entropy_bits": entropy_bits,
        "entropy_normalized": entropy_bits / math.log2(len(labels)),
        "top": [
            {"label": labels[index], "index": index, "p": row.probabilities[index] if calibrated else None}
            for index in row.order[: policy.top_k]
        ],
        "accepted": False,
        "reasons": ["no_calibration"],
    }


def _withhold(result: dict[str, Any]) -> None:
    """Leave out the labels of an answer that is not accepted."""
    result |= dict.fromkeys({"label", "index", "top", "prediction_set"} & result.keys())


class _Judge:
    """Tells what the evidence says of the answers to one request, by the caller's policy.

    Args:
        mint: gives prediction ids, if any are given.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        evidence: Evidence,
        policy: Policy,
        mint: Mint | None,
        *,
        is_stale: bool,
    ) -> None:
        facts = evidence.facts
        target_risk = policy.target_risk or facts.default_target_risk
        self._labels = labels
        self._most_bits = math.log2(len(labels))
        self._evidence = evidence
        self._policy = policy
        self._mint = mint
        self._advice = ["stale_calibration"] if is_stale else []
        self._threshold = threshold_for(evidence, target_risk)
        is_usual = target_risk == facts.default_target_risk
        self._usual = self._threshold if is_usual else threshold_for(evidence, facts.default_target_risk)
        self._described = _describe(self._threshold, target_risk)
        self._scope, self._n = _scope_of(evidence, policy)

    def tell(self, number: int, answer: Answer) -> dict[str, Any]:
        """Return what is told of one answer, which is the given one of the request."""
        row, judgement, policy = answer.confidence, answer.judgement, self._policy
        best = row.order[0]
        confidence, entropy_bits = row.probabilities[best], row.entropy_bits
        p_values = judgement.label_p_values if self._scope == "marginal" else answer.p_values_by_label
        inside, forced = label_set(p_values, policy.alpha, best)
        reasons = refusals(self._evidence, judgement, confidence, self._threshold)
        result = {
            "label": self._labels[best],
            "index": best,
            "confidence": confidence,
            "confidence_raw": row.raw_confidence,
            "margin": row.margin,
            "entropy_bits": entropy_bits,
            "entropy_normalized": entropy_bits / self._most_bits,
            "top": [
                {
                    "label": self._labels[index],
                    "index": index,
                    "p": row.probabilities[index],
                    "p_value": p_values[index],
                }
                for index in row.order[: policy.top_k]
            ],
            "bin": observed_bin(self._evidence, confidence),
            "prediction_set": {
                "alpha": policy.alpha,
                "labels": [self._labels[index] for index in inside],
                "size": len(inside),
                "method": "lac",
                "scope": self._scope,
                "n_calibration": self._n,
                "forced_top1": forced,
            },
            "credibility": credibility(p_values),
            "conformal_confidence": conformal_confidence(p_values),
            "ood": _novelty(judgement),
            "accepted": not reasons,
            "reasons": reasons,
            "advice": ["ambiguous_set", *self._advice] if len(inside) > 1 else self._advice,
            "policy": self._described,
        }
        if self._mint is not None:
            usual = reasons
            if self._usual is not self._threshold:
                usual = refusals(self._evidence, judgement, confidence, self._usual)
            result["prediction_id"] = self._mint(
                number, best, confidence, not usual, judgement.label_p_values
            )
        if policy.withhold and reasons:
            _withhold(result)
        return result


def _novelty(judgement: Judgement) -> dict[str, Any]:
    return {
        "p_value": judgement.novelty_p_value,
        "flag": judgement.novelty_p_value <= FLAG_ALPHA,
        "alpha": FLAG_ALPHA,
        "scores": {
            "energy": {"value": judgement.energy, "p_value": judgement.energy_p_value},
            "mds_l2": {"value": judgement.familiarity, "p_value": judgement.familiarity_p_value},
        },
    }


def _describe(threshold: Threshold | None, target_risk: float) -> dict[str, Any]:
    """The policy that an answer was judged by; `threshold` is null where none is proven."""
    return {
        "id": f"risk-{target_risk:g}",
        "target_risk": target_risk,
        "delta": threshold.delta if threshold is not None else None,
        "threshold": threshold.threshold if threshold is not None else None,
    }
