"""`gallery.html`: items of the data that tell something. It stays on the machine that made it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from bundle.datatypes import Array
from bundle.manifest import Precision
from bundle.media import AudioDecoding, ImageDecoding
from training.data.splits import Examples, Splits
from training.report.answers import Answers, Subject, answer_all
from training.report.markup import Html, Section, paragraph, picture, write_page, write_whole
from training.report.network import listen
from training.report.occlusion import occlude
from training.report.pictures import show_item, show_picture, show_shades
from training.report.portraits import draw_sound
from training.report.suspects import find_suspects

GALLERY_FILE = "gallery.html"
_SHOWN = 24
_MOST_WRONG = 60
_UNITS = 16
_TOP = 9
_OCCLUDED = 12
_HEARD = 4


def render_gallery(
    subject: Subject, answers: Mapping[Precision, Answers], others: Mapping[str, Examples]
) -> bytes | None:
    """Return the content of `gallery.html`; None for a model of whose items no picture can be made.

    Args:
        answers: of every graph, to the rows of the subject; the first one is shown.
        others: split -> items that the network was not fitted on, whose labels are looked at too.
    """
    manifest, items = subject.manifest, subject.items
    if items is None or not isinstance(manifest.decoding, ImageDecoding | AudioDecoding):
        return None
    precision, first = next(iter(answers.items()))
    gallery = _Gallery(subject, items, first)
    title = f"{manifest.name} {manifest.version}: gallery"
    head = [
        Html(f"<h1>{escape(manifest.name)} <small>version {manifest.version}, gallery</small></h1>"),
        paragraph(
            f"Single items of the data, as the {precision} graph answers them. For looking at on this "
            "machine: the data have a licence of their own, and nothing of this page belongs into a bundle."
        ),
    ]
    return write_page(title, head, [*gallery.sections(others)])


def held_out(splits: Splits) -> dict[str, Examples]:
    """Return the splits beside the test split that no weight was fitted on."""
    return {name: examples for name, examples in splits if name not in ("train", "test")}


def write_gallery(
    path: Path, subject: Subject, answers: Mapping[Precision, Answers], others: Mapping[str, Examples]
) -> bool:
    """Write the gallery to a file, whole or not at all; return whether there is one."""
    content = render_gallery(subject, answers, others)
    if content is None:
        return False
    write_whole(path, content)
    return True


class _Gallery:
    """The sections of one gallery."""

    def __init__(self, subject: Subject, items: Sequence[Array], answers: Answers) -> None:
        self._subject = subject
        self._manifest = subject.manifest
        self._items = items
        self._answers = answers
        self._class = "items sounds" if isinstance(self._manifest.decoding, AudioDecoding) else "items"

    def sections(self, others: Mapping[str, Examples]) -> Iterator[Section]:
        """Yield all sections."""
        answers = self._answers
        unsure = np.argsort(answers.confidences, kind="stable")
        yield Section("unsure", "Least sure", [self._show(unsure[:_SHOWN].tolist())])
        wrong = [int(place) for place in unsure[::-1] if not answers.correct[place]]
        note = paragraph(f"{len(wrong):,} of {len(self._items):,}, the surest first.")
        yield Section("wrong", "Wrong answers", [note, self._show(wrong[:_MOST_WRONG])])
        if answers.novelty is not None:
            newest = np.argsort(answers.novelty, kind="stable")[:_SHOWN].tolist()
            yield Section("new", "Newest looking", [self._show(newest)])
        yield self._suspects(others)
        if answers.features is not None:
            yield self._units(answers.features)
        if isinstance(self._manifest.decoding, ImageDecoding):
            yield self._occlusions(unsure[:_OCCLUDED].tolist())
        else:
            yield from self._states(unsure[:_HEARD].tolist())

    def _show(self, places: Iterable[int]) -> Html:
        """The items at some places, each with its label, its answer and how sure that was."""
        found = []
        for place in places:
            lines = [
                f"{self._label(self._answers.labels[place])} → {self._label(self._answers.chosen[place])}",
                f"confidence {self._answers.confidences[place]:.3f}",
            ]
            if self._answers.novelty is not None:
                lines.append(f"novelty p {self._answers.novelty[place]:.3g}")
            if self._subject.groups is not None:
                lines.append(str(self._subject.groups[place]))
            found.append(self._item(self._items[place], lines))
        return Html(f'<div class="{self._class}">{"".join(found)}</div>')

    def _item(self, item: Array, lines: Sequence[str]) -> str:
        text = "<br>".join(map(escape, lines))
        return f'<div class="item">{show_item(self._manifest, item)}{text}</div>'

    def _label(self, index: int) -> str:
        return self._manifest.labels[index]

    def _suspects(self, others: Mapping[str, Examples]) -> Section:
        """The labels that are doubted, of every split that the network was not fitted on."""
        predictor = next(iter(self._subject.predictors.values()))
        probabilities, labels = [self._answers.probabilities], [self._answers.labels]
        items, origins = list(self._items), [f"test {place}" for place in range(len(self._items))]
        for name, examples in others.items():
            found = answer_all(predictor, predictor.rows(examples.items), examples.labels)
            probabilities.append(found.probabilities)
            labels.append(examples.labels)
            items += examples.items
            origins += [f"{name} {place}" for place in range(len(examples))]
        given = np.concatenate(labels)
        suspects = find_suspects(np.concatenate(probabilities), given)
        shown = [
            self._item(
                items[each.place],
                [
                    f"labelled {self._label(given[each.place])}, believed {each.believed:.3g}",
                    f"rather {self._label(each.better)}",
                    origins[each.place],
                ],
            )
            for each in suspects[:_SHOWN]
        ]
        note = (
            f"{len(suspects):,} of {len(items):,} labels are doubted (confident learning), the worst first. "
            "A doubt is no proof: look."
        )
        content = Html(f'<div class="{self._class}">{"".join(shown)}</div>')
        return Section("suspects", "Labels that may be wrong", [paragraph(note), content])

    def _units(self, features: np.ndarray) -> Section:
        """The items that drive a few features most."""
        rows = []
        for unit in np.argsort(-features.std(axis=0), kind="stable")[:_UNITS]:
            best = np.argsort(-features[:, unit], kind="stable")[:_TOP]
            pictures = "".join(show_picture(self._manifest, self._items[place]) for place in best)
            span = f"{features[best[-1], unit]:.2f} – {features[best[0], unit]:.2f}"
            rows.append(
                f'<div class="strip"><span>feature {unit}<br><span class="dim">{span}</span></span>'
                f"<div>{pictures}</div></div>"
            )
        note = paragraph(f"The {_TOP} items that drive a feature most, for the {len(rows)} that vary most.")
        return Section("features", "What drives a feature", [note, Html("".join(rows))])

    def _occlusions(self, places: Sequence[int]) -> Section:
        predictor = next(iter(self._subject.predictors.values()))
        found = []
        for place in places:
            fall = occlude(predictor, self._items[place])
            text = f"{self._label(self._answers.chosen[place])}: at most {np.abs(fall).max():.2f}"
            pictures = show_picture(self._manifest, self._items[place]) + show_shades(fall)
            found.append(f'<div class="item">{pictures}{escape(text)}</div>')
        note = paragraph(
            "The least sure answers, and where covering the image takes from the answer (orange) or adds "
            "(blue)."
        )
        return Section(
            "occlusion", "What answers rest on", [note, Html(f'<div class="items">{"".join(found)}</div>')]
        )

    def _states(self, places: Sequence[int]) -> Iterator[Section]:
        found = []
        for place in places:
            sound = listen(self._subject, self._items[place])
            if sound is not None:
                right, answer = self._answers.labels[place], self._answers.chosen[place]
                caption = f"Labelled {self._label(right)}, answered {self._label(answer)}."
                found.append(picture(draw_sound(sound, self._manifest.labels), caption))
        if found:
            yield Section("states", "States over time", found)
