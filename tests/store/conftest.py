import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import store_demo


@pytest.fixture
def run(tmp_path):
    return store_demo.finish_demo(store_demo.create_demo(tmp_path / "run"))
