"""What the tests of the source room share: how an input is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.source.archives import Input, list_inputs
from schemas.errors import UserError


@pytest.fixture
def refused() -> Callable[[Path], str]:
    """The one line with which an input is refused."""

    def line(path: Path) -> str:
        with pytest.raises(UserError) as error:
            list_inputs([Input("train", str(path))], 0)
        assert str(error.value).isprintable()
        return str(error.value)

    return line
