import inspect
import math

import pytest
from transformers import PreTrainedTokenizerBase

from provider.interface import InvalidParameterError
from provider.options import OPTIONS, GenerationOptions, Integer, Number, parse_options


def test_nothing_given_gives_the_defaults():
    assert parse_options({}, {}) == GenerationOptions()


def test_every_default_passes_its_own_check():
    for name, option in OPTIONS.items():
        if option.default is not None and option.default != ():
            assert option.check(name, option.default) == option.default


RANGES = {
    name: option.check
    for name, option in OPTIONS.items()
    if isinstance(option.check, Number | Integer)
}


@pytest.mark.parametrize("name", RANGES)
def test_a_number_is_accepted_exactly_within_its_range(name):
    check = RANGES[name]
    logprobs = {"logprobs": True} if name == "top_logprobs" else {}
    step = 1 if isinstance(check, Integer) else 1e-6
    open_low = isinstance(check, Number) and check.open_low
    for value in (check.low + step * open_low, check.high):
        assert getattr(parse_options({name: value, **logprobs}, {}), name) == value
    for value in (check.low - step * (not open_low), check.high + step):
        with pytest.raises(InvalidParameterError):
            parse_options({name: value, **logprobs}, {})


def test_a_configuration_sets_only_configurable_options():
    given = {
        "chat_template_kwargs": {"effort": "low"},
        "enable_thinking": True,
        "stop": ["x"],
        "logprobs": True,
        **{name: check.low or check.high for name, check in RANGES.items()},
    }
    configured = parse_options({}, given)
    for name, option in OPTIONS.items():
        own = option.default if not option.configurable else given[name]
        assert getattr(configured, name) == (tuple(own) if name == "stop" else own)


def test_a_call_overrides_the_configuration_and_none_means_the_default():
    options = parse_options({"temperature": 0, "top_p": None}, {"temperature": 1.5, "top_p": 0.5})
    assert (options.temperature, options.top_p) == (0.0, 0.5)


def test_a_configuration_gives_no_messages_and_no_model():
    options = parse_options({}, {"model": "a/b", "messages": [], "events": True, "api_key": "x"})
    assert options == GenerationOptions()


BAD = [
    ("temperature", 2.1), ("temperature", -0.1), ("temperature", "hot"), ("temperature", True),
    ("temperature", math.nan), ("temperature", math.inf), ("top_p", 0), ("top_p", 1.01),
    ("top_k", -1), ("top_k", 1.5), ("min_p", 2), ("max_tokens", 0), ("max_tokens", True),
    ("max_tokens", 10**9), ("seed", -1), ("seed", 2**64), ("stop", ""), ("stop", [""]),
    ("stop", ["x"] * 17), ("stop", "x" * 257), ("stop", 3), ("repetition_penalty", 0),
    ("events", 1), ("client", 3), ("client", ""), ("max_input_tokens", 0),
   ("enable_thinking", "yes"), ("model", ""), ("model", "x" * 4097), ("messages", []),
    ("messages", "hi"), ("presence_penalty", 2.1), ("frequency_penalty", "x"),
    ("logit_bias", [1]), ("response_format", {}),
    ("max_reasoning_tokens", -1), ("logprobs", 1), ("top_logprobs", 21),
    ("tool_choice", 3), ("raw", "yes"), ("chat_template_kwargs", ["low"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_an_error_that_names_the_option(name, value):
    with pytest.raises(InvalidParameterError, match=f"`{name}` must be") as caught:
        parse_options({name: value}, {})
    assert caught.value.parameter == name
    assert caught.value.value is value


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(InvalidParameterError, match="did you mean `temperature`"):
        parse_options({"temprature": 1}, {})


def test_top_logprobs_need_logprobs():
    assert parse_options({"logprobs": True, "top_logprobs": 3}, {}).top_logprobs == 3
    with pytest.raises(InvalidParameterError, match="needs `logprobs`"):
        parse_options({"top_logprobs": 3}, {})


def test_one_stop_string_is_a_list_of_one():
    assert parse_options({"stop": "END"}, {}).stop == ("END",)


def test_biases_are_by_tokens_numbers_whichever_way_they_are_written():
    assert parse_options({"logit_bias": {"7": 1, 8: -2.5}}, {}).logit_bias == {7: 1.0, 8: -2.5}
    for bad in ({"x": 1}, {-1: 1}, {"1.5": 1}, {1: 101}, {1: None}, {"٣": 1}):
        with pytest.raises(InvalidParameterError, match="`logit_bias"):
            parse_options({"logit_bias": bad}, {})


def test_a_long_bad_value_is_shown_cut():
    with pytest.raises(InvalidParameterError) as caught:
        parse_options({"temperature": "x" * 1000}, {})
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("value", [10**400, -(10**400), math.inf, math.nan])
def test_a_number_beyond_all_is_an_error_like_any_other(value):
    with pytest.raises(InvalidParameterError, match="`temperature` must be"):
        parse_options({"temperature": value}, {})


@pytest.mark.parametrize("kind", [[], {}, None, 5])
def test_a_type_of_format_that_is_no_text_is_an_error(kind):
    with pytest.raises(InvalidParameterError, match="an object with a `type`"):
        parse_options({"response_format": {"type": kind}}, {})


def test_parameters_of_the_renderer_are_not_template_variables():
    of_transformers = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    for name in [*(set(of_transformers) - {"documents", "kwargs"}), "messages", "not a name"]:
        with pytest.raises(InvalidParameterError) as caught:
            parse_options({"chat_template_kwargs": {"effort": "low", name: True}}, {})
        assert caught.value.parameter == f"chat_template_kwargs.{name}"


def test_a_long_name_of_a_template_variable_is_refused():
    assert parse_options({"chat_template_kwargs": {"a" * 256: 1}}, {})
    with pytest.raises(InvalidParameterError) as caught:
        parse_options({"chat_template_kwargs": {"a" * 257: 1}}, {})
    assert caught.value.parameter == f"chat_template_kwargs.{'a' * 40}"


def test_the_switch_of_the_thinking_is_a_variable_of_the_template():
    given = {"enable_thinking": False, "effort": "low"}
    options = parse_options({"chat_template_kwargs": given, "enable_thinking": True}, {})
    assert options.template_variables == {"enable_thinking": True, "effort": "low"}
    assert parse_options({"chat_template_kwargs": given}, {}).template_variables == given
    assert parse_options({}, {}).template_variables == {}
