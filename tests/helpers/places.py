"""Where things lie: the project's root, and the real handwriting beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "real"
