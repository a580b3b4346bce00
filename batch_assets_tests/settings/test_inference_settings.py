"""The settings of where and how a model scores: their defaults, and a sentence for what cannot be used."""

import pytest

from batch_assets.errors import SettingsError
from batch_assets.pipeline import Declaration
from batch_assets.settings.inference import InferenceSettings


def test_without_variables_one_batch_at_a_time_is_scored_on_the_processor() -> None:
    settings = InferenceSettings.from_environment({"BATCH_ONNX_PROVIDERS": "", "BATCH_RAY_ADDRESS": ""})
    assert settings == InferenceSettings(1, ("CPUExecutionProvider",), None, None)


def test_each_variable_sets_what_it_names() -> None:
    settings = InferenceSettings.from_environment(
        {
            "BATCH_SCORING_THREADS": "4",
            "BATCH_ONNX_PROVIDERS": "CUDAExecutionProvider, CPUExecutionProvider",
            "BATCH_RAY_ADDRESS": "ray://raycluster-head-svc.ray:10001",
            "BATCH_RAY_ACTORS": "16",
        }
    )
    providers = ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert settings == InferenceSettings(4, providers, "ray://raycluster-head-svc.ray:10001", 16)


@pytest.mark.parametrize("address", ["10.0.0.5:6379", "ray://[::1]:10001", "head:6379"])
def test_an_address_is_taken_as_it_is(address: str) -> None:
    assert InferenceSettings.from_environment({"BATCH_RAY_ADDRESS": address}).ray_address == address


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("BATCH_SCORING_THREADS", "0", "set it to a whole number of 1 or more"),
        ("BATCH_RAY_ACTORS", "many", "set it to a whole number of 1 or more"),
        ("BATCH_ONNX_PROVIDERS", "A,,B", "each once and with commas between them"),
        ("BATCH_ONNX_PROVIDERS", "A,A", "each once and with commas between them"),
        ("BATCH_RAY_ADDRESS", "auto", "set it to ray://HOST:10001"),
        ("BATCH_RAY_ADDRESS", "http://head:8265", "set it to ray://HOST:10001"),
        ("BATCH_RAY_ADDRESS", "ray://head", "set it to ray://HOST:10001"),
        ("BATCH_RAY_ADDRESS", "ray://head:99999", "set it to ray://HOST:10001"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_it_may_be(name: str, value: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        InferenceSettings.from_environment({name: value})
    assert f"{name} is {value!r}" in str(refused.value)
    assert sentence in str(refused.value)


def test_a_pipeline_may_score_elsewhere_than_the_others() -> None:
    declaration = Declaration(name="churn", settings={"BATCH_RAY_ADDRESS": "ray://head:10001"})
    environment = {"BATCH_ASSETS_HOME": "/nowhere", "BATCH_SCORING_THREADS": "2"}
    assert declaration.load(environment).inference == InferenceSettings(threads=2, ray_address="ray://head:10001")
