"""Both engines of the matcher, wherever a test asks for `engine`."""

import pytest

from router.matcher import ENGINES


@pytest.fixture(scope="module", params=["pure", "native"])
def engine(request):
    if request.param not in ENGINES:
        pytest.skip("NOT RUN on the compiled engine: it is not installed here; `make native` builds it")
    return request.param
