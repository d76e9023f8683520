"""Layout: which letter lies where on a keyboard.

Letter-area frame: x right, y down, key width 0.1, key height 1/3, Q's top-left corner (0, 0).
Four keyboards are built in; any other is read from, and written to, JSON of the FUTO schema
(``{"name", "letters", "keys": [{"letter", "cx", "cy", "rx", "ry"}]}``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from swipe.contract import ALPHABET, ModelContract
from swipe.errors import DataError
from swipe.files import write_text_atomic
from swipe.paths import is_file

KEY_WIDTH: Final = 0.1
KEY_HEIGHT: Final = 1.0 / 3.0

# Rows as (letters, centre of the first key). The 0.000467 of the QWERTY rows is the pixel
# rounding of FUTO's collector (43/428): kept, so that the built-in equals the corpus's own file.
_ROWS: Final[dict[str, tuple[tuple[str, float], ...]]] = {
    "qwerty": (
        ("qwertyuiop", 0.05),
        ("asdfghjkl", 0.10046728971962617),
        ("zxcvbnm", 0.20046728971962617),
    ),
    "azerty": (("azertyuiop", 0.05), ("qsdfghjklm", 0.05), ("wxcvbn", 0.2)),
    "qwertz": (("qwertzuiop", 0.05), ("asdfghjkl", 0.1), ("yxcvbnm", 0.2)),
    # The punctuation keys of Dvorak carry no letter; the letters keep their columns.
    "dvorak": (("pyfgcrl", 0.35), ("aoeuidhtns", 0.05), ("qjkxbmwvz", 0.15)),
}
BUILT_IN: Final = tuple(_ROWS)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Letters and their key centres.

    Attributes:
        name: keyboard name, e.g. "qwerty".
        letters: one character per key, in class order.
        centers: float64[K, 2], (cx, cy) in letter-area units.
        radii: float64[K, 2], half key width and height.
    """

    name: str
    letters: str
    centers: NDArray[np.float64]
    radii: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.letters or len(set(self.letters)) != len(self.letters):
            raise DataError(
                f"layout {self.name!r} has no letters or gives one twice",
                fix="list every letter exactly once",
            )
        shape = (len(self.letters), 2)
        if self.centers.shape != shape or self.radii.shape != shape:
            raise DataError(
                f"layout {self.name!r}: {len(self.letters)} letters but key centres "
                f"{self.centers.shape} and radii {self.radii.shape}",
                fix="give cx, cy, rx and ry for every letter",
            )
        if not (np.isfinite(self.centers).all() and (self.radii > 0).all()):
            raise DataError(
                f"layout {self.name!r} has a key centre that is not finite or a key of no size",
                fix="check cx, cy, rx and ry in the layout file",
            )

    def path(self, word: str) -> NDArray[np.float64]:
        """Key centres float64[len(word), 2] along `word`.

        Raises:
            DataError: a letter of the word is not on this keyboard.
        """
        try:
            return self.centers[[self.letters.index(c) for c in word]]
        except ValueError:
            missing = sorted(set(word) - set(self.letters))
            raise DataError(
                f"{word!r} needs {missing} which layout {self.name!r} does not have",
                fix="choose words of the layout's letters, or another layout",
            ) from None

    def contract(self) -> ModelContract:
        """The contract of a model baked for this keyboard.

        Raises:
            DataError: the letters are not a to z in order, which is how words are decoded.
        """
        if self.letters != ALPHABET:
            raise DataError(
                f"layout {self.name!r} lists its letters as {self.letters!r}; words are decoded "
                "over a to z",
                fix="list the 26 letters a to z in that order in the layout file",
            )
        return ModelContract(
            alphabet=self.letters,
            layout=self.name,
            keys=tuple((float(x), float(y)) for x, y in self.centers),
        )

    @property
    def spec(self) -> str:
        """What ``--layout`` takes for it; a stand-in for the file of one that is not built in."""
        return self.name if self.name in BUILT_IN else "LAYOUT.json"

    @classmethod
    def from_contract(cls, contract: ModelContract) -> Layout:
        """The keyboard a model was baked for; radii are those of a standard key."""
        radii = np.tile([KEY_WIDTH / 2, KEY_HEIGHT / 2], (len(contract.keys), 1))
        return cls(contract.layout, contract.alphabet, np.array(contract.keys), radii)

    def to_json(self) -> str:
        """JSON of the FUTO schema."""
        keys = [
            {"letter": c, "cx": float(x), "cy": float(y), "rx": float(rx), "ry": float(ry)}
            for c, (x, y), (rx, ry) in zip(self.letters, self.centers, self.radii, strict=True)
        ]
        return json.dumps({"name": self.name, "letters": self.letters, "keys": keys}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """Parse JSON of the FUTO schema; letters keep the order of the ``letters`` field.

        Raises:
            DataError: the text is not such a layout.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            keys = {str(key["letter"]): key for key in fields["keys"]}
            letters = str(fields["letters"])
            if len(keys) != len(fields["keys"]) or set(keys) != set(letters):
                raise ValueError("'letters' and the letters of 'keys' differ")
            boxes = np.array(
                [[float(keys[c][f]) for f in ("cx", "cy", "rx", "ry")] for c in letters]
            ).reshape(-1, 4)
            return cls(str(fields["name"]), letters, boxes[:, :2].copy(), boxes[:, 2:].copy())
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"not a layout file: {error}",
                fix='expected {"name", "letters", "keys": [{"letter", "cx", "cy", "rx", "ry"}]}',
            ) from error

    def save(self, path: Path) -> None:
        """Write `to_json` atomically."""
        write_text_atomic(path, self.to_json() + "\n")


def load_layout(spec: str) -> Layout:
    """A built-in layout by name, or one read from a JSON file.

    Raises:
        DataError: neither a built-in name nor a readable layout file.
    """
    if spec in _ROWS:
        return _built_in(spec)
    path = Path(spec)
    if not is_file(path):
        raise DataError(
            f"no layout {spec!r}",
            fix=f"use one of {', '.join(BUILT_IN)}, or the path of a layout JSON file",
        )
    try:
        return Layout.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", fix="give a layout JSON file") from error


def _built_in(name: str) -> Layout:
    centers = {
        letter: (first + column * KEY_WIDTH, (row + 0.5) * KEY_HEIGHT)
        for row, (letters, first) in enumerate(_ROWS[name])
        for column, letter in enumerate(letters)
    }
    radii = np.tile([KEY_WIDTH / 2, KEY_HEIGHT / 2], (len(ALPHABET), 1))
    return Layout(name, ALPHABET, np.array([centers[c] for c in ALPHABET]), radii)
