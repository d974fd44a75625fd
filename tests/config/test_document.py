"""docs/configuration.md is made from the keys' own docstrings, and the everyday keys stay few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from metarec_spark.config.base import Tier, tier
from metarec_spark.config.document import document, sections

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
MOST_EVERYDAY_KEYS = 30


def keys(level: Tier) -> list[str]:
    return [f"{part.heading} {key}" for part in sections() for key in part.keys if tier(part.section.model_fields[key]) is level]


def test_the_page_is_what_the_docstrings_say():
    told = "python -m metarec_spark.config.document > docs/configuration.md"
    assert PAGE.read_text(encoding="utf-8") == document(), f"the keys have changed: {told}"


def test_the_command_prints_the_page():
    printed = subprocess.run([sys.executable, "-m", "metarec_spark.config.document"], capture_output=True, text=True, check=True)
    assert printed.stdout == document()


def test_everyday_keys_are_few_and_name_what_a_first_night_needs():
    everyday = keys(Tier.EVERYDAY)
    assert len(everyday) <= MOST_EVERYDAY_KEYS
    assert {"Top level warehouse", "Every file path", "`[recommend]` top_n", "`[train]` processes"} <= set(everyday)


def test_every_key_and_section_has_a_docstring():
    assert not [part.heading for part in sections() if not part.about]
    assert not [key for part in sections() for key in part.keys if not part.section.model_fields[key].description]


def test_a_key_shows_its_values_limits_default_and_meaning():
    assert "| `dropout` | number ≥ 0, < 1 | `0.5` | Dropout probability" in document()
    assert '| `users` | `"active"`, `"all"` | `"active"` | active: a list' in document()
    assert '| `epochs` | `"auto"` or whole number ≥ 1 | `"auto"` |' in document()
    assert "| `train.spectral_start` | `train.spectral_init` |" in document()
