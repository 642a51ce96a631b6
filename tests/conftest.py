"""What every test may count on: reproducible hypothesis runs and the published specification data, if it is there."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "schleuse", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("schleuse")

ROOT = Path(__file__).resolve().parent.parent
SPEC_DATA = ROOT.parent / "shared" / "spec" / "data"


@pytest.fixture(scope="session")
def root() -> Path:
    """Give the folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def spec_data() -> Path:
    """Give the folder of the published OpenAPI files; a test is left out where it does not lie beside the checkout."""
    if not SPEC_DATA.is_dir():
        pytest.skip("left out: the specification data is not laid beside this checkout (../shared/spec/data)")
    return SPEC_DATA
