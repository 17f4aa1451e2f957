"""The description in OpenAPI is made of the fields, and schemathesis finds nothing that contradicts it."""

import pytest
from http_server import serving

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

BOUNDED = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def fuzzed(model, tmp_path_factory):
    """A client of a server with small limits, and its description as schemathesis reads it."""
    with serving(model.path, sessions=tmp_path_factory.mktemp("sessions"), max_length=100, max_prompt=200) as client:
        yield client, schemathesis.openapi.from_url(f"http://127.0.0.1:{client.port}/openapi.json")


def operations(described):
    return [result.ok() for result in described.get_all_operations()]


def test_every_path_is_described(fuzzed):
    client, described = fuzzed
    paths = client.get("/openapi.json").json["paths"]
    from charedge.runtime.server.app import ROUTES

    assert set(paths) == {route.path for route in ROUTES}
    assert len(operations(described)) >= 13


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["positive", "negative"])
def test_schemathesis_finds_nothing(fuzzed, mode):
    """What fits the description is not always accepted: a model or a session must exist, and some fields exclude each other."""
    _, described = fuzzed
    for operation in operations(described):
        if mode is GenerationMode.NEGATIVE and operation.method != "post":  # without fields, nothing is wrong
            continue

        @BOUNDED
        @given(case=operation.as_strategy(generation_mode=mode))
        def fuzz(case):
            response = case.call_and_validate(excluded_checks=[positive_data_acceptance])
            assert response.status_code not in (400, 415) or mode is GenerationMode.NEGATIVE

        try:
            fuzz()
        except Exception as error:
            raise AssertionError(operation.label) from error
