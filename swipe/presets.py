"""The decoder's settings, and tuned ones as a file: what with, and what that was worth.

A tuned preset weighs a lexicon's probabilities against a model's, so it speaks of one lexicon and
one set of weights. With another lexicon it is refused; found beside other weights it is left alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from swipe.errors import ConfigError, GateError, UsageError
from swipe.files import write_text_atomic
from swipe.lexicon import Lexicon
from swipe.paths import is_file

SCHEMA: Final = "swipe-export/preset/1"
SUFFIX: Final = ".preset.json"


@dataclass(frozen=True, slots=True)
class DecoderPreset:
    """Settings of the beam search, tuned on development swipes only.

    Attributes:
        beam_width: prefixes that may be extended, times the number of frames. Most swipes need
            far fewer: the search ends when nothing better can follow.
        floor: words so many nats less likely than the likeliest found, prior and length left out,
            are not looked for; infinite to look for all.
        gamma: exponent of the length that divides the CTC score.
        lam: weight of the word's log probability.
        beta: bonus per letter.
        double_penalty: log-probability charged for each doubled letter that was swiped once
            ("helo" read as "hello"); infinite to refuse that.
        temperature: divides the log-probabilities of every frame, which are normalised again.
    """

    beam_width: int = 100
    floor: float = 25.0
    gamma: float = 0.5
    lam: float = 0.17
    beta: float = 0.85
    double_penalty: float = 4.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.beam_width < 1 or not self.floor > 0 or not self.double_penalty >= 0:
            raise ConfigError(
                f"beam width {self.beam_width}, floor {self.floor}, penalty {self.double_penalty}",
                fix="use a width of at least 1, a floor above 0 and a penalty of at least 0",
            )
        weights = (self.gamma, self.lam, self.beta, self.temperature)
        if not all(map(math.isfinite, weights)) or not self.temperature > 0:
            raise ConfigError(
                f"gamma, lam, beta and temperature are {weights}",
                fix="use finite numbers, and a temperature above 0",
            )


DEFAULT_PRESET = DecoderPreset()


@dataclass(frozen=True, slots=True)
class TunedPreset:
    """Settings and what they were tuned on.

    Attributes:
        settings: the decoder's settings.
        lexicon: name of the lexicon.
        lexicon_sha256: its hash; the settings are refused with any other.
        weights_sha256: hash of the model's weights.
        corpus: the development swipes they were tuned on.
        corpus_sha256: its `swipe.corpus.corpus_digest`, None for generated swipes.
        figures: top-k in percent, before and after, by the part of the swipes.
    """

    settings: DecoderPreset
    lexicon: str
    lexicon_sha256: str
    weights_sha256: str
    corpus: str
    corpus_sha256: str | None
    figures: Mapping[str, Any]

    def for_lexicon(self, lexicon: Lexicon, *, force: bool = False) -> DecoderPreset:
        """The settings, for decoding with `lexicon`.

        Args:
            lexicon: the words that will be decoded.
            force: use them with another lexicon all the same.

        Raises:
            GateError: they were tuned with another lexicon.
        """
        if lexicon.sha256 != self.lexicon_sha256 and not force:
            raise GateError(
                f"the preset was tuned with lexicon {self.lexicon} ({self.lexicon_sha256}), not "
                f"with {lexicon.name} ({lexicon.sha256})",
                fix="tune one for this lexicon with swipe-train tune-decoder, or leave it out",
            )
        return self.settings

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields; infinite settings become null."""
        settings = asdict(self.settings)
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in self.__slots__},
            "settings": {k: None if math.isinf(v) else v for k, v in settings.items()},
        }

    def save(self, path: Path) -> None:
        """Write `path` atomically."""
        write_text_atomic(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")


def parse_preset(record: Mapping[str, Any], where: str) -> TunedPreset:
    """The preset of `TunedPreset.to_dict`.

    Raises:
        GateError: it is damaged, or of another schema.
    """
    try:
        fields = dict(record)
        schema, settings = fields.pop("schema"), fields.pop("settings")
        if schema != SCHEMA:
            raise ValueError(f"schema {schema!r}")
        given: dict[str, Any] = {k: math.inf if v is None else v for k, v in settings.items()}
        if not isinstance(given["beam_width"], int):
            raise TypeError(f"beam width {given['beam_width']!r}")
        return TunedPreset(settings=DecoderPreset(**given), **fields)
    except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
        raise GateError(
            f"{where} is not a preset this version can read: {error}",
            fix="tune it again with swipe-train tune-decoder",
        ) from error


def settings_of(record: Mapping[str, Any] | None, lexicon: Lexicon) -> DecoderPreset:
    """Settings of a bundle's preset record for its `lexicon`; the default ones of None.

    Raises:
        GateError: the record is damaged, or speaks of another lexicon.
    """
    if record is None:
        return DEFAULT_PRESET
    return parse_preset(record, "the bundle's preset").for_lexicon(lexicon)


def load_preset(path: Path) -> TunedPreset:
    """Read a preset file.

    Raises:
        UsageError: there is no such file.
        GateError: it is damaged, or of another schema.
    """
    if not is_file(path):
        raise UsageError(f"no preset {path}", fix="write one with swipe-train tune-decoder")
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:
        raise GateError(
            f"{path} is not JSON: {error}", fix="tune it again with swipe-train tune-decoder"
        ) from error
    if not isinstance(record, dict):
        raise GateError(f"{path} holds no preset", fix="tune it with swipe-train tune-decoder")
    return parse_preset(record, str(path))


@dataclass(frozen=True, slots=True)
class Choice:
    """The settings to decode with, and where they come from.

    Attributes:
        settings: the decoder's settings.
        tuned: the record they come from, None for the default settings.
        origin: one line for the user.
    """

    settings: DecoderPreset
    tuned: TunedPreset | None
    origin: str


def choose_preset(
    named: Path | None,
    checkpoint: Path,
    weights_sha256: str,
    lexicon: Lexicon,
    *,
    force: bool = False,
) -> Choice:
    """The preset that was named, or one beside the checkpoint that fits, or the default.

    Args:
        named: preset file that the user named.
        checkpoint: file of the weights; beside ``x.safetensors`` may lie ``x.preset.json``, and
            ``x.LEXICON.preset.json`` for further lexicons.
        weights_sha256: hash of the weights.
        lexicon: the words that will be decoded.
        force: use the named preset with another lexicon all the same.

    Raises:
        UsageError: the named file does not exist.
        GateError: it is damaged, or was tuned with another lexicon.
    """
    if named is not None:
        tuned = load_preset(named)
        settings = tuned.for_lexicon(lexicon, force=force)
        note = "" if tuned.weights_sha256 == weights_sha256 else ", tuned for other weights"
        return Choice(settings, tuned, f"decoder preset {named}{note}")
    reasons = []
    for beside in presets_beside(checkpoint):
        tuned = load_preset(beside)
        other = [
            name
            for name, fits in (
                ("lexicon", tuned.lexicon_sha256 == lexicon.sha256),
                ("weights", tuned.weights_sha256 == weights_sha256),
            )
            if not fits
        ]
        if not other:
            return Choice(tuned.settings, tuned, f"decoder preset {beside}")
        reasons.append(f"{beside} was tuned with another {' and other '.join(other)}")
    origin = "; ".join(["decoder preset: the default", *reasons])
    return Choice(DEFAULT_PRESET, None, origin)


def preset_place(checkpoint: Path, lexicon: Lexicon) -> Path:
    """Where a preset for `lexicon` is written by default, so that `choose_preset` finds it.

    The file that holds one for it already, else ``x.preset.json``, else ``x.LEXICON.preset.json``
    when the former is another lexicon's. A damaged file counts as free: it would be refused.

    Args:
        checkpoint: file of the weights.
        lexicon: the words that the preset speaks of.
    """
    named = lexicon.name.partition(":")[0]
    for ending in (".gz", ".combined", ".txt"):
        named = named.removesuffix(ending)
    # Lists of several folders may share their file's name.
    labels = ("", f".{named}", f".{named}-{lexicon.sha256[:8]}")
    places = [checkpoint.with_name(f"{checkpoint.stem}{label}{SUFFIX}") for label in labels]
    held = {place: _lexicon_of(place) for place in places}
    own = [place for place in places if held[place] == lexicon.sha256]
    free = [place for place in places if held[place] is None]
    return [*own, *free, places[-1]][0]


def _lexicon_of(preset: Path) -> str | None:
    """Hash of the lexicon that a preset file speaks of, None when there is no readable one."""
    try:
        return load_preset(preset).lexicon_sha256
    except (GateError, UsageError):
        return None


def presets_beside(checkpoint: Path) -> list[Path]:
    """``x.preset.json`` and ``x.LEXICON.preset.json`` beside ``x.safetensors``, by name."""
    found = sorted(checkpoint.parent.glob(f"*{SUFFIX}"))
    return [path for path in found if path.name.startswith(f"{checkpoint.stem}.")]
